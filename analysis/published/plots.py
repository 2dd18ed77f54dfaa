"""The figure of the validation on published runs: predicted against measured times."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..style import INK, dress, make_logarithmic
from .validation import Outcome, Part, Role

_KINDS = (("uncompressed", "#0072B2", "o"), ("compressed", "#D55E00", "^"))
_BAND = 0.3


def published_figure(parts: Iterable[Part]) -> Figure:
    """Draw each predicted run, uncompressed and compressed ones apart, with the band of 30 %."""
    rows = [one for part in parts for one in part.having(Role.PREDICTED)]
    figure = Figure(figsize=(5.6, 5.4), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    dress(axes, "Published runs", "measured step (s)")
    axes.set_ylabel("predicted step (s)")
    for (label, colour, marker), compressed in zip(_KINDS, (False, True), strict=True):
        own = [one for one in rows if one.run.compressed == compressed]
        axes.plot(*_times(own), marker, color=colour, markersize=4, alpha=0.7, label=label)
    every = np.concatenate(_times(rows))
    ends = np.array([every.min() / 1.2, every.max() * 1.2])
    axes.plot(ends, ends, color=INK, linewidth=0.8, label="equal")
    axes.fill_between(ends, (1 - _BAND) * ends, (1 + _BAND) * ends, color=INK, alpha=0.08, linewidth=0, label="30 %")
    which: Literal["x", "y"]
    for which in ("x", "y"):
        make_logarithmic(axes, which, float(ends[0]), float(ends[1]))
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.legend(frameon=False, fontsize=9)
    return figure


def _times(rows: Iterable[Outcome]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return measured and predicted times."""
    pairs = [(one.measured_s, one.predicted_s) for one in rows]
    measured, predicted = np.array(pairs, np.float64).reshape(-1, 2).T
    return measured, predicted
