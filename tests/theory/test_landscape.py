"""The constants of problems: against their definitions, and an estimator against distributions that are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit

from gradwire.analysis.theory.lab import follow
from gradwire.analysis.theory.landscape import heterogeneity, landscape_of
from gradwire.analysis.theory.problems import NoisyQuadratic
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.tasks import make_task
from gradwire.sim.training.nature import Nature, nature_of
from gradwire.sim.training.plan import Training
from gradwire.sim.training.train import train

LOGISTIC = make_task("logistic", {})
UNKNOWN = Nature(examples=100, constants=None, rough=(), alone=True, nonnegative=False)


def trace_of(task, **changes):
    training = {"workers": 4, "batch_size": 8, "steps": 40, "dtype": "float64", "record": "theory", **changes}
    return train(task, parse_scheme("dense"), Training.model_validate(training)).record


def test_a_convex_tasks_are_its_own():
    trace = trace_of(LOGISTIC)
    land = landscape_of([trace], nature_of(LOGISTIC, LOGISTIC.model()), workers=4, batch_size=8)
    known = LOGISTIC.constants()
    assert land.smoothness == (known.smoothness, "exact")
    assert land.strong_convexity == (LOGISTIC.regularisation, "exact")
    assert land.least == (known.optimum_value, "exact")
    assert land.distance2.value == pytest.approx(float(known.optimum @ known.optimum))  # from 0
    assert land.optimum_noise == (known.gradient_noise / 8, "exact")
    features, labels = (t.double().numpy() for t in LOGISTIC.splits().train.tensors)
    rows, noise = features * labels[:, None], []
    for x in trace.position:
        gradients = LOGISTIC.regularisation * x - expit(-(rows @ x))[:, None] * rows
        noise.append(np.square(gradients - gradients.mean(0)).sum(1).mean() / 8)
    assert land.noise.value == pytest.approx(max(noise), rel=1e-10)
    assert land.noise.how == "measured"
    assert land.second_moment.value == trace.own2.max()
    assert land.spread.value == trace.spread2.max()


def test_the_noise_of_shuffled_batches_is_that_of_independent_ones_less_what_a_finite_split_takes():
    """Of a first step, which nothing precedes: E noise2 = sigma^2 / B (n - B) / (n - 1), over 100 seeds."""
    task = make_task("quadratic", {"dimension": 5, "examples": 40, "noise": 2.0})
    first = [trace_of(task, steps=1, seed=seed, workers=2, batch_size=16).noise2[0] for seed in range(100)]
    expected = 4.0 / 16 * (40 - 16) / 39
    assert np.mean(first) == pytest.approx(expected, abs=5 * np.std(first) / 10)


def test_smoothness_is_sampled_where_it_is_not_known():
    """Of a quadratic every secant is between its least and its largest eigenvalue, and a long run meets the largest."""
    problem = NoisyQuadratic(torch.tensor([0.5, 3.0]), 0.0, 1, torch.tensor([0.0, 1.0]))
    trace = follow(problem, parse_scheme("dense"), [0.1] * 5, seed=0)
    land = landscape_of([trace], UNKNOWN, workers=1, batch_size=1)
    assert land.smoothness.value == pytest.approx(3.0, rel=1e-9)
    assert land.smoothness.how == "sampled"
    curved = replace(trace, curvature=np.array([np.nan, 3.5, np.nan, 3.2, np.nan, np.nan]))
    assert landscape_of([trace, curved], UNKNOWN, workers=1, batch_size=1).smoothness.value == 3.5
    nothing = replace(trace, secant=np.full(6, np.nan))
    assert landscape_of([nothing], UNKNOWN, workers=1, batch_size=1).smoothness is None


def test_a_loss_that_is_not_smooth_has_no_constant():
    trace = trace_of(make_task("mnist", {}), steps=2, evaluate_every=1, dtype="float32")
    task = make_task("mnist", {})
    land = landscape_of([trace], nature_of(task, task.model()), workers=4, batch_size=8)
    assert land.smoothness is None
    assert land.rough == ("relu",)
    assert land.least == (0.0, "sampled")  # a cross-entropy
    assert not land.convex
    assert land.strong_convexity is land.optimum is land.distance2 is land.optimum_noise is None
    assert land.noise.how == "sampled"
    assert landscape_of([trace], UNKNOWN, workers=4, batch_size=8).least == (-np.inf, "sampled")


@pytest.mark.parametrize("apart", [0.0, 1.5])
def test_heterogeneity_is_told_from_noise(apart):
    """Workers' gradients m_i + noise, of batches of 6 whose halves are known; mean of ||m_i - m||^2 is ``apart``."""
    workers, dimension, batch, steps = 5, 3, 6, 3000
    generator = np.random.default_rng(0)
    means = generator.standard_normal((workers, dimension))
    means -= means.mean(0)
    means *= np.sqrt(apart / np.square(means).sum(1).mean())
    drawn = means[:, None] + 2 * generator.standard_normal((steps, workers, batch, dimension))
    g, halves = drawn.mean(2), drawn[:, :, :3].mean(2) - drawn[:, :, 3:].mean(2)
    trace = replace(
        trace_of(make_task("quadratic", {"dimension": 2, "examples": 64}), steps=1),
        spread2=np.square(g - g.mean(1, keepdims=True)).sum(2).mean(1),
        within2=np.square(halves).sum(2).mean(1) / 4,
    )
    found = heterogeneity([trace], workers)
    assert found.value == pytest.approx(apart, abs=5 * found.error)
    assert found.error < 0.06


def test_the_trainers_workers_are_alike():
    found = heterogeneity([trace_of(LOGISTIC, steps=150)], workers=4)
    assert abs(found.value) < 4 * found.error
    assert heterogeneity([trace_of(LOGISTIC, steps=3, batch_size=1)], workers=4) is None


def test_rows_for_a_table():
    land = landscape_of([trace_of(LOGISTIC)], nature_of(LOGISTIC, LOGISTIC.model()), workers=4, batch_size=8)
    rows = {row.symbol: row for row in land.rows()}
    assert rows["L"][1:3] == land.smoothness
    assert rows["zeta^2"].value == land.heterogeneity.value
    assert all(row.how is not None for row in rows.values())
    missing = replace(land, smoothness=None).rows()[0]
    assert np.isnan(missing.value)
    assert missing.how is None
