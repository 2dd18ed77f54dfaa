"""Stich et al. 2018: bounds against second evaluations, sharp recursions, wrong conditions."""

from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch

from gradwire.analysis.theory.check import Finding, Verdict, judge
from gradwire.analysis.theory.evidence import Evidence
from gradwire.analysis.theory.problems import NoisyQuadratic
from gradwire.analysis.theory.results import stich2018 as theory
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.spec import parse_scheme

from .feedback_instances import Forgetful, constant_gradient, run, shrinking
from .stich_cases import rates, theorem

ENDS = np.array([1, 2, 10, 300])
CURVATURES = torch.linspace(1, 2, 10, dtype=torch.float64)


def verdict(finding: Finding) -> tuple[Verdict, str]:
    (judged,) = judge([finding])
    return judged.verdict, judged.reason


def noisy(scheme: str, lr: tuple[float, ...], seeds: int = 2) -> Evidence:
    problem = NoisyQuadratic(CURVATURES, 1.0, 2, torch.ones(10))
    return run(problem, parse_scheme(scheme), lr, seeds)


# -------------------------------------------------------------------------------------------------- rates and weights


def test_rates_of_the_papers_form_are_recognised():
    shift, mu = theory.recognise(np.array(rates(12.5, 0.3, 50)))
    assert (shift, mu) == (pytest.approx(12.5, rel=1e-9), pytest.approx(0.3, rel=1e-9))
    almost = np.array(rates(12.5, 0.3, 50))
    almost[20] *= 1 + 1e-6
    for others in ([0.1] * 5, [0.1, 0.2, 0.3], [0.1, 0.05], [0.1, 0.0, 0.1], [1, 1 / 2, 1 / 4], almost):
        assert not theory.recognise(np.array(others)).found


def test_the_sum_of_weights():
    assert theory.weight_sum(3.0, np.array([10]))[0] == 645
    for shift in (1.5, 3.0, 100.0):
        expected = [sum((shift + t) ** 2 for t in range(end)) for end in ENDS]
        assert theory.weight_sum(shift, ENDS) == pytest.approx(expected, rel=1e-12)


# -------------------------------------------------------------------------------------------------------------- alpha


def needed(alpha: float, delta: float) -> float:
    """The least a, straight from the paper."""
    rho = 4 * alpha / ((alpha - 4) * (alpha + 1) ** 2)
    return (alpha + 1) / delta + rho / (rho + 1)


@pytest.mark.parametrize(("shift", "delta"), [(70, 0.1), (600, 0.01), (6, 1.0), (5.97, 1.0), (1e4, 0.05), (51.5, 0.1)])
def test_the_best_alpha_is_the_largest_that_is_allowed(shift, delta):
    best = theory.best_alpha(shift, delta)
    assert best > 4
    assert needed(best, delta) == pytest.approx(shift, rel=1e-9)
    beyond = best + np.geomspace(1e-6, 10, 1000)
    assert all(needed(alpha, delta) > shift for alpha in beyond)


def test_the_papers_remark_that_alpha_5_is_allowed():
    for delta in (1.0, 0.1, 0.001):
        assert theory.best_alpha((5 + 2) / delta, delta) >= 5


@pytest.mark.parametrize(("shift", "delta"), [(50, 0.1), (5.5, 1.0), (1, 1.0), (100, 0.01), (100, -1.0)])
def test_there_may_be_no_alpha(shift, delta):
    assert np.isnan(theory.best_alpha(shift, delta))
    if delta > 0:
        assert all(needed(alpha, delta) > shift for alpha in 4 + np.geomspace(1e-6, 100, 10_000))


# ------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("inverse", [2, 10, 100])
@pytest.mark.parametrize("alpha", [5, 7, 20])
def test_the_worst_memory_keeps_to_the_bound(inverse, alpha):
    """Minkowski's recursion with equality, at the least a that alpha allows."""
    delta, shift = 1 / inverse, needed(alpha, 1 / inverse)
    factor = 4 * alpha / (alpha - 4) * inverse**2
    assert theory.memory_factor(theory.Rates(shift, 1.0), delta) == pytest.approx(factor, rel=1e-6)
    norm, ratios = 0.0, []
    for t in range(5000):
        ratios.append(norm**2 / ((8 / (shift + t)) ** 2 * factor))
        norm = (1 - delta) ** 0.5 * (norm + 8 / (shift + t))
    assert 0.05 < max(ratios) < 1


def test_the_theorems_bound_is_the_printed_one():
    a, mu, start2, second, smooth = (Fraction(*x) for x in ((75, 1), (1, 2), (3, 1), (7, 3), (5, 1)))
    delta, alpha = Fraction(1, 10), Fraction(13, 2)
    memory = 4 * alpha / (alpha - 4) / delta**2 * second
    for end in ENDS:
        t = int(end)
        total = sum((a + s) ** 2 for s in range(t))
        printed = 4 * t * (t + 2 * a) / (mu * total) * second + mu * a**3 / (8 * total) * start2
        printed += 64 * t * (1 + 2 * smooth / mu) / (mu * total) * memory
        held = float((mu + 2 * smooth) * memory)
        at = theory.Rates(float(a), float(mu))
        found = theory.averaged_bound(at, float(start2), float(second), held, np.array([t]))
        assert found[0] == pytest.approx(float(printed), rel=1e-13)


def test_the_recursion_with_equality_attains_the_averaging_lemma():
    """a_t = 0 and e_t = eta_t A + eta_t^2 B: what the lemma loses vanishes with 1 / (T + 2a)."""
    for first, second in ((3.0, 0.0), (0.0, 2.0), (3.0, 2.0)):
        shift, mu, end = 50.0, 0.7, 2000
        eta = np.array(rates(shift, mu, end))
        weights = (shift + np.arange(end)) ** 2
        mean = (weights * (eta * first + eta**2 * second)).sum() / weights.sum()
        bound = theory.averaged_bound(theory.Rates(shift, mu), 0.0, first, second, np.array([end]))[0]
        assert 0.999 * bound < mean <= bound * (1 + 1e-12)


def test_no_recursion_with_equality_exceeds_the_averaging_lemma():
    draw, shift, mu = np.random.default_rng(0), 6.0, 0.7
    eta, weights = np.array(rates(shift, mu, 200)), (shift + np.arange(200)) ** 2
    for _ in range(100):
        start, first, second = draw.exponential(size=3)
        near, gaps = start, []
        for rate in eta:
            most = (1 - mu * rate / 2) * near + rate**2 * first + rate**3 * second
            gap = draw.uniform() * most / rate
            gaps.append(gap)
            near = most - rate * gap
        sums = np.cumsum(weights * gaps) / np.cumsum(weights)
        bound = theory.averaged_bound(theory.Rates(shift, mu), start, first, second, np.arange(1, 201))
        assert (sums <= bound).all()


def test_the_step_of_the_averaging_lemma():
    s = sympy.symbols("s", positive=True)
    left, right = s**2 * (s - 4), (s - 1) ** 3
    assert sympy.expand(right - left - (s**2 + 3 * s - 1)) == 0  # positive for s >= 1


def test_the_step_lemma_on_random_quadratics():
    """Exact gradients, any memory: the inequality from the functions themselves."""
    draw = np.random.default_rng(1)
    for _ in range(2000):
        curvature = draw.uniform(0.5, 3, size=4)
        mu, smooth, eta = curvature.min(), curvature.max(), draw.uniform(0, 2)
        x, memory = draw.standard_normal((2, 4))
        gradient = curvature * x
        y, value = x - memory, (curvature * x**2).sum() / 2
        left = ((y - eta * gradient) ** 2).sum()
        right = (1 - eta * mu / 2) * (y**2).sum() + eta**2 * (gradient**2).sum() - eta * value
        assert left <= right + eta * (mu + 2 * smooth) * (memory**2).sum() + 1e-12


# -------------------------------------------------------------------------------------------------------------- runs


def test_the_step_check_computes_the_lemmas_sides():
    evidence = noisy("ef(topk(density=0.2))", (0.1, 0.05, 0.2, 0.1))
    finding, second = theory.step(evidence), evidence.stack("own2").mean(axis=0).max()
    left, right = [], []
    for trace in evidence.traces:
        assert trace.position is not None
        assert trace.memory is not None
        y, eta = trace.position - trace.memory, trace.lr
        left.append((y[1:] ** 2).sum(1))
        right.append(
            (1 - eta / 2) * (y[:-1] ** 2).sum(1)
            + eta**2 * second
            - eta * trace.loss[:-1]
            + eta * 5 * trace.memory2[:-1]
        )
    assert finding.bound == pytest.approx(np.mean(right, axis=0), rel=1e-12)
    assert finding.values.mean(axis=0) == pytest.approx(np.mean(left, axis=0), rel=1e-12)
    assert finding.values - finding.bound == pytest.approx(np.array(left) - right, rel=1e-9, abs=1e-12)


def test_all_statements_hold_where_they_apply():
    evidence = noisy("ef(topk(density=0.5))", rates(30.0, 1.0, 30), seeds=30)
    judged = judge([check.examine(evidence) for check in theory.CHECKS])
    assert [j.verdict for j in judged] == [Verdict.HOLDS] * 4
    assert all(0 < j.ratio < 1 for j in judged)


def test_the_theorem_weighs_iterates_by_the_squares():
    evidence = noisy("ef(topk(density=0.5))", rates(30.0, 1.0, 20))
    finding, weights = theory.theorem(evidence), [(30 + t) ** 2 for t in range(20)]
    for row, trace in zip(finding.values, evidence.traces, strict=True):
        assert trace.position is not None
        average = np.average(trace.position[:-1], axis=0, weights=weights)
        assert row[-1] == pytest.approx((CURVATURES.numpy() * average**2).sum() / 2, rel=1e-9)


def test_a_forgetful_memory_exceeds_the_theorem():
    """Step by step in plain arithmetic; the bound as printed, alpha solved for by bisection, G^2 = 1.5^2 + 1."""
    shift, end, pull, delta = 300.0, 300, 1.5, 0.5
    weights = (shift + np.arange(end)) ** 2
    for memory, kept in ((ErrorFeedback(), 1.0), (Forgetful(), 0.0)):
        x, held, path = np.array([0.0, 1.0]), np.zeros((2, 2)), []
        for t in range(end):
            path.append(x)
            p = held + 8 / (shift + t) * (x + np.array([[pull, 0], [-pull, 0]]))
            sent = np.where(np.abs(p) == np.abs(p).max(axis=1, keepdims=True), p, 0.0)
            x, held = x - sent.mean(axis=0), kept * (p - sent)
        average = (weights[:, None] * np.array(path)).sum(axis=0) / weights.sum()
        low, high = 4.001, shift
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if needed(middle, delta) <= shift else (low, middle)
        second, total = pull**2 + 1, weights.sum()
        bound = 4 * end * (end + 2 * shift) * second / total + shift**3 / (8 * total)
        bound += 64 * end * 3 / total * 4 * low / (low - 4) * second / delta**2
        found = theorem(memory)
        assert found.values[:, -1] == pytest.approx([(average**2).sum() / 2] * 2, rel=1e-6)
        assert found.bound[-1] == pytest.approx(bound, rel=1e-6)
        told, ratio = judge([found])[0].verdict, judge([found])[0].ratio
        assert (told, round(ratio, 2)) == ((Verdict.HOLDS, 0.18) if kept else (Verdict.VIOLATED, 3.15))


@pytest.mark.parametrize(
    ("check", "scheme", "lr", "reason"),
    [
        (theory.memory, "ef(topk(density=0.5))", (0.1,) * 5, "learning rates 8 / (mu (a + t))"),
        (theory.averaging, "ef(topk(density=0.5))", (0.1,) * 5, "learning rates 8 / (mu (a + t))"),
        (theory.theorem, "ef(topk(density=0.5))", rates(10, 1, 5), "the a that the contraction needs"),
        (theory.memory, "ef(topk(density=0.5))", rates(10, 1, 5), "the a that the contraction needs"),
        (theory.theorem, "ef(topk(density=0.5))", rates(30, 1.1, 5), "the learning rates' mu is at most"),
        (theory.averaging, "ef(topk(density=0.5))", rates(30, 1.1, 5), "the learning rates' mu is at most"),
        (theory.theorem, "topk(density=0.5)", rates(30, 1, 5), "error feedback around the scheme"),
        (theory.step, "topk(density=0.5)", (0.1,) * 5, "error feedback around the scheme"),
    ],
)
def test_what_is_presupposed_is_asked_for(check, scheme, lr, reason):
    told, why = verdict(check(noisy(scheme, lr)))
    assert told == Verdict.NOT_APPLICABLE
    assert why.startswith(reason)


def test_the_least_a_is_told():
    _, why = verdict(theory.theorem(noisy("ef(topk(density=0.5))", rates(10, 1, 5))))
    least = min(needed(alpha, 0.5) for alpha in np.linspace(4 + 1e-6, 8, 100_000))
    assert why.endswith(f": {least:.4g}, allowed 10")


def test_without_strong_convexity_there_is_no_bound():
    evidence = run(constant_gradient(), shrinking(0.5), rates(30, 1, 5))
    for check in (theory.step, theory.averaging, theory.theorem):
        told, why = verdict(check(evidence))
        assert (told, why) == (Verdict.NOT_APPLICABLE, "a smooth objective, its L: there is none, or it is not known")
