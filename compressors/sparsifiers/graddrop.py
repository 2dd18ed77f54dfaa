"""Gradient dropping: the entries whose magnitude is above a quantile, found exactly or in a sample."""

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import prod
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..base import Passes, Shape, Turn, check_range, kept
from ..indices import Coding
from ..keys import Purpose, stream
from .selection import contenders
from .thresholds import ThresholdSparsifier, above, numbers

Convention = Literal["numpy", "marian2017", "marian2018"]


@dataclass(frozen=True)
class GradDrop(ThresholdSparsifier):
    """Drop the entries whose magnitude is at most the ``rate``-quantile of all magnitudes; send the others.

    A worker hands over its entries in the gradient's dtype with their positions, and a header. Positive and negative
    entries share the threshold.

    Parameters
    ----------
    rate : float
        Dropped fraction of the entries, in [0, 1); higher compresses more.
    threshold : {"exact", "sampled"}
        The quantile of all magnitudes, or of a sample of them.
    fraction : float
        Sampled fraction of the entries, in (0, 1]; at least one is.
    sampling : {"strided", "random"}
        Entries at equal distances from the first on, or drawn by each worker at each step, without replacement.
    convention : {"numpy", "marian2017", "marian2018"}
        Which of m ascending magnitudes is the quantile: linear interpolation at ``rate * (m - 1)``; the one at index
        ``min(int(rate * m), m - 1)``; or the one at ``max(0, int(rate * m) - 1)``. The last two are those of Marian's
        code in 2017, nearest to the paper, and in 2018.
    scope : {"unit", "shard"}
        What shares a threshold: a whole unit, or each of N contiguous shards of it that differ by one entry at most,
        as many as there are workers.
    coding : {"log2", "raw", "bitmap", "rice", "elias", "auto"}
        How positions are written; see :data:`gradwire.compressors.indices.Coding`.

    Notes
    -----
    The paper's global threshold is ``training.unit = "model"``, and its local one ``training.unit = "layer"``; shards
    are Marian's of 2018, where each worker owns one.

    The comparison is strict, so of equal magnitudes nothing is sent, nor of a unit of one entry, and at rate 0 the
    smallest entry stays. A sample makes the sent fraction random: of m independent draws with the quantile at index c,
    it follows the Beta distribution with parameters m - c and c + 1, so its standard deviation is about
    sqrt(rate (1 - rate) / m).

    Differences from the paper: the memory is apart, in ``ef(graddrop(...), units=gradient)``; Marian's limits on how
    much can be sent, which lost what exceeded them, are left out.

    References
    ----------
    .. [1] Aji, Heafield. *Sparse Communication for Distributed Gradient Descent*, EMNLP 2017, Algorithm 1,
       https://aclanthology.org/D17-1045
    .. [2] https://github.com/marian-nmt/marian-dev, commits befe69aa (2017-04) and later, for the conventions

    Examples
    --------
    >>> str(GradDrop(rate=0.9, threshold="sampled"))
    'graddrop(rate=0.9, threshold=sampled)'
    """

    rate: float = 0.99
    threshold: Literal["exact", "sampled"] = "exact"
    fraction: float = 0.001
    sampling: Literal["strided", "random"] = "strided"
    convention: Convention = "numpy"
    scope: Literal["unit", "shard"] = "unit"
    coding: Coding = "log2"

    name = "graddrop"
    title = "the entries of magnitude above a quantile, with their positions"
    paper = "Aji & Heafield 2017, D17-1045"
    examples = (
        "graddrop(rate=0.8, threshold=sampled, fraction=0.1, sampling=random, convention=marian2018, scope=shard)",
    )

    def __post_init__(self) -> None:
        check_range(self, "rate", "in [0, 1)", 0 <= self.rate < 1)
        check_range(self, "fraction", "in (0, 1]", 0 < self.fraction <= 1)

    @property
    def by_workers(self) -> bool:
        """Whether each of the N shards has a threshold of its own."""
        return self.scope == "shard"

    def error_bound(self, shape: Shape) -> float:
        """Return 1, attained where all magnitudes are equal, for then nothing is sent."""
        return 1.0

    def count(self, shape: Shape) -> float:
        return (1 - self.rate) * prod(shape)

    def passes(self, shape: Shape) -> Passes:
        """Return two passes (compare, compact), two more to find a quantile of all, and what the sent entries cost."""
        sent = self.count(shape) / prod(shape)
        search = 2.0 if self.threshold == "exact" else 2 * self.fraction
        return Passes(encode=2 + search + 3 * sent, between=0, decode=3 * sent)

    def passing(self, row: Tensor, turn: Turn, rank: int) -> Tensor:
        bits = stream(turn.seed, Purpose.SELECTION, turn.step, turn.unit, rank)
        find = self._above_exact if self.threshold == "exact" else partial(self._above_sampled, bits=bits)
        found, start = [], 0
        for shard in row.tensor_split(turn.size) if self.scope == "shard" else [row]:
            if len(shard):
                found.append(find(shard) + start)
                start += len(shard)
        return torch.cat(found)

    def _above_exact(self, row: Tensor) -> Tensor:
        """Return the positions above the quantile of all magnitudes, of which only the largest need be looked at."""
        place = place_of(len(row), self.rate, self.convention)
        places = contenders(row, len(row) - int(place))
        largest = row if places is None else row[places]
        cut = quantile(numbers(largest.abs()), place - (len(row) - len(largest)))
        return above(row, cut) if places is None else places[above(largest, cut)]

    def _above_sampled(self, row: Tensor, bits: np.random.Philox) -> Tensor:
        """Return the positions above the quantile of a sample of the magnitudes."""
        size = len(row)
        count = kept(self.fraction, size)
        if self.sampling == "strided":
            sample = row[:: size // count][:count]
        else:
            chosen = np.random.Generator(bits).choice(size, count, replace=False, shuffle=False)
            sample = row[torch.from_numpy(chosen).to(row.device)]
        return above(row, quantile(numbers(sample.abs()), place_of(count, self.rate, self.convention)))


def place_of(size: int, rate: float, convention: Convention) -> Fraction:
    """Return which of ``size`` ascending values, from 0, is the quantile; between two of them it is interpolated.

    The decimal that the user wrote counts, not its binary rounding.
    """
    last, exact = size - 1, Fraction(str(rate))
    match convention:
        case "numpy":
            return exact * last
        case "marian2017":
            return Fraction(min(int(exact * size), last))
        case "marian2018":
            return Fraction(max(0, int(exact * size) - 1))


def quantile(values: NDArray[np.floating], place: Fraction) -> float:
    """Return what stands at a place of some values once they ascend."""
    i = int(place)
    if place == i:
        return float(np.partition(values, i)[i])
    low, high = map(float, np.partition(values, (i, i + 1))[i : i + 2])
    return low + (high - low) * float(place - i)
