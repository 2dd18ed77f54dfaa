"""Break-even lines in the plane of two axes: those that a sweep's dataset holds, or else interpolated between cells."""

from collections.abc import Iterator
from typing import cast

import numpy as np
import xarray as xr
from contourpy import LineType, contour_generator

from .axes import Array, Axis

Branch = tuple[Array, Array]
"""One piece of a line: its x and its y, in the units of the dataset."""


def found_lines(part: xr.Dataset, scheme: str, x: Axis, y: Axis, by: str) -> list[Branch] | None:
    """Return the line on which a scheme is even, as root finding has left it in a dataset; None if it has not.

    Parameters
    ----------
    part : xarray.Dataset
        The part of a sweep in the plane of the two axes.
    scheme : str
    x, y : Axis
        One of them the cost or the bandwidth, along which crossings were found at each value of the other.
    by : {"time to target", "step"}
    """
    along = next((name for name in ("cost", "bandwidth") if name in (x.name, y.name)), None)
    if along is None or f"break_even_{along}" not in part:
        return None
    other = y if along == x.name else x
    roots = part[f"break_even_{along}"].sel(scheme=scheme, by=by)
    whole = roots.broadcast_like(part[other.name]).transpose("root", other.name).values[:, other.order]
    pieces = [piece for row in whole for piece in _unbroken(other.values * other.unit, row)]
    return [(found, across) if along == x.name else (across, found) for across, found in pieces]


def _unbroken(across: Array, found: Array) -> Iterator[Branch]:
    """Yield the pieces of a line between which crossings are missing."""
    known = np.flatnonzero(np.isfinite(found))
    for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        if run.size:
            yield across[run], found[run]


def interpolated_lines(x: Axis, y: Axis, values: Array) -> list[Branch]:
    """Return the lines between the cells on which the speed-up is 1.

    Parameters
    ----------
    x, y : Axis
    values : array of float, [y, x]
        Speed-ups; interpolated linearly in their logarithm, on the axes as they are drawn.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.ma.masked_invalid(np.log(values))
    places = x.forward(x.values), y.forward(y.values)
    lines = cast(list[Array], contour_generator(*places, logs, line_type=LineType.Separate).lines(0.0))
    return [(x.backward(line[:, 0]) * x.unit, y.backward(line[:, 1]) * y.unit) for line in lines]
