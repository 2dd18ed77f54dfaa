"""Water-filling against the published algorithm, a bisection, and the conditions of the optimum."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize

from gradwire.compressors.sparsifiers.waterfill import probabilities

from .laws import algorithm_1

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""


def found(magnitudes: NDArray[np.float64], budget: float) -> NDArray[np.float64]:
    return probabilities(torch.from_numpy(np.atleast_2d(magnitudes)), budget).numpy()


def test_unbalanced_vector_by_hand():
    """10 x 2 > 13, so the first is certain and the others share what is left."""
    p = probabilities(torch.tensor([[10.0, 1, 1, 1], [1, 1, 10, 1]]), 2)
    third = pytest.approx(1 / 3, rel=1e-15)
    assert p.tolist() == [[1, third, third, third], [third, third, 1, third]]


def test_regression_probabilities_are_not_clipped_once():
    """Clipping s m / sum(m) at 1 leaves budget unused: 1 + 3 x 2/13 = 1.46 of 2."""
    assert float(probabilities(torch.tensor([[10.0, 1, 1, 1]]), 2).sum()) == pytest.approx(2, rel=1e-15)


@given(
    row=st.lists(st.one_of(st.floats(0, 1e30), st.integers(0, 3).map(float)), min_size=1, max_size=40),
    budget=st.floats(0.01, 50),
)
@settings(PATIENT, max_examples=300)
def test_equals_algorithm_1(row, budget):
    values = np.array(row)
    # Two ways of adding 40 values, and a decision that either may take at a tie, where both give the same; the smallest
    # probabilities are subnormal, multiples of 2^-1074.
    np.testing.assert_allclose(found(values, budget)[0], algorithm_1(values, budget), rtol=1e-13, atol=2.0**-1074)


@pytest.mark.parametrize("budget", [1, 7, 31.5, 150, 399])
@pytest.mark.parametrize("power", [0, 1, 4])
def test_solves_the_equation_for_c(budget, power):
    m = np.abs(np.random.default_rng(power).standard_normal(400)) ** power
    c = brentq(lambda c: float(np.minimum(1, c * m).sum()) - budget, 0, 2 * budget / m.min(), xtol=1e-300, rtol=1e-14)
    np.testing.assert_allclose(found(m, budget)[0], np.minimum(1, c * m), rtol=1e-12)


def test_has_least_variance():
    """A general optimiser on sum m^2 / p, under the budget, gets as low and no lower."""
    m, budget = np.array([5.0, 3, 1, 0.5, 0.1]), 2.5
    p = found(m, budget)[0]
    start = np.full(5, budget / 5)
    rule = {"type": "eq", "fun": lambda p: p.sum() - budget}
    best = minimize(lambda p: np.sum(m**2 / p), start, bounds=[(1e-3, 1)] * 5, constraints=rule, tol=1e-12)
    assert np.sum(m**2 / p) == pytest.approx(best.fun, rel=1e-6)  # the optimiser's own accuracy
    np.testing.assert_allclose(p, best.x, atol=1e-3)


def test_balanced_and_general_second_moments():
    """Sum m^2 / p is |m|_1^2 / s while nothing is certain, else sum of squares + tail^2 / (s - certain)."""
    m = np.random.default_rng(0).uniform(0.5, 1, 50)
    assert np.sum(m**2 / found(m, 10)[0]) == pytest.approx(m.sum() ** 2 / 10, rel=1e-13)
    m[:3] = 100, 200, 300
    assert np.sum(m**2 / found(m, 10)[0]) == pytest.approx(np.sum(m[:3] ** 2) + m[3:].sum() ** 2 / 7, rel=1e-13)


def test_zeros_are_never_drawn_and_few_others_always():
    m = torch.tensor([[0.0, 2, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    assert probabilities(m, 2).tolist() == [[0, 1, 0, 1, 0], [0] * 5, [pytest.approx(0.4, rel=1e-15)] * 5]
    assert probabilities(m, 5).tolist() == [[0, 1, 0, 1, 0], [0] * 5, [1] * 5]


def test_regression_zeros_beside_entries_of_extreme_ratio_are_no_nan():
    """The tail of 1e-285 over a largest of 2e23 was subnormal, its reciprocal infinite."""
    assert found(np.array([0.0, 2e23, 1e-285]), 2)[0].tolist() == [0, 1, 1]


@pytest.mark.parametrize("scale", [2.0**100, 2.0**-140])
def test_scale_of_float32_does_not_matter(scale):
    m = torch.randn(2, 100, generator=torch.Generator().manual_seed(0)).abs()
    m = (m * 2.0**8).round() / 2.0**8  # so that nothing is lost among the subnormals
    assert torch.equal(probabilities(m * scale, 9), probabilities(m, 9))


def test_long_rows_do_not_depend_on_their_neighbours_or_on_threads():
    m = torch.randn(3, 50_001, generator=torch.Generator().manual_seed(0)).pow(3).abs()
    together = probabilities(m, 500)
    assert torch.equal(torch.cat([probabilities(row[None], 500) for row in m]), together)
    torch.set_num_threads(2)  # the module's fixture sets it back
    assert torch.equal(probabilities(m, 500), together)
    torch.set_num_threads(1)
    assert together.sum(1).tolist() == pytest.approx([500] * 3, rel=1e-12)
