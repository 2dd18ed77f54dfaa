"""The descent lemmas of CAT: the fractions and bounds against their definitions, computed in other ways."""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.evidence import Constant
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import NoisyQuadratic
from gradwire.analysis.theory.results import khirirat2020
from gradwire.compressors.adaptive import CAT
from gradwire.compressors.spec import parse_scheme

from .khirirat_cases import SMALL, heavy, hubers, isotropic

INTEGERS = [3, -7, 2, 5, -1, 4]
CURVATURES = torch.linspace(0.2, 2.0, 12)
ALL = (khirirat2020.sparsified, khirirat2020.product, khirirat2020.gradients)


def bowl(scheme, rates, curvatures=CURVATURES, noise=0.0, workers=1, seeds=(0, 1)):
    start = 1 / torch.arange(1, len(curvatures) + 1).double()
    return Trial(NoisyQuadratic(curvatures, noise, workers, start), parse_scheme(scheme), rates, seeds).run()


def verdict(finding):
    (judged,) = judge([finding])
    return judged.verdict, judged.reason


@pytest.mark.parametrize("k", range(1, 7))
def test_alpha_is_the_best_share_of_any_k_entries(k):
    best = max(sum(Fraction(v) ** 2 for v in chosen) for chosen in combinations(INTEGERS, k))
    share = best / sum(Fraction(v) ** 2 for v in INTEGERS)
    found = khirirat2020.fraction(parse_scheme(f"topk(density={(k - 0.5) / 6:.4f})"), np.array(INTEGERS, dtype=float))
    assert found == pytest.approx(float(share), rel=1e-14)


def test_beta_is_what_the_best_step_along_the_signs_gains():
    # At the best step, f = L/2 ||x||^2 falls by <g, q>^2 / (2 L ||q||^2) along q.
    g = np.array(INTEGERS, dtype=float)
    scheme = CAT("sq", **SMALL)
    count = scheme.choose(torch.tensor(g))
    q = np.where(np.isin(np.abs(g), np.sort(np.abs(g))[::-1][:count]), np.sign(g), 0)
    assert khirirat2020.fraction(scheme, g) == pytest.approx((g @ q) ** 2 / (q @ q) / (g @ g), rel=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_omega_is_that_of_the_water_level_that_scipy_finds(seed):
    g = np.random.default_rng(seed).standard_normal(30) ** 3
    scheme = CAT("stochastic", **SMALL)
    count = scheme.choose(torch.tensor(g))
    level = brentq(lambda c: np.minimum(1, c * np.abs(g)).sum() - count, 0, 1e9, xtol=1e-14)
    omega = (g @ g) / np.sum(g**2 / np.minimum(1, level * np.abs(g)))
    assert khirirat2020.fraction(scheme, g) == pytest.approx(omega, rel=1e-6)


def test_other_schemes_have_no_fraction():
    assert khirirat2020.fraction(parse_scheme("natural"), np.ones(3)) is None


@pytest.mark.parametrize("operator", ["top", "sq"])
def test_equality_at_every_step_where_the_curvature_is_the_same_everywhere(operator):
    evidence = Trial(isotropic(heavy(40)), CAT(operator, **SMALL), (0.5,) * 8, (0, 1)).run()
    check = khirirat2020.sparsified if operator == "top" else khirirat2020.quantized
    for finding in (check(evidence), khirirat2020.product(evidence)):
        np.testing.assert_allclose(finding.values[0], finding.bound, rtol=1e-10, atol=1e-14)


def test_bounds_are_those_of_a_run_written_down_anew():
    """Top-3 of 12 on a quadratic, at a step other than 1/L, in numpy."""
    a, step, largest = CURVATURES.double().numpy(), 0.3, 2.0
    evidence = bowl("topk(density=0.25)", (step,) * 10)
    x = 1 / np.arange(1, 13)
    lemma, product, gained, f0 = [], [], [], (a * x**2).sum() / 2
    phi, so_far, rest = 2 * step * largest - (step * largest) ** 2, 0.0, f0
    for _ in range(10):
        g = a * x
        chosen = np.argsort(-np.abs(g))[:3]
        alpha = (g[chosen] ** 2).sum() / (g**2).sum()
        lemma.append((a * x**2).sum() / 2 - phi * alpha * (g**2).sum() / 2 / largest)
        rest *= 1 - phi * alpha * a.min() / largest
        product.append(rest)
        so_far += phi * alpha * (g**2).sum()
        gained.append(so_far)
        x[chosen] -= step * g[chosen]
    np.testing.assert_allclose(khirirat2020.sparsified(evidence).bound, lemma, rtol=1e-12)
    np.testing.assert_allclose(khirirat2020.product(evidence).bound, product, rtol=1e-12)
    found = khirirat2020.gradients(evidence)
    np.testing.assert_allclose(found.values[0], gained, rtol=1e-12)
    np.testing.assert_allclose(found.bound, 2 * largest * f0, rtol=1e-12)
    assert {verdict(check(evidence))[0] for check in ALL} == {Verdict.HOLDS}


def test_the_stochastic_lemma_holds_along_a_run_and_uses_the_best_step():
    evidence = Trial(NoisyQuadratic(CURVATURES, 0.0, 1, torch.ones(12)), CAT("stochastic", **SMALL), (0.1,) * 8,
                     tuple(range(40))).run()  # fmt: skip
    assert verdict(khirirat2020.stochastic(evidence))[0] == Verdict.HOLDS
    # 2 s - s^2 / omega is largest at the lemma's s = omega, where it is omega.
    s = np.linspace(0.01, 1, 500)
    assert (2 * s - s**2 / 0.3).max() == pytest.approx(0.3, rel=1e-4)


def test_numbers_of_steps():
    """The formulas with L = 1, mu = 1, f_0 - f* = 20 and the least fraction 1/40."""
    evidence = Trial(isotropic(torch.ones(40)), parse_scheme("topk(density=0.025)"), (0.5,) * 60, (0, 1)).run()
    strong = khirirat2020.steps_strong(evidence)
    np.testing.assert_array_equal(strong.bound, np.ceil(40 * np.log(40 / strong.steps)))
    # Every step takes one of 40 equal parts.
    np.testing.assert_array_equal(strong.values[0], np.ceil((40 - strong.steps).round(9)))
    smooth = khirirat2020.steps_nonconvex(Trial(hubers(5, 6.0), parse_scheme("topk(density=0.2)"), (1 / 1.001,) * 300,
                                                (0, 1)).run())  # fmt: skip
    start = 5 * (5.5 + 0.001 * 18)
    np.testing.assert_array_equal(smooth.bound, np.ceil(2 * 1.001 * start * 5 / smooth.steps))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scheme": "ef(topk(density=0.25))"}, "no memory around the scheme"),
        ({"scheme": "randomk(density=0.25)"}, "the T largest entries are sent: cat(operator=top) or topk"),
        ({"scheme": "cat(operator=sq)"}, "the T largest entries are sent: cat(operator=top) or topk"),
        ({"scheme": "topk", "workers": 2}, "a single worker"),
        ({"scheme": "topk", "noise": 0.1}, "gradients without noise"),
    ],
)
def test_where_the_lemma_does_not_apply(changes, reason):
    finding = khirirat2020.sparsified(bowl(rates=(0.4,) * 5, **changes))
    assert verdict(finding) == (Verdict.NOT_APPLICABLE, reason)


def test_numbers_of_steps_need_the_step_1_over_l_and_a_run_that_is_long_enough():
    assert verdict(khirirat2020.steps_strong(bowl("topk", (0.4,) * 5)))[1] == "a constant learning rate of 1/L"
    short = khirirat2020.steps_strong(bowl("topk(density=0.1)", (0.5,) * 3))
    assert verdict(short)[1] == "the run is as long as the least of these numbers of steps"


def test_the_product_needs_steps_that_gain():
    """At 5/2 of 1/L every entry of curvature L grows by 3/2, faster than mu tells."""
    evidence = bowl("topk(density=1)", (1.25,) * 5)
    assert verdict(khirirat2020.product(evidence)) == (
        Verdict.NOT_APPLICABLE,
        "learning rates of at most 2/L: 1.25, allowed 1",
    )
    assert verdict(khirirat2020.sparsified(evidence))[0] == Verdict.HOLDS
    assert verdict(khirirat2020.gradients(evidence))[0] == Verdict.HOLDS


def test_a_smoothness_known_from_samples_decides_nothing():
    evidence = bowl("topk(density=0.25)", (0.4,) * 5)
    sampled = replace(evidence, facts=replace(evidence.facts, smoothness=Constant(2.0, "sampled")))
    assert verdict(khirirat2020.sparsified(sampled)) == (
        Verdict.NOT_REFUTED,
        "a smooth objective, its L = 2, only estimated",
    )
    wrong = replace(evidence, facts=replace(evidence.facts, smoothness=Constant(0.2, "sampled")))
    assert verdict(khirirat2020.sparsified(wrong))[0] == Verdict.INCONCLUSIVE
