"""A run as figures: metric and loss against steps and virtual time, the phases of a step, the bytes sent."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .comparison import PHASES, compare, first_at_target, mean
from .formatting import format_bytes, format_seconds, format_target, is_share, time_unit
from .style import INK, Look, canvas, legend, looks, make_logarithmic

Array = npt.NDArray[np.float64]

_PHASE_COLOURS = ("#56B4E9", "#0072B2", "#E69F00", "#F0E442", "#009E73", "#D55E00")
_WIDE = 10
"""Values that spread over more than this factor get a logarithmic axis."""
_MANY_STEPS = 2000
"""Training curves of more points are drawn as pixels even where the rest of a figure is vectors."""


def metric_against_steps(dataset: xr.Dataset) -> Figure:
    """Draw the validation metric against completed steps."""
    figure, axes = canvas(f"Validation {dataset.attrs['metric']} against steps", xlabel="completed steps")
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
    figure, axes = canvas("Loss against steps", xlabel="completed steps")
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
    phases_s = {phase: np.array([mean(one, variable) for one in runs]) for phase, variable in PHASES.items()}
    return draw_phases("What a step consists of", [label for _, _, label in _schemes(dataset)], phases_s)


def draw_phases(
    title: str, labels: Sequence[str], phases_s: Mapping[str, Array], best_s: float | None = None
) -> Figure:
    """Draw stacked bars with their totals beside them.

    Parameters
    ----------
    title : str
    labels : sequence of str
        Of the bars, the first on top.
    phases_s : mapping of str to array of float
        By the names of :data:`gradwire.analysis.comparison.PHASES`: seconds of each bar.
    best_s : float, optional
        The step of the best uncompressed scheme, which becomes a line.
    """
    totals_s = np.sum([phases_s[phase] for phase in PHASES], axis=0)
    unit_s, unit = time_unit(float(np.nanmax(totals_s, initial=0.0)))
    figure, axes = canvas(title, f"mean time of a step ({unit} of virtual time)", len(labels))
    left = np.zeros(len(labels))
    for phase, colour in zip(PHASES, _PHASE_COLOURS, strict=True):
        widths = phases_s[phase] / unit_s
        axes.barh(np.arange(len(labels)), widths, 0.5, left, color=colour, label=phase)
        left = left + widths
    axes.set_xlim(0, 1.15 * np.nanmax(left, initial=0.0) or 1.0)
    _name_bars(axes, labels, left, [format_seconds(total_s) for total_s in totals_s])
    if best_s is not None:
        style: dict[str, Any] = {"color": INK, "linewidth": 1.2, "linestyle": (0, (4, 3)), "zorder": 0.5}
        axes.axvline(best_s / unit_s, label="best uncompressed", **style)
    legend(figure, axes, columns=3)
    return figure


def bytes_bars(dataset: xr.Dataset) -> Figure:
    """Draw the bytes that a worker hands over in a step, a bar a scheme, on a logarithmic axis."""
    sizes = np.array([row.sent_bytes for row in compare(dataset).rows])
    figure, axes = canvas("What a worker sends in a step", "bytes a step and worker", len(sizes))
    positive = sizes[sizes > 0]
    low, high = (positive.min(), positive.max()) if positive.size else (1.0, 1.0)
    least = 10 ** np.floor(np.log10(low) - 0.3)
    colours = [look.colour for _, look, _ in _schemes(dataset)]
    axes.barh(np.arange(len(sizes)), np.maximum(sizes - least, 0), 0.5, least, color=colours)
    make_logarithmic(axes, "x", least, high, lambda size: format_bytes(size, digits=1))
    axes.set_xlim(least, high * (high / least) ** 0.15)
    _name_bars(axes, [label for _, _, label in _schemes(dataset)], sizes, [format_bytes(size) for size in sizes])
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
    return save_figures({name: draw(dataset) for name, draw in FIGURES.items()}, folder)


def save_figures(figures: Mapping[str, Figure], folder: Path, dpi: int = 200) -> list[Path]:
    """Write figures as PNG into an existing folder, by the names of their files; equal figures give equal bytes."""
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        figure.savefig(path, dpi=dpi, metadata={"Software": None})
        figure.set_layout_engine("none")  # what is laid out stays so, wherever else it is drawn
    return paths


def _schemes(dataset: xr.Dataset) -> Iterator[tuple[xr.Dataset, Look, str]]:
    """Yield each scheme's part of a run, its look and its label."""
    names = [str(name) for name in dataset["scheme"].values]
    for index, (scheme, look) in enumerate(zip(names, looks(names), strict=True)):
        one = dataset.isel(scheme=index)
        status = str(one["status"].item())
        yield one, look, scheme if status == "completed" else f"{scheme} ({status.partition(':')[0]})"


def _time_canvas(dataset: xr.Dataset, what: str) -> tuple[Figure, Axes, float]:
    """Return a figure over virtual time, and the unit of its axis in seconds."""
    ends_s = dataset["end_s"].max("step").values
    trained_s = ends_s[dataset["status"].values == "completed"]
    logarithmic = trained_s.size > 0 and trained_s.max() > _WIDE * trained_s.min()
    unit_s, unit = time_unit(float(trained_s.min() if logarithmic else np.nanmax(ends_s, initial=0.0)))
    figure, axes = canvas(f"{what} against virtual time", f"virtual time ({unit})")
    if logarithmic:
        make_logarithmic(axes, "x", trained_s.min() / dataset.sizes["step"], trained_s.max())
    return figure, axes, unit_s


def _evaluations(axes: Axes, x: Array, y: Array, look: Look, label: str) -> None:
    """Draw a curve of evaluations, with a dozen markers at most."""
    curve = axes.plot(x, y, label=label, color=look.colour, linestyle=look.dashes, linewidth=1.6)[0]
    curve.set(marker=look.marker, markevery=max(1, len(x) // 12), markersize=5)
    curve.set(markeredgecolor="white", markeredgewidth=0.5)


def _training(axes: Axes, x: Array, y: Array, look: Look) -> None:
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
        axes.axhline(target, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1, label=label)
    legend(figure, axes)
    return figure


def _with_loss(figure: Figure, axes: Axes, dataset: xr.Dataset) -> Figure:
    """Add the loss's axis and the legend."""
    axes.set_ylabel("validation loss (faint: training)")
    _spread_out(axes, np.concatenate([dataset[name].values.ravel() for name in ("train_loss", "validation_loss")]))
    legend(figure, axes)
    return figure


def _spread_out(axes: Axes, values: Array) -> None:
    """Make the vertical axis logarithmic if its values are positive and far apart."""
    finite = values[np.isfinite(values)]
    if finite.size and 0 < _WIDE * finite.min() < finite.max():
        make_logarithmic(axes, "y", finite.min(), finite.max())


def _name_bars(axes: Axes, labels: Sequence[str], ends: Array, totals: list[str]) -> None:
    """Write each bar's label above its bar, where long names have room, and its total at the end; first on top."""
    axes.set_yticks([])
    axes.set_ylim(len(totals) - 0.6, -0.75)
    for index, (label, end, total) in enumerate(zip(labels, ends, totals, strict=True)):
        where = axes.get_yaxis_transform()
        axes.annotate(label, (0, index - 0.27), (2, 2.5), where, "offset points", fontsize=9, color=INK)
        beside: dict[str, Any] = {
            "fontsize": 9,
            "va": "center",
            "bbox": {"facecolor": "white", "linewidth": 0, "pad": 1},
        }
        axes.annotate(total, (max(0.0, end), index), (4, 0), "data", "offset points", **beside)
