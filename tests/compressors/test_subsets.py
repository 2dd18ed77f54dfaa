"""Random positions against exact distributions, on both ways of drawing."""

from collections import Counter
from itertools import combinations
from math import comb

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, hypergeom

from gradwire.compressors.keys import Purpose, stream
from gradwire.compressors.sparsifiers import subsets
from gradwire.compressors.sparsifiers.subsets import positions, subset

LEVEL = 1e-9
"""Chance of one of a test's comparisons to fail although the draws are right, divided by their number."""


def bits(step: int) -> np.random.Philox:
    return stream(1, Purpose.SELECTION, step, "u")


def assert_counts_follow(counts: NDArray[np.int64], draws: int, p: float) -> None:
    tail = 2 * np.minimum(binom.cdf(counts, draws, p), binom.sf(counts - 1, draws, p))
    assert tail.min() > LEVEL / np.size(counts)


@pytest.mark.parametrize("sorting", [False, True], ids=["marked", "sorted"])
@pytest.mark.parametrize(("size", "count"), [(6, 2), (5, 2), (6, 3), (7, 6), (6, 4)])
def test_every_subset_is_equally_likely(size, count, sorting, monkeypatch):
    monkeypatch.setattr(subsets, "_SORTED_BELOW", 1.0 if sorting else 0.0)
    draws = Counter(tuple(subset(bits(step), size, count).tolist()) for step in range(3000))
    every = list(combinations(range(size), count))
    assert set(draws) == set(every)
    assert_counts_follow(np.array([draws[chosen] for chosen in every]), 3000, 1 / comb(size, count))


@pytest.mark.parametrize("sorting", [False, True], ids=["marked", "sorted"])
@pytest.mark.parametrize(
    ("size", "count"), [(1, 0), (1, 1), (9, 9), (1000, 1), (100_000, 700), (3000, 1499), (3000, 2900)]
)
def test_positions_are_distinct_ascending_and_in_range(size, count, sorting, monkeypatch):
    monkeypatch.setattr(subsets, "_SORTED_BELOW", 1.0 if sorting else 0.0)
    found = subset(bits(0), size, count)
    assert found.dtype == np.int64
    assert len(found) == count
    assert (np.diff(found) > 0).all()
    assert count == 0 or 0 <= found[0] <= found[-1] < size


@pytest.mark.parametrize("sorting", [False, True], ids=["marked", "sorted"])
def test_how_many_of_a_half_are_drawn_is_hypergeometric(sorting, monkeypatch):
    """What is drawn with replacement, or topped up unevenly, would be spread too widely or lean to one side."""
    monkeypatch.setattr(subsets, "_SORTED_BELOW", 1.0 if sorting else 0.0)
    counts = Counter(int((subset(bits(step), 60, 30) < 25).sum()) for step in range(2000))
    for k in range(26):
        assert_counts_follow(np.array([counts[k]]), 2000, float(hypergeom.pmf(k, 60, 25, 30)))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 33])
def test_positions_with_replacement_are_uniform(size):
    drawn = np.concatenate([positions(bits(step), size, 100) for step in range(100)])
    assert_counts_follow(np.bincount(drawn, minlength=size), 10_000, 1 / size)


def test_positions_reach_the_ends_of_large_ranges():
    drawn = positions(bits(0), 2**32 - 5, 20_000)
    assert drawn.max() > 0.999 * 2**32
    assert drawn.min() < 0.001 * 2**32


@pytest.mark.parametrize(("size", "count"), [(100, 3), (64, 30), (1000, 500), (70_000, 700)])
def test_all_ways_of_drawing_choose_the_same(size, count):
    """A set of bits, a row of marks and sorted numbers hold the same positions."""
    by_bitmap, by_sorting = (way(bits(0), size, count) for way in (subsets._by_bitmap, subsets._by_sorting))
    assert by_bitmap.tolist() == by_sorting.tolist() == subset(bits(0), size, count).tolist()
    assert by_bitmap.dtype == np.int64
