"""DGC's selection: the entries above a threshold that a sample suggests, held within bounds of k."""

from collections.abc import Hashable
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
from torch import Tensor

from ..base import Passes, Shape, Turn, check_range, kept
from ..indices import Coding
from ..keys import Purpose, below, stream
from .selection import top_k
from .thresholds import ThresholdSparsifier, at_least, numbers

FIRST_DENSITY = 0.25
"""Where the warm-up starts."""
WARMUP_STAGES = 4
FRACTION = 0.01
"""At least so much of a unit is sampled."""
MOST, LEAST = 1.3, 0.8
"""Of more than ``MOST * k`` entries the k largest are chosen; of fewer than ``LEAST * k`` the threshold is lowered."""
LOWERED_AT_MOST = 10
STRIDES = tuple(p for p in range(11, 100) if all(p % d for d in (2, 3, 5, 7)))
"""Primes above 7: they share no factor with the usual sizes of kernels and numbers of channels."""


@dataclass(frozen=True)
class DGCSample(ThresholdSparsifier):
    """Send about k = ceil(density * n) entries of largest magnitude: those that reach a sample's threshold.

    The threshold is the (1 - density)-quantile of a strided sample of 1 % of the unit or 2 / density entries,
    whichever is more; a unit that is not eleven times as large is looked at whole. Where fewer than 0.8 k entries
    reach it, it is multiplied by 0.8, at most ten times; where more than 1.3 k do, the k largest of them are sent. A
    worker hands over its entries in the gradient's dtype with their positions, and a header.

    Parameters
    ----------
    density : float
        Aimed-at fraction of the entries, from 1e-300 to 1; lower compresses more.
    warmup_steps : int
        For so many steps the density is higher: it falls from 0.25 in four stages of equal length and by equal factors
        to ``density``, which follows after them. For 0.001 about 25, 6.3, 1.6 and 0.4 %, as in the paper.
    coding : {"log2", "raw", "bitmap", "rice", "elias", "auto"}
        How positions are written; see :data:`gradwire.compressors.indices.Coding`.

    Notes
    -----
    Differences from the authors' code: the sample starts at a place drawn anew by each worker at each step, at a prime
    stride; between 0.8 k and 1.3 k all that was found is sent, where that code cuts it down to k in the order of
    the indices, so that late entries are sent less often.

    References
    ----------
    .. [1] Lin, Han, Mao, Wang, Dally. *Deep Gradient Compression: Reducing the Communication Bandwidth for Distributed
       Training*, ICLR 2018, https://arxiv.org/abs/1712.01887
    .. [2] https://github.com/synxlin/deep-gradient-compression, for the sample and its bounds
    """

    density: float = 0.001
    warmup_steps: int = 0
    coding: Coding = "log2"

    name = "dgcsample"
    title = "about k entries, those above a sample's threshold, with their positions"
    paper = "Lin et al. 2018, arXiv 1712.01887"
    examples = ("dgcsample(density=0.1)",)

    def __post_init__(self) -> None:
        check_range(self, "density", "from 1e-300 to 1", 1e-300 <= self.density <= 1)  # the sample needs 2 / density
        check_range(self, "warmup_steps", "at least 0", self.warmup_steps >= 0)

    def density_at(self, step: int) -> float:
        """Return the density of a step."""
        if step >= self.warmup_steps or self.density >= FIRST_DENSITY:
            return self.density
        stage = WARMUP_STAGES * step // self.warmup_steps
        return float(FIRST_DENSITY * (self.density / FIRST_DENSITY) ** (stage / WARMUP_STAGES))

    def stage(self, step: int) -> Hashable:
        return self.density_at(step)

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - 1 / n: the entries sent are the largest, and one at least."""
        return 1 - 1 / prod(shape)

    def count(self, shape: Shape) -> float:
        return float(kept(self.density, prod(shape)))

    def passes(self, shape: Shape) -> Passes:
        """Return two passes (compare, compact), a strided read of the sample, and what the sent entries cost."""
        fraction = self.count(shape) / prod(shape)
        return Passes(encode=2 + FRACTION + 3 * fraction, between=0, decode=3 * fraction)

    def passing(self, row: Tensor, turn: Turn, rank: int) -> Tensor:
        density = self.density_at(turn.step)
        k, stride = kept(density, len(row)), stride_for(len(row), density)
        start = below(stream(turn.seed, Purpose.SELECTION, turn.step, turn.unit, rank), stride)
        sample = numbers(row[start::stride].abs())
        cut = len(sample) - kept(density, len(sample))
        threshold = float(np.partition(sample, cut)[cut])
        found = at_least(row, threshold)
        for _ in range(LOWERED_AT_MOST):
            if len(found) >= LEAST * k:
                break
            threshold *= LEAST
            found = at_least(row, threshold)
        return found[top_k(row[found][None], k)[0]] if len(found) > MOST * k else found


def stride_for(size: int, density: float) -> int:
    """Return the largest stride that leaves a sample large enough, or 1."""
    wanted = max(ceil(FRACTION * size), ceil(2 / density))
    return max((stride for stride in STRIDES if stride * wanted <= size), default=1)
