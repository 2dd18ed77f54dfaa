"""Advice on tasks that are trained: against runs of each seed, with failures, missed targets, harm, and as a proxy."""

import numpy as np
import pytest
from scipy import stats

from gradwire.analysis.advice.advice import Option
from gradwire.analysis.advice.choice import UNCOMPRESSED
from gradwire.analysis.advice.sentence import sentence
from gradwire.analysis.advice.tasks import advise_task, with_baselines
from gradwire.analysis.advice.text import advice_table, lines
from gradwire.analysis.comparison import compare
from gradwire.sim.experiment import validate_experiment
from gradwire.sim.run import run
from gradwire.sim.training.store import Store

TOPK = "ef(topk(density=0.2))"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def experiment(schemes=(TOPK,), workload=None, **training):
    plan = {
        "workers": 4, "batch_size": 8, "steps": 40, "learning_rate": 0.05, "evaluate_every": 1, "target": 0.9,
    }  # fmt: skip
    data = {
        "schemes": list(schemes),
        "task": {"name": "logistic"},
        "training": plan | training,
        "cluster": {"bandwidth": "1 Mbit/s", "latency": "50 us", "launch": "20 us"},
        "workload": workload or {},
    }
    return with_baselines(validate_experiment(data))


@pytest.fixture(scope="module")
def advice(store):
    return advise_task(experiment(), store, seeds=3)


@pytest.fixture(scope="module")
def by_seed(store):
    runs = [run(experiment(seed=seed), store) for seed in (0, 1, 2)]
    return [{row.scheme: row for row in compare(one.dataset()).rows} for one in runs]


def test_baselines_are_added_and_not_twice():
    assert experiment().schemes == ("dense(dtype=fp32)", "dense(dtype=bf16)", TOPK)
    assert experiment(["dense", TOPK]).schemes == ("dense(dtype=bf16)", "dense(dtype=native)", TOPK)
    assert experiment(["dense(dtype=bf16)"]).schemes == ("dense(dtype=fp32)", "dense(dtype=bf16)")


def test_gains_are_paired_over_seeds(advice, by_seed):
    base, own = ([rows[name].time_to_target_s for rows in by_seed] for name in (advice.baseline, TOPK))
    interval = stats.ttest_rel(np.log(base), np.log(own)).confidence_interval(0.95)
    option = advice.option(TOPK)
    assert option.gain.ratio == pytest.approx(stats.gmean(np.array(base) / own), rel=1e-9)
    assert (option.gain.low, option.gain.high) == pytest.approx(np.exp([interval.low, interval.high]), rel=1e-9)
    assert option.time_to_target_s == pytest.approx(stats.gmean(own), rel=1e-9)
    assert option.steps_to_target == np.mean([rows[TOPK].steps_to_target for rows in by_seed])
    assert option.final_metric == pytest.approx(np.mean([rows[TOPK].final_metric for rows in by_seed]), rel=1e-12)
    assert (option.reached, option.seeds, option.failure) == (3, 3, "")
    assert option.memory.state_bytes == 4 * 31


def test_what_counts_is_timed_as_the_run_times_it(advice, by_seed):
    own = next(t for t in advice.trials if t.scheme == advice.baseline)
    base = [rows[advice.baseline].time_to_target_s for rows in by_seed]
    assert own.seconds == pytest.approx(stats.gmean(base), rel=1e-9)


def test_half_as_much_more_of_each_input(advice, store):
    """A run on a network that is half as fast again."""
    gains = {effect.key: effect.gain for effect in advice.effects}
    found = []
    for seed in (0, 1, 2):
        changed = experiment(seed=seed)
        section = changed.cluster.model_copy(update={"bandwidth": 1.5e6})
        rows = compare(run(changed.model_copy(update={"cluster": section}), store).dataset()).rows
        found.append({row.scheme: row.time_to_target_s for row in rows})
    times = {scheme: stats.gmean([rows[scheme] for rows in found]) for scheme in found[0]}
    dense_s = min(seconds for scheme, seconds in times.items() if scheme.startswith("dense"))
    assert gains["cluster.bandwidth"] == pytest.approx(dense_s / times[TOPK], rel=1e-9)
    assert set(gains) == {
        "cluster.bandwidth", "cluster.latency", "cluster.launch", "compute times", "overhead.factor",
        "overhead.estimate_factor",
    }  # fmt: skip


def test_text_of_a_trained_advice(advice):
    said = dict(lines(advice))
    assert said["baseline"].startswith("the shortest time to the target of dense(dtype=fp32) ")
    assert "roofline" in said["outside of what was measured"]
    table = advice_table(advice, 200)
    titles = [str(column.header).replace("\n", " ").strip() for column in table.columns]
    for title in ("steps to target", "gain", "95 % confidence", "final accuracy", "GPU memory"):
        assert title in titles
    narrow = advice_table(advice, 60)
    kept = [str(column.header).replace("\n", " ").strip() for column in narrow.columns]
    assert kept[0] == "scheme"
    assert "gain" in kept
    assert len(kept) < len(titles)


def test_one_seed_has_no_interval_and_says_so(store):
    made = advise_task(experiment(), store, seeds=1, sensitivity=False)
    assert made.option(TOPK).gain.low is None
    assert any("from one seed" in note for note in made.notes)
    assert (made.effects, made.tippings) == ((), ())


def test_without_a_target_steps_are_compared(store):
    made = advise_task(experiment(target=None), store, seeds=1)
    assert made.by_step
    base, own = made.option(made.baseline), made.option(TOPK)
    assert own.gain.ratio == pytest.approx(base.step_s / own.step_s, rel=1e-12)
    assert "a step with" in sentence(made)
    assert any(note.startswith("No target was set") for note in made.notes)


def test_a_target_that_nobody_reaches(store):
    made = advise_task(experiment(target=1.01), store, seeds=2)
    assert (made.answer, made.best, made.baseline) == ("cannot say", None, None)
    assert sentence(made) == "Cannot say: no scheme reached 101 % validation accuracy from every seed."
    assert f"{TOPK} reached the target from 0 of 2 seeds." in made.notes


def test_what_diverges_is_not_advised(store):
    """A rate at which float32 overflows; the baselines diverge as well."""
    made = advise_task(experiment(learning_rate=1e38, target=None), store, seeds=1)
    assert made.answer == "cannot say"
    assert all(isinstance(option, Option) and option.failure for option in made.options)


def test_a_proxy_is_marked_and_timed_as_its_model(store):
    made = advise_task(experiment(workload={"model": "resnet18"}), store, seeds=2, sensitivity=False)
    assert made.proxy == "proxy: trained on logistic, timed as resnet18"
    assert sentence(made).endswith("(proxy: trained on logistic, timed as resnet18)")
    assert made.option("dense(dtype=fp32)").sent_bytes == pytest.approx(4 * 11_689_512)
    assert made.option(TOPK).memory.state_bytes == 4 * 11_689_512
    assert {t.bucket_bytes for t in made.trials} == {2**20, 5 * 2**20, 25 * 2**20, 100 * 2**20}
    assert all(flip.leader in (TOPK, UNCOMPRESSED) for flip in made.flips)


def test_harm_is_seen_and_said(store):
    """Without error feedback, one coordinate in ten never learns the rest in so few steps."""
    made = advise_task(experiment(["topk(density=0.05)", TOPK]), store, seeds=2, sensitivity=False)
    base, poor, good = (made.option(name) for name in (made.baseline, "topk(density=0.05)", TOPK))
    assert base.final_metric - poor.final_metric > 0.01 * base.final_metric
    assert (poor.harms, good.harms) == (True, False)
    assert made.best == TOPK
    assert any(note.startswith("topk(density=0.05) ends with a test accuracy") for note in made.notes)
