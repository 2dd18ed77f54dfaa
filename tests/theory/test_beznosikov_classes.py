"""The classes of Beznosikov et al. 2020: their inclusions, and the constants of real operators."""

import numpy as np
import pytest
import sympy

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.constants import standard_vectors
from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.results.beznosikov_classes import (
    OPERATOR_CHECKS,
    from_b1,
    from_b2,
    from_b3,
    measured_classes,
    stated_classes,
)
from gradwire.compressors.spec import parse_scheme

RNG = np.random.default_rng(8)
TINY = 1e-12


def random_operator(draws: np.random.Generator) -> tuple[float, float]:
    """Return E||C||^2 and <E C, x> of some operator at an x of norm 1: any with E||C||^2 >= <E C, x>^2."""
    inner = draws.uniform(0.01, 2)
    return inner**2 * (1 + draws.exponential()), inner


def test_inclusions_hold_for_any_operator():
    """Whatever constants an operator's two moments allow in one class, those of the other classes follow."""
    draws = np.random.default_rng(1)
    for _ in range(500):
        energy, inner = random_operator(draws)
        b = energy / inner * draws.uniform(1, 2)
        a, g = energy * draws.uniform(0.1, 1), inner * draws.uniform(0.1, 1)
        g_of_b1, b_of_b1 = from_b1(a, b)
        assert max(g_of_b1, energy / b_of_b1) <= inner + TINY
        (a_of_b2, b_of_b2), delta = from_b2(g, b)
        assert a_of_b2 <= energy + TINY
        assert energy <= b_of_b2 * inner + TINY
        assert energy / b**2 - 2 * inner / b <= -1 / delta + TINY
        if (lost := 1 + energy - 2 * inner) < 1:
            (a3, b3), (g3, h3) = from_b3(1 / (1 - lost))
            assert a3 <= energy + TINY
            assert energy <= b3 * inner + TINY
            assert max(g3, energy / h3) <= inner + TINY


def test_scaled_random_k_attains_what_follows_from_b1_and_b2():
    """Of x of norm 1, E||C||^2 = zeta and <E C, x> = 1: in B1(zeta, zeta), B2(1, zeta), and C / zeta in B3(zeta)."""
    zeta = sympy.Symbol("zeta", positive=True)
    energy, inner = zeta, sympy.Integer(1)
    g, b = from_b1(energy, energy / inner)
    assert sympy.simplify(g - inner) == 0
    _, delta = from_b2(g, b)
    assert sympy.simplify(1 + energy / b**2 - 2 * inner / b - (1 - 1 / delta)) == 0
    (a3, b3), (g3, h3) = from_b3(delta)
    assert (sympy.simplify(a3 - g3**2), b3, h3) == (0, 2, 2)


def test_stated_classes_of_the_papers_table():
    """top-k: B1(k/d, 1), B2(k/d, 1), B3(d/k); unbiased: B1(1, zeta), B2(1, zeta), C / zeta in B3(zeta)."""
    top = stated_classes(1 - 0.25, unbiased=False, selects=True)
    assert (top.a, top.b1, top.g, top.b2, top.delta, top.scale) == (0.25, 1, 0.25, 1, 4, 1)
    assert top.rates == (0.25, 0.25, 0.25)
    free = stated_classes(3.0, unbiased=True, selects=False)
    assert (free.a, free.b1, free.g, free.b2, free.delta, free.scale) == (1, 4, 1, 4, 4, 4)
    assert free.rates == (1 / 16, 1 / 4, 1 / 4)
    other = stated_classes(1 - 0.25, unbiased=False, selects=False)
    assert ((other.a, other.b1), (other.g, other.b2)) == from_b3(4)
    assert stated_classes(1.0, unbiased=False, selects=False).delta == np.inf


def test_measured_classes_of_top_k_are_the_kept_parts():
    """<C, x> = ||C||^2 = alpha(k); the least over the vectors."""
    vectors = {"normal": RNG.standard_normal(20), "flat": np.ones(20)}
    alpha = np.sort(vectors["normal"] ** 2)[-5:].sum() / np.square(vectors["normal"]).sum()
    alone = measured_classes(Probe(parse_scheme("topk(density=0.25)"), {"normal": vectors["normal"]}))
    assert (alone.a, alone.b1, alone.g, alone.b2, 1 / alone.delta) == pytest.approx((alpha, 1, alpha, 1, alpha))
    both = measured_classes(Probe(parse_scheme("topk(density=0.25)"), vectors))
    assert (both.a, both.g, both.delta) == pytest.approx((0.25, 0.25, 4))


def test_measured_classes_of_an_unbiased_operator():
    vectors = {"normal": RNG.standard_normal(20)}
    found = measured_classes(Probe(parse_scheme("randomk(density=0.25, scaled=True)"), vectors, draws=4000))
    assert found.scale == pytest.approx(4)
    assert (found.b1, found.b2) == pytest.approx((4, 4), rel=1e-12)  # ||C||^2 = 4 <C, x> in every draw
    assert (found.a / 4, found.g, found.delta / 4) == pytest.approx((1, 1, 1), rel=0.06)


@pytest.mark.parametrize(
    "text",
    ["topk(density=0.2)", "randomk(density=0.2)", "randomk(density=0.2, scaled=True)", "natural", "scaledsign",
     "qsgd(bits=2, norm=l2)", "int8", "onebit"],
)  # fmt: skip
def test_real_schemes_are_in_their_classes(text):
    vectors = {name: v for name, v in standard_vectors(20).items() if name in ("flat", "normal", "one entry", "sparse")}
    judged = judge([check.examine(Probe(parse_scheme(text), vectors, draws=200)) for check in OPERATOR_CHECKS])
    assert [one.verdict for one in judged] == [Verdict.HOLDS] * 3


@pytest.mark.parametrize("check", OPERATOR_CHECKS, ids=lambda check: check.statement.name)
@pytest.mark.parametrize("text", ["sharedqsgd", "graddrop"])
def test_schemes_without_a_constant_are_not_judged(check, text):
    (judged,) = judge([check.examine(Probe(parse_scheme(text), {"x": np.ones(20)}, draws=30))])
    assert judged.verdict == Verdict.NOT_APPLICABLE
    assert judged.reason == "unbiased of stated variance, or a contraction"
