"""Recorded runs as evidence: from a run folder alone, with what does not hold of how it was trained."""

import numpy as np
import pytest

from gradwire.analysis.folder import write_run
from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.recorded import evidence_of, landscapes_of
from gradwire.analysis.theory.results import karimireddy2019
from gradwire.analysis.theory.results.conditions import smooth
from gradwire.compressors.errors import InputError
from gradwire.sim.experiment import validate_experiment
from gradwire.sim.recorded import MEANINGS, read_record
from gradwire.sim.run import run
from gradwire.sim.tasks import make_task
from gradwire.sim.training.record import AT_ITERATES, AT_STEPS, VECTORS
from gradwire.sim.training.store import Store

SCHEMES = ["dense(dtype=native)", "ef(topk(density=0.2))"]
TRAINING = {"workers": 4, "batch_size": 8, "steps": 20, "dtype": "float64", "record": "theory"}


def made(store, task="logistic", schemes=SCHEMES, tune=None, **training):
    data = {"schemes": schemes, "task": {"name": task}, "training": TRAINING | training, "tune": tune or {}}
    return run(validate_experiment(data), Store(store))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def result(store):
    return made(store)


def conditions(dataset):
    return {c.text: c.holds for c in evidence_of(dataset)[0].facts.conditions}


def test_a_folder_gives_back_every_number(result, tmp_path):
    write_run(result, result.dataset(), tmp_path / "run")
    found = evidence_of(tmp_path / "run")
    assert [str(one.scheme) for one in found] == SCHEMES
    for one in found:
        (trace,), stored = one.traces, result.schemes[str(one.scheme)].trajectory.record
        for name in (*AT_ITERATES, *AT_STEPS, *VECTORS):
            np.testing.assert_array_equal(getattr(trace, name), getattr(stored, name), err_msg=name)
        assert one.shapes == ((31,),)
        assert one.workers == 4
        assert one.subject == f"{one.scheme} on logistic"


def test_every_array_has_a_meaning_and_dimensions(result):
    data = result.dataset()
    assert set(MEANINGS) == {*AT_ITERATES, *AT_STEPS, *VECTORS}
    assert {data[f"record_{name}"].dims for name in AT_STEPS} == {("scheme", "step")}
    assert {data[f"record_{name}"].dims for name in AT_ITERATES} == {("scheme", "iterate")}
    assert {data[f"record_{name}"].dims for name in VECTORS} == {("scheme", "iterate", "parameter")}


def test_facts_of_a_convex_task(result):
    facts, known = evidence_of(result.dataset())[1].facts, make_task("logistic", {}).constants()
    assert facts.smoothness == (known.smoothness, "exact")
    np.testing.assert_array_equal(facts.optimum, known.optimum.numpy())
    assert facts.value(facts.optimum) == pytest.approx(facts.least.value, abs=1e-14)
    trace = evidence_of(result.dataset())[1].traces[0]
    assert facts.value(trace.position[7]) == pytest.approx(trace.loss[7], rel=1e-12)
    assert np.square(facts.gradient(trace.position[7])).sum() == pytest.approx(trace.gradient2[7], rel=1e-12)
    np.testing.assert_allclose(facts.gradient(facts.optimum), 0.0, atol=1e-12)


def test_checks_on_a_recorded_run(result):
    judged = judge([karimireddy2019.identity(one) for one in evidence_of(result.dataset())])
    assert [one.verdict for one in judged] == [Verdict.HOLDS] * 2  # shuffling does not matter to every run's identity
    memory = judge([karimireddy2019.memory(evidence_of(result.dataset())[1])])[0]
    assert memory.verdict == Verdict.NOT_REFUTED
    assert "shuffled, without replacement" in memory.reason


def test_float32_is_granted_its_rounding(store):
    data = made(store, dtype="float32").dataset()
    (judged,) = judge([karimireddy2019.identity(evidence_of(data)[1])])
    assert judged.verdict == Verdict.NOT_REFUTED
    assert "rounded to float32" in judged.reason
    assert 1e-9 < judged.measured.max() < 1e-6


@pytest.mark.parametrize(
    ("training", "text", "holds"),
    [
        ({}, "plain SGD", True),
        ({"optimizer_options": {"momentum": 0.0, "dampening": 0.5}}, "plain SGD", True),
        (
            {"optimizer_options": {"momentum": 0.9}},
            "plain SGD: training.optimizer_options has momentum = 0.9",
            False,
        ),
        (
            {"optimizer_options": {"weight_decay": 0.1}},
            "plain SGD: training.optimizer_options has weight_decay = 0.1",
            False,
        ),
        ({"optimizer": "Adam"}, "plain SGD: training.optimizer is Adam", False),
    ],
)
def test_conditions_say_what_breaks_them(store, training, text, holds):
    assert conditions(made(store, **training).dataset())[text] is holds


def test_momentum_is_seen_by_the_identity(store):
    """The condition is right: with momentum the identity does not hold."""
    (one,) = evidence_of(made(store, schemes=["dense"], optimizer_options={"momentum": 0.9}).dataset())
    assert one.traces[0].identity[1:].min() > 1e-3
    (judged,) = judge([karimireddy2019.identity(one)])
    assert judged.verdict == Verdict.NOT_APPLICABLE
    assert judged.reason == "plain SGD: training.optimizer_options has momentum = 0.9"


def test_a_diverged_training_is_told(store):
    data = made(store, schemes=["dense"], task="quadratic", learning_rate=1e30).dataset()
    (one,) = evidence_of(data)
    assert 1 <= one.steps < int(data["completed_steps"][0]) < 20
    assert np.isfinite(np.square(one.traces[0].loss)).all()  # what would overflow is left out
    assert one.traces[0].loss.shape == (one.steps + 1,)
    (text,) = (text for text in conditions(data) if text.startswith("trainings that were completed"))
    assert text.startswith("trainings that were completed: 1 of 1 did not, one diverged at step")
    assert conditions(data)[text] is None


def test_a_network_that_is_not_smooth_says_why(store):
    data = made(store, task="mnist", schemes=["dense"], steps=2, evaluate_every=1).dataset()
    (one,) = evidence_of(data)
    assert one.facts.value is one.facts.gradient is None
    assert one.facts.least == (0.0, "sampled")
    assert smooth(one).holds is False
    assert smooth(one).text == "a smooth objective: it has relu"
    assert len(one.shapes) == 6


def test_what_is_not_measured_at_a_step_shortens_nothing(store):
    data = made(store, task="mnist", schemes=["lowpass(topk(density=0.1))"], steps=3, evaluate_every=2).dataset()
    (one,) = evidence_of(data)
    assert one.steps == 3
    assert np.isnan(one.traces[0].loss[1])


def test_several_seeds_are_one_evidence(store, result):
    runs = [result.dataset(), made(store, seed=1).dataset(), made(store, seed=2).dataset()]
    found = evidence_of(*runs)
    assert [len(one.traces) for one in found] == [3, 3]
    assert not (found[0].traces[0].own2 == found[0].traces[1].own2).all()
    assert landscapes_of(*runs)[SCHEMES[0]].second_moment.value == found[0].second_moment().value


def test_runs_that_differ_otherwise_are_refused(store, result):
    with pytest.raises(InputError, match="the runs differ in training.batch_size"):
        evidence_of(result.dataset(), made(store, seed=1, batch_size=7).dataset())
    with pytest.raises(InputError, match="the runs differ in task.name"):
        evidence_of(result.dataset(), made(store, seed=1, task="quadratic").dataset())
    with pytest.raises(InputError, match="give each seed once"):
        evidence_of(result.dataset(), result.dataset())


def test_a_run_without_a_record_says_what_to_do(store):
    data = made(store, schemes=["dense"], record="none").dataset()
    assert not [name for name in data.variables if str(name).startswith("record")]
    with pytest.raises(InputError, match="training.record = 'theory'"):
        read_record(data)
    with pytest.raises(InputError, match="training.record = 'theory'"):
        evidence_of(data)


def test_a_tuned_run_is_recorded_at_its_best_rate(store):
    data = made(store, schemes=["dense"], tune={"learning_rates": [0.01, 0.3]}).dataset()
    (one,) = evidence_of(data)
    assert set(one.lr) == {float(data["tuned_learning_rate"][0])}
