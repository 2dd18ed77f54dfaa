"""The statements of Wangni et al. 2018: the closed form by general optimisation, the lemma by its proof."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.constants import standard_vectors
from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.results import wangni2018
from gradwire.analysis.theory.results.atomo2018 import water_level
from gradwire.analysis.theory.results.wangni2018 import approximate_sparsity, closed_form, greedy
from gradwire.compressors.sparsifiers.wangni import Wangni
from gradwire.compressors.spec import parse_scheme


def heavy(seed: int, size: int = 8) -> np.ndarray:
    return np.abs(np.random.default_rng(seed).standard_t(2, size))


@pytest.mark.parametrize("eps", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_closed_form_against_general_optimisation(seed, eps):
    m = heavy(seed)
    allowed = (1 + eps) * np.square(m).sum()
    found = minimize(
        lambda p: p.sum(),
        np.full(8, 0.9),
        jac=np.ones_like,
        bounds=[(1e-6, 1)] * 8,
        constraints={
            "type": "ineq",
            "fun": lambda p: 1 - (m**2 / p).sum() / allowed,
            "jac": lambda p: m**2 / p**2 / allowed,
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 2000},
    )
    assert closed_form(m, eps).sum() == pytest.approx(found.fun, rel=1e-6)


@pytest.mark.parametrize("eps", [1e-3, 0.2, 1.0, 20.0])
@pytest.mark.parametrize("seed", range(25))
def test_closed_form_spends_the_variance_and_is_the_water_filling_of_its_sum(seed, eps):
    m = heavy(seed, 30)
    m[seed % 30] = 0
    p = closed_form(m, eps)
    own = m > 0
    assert (m[own] ** 2 / p[own]).sum() == pytest.approx((1 + eps) * np.square(m).sum(), rel=1e-12)
    np.testing.assert_allclose(p, water_level(m, p.sum()), rtol=1e-9, atol=1e-15)
    level = brentq(
        lambda c: (m[own] ** 2 / np.minimum(1, c * m[own])).sum() / np.square(m).sum() - 1 - eps, 1e-9, 1e9, xtol=1e-14
    )
    np.testing.assert_allclose(p, np.minimum(1, level * m), rtol=1e-7)


@pytest.mark.parametrize("budget", [1, 4.5, 20, 28])
@pytest.mark.parametrize("seed", range(10))
def test_greedy_ends_at_the_water_filling(seed, budget):
    m = heavy(seed, 30)
    np.testing.assert_allclose(greedy(m, budget), water_level(m, budget), rtol=1e-9)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [1, 3, 9])
def test_sparsity_follows_from_probabilities_that_do(seed, count):
    """The proof's: 1 in S, min(1, t |x_i|) outside with t = ||x outside||_1 / (rho ||x in S||^2)."""
    m = np.sort(heavy(seed, 20))[::-1]
    rho, inside, outside = approximate_sparsity(m, count), m[:count], m[count:]
    assert rho == pytest.approx(outside.sum() / inside.sum())
    p = np.concatenate([np.ones(count), np.minimum(1, outside * outside.sum() / (rho * np.square(inside).sum()))])
    assert (m**2 / p).sum() <= (1 + rho) * np.square(m).sum() * (1 + 1e-12)
    assert closed_form(m, rho).sum() <= p.sum() * (1 + 1e-12) <= (1 + rho) * count * (1 + 1e-9)


def test_sparsity_is_attained():
    """Three entries of 1 and 3000 of 1e-4: rho = 0.1, and 3.3 entries are sent, all but a few parts in 10^4."""
    m = np.concatenate([np.ones(3), np.full(3000, 1e-4)])
    assert approximate_sparsity(m, 3) == pytest.approx(0.1)
    assert closed_form(m, 0.1).sum() == pytest.approx(3.3, rel=1e-3)


@pytest.mark.parametrize(
    "text", ["wangni(density=0.2)", "atomo(budget=2.5, basis=elements)", "cat(operator=stochastic)"]
)
def test_real_samplers_keep_the_statements(text):
    vectors = {name: standard_vectors(40)[name] for name in ("normal", "unbalanced", "heavy tail", "sparse")}
    judged = judge([check.examine(Probe(parse_scheme(text), vectors)) for check in wangni2018.OPERATOR_CHECKS])
    assert {one.verdict for one in judged} == {Verdict.HOLDS}


def test_the_sides_are_those_of_the_scheme():
    vector = standard_vectors(30)["normal"]
    finding = wangni2018.closed_form_count(Probe(Wangni(0.3), {"x": vector}))
    assert finding.bound == pytest.approx([9])
    expected = (vector**2 / water_level(np.abs(vector), 9)).sum()  # of norm 1
    assert wangni2018.constraint(Probe(Wangni(0.3), {"x": vector})).bound == pytest.approx([expected])


@pytest.mark.parametrize("check", wangni2018.OPERATOR_CHECKS, ids=lambda check: check.statement.name)
def test_other_schemes_are_not_judged(check):
    (judged,) = judge([check.examine(Probe(parse_scheme("topk"), {"x": np.ones(20)}))])
    assert judged.verdict == Verdict.NOT_APPLICABLE
    assert judged.reason == "entries sampled independently, with probabilities of least variance"
