"""A run as figures: metric and loss against steps and virtual time, the phases of a step, the bytes sent."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from textwrap import wrap
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from .comparison import PHASES, compare, first_at_target, is_uncompressed, mean
from .formatting import format_bytes, format_seconds, format_target, is_share, time_unit

Array = npt.NDArray[np.float64]
Text = Callable[[float], str]

# The palette of Okabe and Ito (2008), which the colour-blind tell apart; its yellow is too pale for lines on white.
_NEUTRALS = ("#000000", "#7f7f7f")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_PHASE_COLOURS = ("#56B4E9", "#0072B2", "#E69F00", "#F0E442", "#009E73", "#D55E00")
_MARKERS = "osD^vPX*"
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
_INK, _FAINT = "#222222", "#dddddd"
_WIDE = 10
"""Values that spread over more than this factor get a logarithmic axis."""
_MANY_STEPS = 2000
"""Training curves of more points are drawn as pixels even where the rest of a figure is vectors."""


class _Look(NamedTuple):
    """How a scheme's curves are drawn, the same in all figures of a run."""

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[float, ...]]


def metric_against_steps(dataset: xr.Dataset) -> Figure:
    """Draw the validation metric against completed steps."""
    figure, axes = _canvas(f"Validation {dataset.attrs['metric']} against steps", xlabel="completed steps")
    for one, look, label in _schemes(dataset):
        _evaluations(axes, one["evaluated_step"].values, one["validation_metric"].values, look, label)
    return _with_metric(figure, axes, dataset)


def metric_against_time(dataset: xr.Dataset) -> Figure:
    """Draw the validation metric against virtual time, with a dotted line down to the time at which it is on target."""
    figure, axes, unit_s = _time_canvas(dataset, f"Validation {dataset.attrs['metric']}")
    for one, look, label in _schemes(dataset):
        _evaluations(axes, one["evaluation_s"].values / unit_s, one["validation_metric"].values, look, label)
    _with_metric(figure, axes, dataset)
    bottom = axes.get_ylim()[0]
    axes.set_ylim(bottom=bottom)
    for one, look, _ in _schemes(dataset):
        reached = first_at_target(one)
        if reached is not None:
            time, metric = float(one["evaluation_s"][reached]) / unit_s, float(one["validation_metric"][reached])
            axes.vlines(time, bottom, metric, colors=look.colour, linestyles=":", linewidth=1.2)
    return figure


def loss_against_steps(dataset: xr.Dataset) -> Figure:
    """Draw validation and training loss against completed steps."""
    figure, axes = _canvas("Loss against steps", xlabel="completed steps")
    for one, look, label in _schemes(dataset):
        _training(axes, one["step"].values, one["train_loss"].values, look)
        _evaluations(axes, one["evaluated_step"].values, one["validation_loss"].values, look, label)
    return _with_loss(figure, axes, dataset)


def loss_against_time(dataset: xr.Dataset) -> Figure:
    """Draw validation and training loss against virtual time."""
    figure, axes, unit_s = _time_canvas(dataset, "Loss")
    for one, look, label in _schemes(dataset):
        _training(axes, one["end_s"].values / unit_s, one["train_loss"].values, look)
        _evaluations(axes, one["evaluation_s"].values / unit_s, one["validation_loss"].values, look, label)
    return _with_loss(figure, axes, dataset)


def phase_bars(dataset: xr.Dataset) -> Figure:
    """Draw what a step's time is spent on, a stacked bar a scheme, with the total beside it."""
    runs = [one for one, _, _ in _schemes(dataset)]
    totals_s = np.array([mean(one, "step_s") for one in runs])
    unit_s, unit = time_unit(float(np.nanmax(totals_s, initial=0.0)))
    figure, axes = _canvas("What a step consists of", f"mean time of a step ({unit} of virtual time)", len(runs))
    left = np.zeros(len(runs))
    for (phase, variable), colour in zip(PHASES.items(), _PHASE_COLOURS, strict=True):
        widths = np.array([mean(one, variable) for one in runs]) / unit_s
        axes.barh(np.arange(len(runs)), widths, 0.5, left, color=colour, label=phase)
        left = left + widths
    axes.set_xlim(0, 1.15 * np.nanmax(left, initial=0.0) or 1.0)
    _name_bars(axes, dataset, left, [format_seconds(total_s) for total_s in totals_s])
    _legend(figure, axes, columns=3)
    return figure


def bytes_bars(dataset: xr.Dataset) -> Figure:
    """Draw the bytes that a worker hands over in a step, a bar a scheme, on a logarithmic axis."""
    sizes = np.array([row.sent_bytes for row in compare(dataset).rows])
    figure, axes = _canvas("What a worker sends in a step", "bytes a step and worker", len(sizes))
    positive = sizes[sizes > 0]
    low, high = (positive.min(), positive.max()) if positive.size else (1.0, 1.0)
    least = 10 ** np.floor(np.log10(low) - 0.3)
    colours = [look.colour for _, look, _ in _schemes(dataset)]
    axes.barh(np.arange(len(sizes)), np.maximum(sizes - least, 0), 0.5, least, color=colours)
    _make_logarithmic(axes, "x", least, high, lambda size: format_bytes(size, digits=1))
    axes.set_xlim(least, high * (high / least) ** 0.15)
    _name_bars(axes, dataset, sizes, [format_bytes(size) for size in sizes])
    return figure


FIGURES = {
    "metric-against-time": metric_against_time,
    "metric-against-steps": metric_against_steps,
    "loss-against-time": loss_against_time,
    "loss-against-steps": loss_against_steps,
    "step-phases": phase_bars,
    "sent-bytes": bytes_bars,
}
"""Each figure of a run, by the name of its file."""


def save_plots(dataset: xr.Dataset, folder: Path) -> list[Path]:
    """Write every figure of a run as PNG into an existing folder.

    Returns
    -------
    list of Path
        The files; the same run gives the same bytes.
    """
    paths = [folder / f"{name}.png" for name in FIGURES]
    for path, draw in zip(paths, FIGURES.values(), strict=True):
        draw(dataset).savefig(path, dpi=200, metadata={"Software": None})
    return paths


def _schemes(dataset: xr.Dataset) -> Iterator[tuple[xr.Dataset, _Look, str]]:
    """Yield each scheme's part of a run, its look and its label.

    Uncompressed schemes are black and grey, the others coloured; where colours run out, the dashes change.
    """
    neutral, coloured = count(), count()
    for index in range(dataset.sizes["scheme"]):
        one = dataset.isel(scheme=index)
        scheme, status = str(one["scheme"].item()), str(one["status"].item())
        colours, place = (_NEUTRALS, next(neutral)) if is_uncompressed(scheme) else (_COLOURS, next(coloured))
        dashes = _DASHES[place // len(colours) % len(_DASHES)]
        look = _Look(colours[place % len(colours)], _MARKERS[index % len(_MARKERS)], dashes)
        yield one, look, scheme if status == "completed" else f"{scheme} ({status.partition(':')[0]})"


def _canvas(title: str, xlabel: str, bars: int | None = None) -> tuple[Figure, Axes]:
    """Return an empty figure, as high as its bars need if it has any."""
    figure = Figure(figsize=(5.4, 3.5 if bars is None else 1.1 + 0.5 * bars), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=_INK)
    axes.set_xlabel(xlabel)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_FAINT, linewidth=0.6, axis="both" if bars is None else "x")
    axes.set_axisbelow(True)
    return figure, axes


def _time_canvas(dataset: xr.Dataset, what: str) -> tuple[Figure, Axes, float]:
    """Return a figure over virtual time, and the unit of its axis in seconds."""
    ends_s = dataset["end_s"].max("step").values
    trained_s = ends_s[dataset["status"].values == "completed"]
    logarithmic = trained_s.size > 0 and trained_s.max() > _WIDE * trained_s.min()
    unit_s, unit = time_unit(float(trained_s.min() if logarithmic else np.nanmax(ends_s, initial=0.0)))
    figure, axes = _canvas(f"{what} against virtual time", f"virtual time ({unit})")
    if logarithmic:
        _make_logarithmic(axes, "x", trained_s.min() / dataset.sizes["step"], trained_s.max())
    return figure, axes, unit_s


def _evaluations(axes: Axes, x: Array, y: Array, look: _Look, label: str) -> None:
    """Draw a curve of evaluations, with a dozen markers at most."""
    curve = axes.plot(x, y, label=label, color=look.colour, linestyle=look.dashes, linewidth=1.6)[0]
    curve.set(marker=look.marker, markevery=max(1, len(x) // 12), markersize=5)
    curve.set(markeredgecolor="white", markeredgewidth=0.5)


def _training(axes: Axes, x: Array, y: Array, look: _Look) -> None:
    """Draw a curve of single steps, which is noisy, in the background."""
    axes.plot(x, y, color=look.colour, linewidth=0.7, alpha=0.35, zorder=1.5, rasterized=len(x) > _MANY_STEPS)


def _with_metric(figure: Figure, axes: Axes, dataset: xr.Dataset) -> Figure:
    """Add the metric's axis, the target and the legend."""
    metric, target = str(dataset.attrs["metric"]), dataset.attrs.get("target")
    axes.set_ylabel(f"validation {metric}")
    values = dataset["validation_metric"].values
    if is_share(metric):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    else:
        _spread_out(axes, values)
    if target is not None:
        label = f"target: {format_target(target, metric)}"
        axes.axhline(target, color=_INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1, label=label)
    _legend(figure, axes)
    return figure


def _with_loss(figure: Figure, axes: Axes, dataset: xr.Dataset) -> Figure:
    """Add the loss's axis and the legend."""
    axes.set_ylabel("validation loss (faint: training)")
    _spread_out(axes, np.concatenate([dataset[name].values.ravel() for name in ("train_loss", "validation_loss")]))
    _legend(figure, axes)
    return figure


def _spread_out(axes: Axes, values: Array) -> None:
    """Make the vertical axis logarithmic if its values are positive and far apart."""
    finite = values[np.isfinite(values)]
    if finite.size and 0 < _WIDE * finite.min() < finite.max():
        _make_logarithmic(axes, "y", finite.min(), finite.max())


def _make_logarithmic(
    axes: Axes, which: Literal["x", "y"], low: float, high: float, text: Text = "{:g}".format
) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks: fewer of them where it spans many decades."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", nonpositive="mask")
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_formatter(NullFormatter())


def _name_bars(axes: Axes, dataset: xr.Dataset, ends: Array, totals: list[str]) -> None:
    """Write each scheme's name above its bar, where long names have room, and its total at the end; first on top."""
    axes.set_yticks([])
    axes.set_ylim(len(totals) - 0.6, -0.75)
    for index, ((_, _, label), end, total) in enumerate(zip(_schemes(dataset), ends, totals, strict=True)):
        where = axes.get_yaxis_transform()
        axes.annotate(label, (0, index - 0.27), (2, 2.5), where, "offset points", fontsize=9, color=_INK)
        axes.annotate(total, (max(0.0, end), index), (4, 0), "data", "offset points", fontsize=9, va="center")


def _legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Put the legend below the axes, where it covers nothing, and make the figure higher by it."""
    handles, labels = axes.get_legend_handles_labels()
    folded = ["\n".join(wrap(label, 28, break_long_words=False)) for label in labels]
    lines = sum(label.count("\n") + 1 for label in folded)
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-lines // columns))
    figure.legend(
        handles, folded, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, handlelength=2.6
    )
