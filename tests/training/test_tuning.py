"""Tuning: which learning rate is best, of trajectories made up so that it is known, and what a run says of it."""

import itertools

import numpy as np
import pytest
from pydantic import ValidationError

from gradwire.analysis.comparison import compare
from gradwire.sim.experiment import validate_experiment
from gradwire.sim.run import run
from gradwire.sim.training.store import Store
from gradwire.sim.training.trajectory import Evaluations, Trajectory
from gradwire.sim.training.tuning import Tuning, best_rate, first_at_target

COMPLETED, DIVERGED = "completed", "diverged at step 9: loss is nan"


def made_up(metric, status=COMPLETED):
    """Return a trajectory with an evaluation every 10 steps; losses and the test split would say the opposite."""
    values = np.asarray(metric, float)
    steps = 10 * np.arange(len(values))
    evaluations = Evaluations(steps, values, values, -values, -values)
    nothing = np.zeros(0)
    return Trajectory("dense", nothing, nothing, evaluations, (), status, "batched", 3, "")


@pytest.mark.parametrize(
    ("tried", "best"),
    [
        ({0.1: made_up([0, 0.5, 0.9]), 0.2: made_up([0, 0.95], DIVERGED)}, 0.1),  # completed, though later
        ({0.1: made_up([0, 0.1, 0.2]), 0.2: made_up([0, 0.95], DIVERGED)}, 0.1),  # completed, though not at the target
        ({0.1: made_up([0, 0.5, 0.99]), 0.2: made_up([0, 0.9, 0.9])}, 0.2),  # sooner, though worse in the end
        ({0.1: made_up([0, 0.89, 0.89]), 0.2: made_up([0, 0.1, 0.9])}, 0.2),  # reached at all
        ({0.1: made_up([0, 0.9, 0.5]), 0.2: made_up([0, 0.1, 0.95])}, 0.1),  # once is enough
        ({0.1: made_up([0, 0.9, 0.91]), 0.2: made_up([0, 0.9, 0.92])}, 0.2),  # as soon, and better in the end
        ({0.1: made_up([0, 0.3, 0.4]), 0.2: made_up([0, 0.8, 0.3])}, 0.1),  # nobody reached it: the end
        ({0.1: made_up([0, 0.9, np.nan]), 0.2: made_up([0, 0.9, 0.9])}, 0.2),
        ({0.2: made_up([0, 0.9, 0.9]), 0.1: made_up([0, 0.9, 0.9])}, 0.1),  # a tie: the smaller one
        ({0.2: made_up([], DIVERGED), 0.1: made_up([0], DIVERGED)}, 0.1),
        ({0.2: made_up([], DIVERGED), 0.1: made_up([], DIVERGED)}, 0.1),
    ],
)
def test_completed_then_soonest_then_best_then_smallest(tried, best):
    for order in itertools.permutations(tried.items()):
        assert best_rate(dict(order), 0.9, higher_is_better=True) == best
    turned = {rate: mirrored(one) for rate, one in tried.items()}
    assert best_rate(turned, -0.9, higher_is_better=False) == best


def mirrored(one):
    return made_up(-one.evaluations.validation_metric, one.status)


def test_without_a_target_the_end_decides():
    tried = {0.1: made_up([0, 0.9, 0.91]), 0.2: made_up([0, 0.1, 0.92])}
    assert best_rate(tried, None, higher_is_better=True) == 0.2
    assert best_rate(tried, None, higher_is_better=False) == 0.1
    assert first_at_target(tried[0.1].evaluations, None, higher_is_better=True) is None


def test_a_grid_is_sorted_and_holds_each_rate_once():
    assert Tuning(learning_rates=[0.3, 0.1, 0.3]).learning_rates == (0.1, 0.3)
    for rates in ([0.0], [-1.0], [float("nan")], [float("inf")]):
        with pytest.raises(ValidationError, match="must be numbers above 0"):
            Tuning(learning_rates=rates)


def experiment(tune, seed=3, schemes=("dense(dtype=fp32)", "ef(topk(density=0.2))"), **training):
    base = {"workers": 2, "batch_size": 8, "steps": 20, "evaluate_every": 5, "learning_rate": 0.02, "target": 0.9}
    return validate_experiment(
        {
            "schemes": list(schemes),
            "task": {"name": "logistic"},
            "training": {**base, "seed": seed, **training},
            "cluster": {"preset": "ethernet-1g"},
            "tune": tune,
        }
    )


RATES = (0.001, 0.3, 2.0)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return run(experiment({"learning_rates": RATES}), Store(store)), store


def test_each_scheme_gets_the_rate_that_single_runs_find_best(tuned, tmp_path):
    result, store = tuned
    assert len(list(store.rglob("*.gz"))) == 2 * len(RATES)
    singles = {rate: run(experiment({}, learning_rate=rate), Store(tmp_path)) for rate in RATES}
    for scheme, row in result.schemes.items():

        def rank(rate, scheme=scheme):
            evaluations = singles[rate].schemes[scheme].trajectory.evaluations
            met = evaluations.steps[evaluations.validation_metric >= 0.9]
            return (met[0] if len(met) else np.inf, -evaluations.validation_metric[-1], rate)

        assert row.learning_rate == min(RATES, key=rank)
        same = singles[row.learning_rate].schemes[scheme].trajectory
        assert row.trajectory.to_json() == same.to_json()


def test_a_tuned_run_says_so(tuned):
    result, _ = tuned
    data = result.dataset()
    rates = [row.learning_rate for row in result.schemes.values()]
    assert data["tuned_learning_rate"].values.tolist() == rates
    assert data.attrs["tuned_rates"] == list(RATES)
    comparison = compare(data)
    assert [row.learning_rate for row in comparison.rows] == rates
    (told,) = [note for note in comparison.notes if note.startswith("Learning rates were chosen")]
    assert "of 0.001, 0.3, 2: " in told
    assert all(f"{scheme}: {row.learning_rate:g}" in told for scheme, row in result.schemes.items())


def test_the_end_of_the_grid_is_told_for_those_that_end_there(tmp_path):
    found = run(experiment({"learning_rates": [0.001, 0.3]}), Store(tmp_path))
    (told,) = [note for note in compare(found.dataset()).notes if "at an end of the grid" in note]
    assert all(scheme in told for scheme in found.schemes)
    wide = run(experiment({"learning_rates": [1e-4, 0.3, 1e30]}), Store(tmp_path))
    assert [row.learning_rate for row in wide.schemes.values()] == [0.3, 0.3]
    assert not any("at an end of the grid" in note for note in compare(wide.dataset()).notes)


def test_seeds_of_tuning(tmp_path):
    """Rates are compared with the seed of tuning; what counts is trained with that of the training."""
    result = run(experiment({"learning_rates": RATES, "seed": 9}, schemes=["dense(dtype=fp32)"]), Store(tmp_path))
    assert len(list(tmp_path.rglob("*.gz"))) == len(RATES) + 1
    (row,) = result.schemes.values()
    single = run(
        experiment({}, schemes=["dense(dtype=fp32)"], learning_rate=row.learning_rate), Store(tmp_path)
    ).schemes["dense(dtype=fp32)"]
    assert row.trajectory.to_json() == single.trajectory.to_json()
    assert len(list(tmp_path.rglob("*.gz"))) == len(RATES) + 1


def test_one_rate_alone_is_used_and_nothing_is_said_to_be_chosen(tmp_path):
    found = run(experiment({"learning_rates": [0.3], "seed": 9}), Store(tmp_path))
    assert len(list(tmp_path.rglob("*.gz"))) == 2
    plain = run(experiment({}, learning_rate=0.3), Store(tmp_path))
    for scheme, row in found.schemes.items():
        assert row.learning_rate == 0.3
        assert row.trajectory.to_json() == plain.schemes[scheme].trajectory.to_json()
    assert not any("earning rate" in note for note in compare(found.dataset()).notes)
