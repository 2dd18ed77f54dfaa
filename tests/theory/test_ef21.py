"""EF21: the factors and bounds against sympy and a second evaluation, the steps at which the theorems end."""

from dataclasses import replace

import numpy as np
import pytest
import sympy
import torch
from scipy.optimize import minimize_scalar

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.evidence import Constant
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import NoisyQuadratic, three_pulls
from gradwire.analysis.theory.results import ef21
from gradwire.compressors.spec import parse_scheme

from .ef21_cases import ALPHA, largest, shrinking


def verdict(finding):
    (judged,) = judge([finding])
    return judged.verdict, judged.reason


def bowl(scheme, step, steps=40, noise=0.0, workers=2, seeds=(0, 1)):
    problem = NoisyQuadratic(torch.linspace(0.5, 2, 12), noise, workers, torch.ones(12))
    return Trial(problem, parse_scheme(scheme), (step,) * steps, seeds).run()


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.5, 0.9])
def test_factors_are_the_lemmas_with_the_split_that_makes_their_ratio_least(alpha):
    # (1 - alpha)(1 + s) = 1 - theta and (1 - alpha)(1 + 1/s) = beta for some s; the paper's s minimises beta / theta.
    def ratio(s):
        return (1 - alpha) * (1 + 1 / s) / (1 - (1 - alpha) * (1 + s))

    best = minimize_scalar(ratio, bounds=(1e-9, alpha / (1 - alpha) - 1e-9), method="bounded", options={"xatol": 1e-12})
    theta, beta = ef21.factors(alpha)
    assert beta / theta == pytest.approx(best.fun, rel=1e-6)
    assert theta == pytest.approx(1 - (1 - alpha) * (1 + best.x), rel=1e-4)


def test_known_values():
    theta, beta = ef21.factors(0.1)
    assert (theta, beta) == pytest.approx((0.0513167, 17.5381), rel=1e-5)
    assert (beta / theta) ** 0.5 == pytest.approx(18.4868, rel=1e-5)
    assert ef21.factors(1.0) == (1.0, 0.0)
    for alpha in np.linspace(0.01, 1, 50):
        theta, beta = ef21.factors(alpha)
        assert (beta / theta) ** 0.5 <= 2 / alpha - 1 + 1e-9


def test_the_lemma_is_an_equality_at_constant_drift():
    r, v = sympy.symbols("r v", positive=True)
    error = r * v / (1 - r)  # the fixed point of e = r (e + v)
    theta, beta = 1 - r, r**2 / (1 - r)
    assert sympy.simplify((1 - theta) * error**2 + beta * v**2 - error**2) == 0


def test_the_lemma_bounds_any_pair_and_is_reached():
    rng, r = np.random.default_rng(0), 0.7
    theta, beta = ef21.factors(1 - r**2)
    e, v = rng.standard_normal((2, 100_000))
    ratio = (r * (e + v)) ** 2 / ((1 - theta) * e**2 + beta * v**2)
    assert 0.9999 < ratio.max() <= 1 + 1e-12


def test_the_theorems_bounds_in_exact_numbers():
    """alpha = 15/16, L = mu = 2 in 3 dimensions from ones: f_0 = 3, ||grad||^2 = 12, G_0 = 12/16."""
    quarter = sympy.Rational(1, 4)
    theta, beta = 1 - quarter, quarter**2 / (1 - quarter)
    gamma = 1 / (2 * (1 + sympy.sqrt(beta / theta)))
    found = ef21.nonconvex(shrinking(ALPHA, ALPHA, largest(ALPHA), 20))
    for count, bound in zip(found.steps, found.bound, strict=True):
        exact = 2 * 3 / (gamma * int(count)) + sympy.Rational(12, 16) / (theta * int(count))
        assert bound == pytest.approx(float(exact), rel=1e-13)
    found = ef21.pl(shrinking(ALPHA, ALPHA, 0.01, 20))
    gamma = sympy.Rational(1, 100)
    for count, bound in zip(found.steps, found.bound, strict=True):
        exact = (1 - 2 * gamma) ** int(count) * (3 + gamma / theta * sympy.Rational(12, 16))
        assert bound == pytest.approx(float(exact), rel=1e-13)


def test_both_sides_from_the_run_itself():
    """Two workers, top-3 of 12, written down anew in numpy."""
    a, step = torch.linspace(0.5, 2, 12).double().numpy(), 0.02
    evidence = bowl("ef21(topk(density=0.25))", step)
    x, h, gradients, errors, moved = np.ones(12), np.zeros(12), [], [], []
    for _ in range(40):
        g = a * x
        difference = g - h
        chosen = np.argsort(-np.abs(difference), kind="stable")[:3]
        h[chosen] = g[chosen]
        errors.append(((h - g) ** 2).sum())
        moved.append(g)
        gradients.append((g**2).sum())
        x = x - step * h
    found = ef21.lemma(evidence)
    theta, beta = ef21.factors(0.25)
    np.testing.assert_allclose(found.values[0], errors[1:], rtol=1e-9, atol=1e-20)
    drift = np.square(np.diff(moved, axis=0)).sum(axis=1)
    np.testing.assert_allclose(found.bound, (1 - theta) * np.array(errors[:-1]) + beta * drift, rtol=1e-9)
    found = ef21.nonconvex(evidence)
    np.testing.assert_allclose(found.values[0, -1], np.mean(gradients), rtol=1e-12)
    assert found.bound[-1] == pytest.approx((a.sum() / step + errors[0] / theta) / 40)


@pytest.mark.parametrize(
    ("check", "doubled", "text"),
    [
        (ef21.nonconvex, 1, "a learning rate of at most 1 / (L + L~ sqrt(beta / theta))"),
        (ef21.pl, 2, "a learning rate of at most 1 / (L + L~ sqrt(2 beta / theta))"),
    ],
)
def test_the_largest_step(check, doubled, text):
    theta, beta = 1 - 0.75**0.5, 0.75 / (1 - 0.75**0.5)
    most = 1 / (2 + 2 * (doubled * beta / theta) ** 0.5)
    assert verdict(check(bowl("ef21(topk(density=0.25))", most)))[0] == Verdict.HOLDS
    refused, reason = verdict(check(bowl("ef21(topk(density=0.25))", 1.001 * most)))
    assert refused == Verdict.NOT_APPLICABLE
    assert reason == f"{text}: {1.001 * most:.4g}, allowed {most:.4g}"


def test_the_second_theorem_needs_a_step_of_theta_over_2_mu():
    problem = NoisyQuadratic(torch.full((12,), 2.0), 0.0, 1, torch.ones(12))
    evidence = Trial(problem, parse_scheme("ef21(topk(density=0.75))"), (0.16,) * 9, (0, 1)).run()
    assert verdict(ef21.pl(evidence))[1] == "a learning rate of at most theta / (2 mu): 0.16, allowed 0.125"


def test_workers_with_objectives_of_their_own():
    evidence = Trial(three_pulls(1.0), parse_scheme("ef21(topk(density=0.3))"), (0.001,) * 300, (0, 1)).run()
    assert verdict(ef21.lemma(evidence))[0] == Verdict.HOLDS
    assert verdict(ef21.nonconvex(evidence))[0] == Verdict.HOLDS
    assert verdict(ef21.pl(evidence))[0] == Verdict.HOLDS
    unknown = replace(evidence, facts=replace(evidence.facts, own_smoothness=None))
    reason = "L_i of the workers' own objectives: there is none, or it is not known"
    assert verdict(ef21.nonconvex(unknown)) == (Verdict.NOT_APPLICABLE, reason)


def test_drawn_entries():
    evidence = bowl("ef21(randomk(density=0.5))", 0.05, steps=30, seeds=tuple(range(30)))
    assert not evidence.exact
    assert {verdict(check(evidence))[0] for check in (ef21.lemma, ef21.nonconvex, ef21.pl)} == {Verdict.HOLDS}


def test_noise_leaves_the_lemma_and_ends_the_theorems():
    evidence = bowl("ef21(topk(density=0.25))", 0.02, noise=0.5, steps=20, seeds=tuple(range(30)))
    assert verdict(ef21.lemma(evidence))[0] == Verdict.HOLDS
    for check in (ef21.nonconvex, ef21.pl):
        assert verdict(check(evidence)) == (Verdict.NOT_APPLICABLE, "gradients without noise")


def test_other_memories():
    assert verdict(ef21.lemma(bowl("ef(topk(density=0.25))", 0.02)))[1] == "EF21 around the scheme"


def test_a_lower_bound_of_f_serves_the_first_theorem_only():
    evidence = bowl("ef21(topk(density=0.25))", 0.02)
    lower = replace(evidence, facts=replace(evidence.facts, least=Constant(-1.0, "sampled")))
    assert verdict(ef21.nonconvex(lower))[0] == Verdict.HOLDS
    assert verdict(ef21.pl(lower)) == (Verdict.NOT_APPLICABLE, "f* is known")
