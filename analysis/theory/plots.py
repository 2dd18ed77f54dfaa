"""Figures of checks: both sides of each statement over steps. Numbers come ready; here they are only drawn."""

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..style import INK, dress, looks
from .check import Judged

_COLUMNS = 3
_DECADES = 30
_LINE = 56


def checks_figure(judged: Sequence[Judged]) -> Figure:
    """Draw each check in axes of its own: the bound dashed, what was measured with its confidence limits."""
    shown = [one for one in judged if len(one.measured)]
    rows = max(1, -(-len(shown) // _COLUMNS))
    figure = Figure(figsize=(5.2 * _COLUMNS, 3.4 * rows), layout="constrained", facecolor="white")
    every = np.atleast_1d(figure.subplots(rows, _COLUMNS)).ravel().tolist()
    for one, axes in zip(shown, every, strict=False):
        _draw(axes, one)
    for axes in every[len(shown) :]:
        axes.set_axis_off()
    if shown:
        handles, labels = every[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _draw(axes: Axes, one: Judged) -> None:
    """Draw both sides of a check."""
    finding = one.finding
    below = "\n".join(wrap(f"{finding.subject}: {one.verdict}", _LINE))
    dress(axes, finding.statement.name, f"{finding.axis}\n{below}")
    (look,) = looks(["measured"])
    marker = look.marker if len(finding.steps) < 2 else ""
    axes.fill_between(finding.steps, one.low, one.high, color=look.colour, alpha=0.25, linewidth=0)
    axes.plot(finding.steps, one.measured, color=look.colour, marker=marker, label="measured")
    bound_marker = "_" if marker else ""
    axes.plot(finding.steps, finding.bound, color=INK, linestyle=(0, (5, 2)), marker=bound_marker, label="bound")
    sides = np.concatenate([one.measured, finding.bound])
    positive = sides[np.isfinite(sides) & (sides > 0)]
    if len(positive) == len(sides) and positive.max() > 20 * positive.min():
        axes.set_yscale("log")
        axes.set_ylim(bottom=max(positive.min() / 2, positive.max() * 10.0**-_DECADES))
    axes.set_ylabel("both sides")
