"""The figures of a validation: predicted against measured steps, and the errors of the phases."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from ..style import INK, canvas, dress, looks, make_logarithmic
from .errors import Compared
from .predict import PHASES
from .tables import TITLES

_BAND = 0.15


def agreement_figure(rows: Sequence[Compared]) -> Figure:
    """Draw each predicted step against the measured one, scheme by scheme."""
    figure = Figure(figsize=(5.6, 5.4), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    dress(axes, "Steps, measured and predicted", "measured step (s)")
    axes.set_ylabel("predicted step (s)")
    schemes = list(dict.fromkeys(row.record.scheme for row in rows))
    for scheme, look in zip(schemes, looks(schemes), strict=True):
        own = [row for row in rows if row.record.scheme == scheme]
        measured, predicted = [row.measured_s for row in own], [row.predicted.step_s for row in own]
        axes.plot(measured, predicted, look.marker, color=look.colour, markersize=4, alpha=0.8, label=scheme)
    every = np.array([[row.measured_s, row.predicted.step_s] for row in rows])
    ends = np.array([every.min() / 1.2, every.max() * 1.2])
    axes.plot(ends, ends, color=INK, linewidth=0.8, label="equal")
    axes.fill_between(ends, (1 - _BAND) * ends, (1 + _BAND) * ends, color=INK, alpha=0.08, linewidth=0, label="15 %")
    which: Literal["x", "y"]
    for which in ("x", "y"):
        make_logarithmic(axes, which, float(ends[0]), float(ends[1]))
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.legend(frameon=False, fontsize=7)
    return figure


def phases_figure(rows: Sequence[Compared]) -> Figure:
    """Draw how far off each phase is, over all configurations, as boxes between the quartiles."""
    figure, axes = canvas("Errors by phase", "predicted less measured, share of the measured step (%)", len(PHASES))
    errors = [[100 * row.phase_error(name) for row in rows] for name in PHASES]
    axes.boxplot(errors, orientation="horizontal", widths=0.5, medianprops={"color": "#D55E00"})
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(1, len(PHASES) + 1), [TITLES[name] for name in PHASES])
    axes.invert_yaxis()
    return figure
