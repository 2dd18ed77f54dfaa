"""The fit of a collective's duration: terms by piecewise constant size, as the simulator charges them.

In each piece of sizes a collective lasts ``launch + hops * latency + carried * seconds a byte``, with the hops and the
carried bytes of the simulator's closed form. Pieces are chained: at its first size a piece is worth what the one before
it is worth there, for the fewest and for the most workers that were measured. Only where that would need a launch or a
latency below 0 does it begin higher. So a fit needs one number for each piece besides the first launch and latency.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from ...compressors.wirelog import Operation
from ...sim.network import critical_path
from ...sim.network.critical import FloatArray, IntArray
from ...sim.network.schedule import BoolArray
from .heldout import folds

MOST_KNOTS = 3
_CANDIDATES = 14
"""Of the measured sizes so many may become knots, evenly spread over them."""
_GAIN = 0.95
"""A knot is taken if it lowers the held-out error at least by this factor."""
_SOFT = 0.05
"""Relative errors below this count squared, and by their size above: single odd measurements do not bend the fit."""
_CAP = 0.3
"""Above this relative error, one measurement is as bad as another for the choice of knots."""
_COARSE = 1e-4
"""Of the cost and the numbers of a fit that only compares knots."""
_FASTEST = 10.0
"""A piece carries at most so many times the highest rate that was measured, all of the duration counted."""


class Points(NamedTuple):
    """Measured durations of one operation; arrays of shape [M].

    Attributes
    ----------
    operation : str
    workers, sizes : IntArray
        What each worker hands over, in bytes.
    seconds : FloatArray
    """

    operation: Operation
    workers: IntArray
    sizes: IntArray
    seconds: FloatArray

    def where(self, kept: BoolArray) -> "Points":
        """Return some of the points."""
        return Points(self.operation, self.workers[kept], self.sizes[kept], self.seconds[kept])


class Pieces(NamedTuple):
    """Terms of an operation by size, each from ``starts`` bytes on.

    Attributes
    ----------
    operation : str
    starts : tuple of int
        The first is 0.
    launch_s, latency_s, byte_s : tuple of float
        ``byte_s`` is for each byte that the closed form carries.
    """

    operation: Operation
    starts: tuple[int, ...]
    launch_s: tuple[float, ...]
    latency_s: tuple[float, ...]
    byte_s: tuple[float, ...]

    def seconds(self, workers: IntArray, sizes: IntArray) -> FloatArray:
        """Return durations on so many workers, each of which hands over so many bytes."""
        hops, carried = paths(self.operation, workers, sizes)
        launch_s, latency_s, byte_s = self.terms(sizes)
        return np.asarray(launch_s + hops * latency_s + carried * byte_s)

    def terms(self, sizes: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return launch, latency and time of a byte for each size, in seconds."""
        place = np.searchsorted(self.starts, sizes, side="right") - 1
        launch_s, latency_s, byte_s = (np.array(terms)[place] for terms in self[2:])
        return launch_s, latency_s, byte_s


def paths(operation: Operation, workers: IntArray, sizes: IntArray) -> tuple[IntArray, IntArray]:
    """Return the hops, and the carried bytes, of an operation's default algorithm; shape [M] each."""
    found = [_path(operation, int(count), int(size)) for count, size in zip(workers, sizes, strict=True)]
    hops, carried = np.array(found, np.int64).reshape(-1, 2).T
    return hops, carried


@lru_cache(maxsize=65536)
def _path(operation: Operation, workers: int, size: int) -> tuple[int, int]:
    """Return the hops and carried bytes of one collective to which all workers hand over the same."""
    sent = np.full(workers, size)
    if operation == "broadcast":
        sent[1:] = 0
    peers = {"broadcast": (0,), "permute": tuple((i + 1) % workers for i in range(workers))}.get(operation, ())
    path = critical_path(operation, sent, peers)
    return int(path.hops), int(path.bytes)


def fit_pieces(points: Points, latency_s: float = 0.0) -> Pieces:
    """Return the terms that fit measured durations best.

    Parameters
    ----------
    points : Points
    latency_s : float
        Where all points have the same hops, so that launch and latency cannot be told apart.

    Returns
    -------
    Pieces
        With 0 to :data:`MOST_KNOTS` knots among the measured sizes, chosen by the error on sizes held out from these
        points.
    """
    return _fit(points, choose_knots(points, latency_s), latency_s)


def predict_held_out(points: Points, latency_s: float = 0.0) -> tuple[FloatArray, BoolArray]:
    """Return what fits predict for durations that they have not seen, knots and all.

    Returns
    -------
    tuple of FloatArray and BoolArray, shape [M]
        The predictions, NaN where a point was in all fits: the smallest and the largest size; and where there are some.
    """
    predicted = np.full(len(points.sizes), np.nan)
    for held in folds(points.sizes):
        fitted = fit_pieces(points.where(~held), latency_s)
        predicted[held] = fitted.seconds(points.workers[held], points.sizes[held])
    return predicted, ~np.isnan(predicted)


def choose_knots(points: Points, latency_s: float = 0.0) -> tuple[int, ...]:
    """Return the sizes at which pieces should begin, added one by one while the error on held-out sizes falls."""
    inner = np.unique(points.sizes)[1:-1]
    if not len(inner):
        return ()
    candidates = inner[np.unique(np.linspace(0, len(inner) - 1, _CANDIDATES).round().astype(int))].tolist()
    best = _held_out_error(points, (), latency_s)
    knots: tuple[int, ...] = ()
    chosen: tuple[int, ...] = ()
    for _ in range(MOST_KNOTS):
        wider = [tuple(sorted((*knots, size))) for size in candidates if size not in knots]
        if not wider:
            break
        error, knots = min((_held_out_error(points, more, latency_s), more) for more in wider)
        if error < _GAIN * best:
            best, chosen = error, knots
    return chosen


def _held_out_error(points: Points, knots: tuple[int, ...], latency_s: float) -> float:
    """Return the mean relative error on sizes that were held out; infinite if there are too few to hold any out."""
    errors = []
    for held in folds(points.sizes):
        left, out = points.where(~held), points.where(held)
        fitted = _fit(left, knots, latency_s, _COARSE)
        errors.append(np.abs(fitted.seconds(out.workers, out.sizes) / out.seconds - 1))
    return float(np.minimum(np.concatenate(errors), _CAP).mean()) if errors else float("inf")


def _fit(points: Points, knots: tuple[int, ...], latency_s: float, tolerance: float = 1e-10) -> Pieces:
    """Fit the terms of given pieces, by soft least squares of relative errors."""
    hops, carried = paths(points.operation, points.workers, points.sizes)
    chain = _Chain.of(points, knots, hops, latency_s)
    fastest_bps = float((carried / points.seconds).max())
    least_s = float(points.seconds.min())
    scale = np.array([least_s, *([least_s / hops.max()] if chain.apart else []), *[1 / fastest_bps] * (len(knots) + 1)])
    low = np.array([0.0] * (1 + chain.apart) + [1 / _FASTEST] * (len(knots) + 1))

    def residuals(x: FloatArray) -> FloatArray:
        launch_s, latency_s, byte_s = chain.pieces(x * scale).terms(points.sizes)
        return np.asarray((launch_s + hops * latency_s + carried * byte_s) / points.seconds - 1)

    start = np.maximum(low, np.array([0.5] * (1 + chain.apart) + [1.0] * (len(knots) + 1)))
    found = least_squares(
        residuals, start, bounds=(low, np.inf), loss="soft_l1", f_scale=_SOFT, ftol=tolerance, xtol=tolerance, gtol=None
    )
    return chain.pieces(found.x * scale)


class _Chain(NamedTuple):
    """What turns the parameters of a fit into pieces that follow each other.

    Attributes
    ----------
    starts : tuple of int
    hops : tuple of int, of the fewest and the most workers, or one if they are the same
    carried : tuple of tuples of int
        For each of these, what is carried at each start.
    latency_s : float
        Where the latency is not fitted.
    """

    operation: Operation
    starts: tuple[int, ...]
    hops: tuple[int, ...]
    carried: tuple[tuple[int, ...], ...]
    latency_s: float

    @classmethod
    def of(cls, points: Points, knots: tuple[int, ...], hops: IntArray, latency_s: float) -> "_Chain":
        ends = dict.fromkeys((int(hops.argmin()), int(hops.argmax())))
        by_hops = {int(hops[place]): int(points.workers[place]) for place in ends}
        starts = (0, *knots)
        carried = tuple(tuple(_path(points.operation, count, size)[1] for size in starts) for count in by_hops.values())
        return cls(points.operation, starts, tuple(by_hops), carried, latency_s)

    @property
    def apart(self) -> bool:
        """Whether launch and latency can be told apart."""
        return len(self.hops) > 1

    def pieces(self, parameters: FloatArray) -> Pieces:
        """Return the pieces of a first launch, a first latency where it is fitted, and each piece's time of a byte."""
        first = [float(number) for number in parameters[: 1 + self.apart]]
        byte_s = [float(number) for number in parameters[1 + self.apart :]]
        launch, latency = first if self.apart else (first[0], self.latency_s)
        launches, latencies = [launch], [latency]
        for i in range(1, len(self.starts)):
            worth = [
                launch + hops * latency + carried[i] * (byte_s[i - 1] - byte_s[i])
                for hops, carried in zip(self.hops, self.carried, strict=True)
            ]  # what is left for launch and latency
            launch, latency = self._split(worth)
            launches.append(launch)
            latencies.append(latency)
        return Pieces(self.operation, self.starts, tuple(launches), tuple(latencies), tuple(byte_s))

    def _split(self, worth: Sequence[float]) -> tuple[float, float]:
        """Return the launch and latency that are worth this at each end, or else more, neither of them below 0."""
        latency = self.latency_s
        if self.apart:
            latency = max(0.0, (worth[1] - worth[0]) / (self.hops[1] - self.hops[0]))
        return max(0.0, *(left - hops * latency for left, hops in zip(worth, self.hops, strict=True))), latency
