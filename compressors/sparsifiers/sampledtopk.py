"""Sampled top-k: what reaches a threshold that a random sample of the magnitudes suggests."""

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import torch
from torch import Tensor

from ..base import Passes, Shape, State, Turn, check_range, kept
from ..decoded import RaggedSparse
from ..keys import Purpose, stream
from .gathered import GatheredSparsifier
from .selection import at_least, top_k
from .subsets import positions
from .thresholds import entries_at

_ABOVE = 10
"""A sample has at least about so many magnitudes above the threshold."""


@dataclass(frozen=True)
class SampledTopK(GatheredSparsifier):
    """Send the entries whose magnitude reaches a threshold found in a random sample, with their indices.

    Of m magnitudes drawn with replacement, the ceil(density * m) largest give the threshold, so about density * n
    entries reach it: a worker hands over about ``density * n * (itemsize + ceil(log2 n) / 8)`` bytes, the length of
    both buffers and a header. Workers choose different entries, so the payloads are gathered.

    Parameters
    ----------
    density : float
        Wanted fraction of the entries, from 1e-300 to 1; lower compresses more.
    coding : {"log2", "raw", "bitmap", "rice", "elias", "auto"}
        How indices are written; see :data:`gradwire.compressors.indices.Coding`.
    sample : float
        Fraction of the entries that is drawn, in (0, 1], but at least 10 / density entries. Where that is as many as
        there are, nothing is drawn and the selection is exact.

    Notes
    -----
    All entries equal to the threshold are sent, so of a constant input all are; entries of 0 never are, so of zeros
    none. The largest entry is always sent.

    References
    ----------
    .. [1] Lin, Han, Mao, Wang, Dally. *Deep Gradient Compression: Reducing the Communication Bandwidth for Distributed
       Training*, ICLR 2018, https://arxiv.org/abs/1712.01887
    """

    sample: float = 0.01

    name = "sampledtopk"
    title = "entries above a threshold estimated from a sample, with their indices"
    paper = "Lin et al. 2018, arXiv 1712.01887"
    examples = ("sampledtopk(density=0.25, coding=bitmap)",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "density", "from 1e-300 to 1", self.density >= 1e-300)  # the sample needs 10 / density
        check_range(self, "sample", "in (0, 1]", 0 < self.sample <= 1)

    @property
    def ragged(self) -> bool:
        return True

    def draws(self, size: int) -> int:
        """Return how many magnitudes of a unit are drawn, or 0 where the selection is exact."""
        wanted = max(kept(self.sample, size), ceil(_ABOVE / self.density))
        return wanted if wanted < size and self.density < 1 else 0

    def count(self, shape: Shape) -> float:
        """Return the expected number of entries that are sent if no two magnitudes are equal.

        The entry with i larger ones reaches the r-th largest of m draws if fewer than r of them hit one of those i.
        The integral of P(B(m, q) < r) over q in [0, 1] is r / (m + 1); the sum over i is n times that plus 1/2, by
        Euler and Maclaurin, to within 1/12.
        """
        size = prod(shape)
        drawn = self.draws(size)
        return size * kept(self.density, drawn) / (drawn + 1) + 0.5 if drawn else kept(self.density, size)

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - 1 / n: nothing but the largest entry is sure to be sent where the sample misses the others."""
        size = prod(shape)
        return 1 - (1 if self.draws(size) else kept(self.density, size)) / size

    def passes(self, shape: Shape) -> Passes:
        """Return a pass to compare, what the sample costs, and what the kept entries cost."""
        size = prod(shape)
        drawn, fraction = self.draws(size) / size, self.count(shape) / size
        return Passes(encode=1 + 6 * drawn + 4 * fraction, between=0, decode=3 * fraction)

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[RaggedSparse, State]:
        flat = x.reshape(len(x), -1)
        found = [self._reaching(row, turn, rank) for row, rank in zip(flat, turn.ranks, strict=True)]
        return entries_at(flat, found), state

    def _reaching(self, row: Tensor, turn: Turn, rank: int) -> Tensor:
        """Return the ascending indices that a worker sends."""
        size = len(row)
        drawn = self.draws(size)
        if not drawn:
            return top_k(row[None], kept(self.density, size))[0]
        bits = stream(turn.seed, Purpose.SELECTION, turn.step, turn.unit, rank)
        places = torch.from_numpy(positions(bits, size, drawn).astype(np.int64)).to(row.device)
        threshold = float(row[places].abs().kthvalue(drawn - kept(self.density, drawn) + 1).values)
        return at_least(row, threshold) if threshold else row.nonzero()[:, 0]
