"""A sweep's axes as figures show them: labels with units, scales, ticks; and the point where those not drawn are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.scale import SymmetricalLogTransform
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ...compressors.errors import InputError
from ..formatting import time_unit
from ..style import INK, make_logarithmic

Array = npt.NDArray[np.float64]
Value = float | str
Point = Mapping[str, Value]
"""Values of axes that are not drawn, by the axis's name."""
Scale = Literal["linear", "log", "symlog"]

APART = ("scheme", "seed", "evaluation")
"""Dimensions that are no axes of a point: all schemes are compared, and seeds become means and bands."""
_BITS = ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (1.0, "bit/s"))
_FEW = 7
"""Up to so many values of an axis each have a tick of their own."""
_TITLE_WIDTH, _CAPTION_WIDTH = 46, 72
"""Characters of a line."""
_WIDE = 4
"""Two values more than this factor apart are taken to be on a logarithmic axis."""


@dataclass(frozen=True, eq=False)
class Axis:
    """A numeric axis.

    Attributes
    ----------
    name : str
        Its dimension.
    label : str
        With its unit.
    values : array of float
        Rising, in that unit.
    order : array of int
        The positions in the dataset of these values.
    unit : float
        The unit, in SI.
    scale : {"linear", "log", "symlog"}
        Logarithmic where the values are spaced so; ``symlog`` where 0 is among them.
    """

    name: str
    label: str
    values: Array
    order: npt.NDArray[np.int64]
    unit: float
    scale: Scale

    def forward(self, values: Array) -> Array:
        """Return where values stand along the axis as it is drawn."""
        if self.scale == "linear":
            return np.asarray(values, dtype=np.float64)
        if self.scale == "log":
            return np.asarray(np.log10(values), dtype=np.float64)
        return np.asarray(self._symlog().transform(values), dtype=np.float64)

    def backward(self, positions: Array) -> Array:
        """Return the values at positions along the axis as it is drawn."""
        if self.scale == "linear":
            return np.asarray(positions, dtype=np.float64)
        if self.scale == "log":
            return np.asarray(10**positions, dtype=np.float64)
        return np.asarray(self._symlog().inverted().transform(positions), dtype=np.float64)

    def edges(self) -> Array:
        """Return the edges of the cells around the values: halfway between them as they are drawn."""
        places = self.forward(self.values)
        middles = (places[1:] + places[:-1]) / 2
        first, last = (middles[0], middles[-1]) if len(middles) else (places[0] - 0.5, places[0] + 0.5)
        ends = [2 * places[0] - first], [2 * places[-1] - last]
        return self.backward(np.concatenate([ends[0], middles, ends[1]]))

    def limits(self) -> tuple[float, float]:
        """Return where an axis begins and ends that has some room around its values."""
        places = self.forward(self.values[[0, -1]])
        room = 0.04 * (places[1] - places[0])
        first, last = self.backward(places + np.array([-room, room])).tolist()
        return first, last

    def dress(self, axes: Axes, which: Literal["x", "y"]) -> None:
        """Give an axis of a figure its label, scale and ticks."""
        (axes.set_xlabel if which == "x" else axes.set_ylabel)(self.label)
        axis = axes.xaxis if which == "x" else axes.yaxis
        if self.scale == "log":
            make_logarithmic(axes, which, self.values[0], self.values[-1])
        elif self.scale == "symlog":
            options = {"linthresh": self._threshold(), "linscale": 0.5}
            (axes.set_xscale if which == "x" else axes.set_yscale)("symlog", **options)
        if len(self.values) <= _FEW or self.scale == "symlog":
            axis.set_major_locator(FixedLocator(self.values.tolist()))
            axis.set_minor_locator(NullLocator())
            axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))

    def _threshold(self) -> float:
        return float(self.values[self.values > 0].min())

    def _symlog(self) -> SymmetricalLogTransform:
        return SymmetricalLogTransform(10, self._threshold(), 0.5)


def numeric_axes(dataset: xr.Dataset) -> list[str]:
    """Return the names of the axes that hold numbers and more than one of them, in the dataset's order."""
    return [
        str(name)
        for name in dataset["step_s"].dims
        if name not in APART and dataset.sizes[name] > 1 and dataset[name].dtype.kind in "iuf"
    ]


def axis_of(dataset: xr.Dataset, name: str) -> Axis:
    """Return a numeric axis.

    Raises
    ------
    InputError
        If the sweep has no such axis, or it does not hold numbers.
    """
    if name not in dataset.dims or dataset[name].dtype.kind not in "iuf":
        allowed = ", ".join(numeric_axes(dataset)) or "none"
        raise InputError(f"axis {name!r}: no numeric axis of the sweep; allowed: {allowed}")
    raw = dataset[name].values.astype(np.float64)
    order = np.argsort(raw, kind="stable")
    unit, label = _unit(name, raw, str(dataset[name].attrs.get("units", "1")))
    values = raw[order] / unit
    return Axis(name, label, values, order, unit, _scale(values))


def fix(dataset: xr.Dataset, at: Point, drawn: tuple[str, ...]) -> tuple[xr.Dataset, str]:
    """Return the part of a sweep at one value of each axis that is not drawn, and which values these are in words.

    An axis of which ``at`` says nothing is taken where the cost has factor 1, or else at the middle one of its values.

    Raises
    ------
    InputError
        If ``at`` names an axis that the sweep does not have, or a value that is not on it.
    """
    axes = [str(name) for name in dataset["step_s"].dims if name not in APART]
    for name in at:
        if name not in axes:
            raise InputError(f"{name!r}: no axis of the sweep; allowed: {', '.join(axes) or 'none'}")
    fixed = [name for name in axes if name not in drawn]
    places = {name: _place(dataset, name, at.get(name)) for name in fixed}
    words = [describe(dataset, name, dataset[name].values[place]) for name, place in places.items()]
    return dataset.isel(places), ", ".join(words)


def describe(dataset: xr.Dataset, name: str, value: Any) -> str:
    """Say in words which value of an axis is meant.

    >>> data = xr.Dataset(coords={"bandwidth": ("bandwidth", [1e10], {"units": "bit/s"})})
    >>> describe(data, "bandwidth", 1e10), describe(data, "cost", 2.0), describe(data, "workers", 8)
    ('10 Gbit/s', 'compression cost x 2', '8 workers')
    """
    units = str(dataset[name].attrs.get("units", "1")) if name in dataset.coords else "1"
    if not isinstance(value, int | float | np.number):
        return f"{name} {value}"
    if name == "workers":
        return f"{value:g} worker{'' if value == 1 else 's'}"
    if units in ("bit/s", "s"):
        factor, units = _bits(float(value)) if units == "bit/s" else time_unit(float(value))
        value = float(value) / factor
    number = f"{value:.4g}" + (f" {units}" if units not in ("1", "") else "")
    return number if name == "bandwidth" else f"compression cost x {number}" if name == "cost" else f"{name} {number}"


def title_of(dataset: xr.Dataset, what: str) -> str:
    """Return a figure's title, which says so if the steps are timed as those of another model."""
    proxy = dataset.attrs.get("proxy")
    if not proxy:
        return what
    mark = f"(proxy: timed as {proxy})"
    return f"{what} {mark}" if len(what) + 1 + len(mark) <= _TITLE_WIDTH else f"{what}\n{mark}"


def caption(axes: Axes, *parts: str, beside: Sequence[Axes] = ()) -> None:
    """Write below the title of some axes what is shown, in small letters; raise the titles of those beside as much."""
    unbroken = "; ".join(part.replace(", ", ",\n").replace(" ", "\u00a0") for part in parts if part)
    lines = wrap(unbroken, _CAPTION_WIDTH)
    for one in (axes, *beside):
        style: dict[str, Any] = {"fontsize": 12, "fontweight": "bold", "color": INK}
        one.set_title(one.get_title("left"), loc="left", pad=7 + 11.5 * len(lines), **style)
    place = (0, 1), (0, 4), "axes fraction", "offset points"
    axes.annotate("\n".join(lines), *place, fontsize=8.5, color=INK, va="bottom")


def _place(dataset: xr.Dataset, name: str, value: Value | None) -> int:
    """Return the position of a value on an axis, or the one that stands for the axis if there is no value."""
    values = dataset[name].values
    if value is None:
        plain = np.flatnonzero(values == 1) if name == "cost" else np.array([], dtype=np.int64)
        return int(plain[0]) if plain.size else int(np.argsort(values, kind="stable")[len(values) // 2])
    if values.dtype.kind in "iuf" and isinstance(value, int | float):
        found = np.flatnonzero(np.isclose(values, value, rtol=1e-9, atol=0))
    else:
        found = np.flatnonzero([str(one) == str(value) for one in values])
    if not found.size:
        allowed = ", ".join(f"{one:g}" if values.dtype.kind in "iuf" else str(one) for one in values)
        raise InputError(f"{name} = {value}: not on the axis; allowed: {allowed}")
    return int(found[0])


def _unit(name: str, values: Array, units: str) -> tuple[float, str]:
    """Return the unit in which an axis reads well, in SI, and the axis's label."""
    label = {"cost": "compression cost (factor)", "density": "density (share of entries kept)"}.get(name, name)
    if units == "bit/s":
        factor, unit = _bits(float(np.median(values)))
        return factor, f"{label} ({unit})"
    if units == "s":
        factor, unit = time_unit(float(np.median(values)))
        return factor, f"{label} ({unit})"
    return 1.0, label if units in ("1", "") else f"{label} ({units})"


def _bits(bandwidth_bps: float) -> tuple[float, str]:
    """Return the unit, in bit/s and by name, in which a bandwidth reads well."""
    return next((pair for pair in _BITS if bandwidth_bps >= pair[0]), _BITS[-1])


def _scale(values: Array) -> Scale:
    """Return the scale on which rising values are spaced most evenly."""
    positive = values[values > 0]
    if len(positive) < 2 or values[0] < 0:
        return "linear"
    gaps, ratios = np.diff(positive), np.diff(np.log(positive))
    if len(gaps) == 1:
        even = positive[1] > _WIDE * positive[0]
    else:
        even = np.std(ratios) / np.mean(ratios) < np.std(gaps) / np.mean(gaps) - 1e-9
    if not even:
        return "linear"
    return "log" if len(positive) == len(values) else "symlog"
