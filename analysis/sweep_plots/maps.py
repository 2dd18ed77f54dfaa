"""Maps over two axes of a sweep: the speed-up of one scheme with its break-even line, and which scheme wins where."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ...compressors.errors import InputError
from ..comparison import is_uncompressed
from ..style import INK, canvas, legend, looks
from .axes import Array, Axis, Point, axis_of, caption, fix, title_of
from .bands import band, reduced
from .breakeven import Branch, found_lines, interpolated_lines

Mask = npt.NDArray[np.bool_]

_SCALE = "RdBu"
"""Red where compression loses, blue where it wins: the colour-blind tell them apart, and white is in the middle."""
_LEAST_SPAN = 1.25
"""Colours span at least speed-ups from the inverse of this to this, so that differences of nothing stay pale."""
_NARROW_STEPS, _NARROW, _STEPS = (1.1, 1.25, 1.5, 2, 3), 4, (2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000)
"""Ticks of the colours, and the span up to which the first of them are used."""
_HATCHES = ("", "////", "....", "xx")
_NEUTRAL = "#000000"


class _Grid(NamedTuple):
    """Two axes, and what is drawn in their plane: arrays of shape [y, x]."""

    x: Axis
    y: Axis

    def of(self, values: xr.DataArray) -> npt.NDArray[np.generic]:
        """Return a variable's values in the order of the axes; one that an axis does not change is repeated."""
        shape = xr.DataArray(np.ones((len(self.y.values), len(self.x.values))), dims=(self.y.name, self.x.name))
        whole = values.broadcast_like(shape).transpose(self.y.name, self.x.name).values
        return np.asarray(whole[np.ix_(self.y.order, self.x.order)])


def speedup_map(
    dataset: xr.Dataset,
    scheme: str,
    x: str,
    y: str,
    at: Point | None = None,
    break_even: Sequence[Branch] | None = None,
) -> Figure:
    """Draw the speed-up of one scheme over the best uncompressed one, with the line on which it is 1.

    It is the speed-up of the time to the target, or that of a step if the sweep has no target. Cells without one are
    hatched, and the legend says why.

    Parameters
    ----------
    dataset : xarray.Dataset
        A sweep.
    scheme : str
    x, y : str
        Two numeric axes.
    at : mapping, optional
        Values of the other axes; by default factor 1 of the cost, and the middle one of any other axis.
    break_even : sequence of (array, array), optional
        The line as it was found, branch by branch, in SI; by default what the dataset has of it, and where it has
        nothing, what is interpolated between the cells.

    Raises
    ------
    InputError
        If the sweep has no such scheme, axis or value.
    """
    dataset = reduced(dataset)
    part, where, grid = _plane(dataset, x, y, at or {})
    names = [str(name) for name in part["scheme"].values]
    if scheme not in names:
        raise InputError(f"scheme {scheme!r}: not in the sweep; allowed: {', '.join(names)}")
    one = part.isel(scheme=names.index(scheme))
    variable = "speedup" if "target" in dataset.attrs else "step_speedup"
    values = grid.of(band(one, variable).mean).astype(np.float64)
    figure, axes = _map_canvas(title_of(dataset, "Speed-up" if variable == "speedup" else "Speed-up of a step"), grid)
    _colour(figure, axes, grid, values)
    for mask, label, hatch in _without(one, grid, values, variable):
        _cells(axes, grid, mask, label, "#eeeeee", hatch)
    by = "time to target" if variable == "speedup" else "step"
    lines = break_even if break_even is not None else found_lines(part, scheme, grid.x, grid.y, by)
    label = "break-even" if lines is not None else "break-even (interpolated)"
    seen = _break_even(axes, grid, interpolated_lines(grid.x, grid.y, values) if lines is None else lines, label)
    nowhere = "" if seen else "no break-even in this range"
    caption(axes, f"{scheme} over the best uncompressed scheme", where, nowhere)
    _legend(figure, axes)
    return figure


def winner_map(dataset: xr.Dataset, x: str, y: str, at: Point | None = None) -> Figure:
    """Draw which scheme is soonest at the target, or has the shortest step if there is no target.

    A compressed scheme wins where it is sooner than the best uncompressed one, whose buckets are tuned. If the density
    is neither drawn nor given, each scheme stands with the best of its densities.

    Parameters
    ----------
    dataset : xarray.Dataset
        A sweep.
    x, y : str
        Two numeric axes.
    at : mapping, optional
        Values of the other axes, as in :func:`speedup_map`.

    Raises
    ------
    InputError
        If the sweep has no such axis or value.
    """
    dataset, at = reduced(dataset), at or {}
    best = "density" in dataset["step_s"].dims and "density" not in (x, y, *at)
    part, where, grid = _plane(dataset, x, y, at, kept=("density",) if best else ())
    target = "target" in dataset.attrs
    times = band(part, "time_to_target_s" if target else "step_s").mean
    baseline = part.get("baseline_time_to_target_s" if target else "baseline_step_s", xr.DataArray(np.nan))
    if best:
        times = times.min("density")
        baseline = baseline.min("density") if "density" in baseline.dims else baseline
        where = ", ".join(filter(None, [where, "each scheme at its best density"]))
    names = [str(name) for name in part["scheme"].values]
    own_s = np.stack([grid.of(times.isel(scheme=i)).astype(np.float64) for i in range(len(names))])
    winner = _winners(names, own_s, grid.of(baseline).astype(np.float64))
    what = "Soonest at the target" if target else "Shortest step"
    figure, axes = _map_canvas(title_of(dataset, what), grid)
    colours = [*(look.colour for look in looks(names)), _NEUTRAL]
    for i, (name, colour) in enumerate(zip([*names, "uncompressed"], colours, strict=True)):
        again = colours[:i].count(colour) if i < len(names) else 0
        _cells(axes, grid, winner == i, name, colour, _HATCHES[again % len(_HATCHES)], "white")
    _cells(axes, grid, winner < 0, f"{_late(dataset)}, by any scheme", "#eeeeee", "////")
    caption(axes, where)
    _legend(figure, axes)
    return figure


def _plane(dataset: xr.Dataset, x: str, y: str, at: Point, kept: tuple[str, ...] = ()) -> tuple[xr.Dataset, str, _Grid]:
    """Return the part of a sweep in the plane of two axes, where that lies, and the plane."""
    if x == y:
        raise InputError(f"axis {x!r}: a map needs two different axes")
    grid = _Grid(axis_of(dataset, x), axis_of(dataset, y))
    part, where = fix(dataset, at, (x, y, *kept))
    return part, where, grid


def _map_canvas(title: str, grid: _Grid) -> tuple[Figure, Axes]:
    """Return an empty map."""
    figure, axes = canvas(title, "")
    figure.set_size_inches(6.4, 4.0)
    axes.grid(visible=False)
    grid.x.dress(axes, "x")
    grid.y.dress(axes, "y")
    x, y = grid.x.edges().tolist(), grid.y.edges().tolist()
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    return figure, axes


def _colour(figure: Figure, axes: Axes, grid: _Grid, values: Array) -> None:
    """Colour the cells by their speed-up, on a logarithmic scale around 1."""
    found = values[np.isfinite(values) & (values > 0)]
    most = max(_LEAST_SPAN, found.max(initial=1.0), 1 / found.min(initial=1.0))
    mesh = axes.pcolormesh(
        grid.x.edges(), grid.y.edges(), np.ma.masked_invalid(values), cmap=_SCALE, norm=LogNorm(1 / most, most)
    )
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, fraction=0.06)
    steps = [step for step in (_STEPS if most > _NARROW else _NARROW_STEPS) if step <= 1.0001 * most]
    steps = steps[-1 :: -(1 + len(steps) // 4)][::-1]
    bar.ax.yaxis.set_major_locator(FixedLocator([*(1 / step for step in reversed(steps)), 1.0, *steps]))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}x"))
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)


def _without(one: xr.Dataset, grid: _Grid, values: Array, variable: str) -> list[tuple[Mask, str, str]]:
    """Return the cells that have no speed-up, by the reason."""
    missing = ~np.isfinite(values)
    if variable != "speedup":
        return [(missing, "not trained to the end", "////")]
    late = ~np.isfinite(grid.of(band(one, "time_to_target_s").mean).astype(np.float64))
    return [
        (missing & late, _late(one), "////"),
        (missing & ~late, "only compressed training reached the target", "...."),
    ]


def _late(dataset: xr.Dataset) -> str:
    """Say that a target was not reached; one late seed of several is enough for that."""
    share = dataset["reached"] if "reached" in dataset else xr.DataArray(0.0)
    some = bool(((share > 0) & (share < 1)).any())
    return "target not reached by all seeds" if some else "target not reached"


def _cells(axes: Axes, grid: _Grid, mask: Mask, label: str, colour: str, hatch: str, ink: str = "#777777") -> None:
    """Fill cells with one colour, hatched or not."""
    if not mask.any():
        return
    x, y = grid.x.edges(), grid.y.edges()
    corners = [[(x[j], y[i]), (x[j + 1], y[i]), (x[j + 1], y[i + 1]), (x[j], y[i + 1])] for i, j in np.argwhere(mask)]
    edge = ink if hatch else colour
    cells = PolyCollection(corners, facecolors=colour, edgecolors=edge, linewidths=0.0 if hatch else 0.5, hatch=hatch)
    cells.set_label(label)
    axes.add_collection(cells, autolim=False)


def _break_even(axes: Axes, grid: _Grid, branches: Sequence[Branch], label: str) -> bool:
    """Draw the line on which the speed-up is 1; return whether any of it is on the map."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    seen = False
    for i, branch in enumerate(branches):
        x, y = branch[0] / grid.x.unit, branch[1] / grid.y.unit
        alone = {"marker": "o", "markersize": 4} if len(x) == 1 else {}
        style: dict[str, Any] = {"color": INK, "linewidth": 1.8, "zorder": 3, **alone}
        line = axes.plot(x, y, label=label if i == 0 else "_more", **style)[0]
        line.set_path_effects([withStroke(linewidth=3.6, foreground="white")])
        seen = seen or bool(np.any((left <= x) & (x <= right) & (bottom <= y) & (y <= top)))
    return seen


def _winners(names: list[str], own_s: Array, baseline_s: Array) -> npt.NDArray[np.int64]:
    """Return the position of the scheme that wins in each cell, or -1 where nothing reached the target.

    An uncompressed scheme that is not among the names has the position behind the last of them.

    Parameters
    ----------
    names : list of str
    own_s : array of float, [scheme, y, x]
        NaN where the target was not reached.
    baseline_s : array of float, [y, x]
        Of the best uncompressed scheme, with buckets of the best size.
    """
    plain = np.array([is_uncompressed(name) for name in names])
    times_s = np.where(np.isfinite(own_s), own_s, np.inf)
    limit_s = np.where(np.isfinite(baseline_s), baseline_s, np.inf)
    compressed_s = np.where(plain[:, None, None], np.inf, times_s)
    plain_s = np.where(plain[:, None, None], times_s, np.inf)
    listed = np.where(np.isfinite(plain_s.min(0)), plain_s.argmin(0), len(names))
    best_plain_s = np.minimum(plain_s.min(0), limit_s)
    winner = np.where(compressed_s.min(0) < best_plain_s, compressed_s.argmin(0), listed)
    return np.where(np.isfinite(np.minimum(compressed_s.min(0), best_plain_s)), winner, -1)


def _legend(figure: Figure, axes: Axes) -> None:
    """Put the legend below, if there is anything in it."""
    if axes.get_legend_handles_labels()[1]:
        legend(figure, axes)
