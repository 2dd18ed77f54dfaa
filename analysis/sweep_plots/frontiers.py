"""One point of a sweep: final accuracy against time or bytes with the Pareto front, and what a step consists of."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ...compressors.errors import InputError
from ..comparison import PHASES
from ..formatting import format_bytes, is_share, time_unit
from ..plots import draw_phases
from ..style import INK, Look, canvas, legend, looks, make_logarithmic
from .axes import Array, Point, caption, fix, title_of
from .bands import band, reduced

Against = Literal["time_to_target_s", "run_s", "bytes_to_target", "sent_bytes"]
_LABELS = {
    "time_to_target_s": "time to target",
    "run_s": "time of the run",
    "bytes_to_target": "bytes of a worker to target",
    "sent_bytes": "bytes a step and worker",
}
_WIDE = 10
"""Values that spread over more than this factor get a logarithmic axis."""


class _Family(NamedTuple):
    """One scheme at its densities: arrays of one value a density; ``x`` and ``y`` as mean, low and high."""

    name: str
    densities: Array
    x: tuple[Array, Array, Array]
    y: tuple[Array, Array, Array]


def frontier(dataset: xr.Dataset, against: Against = "time_to_target_s", at: Point | None = None) -> Figure:
    """Draw the final test metric against time or bytes: a marker a scheme and density, the Pareto front ringed.

    Densities of one scheme are joined and written beside their markers. Bars are 95 % confidence limits over the seeds.

    Parameters
    ----------
    dataset : xarray.Dataset
        A sweep.
    against : {"time_to_target_s", "run_s", "bytes_to_target", "sent_bytes"}
        Schemes that did not reach the target have no marker in what goes to the target.
    at : mapping, optional
        Values of the other axes; by default factor 1 of the cost, and the middle one of any other axis.

    Raises
    ------
    InputError
        If there is nothing of that name, or the sweep has no such axis or value.
    """
    if against not in _LABELS:
        raise InputError(f"against = {against!r}: allowed: {', '.join(_LABELS)}")
    dataset = reduced(dataset)
    swept = "density" in dataset["step_s"].dims and "density" not in (at or {})
    part, where = fix(dataset, at or {}, ("density",) if swept else ())
    families = list(_families(part, against, swept))
    values = np.concatenate([family.x[0] for family in families])
    size, unit, wide = _unit(against, values)
    metric = str(dataset.attrs["metric"])
    title = f"Final {metric} against {'time' if against.endswith('_s') else 'bytes'}"
    figure, axes = canvas(title_of(dataset, title), f"{_LABELS[against]}{unit}")
    figure.set_size_inches(5.8, 4.0)
    for family, look in zip(families, looks([family.name for family in families]), strict=True):
        _draw(axes, family, size, look)
    _ring(axes, families, size, bool(dataset.attrs["higher_is_better"]))
    if wide:
        finite = values[np.isfinite(values)] / size
        text = (lambda value: format_bytes(value, 1)) if not against.endswith("_s") else "{:g}".format
        make_logarithmic(axes, "x", finite.min(), finite.max(), text)
    axes.set_ylabel(f"final test {metric}")
    if is_share(metric):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    axes.margins(0.08, 0.12)
    if not wide:
        axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))  # confidence limits may be below 0, times may not
    caption(axes, where)
    legend(figure, axes)
    return figure


def phases_at_point(dataset: xr.Dataset, at: Point | None = None) -> Figure:
    """Draw what a step's time is spent on at one point, a stacked bar a scheme: means over steps and seeds.

    Parameters
    ----------
    dataset : xarray.Dataset
        A sweep.
    at : mapping, optional
        Values of all axes; by default factor 1 of the cost, and the middle one of any other axis.

    Raises
    ------
    InputError
        If the sweep has no such axis or value.
    """
    dataset = reduced(dataset)
    part, where = fix(dataset, at or {}, ())
    phases_s = {phase: band(part, variable).mean.values for phase, variable in PHASES.items()}
    names = [str(name) for name in part["scheme"].values]
    best_s = float(part.get("baseline_step_s", np.nan))
    best = best_s if np.isfinite(best_s) else None
    figure = draw_phases(title_of(dataset, "What a step consists of"), names, phases_s, best)
    caption(figure.axes[0], where)
    return figure


def _families(part: xr.Dataset, against: Against, swept: bool) -> Iterator[_Family]:
    """Yield each scheme's values; one that the density does not change has a single one."""
    densities = part["density"].values.astype(np.float64) if swept else np.array([np.nan])
    order = np.argsort(densities, kind="stable")
    for i, name in enumerate(part["scheme"].values):
        one = part.isel(scheme=i)
        x, y = (
            tuple(_over_densities(one, values, swept)[order] for values in band(one, variable))
            for variable in (against, "final_metric")
        )
        sent = _over_densities(one, band(one, "sent_bytes").mean, swept)
        kept = slice(None) if swept and np.ptp(sent) > 0 else slice(1)
        own = densities[order] if swept and np.ptp(sent) > 0 else np.array([np.nan])
        yield _Family(str(name), own, _three(x, kept), _three(y, kept))


def _over_densities(one: xr.Dataset, values: xr.DataArray, swept: bool) -> Array:
    whole = values.broadcast_like(one["density"]) if swept else values
    return np.atleast_1d(np.asarray(whole.values, dtype=np.float64))


def _three(values: tuple[Array, ...], kept: slice) -> tuple[Array, Array, Array]:
    mean, low, high = (array[kept] for array in values)
    return mean, low, high


def _unit(against: Against, values: Array) -> tuple[float, str, bool]:
    """Return the unit of the horizontal axis and how it is written, and whether the axis is logarithmic."""
    finite = values[np.isfinite(values) & (values > 0)]
    wide = finite.size > 0 and finite.max() > _WIDE * finite.min()
    if not against.endswith("_s"):
        if wide:
            return 1.0, "", True
        size, unit = next((pair for pair in _BYTES if finite.max(initial=0.0) >= pair[0]), (1.0, "B"))
        return size, f" ({unit})", False
    seconds, unit = time_unit(float(np.median(finite)) if finite.size else 0.0)
    return seconds, f" ({unit} of virtual time)", bool(wide)


_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def _draw(axes: Axes, family: _Family, size: float, look: Look) -> None:
    """Draw one scheme's markers, the line through them, and their bars."""
    (x, x_low, x_high), (y, y_low, y_high) = tuple(v / size for v in family.x), family.y
    line = axes.plot(x, y, color=look.colour, linestyle=look.dashes, linewidth=1.2, label=family.name)[0]
    line.set(marker=look.marker, markersize=6, markeredgecolor="white", markeredgewidth=0.5)
    bars: dict[str, Any] = {"fmt": "none", "ecolor": look.colour, "elinewidth": 1.0, "capsize": 2.0, "alpha": 0.6}
    axes.errorbar(x, y, [y - y_low, y_high - y], [x - x_low, x_high - x], **bars)
    for density, across, up in zip(family.densities, x, y, strict=True):
        if np.isfinite([density, across, up]).all():
            axes.annotate(
                f"{density:g}", (across, up), (5, 4), "data", "offset points", fontsize=7.5, color=look.colour
            )


def _ring(axes: Axes, families: list[_Family], size: float, higher_is_better: bool) -> None:
    """Ring the points that no other point beats in both directions."""
    x = np.concatenate([family.x[0] for family in families])
    y = np.concatenate([family.y[0] for family in families])
    front = pareto_front(x, y if higher_is_better else -y)
    axes.plot(
        x[front] / size,
        y[front],
        linestyle=(0, (1, 1.5)),
        linewidth=1.0,
        color=INK,
        zorder=1.5,
        marker="o",
        markersize=12,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=1.0,
        label="Pareto front",
    )


def pareto_front(costs: Array, gains: Array) -> npt.NDArray[np.int64]:
    """Return the positions of the points of which no other has at most their cost and at least their gain, by cost.

    Equal points are all returned; those with a value that is not finite are not.

    >>> pareto_front(np.array([1.0, 2.0, 3.0, 3.0]), np.array([0.5, 0.4, 0.9, 0.8])).tolist()
    [0, 2]
    """
    known = np.flatnonzero(np.isfinite(costs) & np.isfinite(gains))
    best = [
        i
        for i in known
        if not any(
            costs[j] <= costs[i] and gains[j] >= gains[i] and (costs[j] < costs[i] or gains[j] > gains[i])
            for j in known
        )
    ]
    return np.array(sorted(best, key=lambda i: (costs[i], gains[i])), dtype=np.int64)
