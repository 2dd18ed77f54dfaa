"""Distributed SGD with unbiased compression: the bound against sympy, and against expectations computed exactly."""

import numpy as np
import pytest
import sympy
import torch

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.evidence import ONE_WAY
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import NoisyQuadratic, PulledQuadratic
from gradwire.analysis.theory.registry import RUN_CHECKS
from gradwire.analysis.theory.results import natural2019
from gradwire.analysis.theory.results.workers import drawn_apart, variance_share
from gradwire.compressors.spec import parse_scheme

from .faulty import posing
from .faultyschemes import WrongWayNatural
from .natural_cases import HALF, SMALL_STEP, STEP, from_optimum, there_and_back


def verdict(finding):
    (judged,) = judge([finding])
    return judged.verdict, judged.reason


def bowl(scheme, step=0.1, noise=1.0, workers=4, steps=30, seeds=30, back=None):
    problem = NoisyQuadratic(torch.linspace(0.2, 2, 12), noise, workers, torch.ones(12))
    there = back and parse_scheme(back)
    return Trial(problem, parse_scheme(scheme), (step,) * steps, tuple(range(seeds)), there).run()


@pytest.mark.parametrize(("back", "omega_back"), [(None, 0), ("randomk(density=0.25, scaled=True)", 3)])
def test_the_bound_in_exact_numbers(back, omega_back):
    """N = 4, omega = 1, L = 2, gamma = 1/10, sigma = 1, zeta^2 = 9 / 4; f_0 = half the sum of the curvatures, 13.2.

    alpha and beta are written as in the paper's theorem.
    """
    pulls = torch.full((4, 12), 1.5) / 12**0.5 * torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    problem = PulledQuadratic(torch.linspace(0.2, 2, 12), 1.0, pulls, torch.ones(12))
    evidence = Trial(problem, parse_scheme(HALF), (0.1,) * 20, (0, 1), back and parse_scheme(back)).run()
    found = natural2019.bidirectional(evidence) if back else natural2019.sgd(evidence)
    w, m, n, smoothness, gamma = sympy.Integer(1), sympy.Integer(omega_back), 4, 2, sympy.Rational(1, 10)
    sigma2, zeta2, gap = 1, sympy.Rational(9, 4), sympy.Rational(132, 20)
    alpha = (m + 1) * (w + 1) / n * sigma2 + (m + 1) * w / n * zeta2
    beta = 1 + m + (m + 1) * w / n
    for count, bound in zip(found.steps, found.bound, strict=True):
        first = 2 * gap / (gamma * (2 - beta * smoothness * gamma) * int(count))
        exact = first + alpha * smoothness * gamma / (2 - beta * smoothness * gamma)
        assert bound == pytest.approx(float(exact), rel=1e-6)


@pytest.mark.parametrize("pulls", [0.0, 1.5])
def test_sharp_from_the_optimum(pulls):
    """E||x||^2 obeys a recursion that can be solved: of scaled random entries the second moment is exact."""
    steps, smoothness, n, omega = 60, 2.0, 2, 1.0
    size2, expected = 0.0, []
    for _ in range(steps):
        expected.append(smoothness**2 * size2)
        own2 = smoothness**2 * size2 + pulls**2 + 1.0  # mean over workers of E||g_i||^2
        applied2 = smoothness**2 * size2 + 1.0 / n + omega / n * own2
        size2 += -2 * STEP * smoothness * size2 + STEP**2 * applied2
    found = from_optimum(parse_scheme(HALF), pulls)
    (judged,) = judge([found])
    assert judged.verdict == Verdict.HOLDS
    exact = np.cumsum(expected) / np.arange(1, steps + 1)
    assert judged.measured[-1] == pytest.approx(exact[-1], rel=0.08)
    assert exact[-1] / found.bound[-1] > 0.95
    assert found.values.shape == (30, 8)


@pytest.mark.parametrize("pulls", [0.0, 1.5])
def test_sharp_from_the_optimum_both_ways(pulls):
    """Half of the entries there and half back: E||C(y)||^2 = 2 ||y||^2, for each worker's gradient and for their mean.

    With own2 = E||C(g_i)||^2 and cross2 = E<g_1, g_2>, the mean has (2 own2 + 2 cross2) / 4 before the way back.
    """
    steps, smoothness = 60, 2.0
    size2, expected = 0.0, []
    for _ in range(steps):
        expected.append(smoothness**2 * size2)
        own2 = 2 * (smoothness**2 * size2 + pulls**2 + 1.0)
        cross2 = smoothness**2 * size2 - pulls**2
        applied2 = 2 * (2 * own2 + 2 * cross2) / 4
        size2 += -2 * SMALL_STEP * smoothness * size2 + SMALL_STEP**2 * applied2
    found = there_and_back(parse_scheme(HALF), pulls)
    (judged,) = judge([found])
    assert judged.verdict == Verdict.HOLDS
    exact = np.cumsum(expected) / np.arange(1, steps + 1)
    assert judged.measured[-1] == pytest.approx(exact[-1], rel=0.08)
    assert exact[-1] / found.bound[-1] > 0.9


def test_a_bias_on_the_way_back():
    """Rounding the wrong way makes what comes back too large, in the mean, as a longer step would."""
    back = WrongWayNatural()
    problem = NoisyQuadratic(torch.full((40,), 2.0), 1.0, 2, torch.zeros(40))
    runs = Trial(problem, parse_scheme("dense"), (0.3,) * 60, tuple(range(30)), back).run()
    assert verdict(natural2019.bidirectional(runs))[0] == Verdict.VIOLATED


@pytest.mark.parametrize("back", ["natural", "randomk(density=0.5, scaled=True)", "qsgd(bits=4, norm=l2)"])
def test_real_schemes_both_ways(back):
    assert verdict(natural2019.bidirectional(bowl("natural", step=0.05, steps=12, back=back)))[0] == Verdict.HOLDS


def test_no_other_statement_speaks_of_the_way_back():
    """Whatever the scheme: even where all else holds that a statement needs."""
    for scheme in ("natural", "ef(topk(density=0.25))", "ef21(topk(density=0.25))", "topk(density=0.25)"):
        evidence = bowl(scheme, steps=5, seeds=2, back="natural")
        for check in RUN_CHECKS:
            finding = check.examine(evidence)
            speaks = check.statement.name == "natural.bidirectional"
            assert (ONE_WAY in finding.conditions) is not speaks, check.statement.name
            if not speaks:
                assert verdict(finding)[0] == Verdict.NOT_APPLICABLE, check.statement.name
    lone = natural2019.sgd(bowl("natural", steps=5, seeds=2, back="natural"))
    assert [condition for condition in lone.conditions if not condition.holds] == [ONE_WAY]


def test_workers_that_draw_together_vary_as_one():
    assert drawn_apart(parse_scheme(HALF))
    assert drawn_apart(parse_scheme("natural"))
    assert not drawn_apart(parse_scheme("randomk(density=0.5, scaled=True)"))
    assert not drawn_apart(parse_scheme("randomk(density=0.5, scaled=True) | qsgd(bits=4)"))
    apart, together = (
        bowl(f"randomk(density=0.5, scaled=True, seed={s})", steps=2, seeds=1) for s in ("own", "shared")
    )
    assert (variance_share(apart), variance_share(together)) == (0.25, 1.0)


def test_drawing_together_exceeds_the_bound_for_drawing_apart():
    """So the difference is needed: the same scheme with shared draws, judged as if every worker drew for itself."""
    shared = "randomk(density=0.5, scaled=True)"
    assert verdict(from_optimum(parse_scheme(shared)))[0] == Verdict.HOLDS
    many = PulledQuadratic(torch.full((40,), 2.0), 1.0, torch.zeros(8, 40), torch.ones(40))
    runs = Trial(many, posing(shared, HALF), (0.45,) * 20, tuple(range(30))).run()
    assert verdict(natural2019.sgd(runs))[0] == Verdict.VIOLATED


@pytest.mark.parametrize("scheme", ["dense", "natural", "qsgd(bits=4, norm=l2)", "terngrad(clip=0)"])
def test_real_schemes(scheme):
    assert verdict(natural2019.sgd(bowl(scheme, step=0.05, steps=12)))[0] == Verdict.HOLDS


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        ("topk(density=0.25)", "an unbiased scheme"),
        ("ef(topk(density=0.25))", "no memory around the scheme"),
        ("twosided(natural)", "no memory around the scheme"),
    ],
)
def test_where_it_does_not_apply(scheme, reason):
    assert verdict(natural2019.sgd(bowl(scheme, steps=3, seeds=2))) == (Verdict.NOT_APPLICABLE, reason)


@pytest.mark.parametrize(
    ("scheme", "back", "reason"),
    [
        ("natural", None, "something compressed on the way back"),
        ("natural", "topk(density=0.25)", "an unbiased scheme on the way back"),
        ("topk(density=0.25)", "natural", "an unbiased scheme"),
        ("ef(topk(density=0.25))", "natural", "no memory around the scheme"),
    ],
)
def test_where_it_does_not_apply_both_ways(scheme, back, reason):
    evidence = bowl(scheme, steps=3, seeds=2, back=back)
    assert verdict(natural2019.bidirectional(evidence)) == (Verdict.NOT_APPLICABLE, reason)


def test_too_large_a_step():
    # omega = 1 and 4 workers: beta = 5/4, and 2 / (beta L) = 0.8.
    assert natural2019.sgd(bowl(HALF, step=0.79, steps=3, seeds=2)).measured
    reason = "a learning rate below 2 / (beta L): 0.81, allowed 0.8"
    assert verdict(natural2019.sgd(bowl(HALF, step=0.81, steps=3, seeds=2))) == (Verdict.NOT_APPLICABLE, reason)
    # omega_M = 1 besides: beta = 5/2.
    assert natural2019.bidirectional(bowl(HALF, step=0.39, steps=3, seeds=2, back=HALF)).measured
    found = natural2019.bidirectional(bowl(HALF, step=0.41, steps=3, seeds=2, back=HALF))
    assert verdict(found) == (Verdict.NOT_APPLICABLE, "a learning rate below 2 / (beta L): 0.41, allowed 0.4")


def test_few_runs_decide_nothing():
    assert verdict(natural2019.sgd(bowl(HALF, steps=5, seeds=3)))[0] == Verdict.NOT_REFUTED
