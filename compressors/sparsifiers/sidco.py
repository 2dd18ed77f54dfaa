"""SIDCo: the entries above a threshold that follows from fitting a distribution to the magnitudes, in stages."""

from collections.abc import Callable
from dataclasses import dataclass
from math import expm1, inf, isfinite, lgamma, log, prod, sqrt
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..base import Passes, Shape, State, Turn, check_range, kept
from ..decoded import RaggedSparse
from ..indices import Coding
from .selection import top_k
from .thresholds import ThresholdSparsifier, at_least, entries_at, numbers

Values = NDArray[np.float64]

FIRST_RATIO = 0.25
"""What the first of several stages lets through."""
PERIOD = 5
"""So many calls pass between changes of the number of stages."""
TOLERANCE = 0.2
"""How far the sent count, relative to the wanted one, may be from 1 on average without such a change."""
MOST_STAGES = 8


@dataclass(frozen=True)
class SIDCo(ThresholdSparsifier):
    """Send about k = ceil(density * n) entries: those above the (1 - density)-quantile of a fitted distribution.

    One stage fits all magnitudes. Of M stages, the first lets through a quarter; each further one fits by how much
    what is left exceeds the last threshold, and lets through (4 density)**(1 / (M - 1)) of it. A worker hands over its
    entries in the gradient's dtype with their positions, and a header.

    Parameters
    ----------
    density : float
        Aimed-at fraction of the entries, in (0, 1]; lower compresses more.
    fit : {"exponential", "gpareto", "gamma"}
        An exponential distribution by its mean; a generalised Pareto by mean and variance; or a gamma by Minka's closed
        form, in later stages a generalised Pareto.
    stages : int
        M, or 0 to adapt it every 5 calls, from 1 to 8: one more where on average fewer than 0.8 k entries reached the
        threshold, one fewer where more than 1.2 k did; but a second stage follows the first in either case.
    coding : {"log2", "raw", "bitmap", "rice", "elias", "auto"}
        How positions are written; see :data:`gradwire.compressors.indices.Coding`.

    Notes
    -----
    One stage undershoots light tails and overshoots heavy ones, so two can mend both. Of 1 % wanted, the share that is
    found by 1, 2 and 3 stages of an exponential fit is 0.02, 0.64 and 1.13 for normal values, 1.00 throughout for
    Laplace's distribution, 1.47, 1.16 and 0.66 for Student's with 3 degrees of freedom.

    Differences from the paper: zeros are never sent and are left out of the fits, so that a sparse gradient is no
    hindrance. Where a fit breaks down or nothing reaches its threshold (a constant, few entries), the k largest are
    sent, ties by the lowest index; so an entry of the largest magnitude always is.

    References
    ----------
    .. [1] Abdelmoniem, Elzanaty, Alouini, Canini. *An Efficient Statistical-based Gradient Compression Technique for
       Distributed Training Systems*, MLSys 2021, https://arxiv.org/abs/2101.10761
    """

    density: float = 0.01
    fit: Literal["exponential", "gpareto", "gamma"] = "exponential"
    stages: int = 0
    coding: Coding = "log2"

    name = "sidco"
    title = "the entries above a quantile of a fitted distribution, with their positions"
    paper = "Abdelmoniem et al. 2021, arXiv 2101.10761"
    state = "stages and counts: 3 numbers a worker"
    examples = ("sidco(density=0.1, fit=gpareto, stages=2)",)

    def __post_init__(self) -> None:
        check_range(self, "density", "in (0, 1]", 0 < self.density <= 1)
        check_range(self, "stages", f"0 to {MOST_STAGES}", 0 <= self.stages <= MOST_STAGES)

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        if self.stages:
            return State()
        stages = torch.ones(workers, dtype=torch.int64, device=like.device)
        sent = torch.zeros(workers, dtype=torch.float64, device=like.device)
        return State(rows={"stages": stages, "calls": torch.zeros_like(stages), "sent": sent})

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - 1 / n: the largest entry is always sent, and a fit can put all others below its threshold."""
        return 1 - 1 / prod(shape)

    def count(self, shape: Shape) -> float:
        return float(kept(self.density, prod(shape)))

    def passes(self, shape: Shape) -> Passes:
        """Return two reads (fit, compare), one to compact, the later stages' share, and what sent entries cost."""
        fraction = self.count(shape) / prod(shape)
        return Passes(encode=3 + 3 * FIRST_RATIO + 3 * fraction, between=0, decode=3 * fraction)

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[RaggedSparse, State]:
        flat = x.reshape(len(x), -1)
        stages = state.rows["stages"].tolist() if state.rows else [self.stages] * len(flat)
        found, shares = [], []
        for row, number in zip(flat, stages, strict=True):
            positions, share = self._fitted(row.abs(), number)
            found.append(positions)
            shares.append(share)
        return entries_at(flat, found), _adapted(state, shares) if state.rows else state

    def passing(self, row: Tensor, turn: Turn, rank: int) -> Tensor:
        return self._fitted(row.abs(), self.stages or 1)[0]

    def _fitted(self, magnitude: Tensor, stages: int) -> tuple[Tensor, float]:
        """Return the positions of a row's entries to send, and how many the fit would have sent, relative to k."""
        present = numbers(magnitude[magnitude > 0]).astype(np.float64)
        k = kept(self.density, len(magnitude))
        if k >= len(present):
            return magnitude.nonzero()[:, 0], 1.0
        cut = max(float(present.min()), threshold(present, k / len(present), self.fit, stages))
        found = at_least(magnitude, cut)
        return (found if len(found) else top_k(magnitude[None], k)[0]), len(found) / k


def _adapted(state: State, shares: list[float]) -> State:
    """Return the state after a call that let through these shares of k."""
    stages, calls = state.rows["stages"], state.rows["calls"] + 1
    sent = state.rows["sent"] + torch.tensor(shares, dtype=torch.float64, device=stages.device)
    due, mean = calls == PERIOD, sent / PERIOD
    few, many = mean < 1 - TOLERANCE, mean > 1 + TOLERANCE
    change = (few | many & (stages == 1)).long() - (many & (stages > 1)).long()
    stages = torch.where(due, (stages + change).clamp(max=MOST_STAGES), stages)
    return State(rows={"stages": stages, "calls": calls.masked_fill(due, 0), "sent": sent.masked_fill(due, 0.0)})


# --------------------------------------------------------------------------------------------------------------- fits


def threshold(magnitude: Values, ratio: float, fit: str, stages: int) -> float:
    """Return what about ``ratio`` of some positive magnitudes reach, by fits in stages; infinity where one fails."""
    if stages == 1 or ratio >= FIRST_RATIO:
        return _FITS[fit](magnitude, ratio)
    later = exponential if fit == "exponential" else gpareto
    cut = _FITS[fit](magnitude, FIRST_RATIO)
    for _ in range(stages - 1):
        magnitude = magnitude[magnitude > cut]
        cut += later(magnitude - cut, (ratio / FIRST_RATIO) ** (1 / (stages - 1)))
    return cut


def exponential(magnitude: Values, ratio: float) -> float:
    """Return the upper quantile of an exponential distribution of the same mean: -mean ln(ratio)."""
    return -float(magnitude.mean()) * log(ratio) if len(magnitude) else inf


def gpareto(magnitude: Values, ratio: float) -> float:
    """Return the upper quantile of a generalised Pareto distribution of the same mean and variance.

    With q = mean^2 / variance its shape is k = (q - 1) / 2 and its scale mean (q + 1) / 2, and the quantile is
    scale (1 - ratio^k) / k, or the exponential distribution's where k = 0.
    """
    mean, variance = (float(magnitude.mean()), float(magnitude.var())) if len(magnitude) else (0.0, 0.0)
    if not variance > 0:
        return inf
    q = mean / variance * mean
    shape, scale = (q - 1) / 2, mean * (q + 1) / 2
    return -scale * (expm1(shape * log(ratio)) / shape if shape else log(ratio))


def gamma(magnitude: Values, ratio: float) -> float:
    """Return the upper quantile of a gamma distribution by Minka's fit, to the leading order of its tail.

    With s = ln(mean) - mean(ln) its shape is a = (3 - s + sqrt((s - 3)^2 + 24 s)) / (12 s), its scale mean / a, and the
    quantile -scale (ln(ratio) + ln(Gamma(a))), exact where a = 1; 0 if that is negative.
    """
    mean = float(magnitude.mean())
    s = -float(np.log(magnitude / mean).mean())
    if not s > 0:
        return inf
    shape = (3 - s + sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
    cut = -mean / shape * (log(ratio) + lgamma(shape))
    return max(0.0, cut) if isfinite(cut) else inf


_FITS: dict[str, Callable[[Values, float], float]] = {
    "exponential": exponential,
    "gpareto": gpareto,
    "gamma": gamma,
}
