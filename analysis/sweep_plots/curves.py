"""Curves over one axis of a sweep: the speed-up with its crossings of 1; times by the number of workers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..comparison import is_uncompressed
from ..formatting import time_unit
from ..style import INK, Look, canvas, dress, legend, looks, make_logarithmic
from .axes import Array, Axis, Point, axis_of, caption, fix, title_of
from .bands import band, reduced

_WIDE = 10
"""Values that spread over more than this factor get a logarithmic axis."""


def along_axis(
    dataset: xr.Dataset,
    x: str,
    at: Point | None = None,
    crossings: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Draw the speed-up of each compressed scheme against one axis, with confidence bands and its crossings of 1.

    It is the speed-up of the time to the target, or that of a step if the sweep has no target.

    Parameters
    ----------
    dataset : xarray.Dataset
        A sweep.
    x : str
        A numeric axis.
    at : mapping, optional
        Values of the other axes; by default factor 1 of the cost, and the middle one of any other axis.
    crossings : mapping, optional
        Where each scheme's speed-up is 1 as it was found, in SI. Without it, they are interpolated between the values:
        linearly in the logarithm of the speed-up, on the axis as it is drawn; but not on an axis that changes what is
        learnt, between whose values nothing was trained.

    Raises
    ------
    InputError
        If the sweep has no such axis or value.
    """
    dataset = reduced(dataset)
    axis = axis_of(dataset, x)
    part, where = fix(dataset, at or {}, (x,))
    target = "target" in dataset.attrs
    figure, axes = canvas(title_of(dataset, "Speed-up" if target else "Speed-up of a step"), "")
    axis.dress(axes, "x")
    axes.set_xlim(*axis.limits())
    axes.axhline(1.0, color=INK, linewidth=1.0, linestyle=(0, (1, 1.5)), zorder=1, label="as the best uncompressed")
    between = "final_metric" not in part or x not in part["final_metric"].dims
    drawn = []
    for name, look, one in _schemes(part):
        if is_uncompressed(name):
            continue
        means = _banded(axes, axis, one, "speedup" if target else "step_speedup", 1.0, look, name)
        drawn.append(means)
        if crossings is not None:
            _mark(axes, np.array(crossings.get(name, ())) / axis.unit, look, len(drawn))
        elif between:
            _mark(axes, _crossings(axis, means), look, len(drawn))
    _ratios(axes, np.array(drawn))
    axes.set_ylabel("speed-up over the best uncompressed")
    caption(axes, where)
    legend(figure, axes)
    return figure


def over_workers(dataset: xr.Dataset, at: Point | None = None) -> Figure:
    """Draw time to target, time of a step and speed-up against the number of workers, with bands over the seeds.

    Without a target there are the step and its speed-up, and without an uncompressed scheme no speed-up.

    Parameters
    ----------
    dataset : xarray.Dataset
        A sweep with the axis ``workers``.
    at : mapping, optional
        Values of the other axes, as in :func:`along_axis`.

    Raises
    ------
    InputError
        If the sweep has no such axis or value.
    """
    dataset = reduced(dataset)
    axis = axis_of(dataset, "workers")
    part, where = fix(dataset, at or {}, ("workers",))
    target = "target" in dataset.attrs
    panels = {"time_to_target_s": "Time to target", "step_s": "Time of a step", "speedup": "Speed-up"}
    if not target:
        panels = {"step_s": "Time of a step", "step_speedup": "Speed-up of a step"}
    panels = {variable: title for variable, title in panels.items() if variable in dataset}
    figure = Figure(figsize=(4.0 * len(panels) + 0.4, 3.7), layout="constrained", facecolor="white")
    for axes, (variable, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        _panel(axes, axis, part, variable, title)
    first = figure.axes[0]
    first.set_title(title_of(dataset, first.get_title("left")), loc="left", fontsize=12, fontweight="bold", color=INK)
    caption(first, where, beside=figure.axes[1:])
    legend(figure, first, columns=3)
    return figure


def _panel(axes: Axes, axis: Axis, part: xr.Dataset, variable: str, title: str) -> None:
    """Draw one variable of all schemes against an axis."""
    dress(axes, title, "")
    axis.dress(axes, "x")
    axes.set_xlim(*axis.limits())
    speedup = variable.endswith("speedup")
    values = band(part, variable).mean.values
    unit_s, unit = (1.0, "") if speedup else time_unit(float(np.nanmedian(values)) if np.isfinite(values).any() else 0)
    if speedup:
        axes.axhline(1.0, color=INK, linewidth=1.0, linestyle=(0, (1, 1.5)), zorder=1)
    drawn = [
        _banded(axes, axis, one, variable, unit_s, look, name)
        for name, look, one in _schemes(part)
        if not (speedup and is_uncompressed(name))
    ]
    if speedup:
        _ratios(axes, np.array(drawn))
        axes.set_ylabel("over the best uncompressed")
        return
    axes.set_ylabel(f"virtual time ({unit})")
    finite = values[np.isfinite(values)] / unit_s
    if finite.size and finite.max() > _WIDE * finite.min() > 0:
        make_logarithmic(axes, "y", finite.min(), finite.max())
    else:
        axes.set_ylim(bottom=0)


def _schemes(part: xr.Dataset) -> Iterator[tuple[str, Look, xr.Dataset]]:
    """Yield each scheme's text, look and part."""
    names = [str(name) for name in part["scheme"].values]
    for i, (name, look) in enumerate(zip(names, looks(names), strict=True)):
        yield name, look, part.isel(scheme=i)


def _banded(axes: Axes, axis: Axis, one: xr.Dataset, variable: str, unit: float, look: Look, label: str) -> Array:
    """Draw a curve and its confidence band, and return the means."""
    means, lows, highs = (_along(one, axis, values) / unit for values in band(one, variable))
    style: dict[str, Any] = {
        "color": look.colour,
        "linestyle": look.dashes,
        "marker": look.marker,
        "markersize": 5,
        "linewidth": 1.6,
    }
    axes.plot(axis.values, means, label=label, markeredgecolor="white", markeredgewidth=0.5, **style)
    if np.isfinite(lows).any():
        axes.fill_between(axis.values, lows, highs, color=look.colour, alpha=0.18, linewidth=0)
    return means


def _along(one: xr.Dataset, axis: Axis, values: xr.DataArray) -> Array:
    """Return a variable along an axis, repeated if it does not depend on it."""
    whole = values.broadcast_like(one[axis.name]).values
    return np.asarray(whole[axis.order], dtype=np.float64)


def _crossings(axis: Axis, means: Array) -> Array:
    """Return where a curve crosses 1, between neighbouring values."""
    places = axis.forward(axis.values)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(means)
        before = np.flatnonzero((logs[:-1] < 0) != (logs[1:] < 0))
    before = before[np.isfinite(logs[before]) & np.isfinite(logs[before + 1])]
    share = logs[before] / (logs[before] - logs[before + 1])
    return axis.backward(places[before] + share * (places[before + 1] - places[before]))


def _mark(axes: Axes, crossings: Array, look: Look, number: int) -> None:
    """Mark where a curve crosses 1, and write the value there, the curves by turns above and below."""
    away = 7 + 11 * (number // 2) if number % 2 else -(7 + 11 * (number // 2 - 1))
    for x in crossings:
        axes.plot([x], [1.0], "o", markersize=8, markerfacecolor="white", markeredgecolor=look.colour, zorder=4)
        style: dict[str, Any] = {"fontsize": 8.5, "color": look.colour, "ha": "center"}
        side = "bottom" if away > 0 else "top"
        axes.annotate(f"{x:.3g}", (x, 1.0), (0, away), "data", "offset points", va=side, **style)


def _ratios(axes: Axes, values: Array) -> None:
    """Scale an axis of speed-ups."""
    found = values[np.isfinite(values) & (values > 0)]
    if found.size and found.max() > _WIDE * found.min():
        make_logarithmic(axes, "y", found.min(), found.max())
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
