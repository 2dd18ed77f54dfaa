"""The statements of Wang et al. 2018: their right sides by other algorithms, and by general optimisation."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import minimize

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.constants import standard_vectors
from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.results import atomo2018
from gradwire.analysis.theory.results.atomo2018 import least_second_moment, s_balanced, water_level
from gradwire.compressors.lowrank.atomo import Atomo
from gradwire.compressors.quantizers.qsgd import QSGD
from gradwire.compressors.quantizers.terngrad import TernGrad
from gradwire.compressors.sparsifiers.wangni import Wangni
from gradwire.compressors.spec import parse_scheme

from .atomo_cases import ONE_LEVEL_QUANTIZERS, indifferent

RNG = np.random.default_rng(11)


def algorithm_1(magnitudes: list[int], budget: Fraction) -> list[Fraction]:
    """Run the paper's loop in exact arithmetic; magnitudes descend."""
    p, i = [Fraction(0)] * len(magnitudes), 0
    while i < len(magnitudes):
        tail = sum(magnitudes[i:])
        if magnitudes[i] * budget <= tail:
            return p[:i] + [m * budget / tail for m in magnitudes[i:]]
        p[i], budget, i = Fraction(1), budget - 1, i + 1
    return p


@pytest.mark.parametrize("budget", [Fraction(1), Fraction(7, 2), Fraction(5), Fraction(19, 2)])
@pytest.mark.parametrize("seed", range(6))
def test_water_level_is_algorithm_1(budget, seed):
    draws = np.random.default_rng(seed)
    magnitudes = sorted((int(m) for m in np.ceil(10 * np.abs(draws.standard_t(1.2, 12)))), reverse=True)
    exact = algorithm_1(magnitudes, budget)
    values = np.array(magnitudes, dtype=float)
    np.testing.assert_allclose(water_level(values, float(budget)), [float(p) for p in exact], rtol=1e-12)
    second = sum(Fraction(m * m) / p for m, p in zip(magnitudes, exact, strict=True))
    assert least_second_moment(values, float(budget)) == pytest.approx(float(second), rel=1e-12)


def test_second_moment_by_hand():
    """10, 1, 1, 1 with 2 atoms: p = 1, 1/3, 1/3, 1/3, and 100 + 9 = 109; balanced ones: ||x||_1^2 / s."""
    assert least_second_moment(np.array([1.0, 10, 1, 1]), 2) == pytest.approx(109, rel=1e-15)
    assert water_level(np.array([1.0, 10, 1, 1, 0]), 2) == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3, 0], rel=1e-14)
    assert least_second_moment(np.array([3.0, 2, 2, 1]), 2) == pytest.approx(32, rel=1e-15)
    assert least_second_moment(np.array([3.0, 2, 0]), 2) == pytest.approx(13, rel=1e-15)
    finding = atomo2018.second_moment(Probe(Wangni(0.5), {"x": np.array([10.0, 1, 1, 1])}, draws=1000))
    assert finding.bound == pytest.approx([109 / 103], rel=1e-14)
    assert finding.values.mean() * 103 == pytest.approx(109, abs=4.5 * finding.values.std() * 103 / 1000**0.5)


@pytest.mark.parametrize("seed", range(4))
def test_least_second_moment_against_general_optimisation(seed):
    m = np.abs(np.random.default_rng(seed).standard_t(2, 7))
    found = minimize(
        lambda p: float((m**2 / p).sum()),
        np.full(7, 3 / 7),
        jac=lambda p: -(m**2) / p**2,
        bounds=[(1e-6, 1)] * 7,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 3},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert least_second_moment(m, 3) == pytest.approx(found.fun, rel=1e-6)


@pytest.mark.parametrize(
    "scheme", [Wangni(0.2), Atomo(4.5, "elements"), parse_scheme("cat(operator=stochastic)")], ids=str
)
def test_real_samplers_keep_the_statements(scheme):
    """CAT is given a cost for which it chooses some entries of 150, and not all."""
    vectors = {name: standard_vectors(150)[name] for name in ("flat", "heavy tail", "one entry")}
    probe = Probe(scheme, vectors, draws=200)
    checks = (atomo2018.inclusion, atomo2018.second_moment, atomo2018.optimal)
    assert [one.verdict for one in judge([check(probe) for check in checks])] == [Verdict.HOLDS] * 3


@pytest.mark.parametrize("scheme", ONE_LEVEL_QUANTIZERS, ids=str)
def test_one_level_quantizers_have_the_product_of_norms_as_second_moment(scheme):
    """And that is the least for their expected number of entries, as they are always s-balanced."""
    vectors = {name: standard_vectors(20)[name] for name in ("normal", "unbalanced", "four thirds")}
    finding = atomo2018.one_level(Probe(scheme, vectors, draws=300))
    order = 2 if isinstance(scheme, QSGD) and scheme.norm == "l2" else math.inf
    products = [np.abs(v).sum() * np.linalg.norm(v, order) for v in vectors.values()]
    assert finding.bound == pytest.approx(products, rel=1e-12)  # the vectors have norm 1
    assert judge([finding])[0].verdict == Verdict.HOLDS
    assert all(s_balanced(np.abs(v), np.abs(v).sum() / np.linalg.norm(v, order)) for v in vectors.values())


@pytest.mark.parametrize(("rows", "columns"), [(1, 5), (2, 2), (2, 5), (4, 4), (3, 2)])
def test_of_all_ones_singular_vectors_are_better_where_a_plus_b_is_at_most_a_b(rows, columns):
    """||X||_* = sqrt(a b) and the entries' sum is a b."""
    finding = atomo2018.spectral(Probe(Atomo(1.0), {"ones": np.ones((rows, columns))}, draws=30))
    better = finding.conditions[-2]
    assert better.holds == (rows + columns <= rows * columns)


def test_the_bases_are_equally_good_for_the_sharp_matrix():
    x = indifferent()
    sigma = np.linalg.svd(x, compute_uv=False)
    assert np.sqrt(12) * sigma.sum() == pytest.approx(x.sum(), rel=1e-14)
    spectral, entries = least_second_moment(sigma, 1.5), least_second_moment(x.reshape(-1), 18)
    assert spectral == pytest.approx(entries, rel=1e-12)
    finding = atomo2018.spectral(Probe(Atomo(1.5), {"x": x}, draws=400))
    assert finding.bound * np.square(x).sum() == pytest.approx([entries], rel=1e-12)
    assert finding.values.mean() == pytest.approx(finding.bound[0], abs=4.5 * finding.values.std() / 20)


@pytest.mark.parametrize(
    ("check", "scheme", "vector", "reason"),
    [
        (atomo2018.inclusion, Atomo(2.0), np.ones((3, 3)), "entries sampled independently"),
        (atomo2018.optimal, QSGD(2), np.ones(9), "entries sampled independently"),
        (atomo2018.one_level, TernGrad(), np.ones(9), "QSGD of one level"),
        (atomo2018.one_level, QSGD(2, bucket=4), np.ones(9), "QSGD of one level"),
        (atomo2018.spectral, Wangni(0.5), np.ones((3, 3)), "ATOMO with singular vectors"),
        (atomo2018.spectral, Atomo(1.0), np.eye(6), "sqrt(a + b) times the nuclear norm"),
        (atomo2018.spectral, Atomo(3.0), np.ones((4, 4)), "s-balanced"),
    ],
)
def test_other_schemes_and_vectors_are_not_judged(check, scheme, vector, reason):
    (judged,) = judge([check(Probe(scheme, {"x": vector}, draws=30))])
    assert judged.verdict == Verdict.NOT_APPLICABLE
    assert judged.reason.startswith(reason)
