"""Fitted rates: sequences whose exponents are known, and runs of the laboratory whose rates theory promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gradwire.analysis.theory import rates
from gradwire.analysis.theory.evidence import Constant
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import NoisyQuadratic
from gradwire.compressors.spec import parse_scheme

POINTS = np.array([10.0, 20.0, 40.0, 80.0, 160.0])


def noisy(means, runs, seed=0):
    """Log-normal numbers with these expectations."""
    return means * np.random.default_rng(seed).lognormal(-0.125, 0.5, (runs, len(means)))


def bowl(scheme, step, steps=60, workers=1):
    problem = NoisyQuadratic(torch.linspace(1, 2, 8), 0.0, workers, torch.ones(8))
    return Trial(problem, parse_scheme(scheme), (step,) * steps, (0, 1)).run()


@pytest.fixture(scope="module")
def stich():
    """Plain SGD and SGD with memory, d/k = 2, under Stich's steps 8 / (mu (a + t)) with a = 14, mu = 1."""
    problem = NoisyQuadratic(torch.ones(60), 1.0, 1, torch.full((60,), 0.1))
    steps = tuple(8 / (14 + t) for t in range(80))
    seeds = tuple(range(30))
    return {text: Trial(problem, parse_scheme(text), steps, seeds).run() for text in ("dense", "ef(topk(density=0.5))")}


@pytest.mark.parametrize(("form", "means"), [("power", 3 * POINTS**-1.5), ("geometric", 3 * np.exp(-0.05 * POINTS))])
def test_exact_sequences(form, means):
    rate = rates.fit(POINTS, np.tile(means, (2, 1)), form)
    true = 1.5 if form == "power" else 0.05
    assert rate.exponent == pytest.approx((true,) * 3, rel=1e-12)
    assert rate.constant == pytest.approx((3.0,) * 3, rel=1e-12)
    assert rate.misfit < 1e-12


def test_the_fit_is_that_of_numpy():
    errors = noisy(POINTS**-0.7, 50)
    slope, offset = np.polyfit(np.log(POINTS), np.log(errors.mean(0)), 1)
    rate = rates.fit(POINTS, errors, "power")
    assert (rate.exponent.value, rate.constant.value) == pytest.approx((-slope, np.exp(offset)), rel=1e-10)


def test_intervals_have_the_width_of_the_delta_method():
    """Of independent columns: var of the slope = sum of (weight * relative standard error)^2."""
    errors = noisy(POINTS**-1.0, 400)
    centred = np.log(POINTS) - np.log(POINTS).mean()
    weights = centred / (centred @ centred)
    relative = errors.std(0, ddof=1) / errors.mean(0) / 20
    half = 1.96 * np.sqrt(np.square(weights * relative).sum())
    rate = rates.fit(POINTS, errors, "power", resamples=4000)
    assert rate.exponent.high - rate.exponent.low == pytest.approx(2 * half, rel=0.1)


def test_intervals_contain_the_truth_about_as_often_as_they_say():
    """100 repetitions at 90 %: fewer than 80 or all of them would happen once in a thousand times."""
    hits = 0
    for seed in range(100):
        rate = rates.fit(POINTS, noisy(2 * POINTS**-1.0, 60, seed), "power", level=0.9, resamples=400)
        hits += rate.exponent.low <= 1.0 <= rate.exponent.high
    assert 80 <= hits < 100


def test_a_wrong_form_shows_in_the_misfit():
    geometric = np.tile(np.exp(-0.05 * POINTS), (2, 1))
    assert rates.fit(POINTS, geometric, "power").misfit > 1


def test_few_runs_have_no_interval():
    rate = rates.fit(POINTS, noisy(POINTS**-1.0, 29), "power")
    assert np.isnan(rate.exponent.low)
    assert replace(rate, predicted=1.0).keeps_promise is None


def test_what_cannot_be_fitted():
    with pytest.raises(rates.RateError, match="at least 3 points, and there are 2"):
        rates.fit(POINTS[:2], np.ones((1, 2)), "power")
    with pytest.raises(rates.RateError, match="above 0, and at T = 20 it is 0"):
        rates.fit(POINTS, np.array([[1.0, 0, 1, 1, 1]]), "power")
    evidence = bowl("dense", 0.1)
    lower = replace(evidence, facts=replace(evidence.facts, least=Constant(-1.0, "sampled")))
    with pytest.raises(rates.RateError, match="the least value of the objective is not known"):
        rates.measured_rate(lower)


def test_suboptimality_of_averages():
    evidence = bowl("dense", 0.1, steps=5)
    weights, a = np.array([4.0, 9, 16, 25, 36]), np.linspace(1, 2, 8)
    x = np.array([(1 - 0.1 * a) ** t for t in range(6)])
    mean = (weights[:3, None] * x[:3]).sum(0) / weights[:3].sum()
    found = rates.suboptimality(evidence, np.array([3.0]), weights)
    np.testing.assert_allclose(found, (a * mean**2).sum() / 2, rtol=1e-6)
    np.testing.assert_allclose(rates.suboptimality(evidence, np.array([5.0])), (a * x[5] ** 2).sum() / 2, rtol=1e-6)


def test_bits():
    evidence = bowl("dense", 0.1, steps=5)
    # 8 values of 64 bits a step, and no header in an all-reduce.
    np.testing.assert_array_equal(rates.bits(evidence, np.array([1.0, 5.0])), [512, 2560])


def test_gradient_descent_has_the_rate_of_its_slowest_direction():
    evidence = bowl("dense", 0.4, steps=200)
    rate = rates.measured_rate(evidence, skip=0.5)
    assert rate.form == "geometric"
    assert rate.exponent.value == pytest.approx(-2 * np.log(1 - 0.4), rel=1e-3)
    # The best promise is B1's, with a = b = 1: 1 - mu gamma (2 - L gamma), mu = 1 and L = 2.
    assert rate.predicted == pytest.approx(-np.log(1 - 0.4 * 1.2), rel=1e-6)
    assert rate.source == "beznosikov.b1_rate"
    assert rate.keeps_promise


def test_ef21_is_linear_where_mu_is_above_0():
    evidence = bowl("ef21(topk(density=0.5))", 0.06, steps=150, workers=2)
    rate = rates.measured_rate(evidence)
    assert (rate.form, rate.source) == ("geometric", "ef21.pl")
    assert rate.predicted == pytest.approx(-np.log(1 - 0.06))
    assert rate.keeps_promise
    in_bits = rates.measured_rate(evidence, "bits")
    a_step = rates.bits(evidence, np.array([150.0]))[0] / 150
    assert in_bits.predicted * a_step == pytest.approx(rate.predicted)
    assert in_bits.exponent.value * a_step == pytest.approx(rate.exponent.value, rel=1e-2)


def test_a_scheme_that_stands_still_breaks_its_promise():
    evidence = bowl("ef21(topk(density=0.5))", 0.06, steps=30)
    stuck = tuple(replace(t, loss=t.loss[0] * 0.999 ** np.arange(31)) for t in evidence.traces)
    assert rates.measured_rate(replace(evidence, traces=stuck)).keeps_promise is False


@pytest.mark.slow
def test_memory_reaches_the_rate_of_plain_sgd(stich):
    """1/T once T is much larger than d/k, with nearly the constant of plain SGD."""
    plain, memory = (rates.measured_rate(runs, skip=0.4) for runs in stich.values())
    for rate in (plain, memory):
        assert (rate.form, rate.source) == ("power", "stich.theorem")
        assert rate.keeps_promise
        assert 0.7 < rate.predicted < rate.exponent.high < 1.15
    last = [rates.suboptimality(runs, np.array([80.0]), np.square(14 + np.arange(80.0))).mean()
            for runs in stich.values()]  # fmt: skip
    assert last[1] == pytest.approx(last[0], rel=0.2)


@pytest.mark.slow
def test_memory_needs_fewer_bits(stich):
    plain, memory = (rates.bits(runs, np.array([80.0]))[0] for runs in stich.values())
    assert memory < 0.6 * plain


def test_what_is_predicted():
    def schedule(scheme, shift):
        problem = NoisyQuadratic(torch.ones(4), 1.0, 1, torch.ones(4))
        return Trial(problem, parse_scheme(scheme), tuple(8 / (shift + t) for t in range(4)), (0, 1)).run()

    found = rates.prediction(schedule("ef(topk(density=0.5))", 14))
    assert found.exponent == 1.0
    np.testing.assert_allclose(found.weights, [196, 225, 256, 289])
    assert rates.prediction(schedule("ef(topk(density=0.5))", 13)) is None
    assert rates.prediction(schedule("topk(density=0.5)", 14)) is None
    assert rates.prediction(schedule("randomk(density=0.5, scaled=True)", 5)).source == "stich.theorem"
