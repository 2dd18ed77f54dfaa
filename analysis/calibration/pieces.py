"""The fit of a collective's duration: terms by piecewise constant size, as the simulator charges them.

In each piece of sizes a collective lasts ``launch + hops * latency + carried * seconds a byte``, with the hops and the
carried bytes of the simulator's closed form. Pieces are chained: at its first size a piece is worth what the one before
it is worth there, for the fewest and for the most workers that were measured. Only where that would need a launch or a
latency below 0 does it begin higher. So a fit needs one number for each piece besides the first launch and latency.
"""

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
_CANDIDATES = 16
"""Of the measured sizes so many may become knots, evenly spread over them."""
_GAIN, _LEAST_GAIN = 0.95, 1e-3
"""A knot is taken if it lowers the held-out error by this factor and by this much, or more."""
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
        if error < min(_GAIN * best, best - _LEAST_GAIN):
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
    chain = _Chain.of(points, knots, hops)
    fastest = float((carried / points.seconds).max())
    least_s = float(points.seconds.min())
    count = len(knots) + 1
    scale = np.array([least_s, *([least_s / hops.max()] if chain.apart else []), *[1 / fastest] * count])
    low = np.array([0.0] * (1 + chain.apart) + [1 / _FASTEST] * count)
    place = np.searchsorted(chain.starts, points.sizes, side="right") - 1
    parts = np.stack([np.ones(len(hops)), hops, carried], axis=1)
    given_s = 0.0 if chain.apart else hops * latency_s

    def design(logs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the parameters, and by what each of them is multiplied in each duration."""
        parameters = (low + np.exp(logs)) * scale
        return parameters, np.einsum("mt,mtp->mp", parts, chain.terms(parameters)[place])

    def residuals(logs: FloatArray) -> FloatArray:
        parameters, factors = design(logs)
        return np.asarray((given_s + factors @ parameters) / points.seconds - 1)

    def slopes(logs: FloatArray) -> FloatArray:
        return np.asarray(design(logs)[1] * (np.exp(logs) * scale) / points.seconds[:, None])

    start = np.log([0.5] * (1 + chain.apart) + [1.0] * count)
    found = least_squares(residuals, start, slopes, loss="soft_l1", f_scale=_SOFT, ftol=tolerance, xtol=tolerance)
    parameters, _ = design(found.x)
    launch_s, fitted_latency_s, byte_s = (chain.terms(parameters) @ parameters).T.tolist()
    latencies = fitted_latency_s if chain.apart else [latency_s] * count
    return Pieces(points.operation, chain.starts, tuple(launch_s), tuple(latencies), tuple(byte_s))


class _Chain(NamedTuple):
    """What turns the parameters of a fit into pieces that follow each other.

    The parameters are the first launch; the first latency, if it can be told apart; and each piece's time of a byte.

    Attributes
    ----------
    starts : tuple of int
    hops : tuple of int
        Of the fewest and of the most workers, or one number if these are the same.
    carried : tuple of tuples of int
        For each of these, what is carried at each start.
    """

    starts: tuple[int, ...]
    hops: tuple[int, ...]
    carried: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, points: Points, knots: tuple[int, ...], hops: IntArray) -> "_Chain":
        ends = (int(hops.argmin()), int(hops.argmax()))
        by_hops = {int(hops[place]): int(points.workers[place]) for place in ends}
        starts = (0, *knots)
        carried = tuple(tuple(_path(points.operation, count, size)[1] for size in starts) for count in by_hops.values())
        return cls(starts, tuple(by_hops), carried)

    @property
    def apart(self) -> bool:
        """Whether launch and latency can be told apart."""
        return len(self.hops) > 1

    def terms(self, parameters: FloatArray) -> FloatArray:
        """Return how each piece's launch, latency and time of a byte depend on the parameters.

        Returns
        -------
        FloatArray, shape [pieces, 3, parameters]
            To be multiplied by the parameters; where a launch or a latency would be below 0, it is 0 and depends on
            nothing.
        """
        units = np.eye(len(parameters))
        byte = units[1 + self.apart :]
        launch, latency = units[0], units[1] if self.apart else np.zeros(len(parameters))
        rows = [(launch, latency, byte[0])]
        for i in range(1, len(self.starts)):
            left = [
                launch + hops * latency + carried[i] * (byte[i - 1] - byte[i])
                for hops, carried in zip(self.hops, self.carried, strict=True)
            ]  # for launch and latency, at each end
            if self.apart:
                latency = _above_zero((left[1] - left[0]) / (self.hops[1] - self.hops[0]), parameters)
            launches = [own - hops * latency for own, hops in zip(left, self.hops, strict=True)]
            launch = _above_zero(max(launches, key=lambda own: float(own @ parameters)), parameters)
            rows.append((launch, latency, byte[i]))
        return np.array(rows)


def _above_zero(factors: FloatArray, parameters: FloatArray) -> FloatArray:
    return factors if factors @ parameters > 0 else np.zeros_like(factors)
