"""Calibrated shapers: how fast the token bucket at every NIC fills, and how large it is, from measured collectives."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from ...compressors.errors import InputError
from ...compressors.wirelog import Operation
from ...sim.cluster.sections import Shaper
from ...sim.network.critical import FloatArray
from ...sim.network.schedule import BoolArray
from ...sim.units import format_bandwidth, format_size
from .heldout import folds
from .pieces import Pieces, Points, paths

_SOFT = 0.05
"""As in :mod:`gradwire.analysis.calibration.pieces`."""


class Shaped(NamedTuple):
    """Measured durations behind a shaper.

    Attributes
    ----------
    points : Points
    rested : bool
        Whether each found a full bucket, or they followed each other until it was empty.
    """

    points: Points
    rested: bool

    def where(self, kept: BoolArray) -> "Shaped":
        """Return some of them."""
        return self._replace(points=self.points.where(kept))

    def seconds(self, pieces: Pieces, rate_bytes_s: float, burst_bytes: float) -> FloatArray:
        """Return how long these collectives take by the simulator's rule for tokens."""
        _, workers, sizes, _ = self.points
        hops, carried = paths(self.points.operation, workers, sizes)
        launch_s, latency_s, byte_s = pieces.terms(sizes)
        before_s, free_s = launch_s + hops * latency_s, carried * byte_s
        tokens = burst_bytes if self.rested else np.minimum(burst_bytes, rate_bytes_s * before_s)
        return np.asarray(before_s + np.maximum(free_s, (carried - tokens) / rate_bytes_s))


def fit_shaper(shaped: Sequence[Shaped], pieces: Mapping[Operation, Pieces], asked: Shaper) -> Shaper:
    """Return the shaper that fits measured durations best.

    Parameters
    ----------
    shaped : sequence of Shaped
    pieces : mapping of operation to Pieces
        What the collectives take without a shaper.
    asked : Shaper
        From where the search sets out.

    Raises
    ------
    InputError
        If the shaper held nothing up, so that its rate cannot be told.
    """
    rate_bytes_s, burst = _fit(_known(shaped, pieces, asked), pieces, asked)
    return Shaper.model_validate(
        {"rate": format_bandwidth(8 * rate_bytes_s), "burst": format_size(max(1, round(burst)))}
    )


def predict_shaped_held_out(
    shaped: Sequence[Shaped], pieces: Mapping[Operation, Pieces], asked: Shaper
) -> dict[Operation, FloatArray]:
    """Return relative errors, by operation, of shapers that have not seen the durations that they predict.

    Raises
    ------
    InputError
        As :func:`fit_shaper`.
    """
    known = _known(shaped, pieces, asked)
    sizes = np.concatenate([one.points.sizes for one in known])
    errors: dict[Operation, list[FloatArray]] = defaultdict(list)
    for held in folds(sizes):
        apart = np.unique(sizes[held])
        left = [one.where(~np.isin(one.points.sizes, apart)) for one in known]
        out = [one.where(np.isin(one.points.sizes, apart)) for one in known]
        for operation, differences in _errors(out, pieces, *_fit(left, pieces, asked)).items():
            errors[operation].append(differences)
    return {operation: np.concatenate(parts) for operation, parts in errors.items()}


def predict_shaped(
    shaped: Sequence[Shaped], pieces: Mapping[Operation, Pieces], shaper: Shaper
) -> dict[Operation, FloatArray]:
    """Return relative errors, by operation, of a shaper that is known from elsewhere."""
    known = [one for one in shaped if one.points.operation in pieces]
    return _errors(known, pieces, shaper.rate / 8, shaper.burst)


def _known(shaped: Sequence[Shaped], pieces: Mapping[Operation, Pieces], asked: Shaper) -> list[Shaped]:
    """Return what was measured of operations that were measured without a shaper too."""
    known = [one for one in shaped if one.points.operation in pieces]
    if not known:
        raise InputError(
            f"no times of collectives that a link of {format_bandwidth(asked.rate)} held up: measure larger ones, "
            "after a rest and back to back"
        )
    return known


def _errors(
    shaped: Sequence[Shaped], pieces: Mapping[Operation, Pieces], rate_bytes_s: float, burst_bytes: float
) -> dict[Operation, FloatArray]:
    errors: dict[Operation, list[FloatArray]] = defaultdict(list)
    for one in shaped:
        predicted = one.seconds(pieces[one.points.operation], rate_bytes_s, burst_bytes)
        errors[one.points.operation].append(predicted / one.points.seconds - 1)
    return {operation: np.concatenate(parts) for operation, parts in errors.items()}


def _fit(shaped: Sequence[Shaped], pieces: Mapping[Operation, Pieces], asked: Shaper) -> tuple[float, float]:
    """Return the rate in bytes a second and the burst in bytes, by soft least squares of relative errors."""
    start = np.array([asked.rate / 8, asked.burst])

    def residuals(logs: FloatArray) -> FloatArray:
        rate, burst = start * np.exp(logs)
        found = [one.seconds(pieces[one.points.operation], rate, burst) / one.points.seconds - 1 for one in shaped]
        return np.concatenate(found)

    found = least_squares(residuals, np.zeros(2), bounds=(-3.0, 3.0), loss="soft_l1", f_scale=_SOFT)
    rate, burst = start * np.exp(found.x)
    return float(rate), float(burst)
