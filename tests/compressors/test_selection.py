"""Top-k selection against a slow definition, on both of its code paths and on inputs that deceive a sample."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from gradwire.compressors.sparsifiers import selection
from gradwire.compressors.sparsifiers.selection import contenders, top_k

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

LIMIT = selection._BATCHED_BELOW
STRIDE = 3
LONG = STRIDE * selection._SAMPLE + LIMIT  # a sample takes one in several entries of such a row


def by_definition(row: NDArray[np.floating], k: int) -> list[int]:
    """Sort by magnitude, largest first, then by index; take k; list them ascending."""
    order = np.lexsort((np.arange(len(row)), -np.abs(row.astype(np.float64))))
    return sorted(order[:k].tolist())


def check(x: Tensor, k: int) -> None:
    found = top_k(x, k)
    assert found.dtype == torch.int64
    assert found.shape == (len(x), k)
    assert found.tolist() == [by_definition(row.double().numpy(), k) for row in x]


@given(
    rows=arrays(np.float32, (2, 60), elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    size=st.integers(1, 60),
    data=st.data(),
)
@settings(PATIENT, max_examples=200)
def test_short_rows_of_any_values(rows, size, data):
    check(torch.from_numpy(rows[:, :size]), data.draw(st.integers(1, size)))


@given(rows=arrays(np.int8, (3, 40), elements=st.integers(-2, 2)), k=st.integers(1, 40))
@settings(PATIENT, max_examples=200)
def test_short_rows_full_of_ties(rows, k):
    check(torch.from_numpy(rows.astype(np.float64)), k)


@given(
    size=st.integers(LIMIT - 3, 2 * LIMIT),
    density=st.sampled_from([1e-4, 0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0]),
    kinds=st.sampled_from([2, 5, 1000, 10**9]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(PATIENT, max_examples=40)
def test_rows_around_the_limit_with_few_and_many_ties(size, density, kinds, seed):
    values = np.random.default_rng(seed).integers(-kinds, kinds, (2, size)) / kinds
    check(torch.from_numpy(values), max(1, int(density * size)))


def deceptive() -> dict[str, NDArray[np.float32]]:
    """Return long rows of which a strided sample gives a wrong idea."""
    place = np.arange(LONG)
    stride = LONG // selection._SAMPLE
    noise = np.random.default_rng(0).standard_normal(LONG).astype(np.float32)
    return {
        "constant": np.full(LONG, -2.0),
        "zeros": np.zeros(LONG),
        "large where the sample looks": np.where(place % stride == 0, 5.0, 1.0) + 1e-3 * noise,
        "small where the sample looks": np.where(place % stride == 0, 1e-3, 1.0) + 1e-4 * noise,
        "all the mass between two sampled places": np.where(place == 1, 1e30, 0.0),
        "one huge block": np.where((place > 1000) & (place < 1400), 1e6, 1e-6) * noise,
        "ascending": place / LONG,
        "descending": 1 - place / LONG,
        "subnormal": noise * 1e-40,
        "two magnitudes": np.where(place % 2 == 0, 1.0, -1.0),
    }


@pytest.mark.parametrize("k", [1, 2, LONG // 1000, LONG // 100, LONG // 10, LONG // 2, LONG - 1, LONG])
@pytest.mark.parametrize("name", deceptive())
def test_long_rows_that_deceive_the_sample(name, k):
    check(torch.from_numpy(deceptive()[name].astype(np.float32))[None], k)


@pytest.mark.parametrize("k", [1, LONG // 100, LONG // 2, LONG])
@pytest.mark.parametrize("name", deceptive())
def test_contenders_are_all_that_reach_some_magnitude(name, k):
    row = deceptive()[name].astype(np.float32)
    found = contenders(torch.from_numpy(row), k)
    if found is None:  # all of them
        return
    assert len(found) >= k
    assert found.tolist() == np.flatnonzero(np.abs(row) >= np.abs(row[found.numpy()]).min()).tolist()


def test_contenders_are_few_where_a_sample_tells():
    row = torch.from_numpy(np.random.default_rng(2).standard_normal(LONG).astype(np.float32))
    found = contenders(row, LONG // 100)
    assert found is not None
    assert len(found) < LONG // 20


@pytest.mark.parametrize("size", [1, 2, 5, 1000, LIMIT - 1, LIMIT, LIMIT + 1, LONG])
def test_both_ways_of_selecting_agree(size):
    generator = torch.Generator().manual_seed(size)
    x = torch.randint(-50, 51, (2, size), generator=generator).double()
    for k in {1, max(1, size // 100), max(1, size // 3), max(1, size - 1)} - {size}:
        batched = selection._by_mask(x.abs(), k).tolist()
        assert batched == [selection._by_threshold(row.abs().numpy(), k).tolist() for row in x]


@pytest.mark.parametrize("size", [100, LIMIT + 1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_every_floating_dtype(size, dtype):
    x = torch.randn(2, size, generator=torch.Generator().manual_seed(1)).to(dtype)
    check(x, size // 10)


@pytest.mark.parametrize("size", [50, LIMIT + 50])
def test_zeros_of_either_sign_are_ties(size):
    x = torch.zeros(1, size)
    x[0, ::2] = -0.0
    assert top_k(x, 4).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("size", [50, LIMIT + 50])
def test_rows_that_are_not_contiguous(size):
    x = torch.randn(size, 3, generator=torch.Generator().manual_seed(2)).T
    assert torch.equal(top_k(x, 20), top_k(x.contiguous(), 20))
