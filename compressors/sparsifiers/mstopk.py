"""MSTopK: k entries found by a binary search for thresholds that enclose the k-th largest magnitude."""

from dataclasses import dataclass
from math import inf, prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..base import Passes, Shape, State, Turn, check_range, kept
from ..decoded import Sparse
from ..keys import Purpose, below, stream
from .gathered import GatheredSparsifier
from .thresholds import at_least, bound, numbers


@dataclass(frozen=True)
class MSTopK(GatheredSparsifier):
    """Send k = ceil(density * n) entries: all above an upper threshold, the rest from those above a lower one.

    The thresholds come from ``iterations`` halvings of the interval between mean and maximum of the magnitudes: the
    upper one is the lowest found that at most k entries reach, the lower one the highest found that more than k reach.
    Of the entries between them a run of neighbours is sent that starts at a random place and goes on at the first
    behind the last. A worker hands over exactly k values in the gradient's dtype, k positions and a header.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; lower compresses more. At least one entry is kept.
    coding : {"log2", "raw", "bitmap", "rice", "elias", "auto"}
        How indices are written; see :data:`gradwire.compressors.indices.Coding`.
    iterations : int
        Halvings, at least 1. With 30 the result is the k largest unless magnitudes are equal, or nearly.

    Notes
    -----
    Difference from the paper: the run wraps around, so each entry of the band has the same chance, and the expected
    error is at most that of random-k. A run that keeps within the band would seldom hold its first and last entries.

    References
    ----------
    .. [1] Shi et al. *Towards Scalable Distributed Training of Deep Learning on Public Cloud Clusters*, MLSys 2021,
       https://arxiv.org/abs/2010.10458
    """

    iterations: int = 30

    name = "mstopk"
    title = "k entries above thresholds found by halving, with their positions"
    paper = "Shi et al. 2021, arXiv 2010.10458"
    examples = ("mstopk(density=0.1, iterations=1)",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "iterations", "at least 1", self.iterations >= 1)

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - k / n, attained where all magnitudes are equal.

        Chances to be sent are 1, j / b and 0 above, within and below the band: they fall with the magnitude and sum to
        k, so by Chebyshev's sum inequality the expected energy that is sent is at least k / n of all.
        """
        return super().error_bound(shape)

    def passes(self, shape: Shape) -> Passes:
        """Return a read for mean and maximum, one for each halving, two to compact, and what the sent entries cost."""
        fraction = kept(self.density, prod(shape)) / prod(shape)
        return Passes(encode=3 + self.iterations + 3 * fraction, between=0, decode=3 * fraction)

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[Sparse, State]:
        flat = x.reshape(len(x), -1)
        indices = torch.stack([self._chosen(row.abs(), turn, r) for row, r in zip(flat, turn.ranks, strict=True)])
        return Sparse(flat.gather(1, indices), indices, flat.shape[1]), state

    def _chosen(self, magnitude: Tensor, turn: Turn, rank: int) -> Tensor:
        """Return the k positions of one row, ascending."""
        k = kept(self.density, len(magnitude))
        enclosed = enclose(magnitude, k, self.iterations)
        candidates = at_least(magnitude, enclosed.lower)
        certain = magnitude[candidates] >= bound(enclosed.upper, magnitude, inf)
        top, band = candidates[certain], candidates[~certain]
        missing = k - len(top)
        start = below(stream(turn.seed, Purpose.SELECTION, turn.step, turn.unit, rank), max(1, len(band)))
        run = band.roll(-start)[:missing]
        return torch.cat([top, run]).sort().values


class Enclosure(NamedTuple):
    """Thresholds on either side of the k-th largest magnitude: ``upper`` is reached by at most k entries."""

    lower: float
    upper: float


def enclose(magnitude: Tensor, k: int, iterations: int) -> Enclosure:
    """Search between mean and maximum; entries outside of the interval that is left are not looked at again."""
    values = numbers(magnitude)
    most = float(values.max())
    mean = min(most, float(np.sum(values, dtype=np.float64)) / len(values))
    inside = values.astype(np.float64) if values.dtype == np.float32 else values
    low, high = 0.0, 1.0
    lower, upper, beyond = 0.0, inf, 0  # ``beyond`` entries reach ``upper``
    for _ in range(iterations):
        middle = (low + high) / 2
        threshold = mean + middle * (most - mean)
        reach = inside >= threshold
        count = beyond + int(np.count_nonzero(reach))
        if count <= k:
            high, upper, beyond, inside = middle, threshold, count, inside[~reach]
        else:
            low, lower, inside = middle, threshold, inside[reach]
    return Enclosure(lower, upper)
