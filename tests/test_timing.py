"""Timing: other buckets and proxies against real trainings, brute force and predictions of single steps."""

import numpy as np
import pytest

from gradwire.analysis.sweep.executors import Here
from gradwire.analysis.sweep.grid import make_grid
from gradwire.analysis.sweep.sweep import sweep
from gradwire.compressors.errors import InputError
from gradwire.compressors.registry import MEMORIES, SCHEMES
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.experiment import ExperimentError, validate_experiment
from gradwire.sim.prediction import make_job, predict
from gradwire.sim.run import run
from gradwire.sim.timing import Timer
from gradwire.sim.training.order import Order
from gradwire.sim.training.store import Store

SIZES = ("20 kB", "250 kB", "2 MB")
"""Of buckets; the last two cut the model in the same way, so that one of them is tried."""
MODEL = "resnet18"


def experiment(scheme, **sections):
    base = {
        "schemes": [scheme],
        "training": {"workers": 2, "steps": 2, "evaluate_every": 2, "batch_size": 4},
        "cluster": {"preset": "ethernet-1g"},
    }
    return validate_experiment({**base, **{name: {**base.get(name, {}), **keys} for name, keys in sections.items()}})


def trained(found, store):
    """Return a timer, and what was trained."""
    task = found.make_task()
    order = Order.of(task, task.digest(), found.schemes[0], found.training)
    return Timer(found, task), order.fetch(Store(store))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scheme", ["dense(dtype=fp32)", "dense(dtype=bf16)", "dense(dtype=native)"])
def test_what_other_buckets_would_send_is_what_they_do_send(scheme, dtype, tmp_path):
    """Message by message against a training with that size of buckets."""
    training = {"bucket": "1 kB", "first_bucket": "1 kB", "dtype": dtype}
    timer, trajectory = trained(experiment(scheme, training=training, baseline={"buckets": list(SIZES)}), tmp_path)
    variants = {variant.bucket_bytes: variant.logs for variant in timer.variants(trajectory)}
    assert list(variants) == [1000, 20_000, 250_000]
    for size, logs in variants.items():
        own = {**training, "bucket": f"{size} B", "first_bucket": "1 kB"}
        _, real = trained(experiment(scheme, training=own), tmp_path)
        assert list(logs) == list(real.logs)
    assert len({len(one[0]) for one in variants.values()}) == len(variants)


@pytest.mark.parametrize("preset", ["ethernet-1g", "ethernet-100g"])
def test_the_size_of_buckets_that_counts_is_the_fastest(preset, tmp_path):
    """Against runs that have no choice, of a model large enough that the sizes differ."""
    scheme, sizes = "dense(dtype=fp32)", ("1 MiB", "5 MiB", "25 MiB", "100 MiB")
    common = {"task": {"name": "logistic"}, "cluster": {"preset": preset}, "workload": {"model": MODEL}}
    one = run(experiment(scheme, **common), Store(tmp_path)).schemes[scheme]
    seconds = {}
    for size in sizes:
        own = experiment(scheme, training={"bucket": size}, baseline={"buckets": []}, **common)
        fixed = run(own, Store(tmp_path)).schemes[scheme]
        assert fixed.bucket_bytes == own.training.bucket
        seconds[fixed.bucket_bytes] = float(fixed.timeline.step_s.sum())
    assert one.bucket_bytes == min(seconds, key=seconds.get)
    assert float(one.timeline.step_s.sum()) == min(seconds.values())
    assert len(set(seconds.values())) == len(sizes)


def test_only_uncompressed_schemes_choose_their_buckets(tmp_path):
    timer, trajectory = trained(experiment("qsgd(bits=4)", baseline={"buckets": list(SIZES)}), tmp_path)
    (only,) = timer.variants(trajectory)
    assert only.bucket_bytes == 25 * 2**20
    assert only.logs == trajectory.logs


@pytest.mark.parametrize(
    ("scheme", "stages"),
    [
        ("dense(dtype=fp32)", 1),
        ("ef(topk(density=0.01))", 1),
        ("ef(warmup(topk(density=0.01), steps=2))", 3),
        ("phases(dense(dtype=fp32), qsgd(bits=4), at=2)", 2),
        ("powersgd(rank=2, start_step=1)", 2),  # the small model has nothing that it factorises
        ("layers(ef(warmup(topk(density=0.01), steps=2)), below=100)", 3),  # nor a unit of so many values
        ("dgc(density=0.01, warmup_steps=2)", 3),  # nor one of which densities select different numbers
    ],
)
def test_steps_of_a_proxy_are_those_that_are_predicted(scheme, stages, tmp_path):
    """Each step of the run, schedules included, against the prediction of that step."""
    workers, steps = 4, 3  # later steps of a stage are taken to be as its first, whatever is drawn anew in them
    training = {"workers": workers, "steps": steps, "evaluate_every": steps}
    workload = {"model": MODEL, "device": "a100", "batch": 16}
    found = experiment(
        scheme, task={"name": "logistic"}, training=training, workload=workload, baseline={"buckets": []}
    )
    step_s = run(found, Store(tmp_path)).schemes[found.schemes[0]].timeline.step_s
    job = {"model": MODEL, "scheme": scheme, "cluster": {"preset": "ethernet-1g"}, "workload": {"device": "a100"}}
    expected = [
        predict(make_job({**job, "training": {"workers": workers, "batch_size": 16, "step": step}})).step_s
        for step in range(steps)
    ]
    np.testing.assert_allclose(step_s, expected, rtol=1e-12)
    assert len(set(expected)) == stages


def test_a_proxy_learns_what_the_task_learns(tmp_path):
    common = {"task": {"name": "logistic"}, "training": {"workers": 2, "steps": 3, "evaluate_every": 1}}
    own, proxy = (
        run(experiment("ef(topk(density=0.1))", **common, **more), Store(tmp_path)).dataset()
        for more in ({}, {"workload": {"model": MODEL}})
    )
    np.testing.assert_array_equal(own["validation_metric"], proxy["validation_metric"])
    assert len(list(tmp_path.rglob("*.gz"))) == 1
    assert (proxy["sent_bytes"] > 1e4 * own["sent_bytes"]).all()


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ({"model": "resnet5"}, "model 'resnet5' is unknown; did you mean resnet"),
        ({"batch": 4}, "batch = 4 is that of a model; the task's own is training.batch_size"),
        ({"model": MODEL, "batch": 0}, "workload.batch = 0"),
        ({"model": MODEL, "times": {"layers": [], "optimizer": "1 ms"}}, "workload"),
        (
            {"model": MODEL, "times": {"layers": [{"name": "a", "forward": "1 s", "backward": "1 s"}]}},
            "times and model exclude each other",
        ),
    ],
)
def test_proxies_that_cannot_be_meant_are_refused(workload, words):
    with pytest.raises(ExperimentError, match=words) as caught:
        experiment("dense", workload=workload)
    assert "\n" not in str(caught.value)


def test_a_scheme_that_cannot_take_a_unit_of_the_proxy_is_refused_before_any_training(tmp_path, monkeypatch):
    """By the run and by the sweep. No scheme of the registry refuses a listed model's layers, so one is made to."""
    kind = type(parse_scheme("topk"))
    begin = kind.init

    def small_only(self, shape, workers, like):
        if np.prod(shape) > 1000:
            raise InputError("topk: too large a unit")
        return begin(self, shape, workers, like)

    monkeypatch.setattr(kind, "init", small_only)
    found = experiment("topk", task={"name": "logistic"}, workload={"model": MODEL})
    with pytest.raises(InputError, match="too large a unit"):
        run(found, Store(tmp_path))
    data = {"schemes": ["topk"], "task": {"name": "logistic"}, "workload": {"model": MODEL}}
    with pytest.raises(InputError, match="too large a unit"):
        sweep(make_grid(data, {"density": [0.1]}), Store(tmp_path), Here())
    assert not list(tmp_path.rglob("*.gz"))


def test_schemes_of_one_stage_do_not_tell_steps_apart():
    plain = [parse_scheme(name) for name in SCHEMES if name not in ("powersgd", "onebitadam", "dgc", "dgcsample")]
    plain += [parse_scheme(f"{memory}(topk)") for memory in MEMORIES if memory != "twosided"]
    assert all(scheme.stage(0) == scheme.stage(10**6) for scheme in plain)
    for text in ("powersgd(start_step=5)", "onebitadam(freeze_step=5)", "ef(powersgd(start_step=5))"):
        stages = [parse_scheme(text).stage(step) for step in (0, 4, 5, 9)]
        assert stages[0] == stages[1] != stages[2] == stages[3]
