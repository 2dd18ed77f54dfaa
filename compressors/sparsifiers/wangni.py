"""Wangni's sampling: each entry is kept independently, with the probability that gives the least variance."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..base import Passes, Shape, State, Turn, kept
from ..decoded import RaggedSparse
from ..keys import Purpose, stream
from ..payload import Ragged
from .gathered import GatheredSparsifier
from .waterfill import probabilities


@dataclass(frozen=True)
class Wangni(GatheredSparsifier):
    """Send entry x_i with probability p_i = min(1, c |x_i|), as x_i / p_i, with its index.

    c is such that k = ceil(density * n) entries are sent on average; large ones always are. A worker hands over about
    ``k * (itemsize + ceil(log2 n) / 8)`` bytes, the length of both buffers and a header. Workers draw for themselves,
    so the payloads are gathered.

    Parameters
    ----------
    density : float
        Expected fraction of the entries that is sent, in (0, 1]; lower compresses more. At least one entry on average.
    coding : {"log2", "raw", "bitmap", "rice", "elias", "auto"}
        How indices are written; see :data:`gradwire.compressors.indices.Coding`.

    Notes
    -----
    Differences from the paper: c is found exactly, where the paper's algorithm 3 repeats a rescaling; all entries
    travel as floats, where the paper sends only the sign of those with p_i < 1, which all have the magnitude 1 / c.
    ATOMO with single entries as atoms is the same scheme.

    References
    ----------
    .. [1] Wangni, Wang, Liu, Zhang. *Gradient Sparsification for Communication-Efficient Distributed Optimization*,
       NeurIPS 2018, https://arxiv.org/abs/1710.09854
    """

    name = "wangni"
    title = "entries drawn with the probabilities of least variance, divided by them, with their indices"
    paper = "Wangni et al. 2018, arXiv 1710.09854"
    examples = ("wangni(density=0.5, coding=auto)",)

    @property
    def unbiased(self) -> bool:
        return True

    @property
    def selects(self) -> bool:
        return False

    @property
    def ragged(self) -> bool:
        return True

    def error_bound(self, shape: Shape) -> float:
        """Return n / k - 1, attained where all magnitudes are equal: equal probabilities k / n are never better."""
        return prod(shape) / self.count(shape) - 1

    def passes(self, shape: Shape) -> Passes:
        """Return 3 passes to find c (maximum, largest entries, sum), 2 to draw, and what the kept entries cost."""
        fraction = self.count(shape) / prod(shape)
        return Passes(encode=5 + 3 * fraction, between=0, decode=3 * fraction)

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[RaggedSparse, State]:
        flat = x.reshape(len(x), -1)
        size = flat.shape[1]
        p = probabilities(flat.abs(), kept(self.density, size))
        indices = [
            (_draws(turn, rank, size).to(x.device) < row).nonzero()[:, 0]
            for rank, row in zip(turn.ranks, p, strict=True)
        ]
        values = [(flat[r, i].double() / p[r, i]).to(x.dtype) for r, i in enumerate(indices)]
        return RaggedSparse(Ragged.of(values), Ragged.of(indices), size), state


def _draws(turn: Turn, rank: int, size: int) -> Tensor:
    """Return uniform draws in [0, 1), multiples of 2**-53: small entries have small probabilities, which must hold."""
    bits = stream(turn.seed, Purpose.SELECTION, turn.step, turn.unit, rank)
    return torch.from_numpy((bits.random_raw(size) >> 11) * 2.0**-53)
