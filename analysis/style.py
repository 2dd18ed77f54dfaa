"""The style that all figures share: colours, canvas, logarithmic axes, legends."""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from textwrap import wrap
from typing import Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..compressors.errors import InputError
from .comparison import is_uncompressed

Text = Callable[[float], str]

FORMATS = (".png", ".svg", ".pdf")
"""The endings of files that figures are written to."""

# The palette of Okabe and Ito (2008), which the colour-blind tell apart; its yellow is too pale for lines on white.
_NEUTRALS = ("#000000", "#7f7f7f")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vPX*"
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
INK, FAINT = "#222222", "#dddddd"


class Look(NamedTuple):
    """How a scheme's curves are drawn, the same in all figures of a run."""

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[float, ...]]


def looks(schemes: Sequence[str]) -> list[Look]:
    """Return each scheme's look.

    Uncompressed schemes are black and grey, the others coloured; where colours run out, the dashes change.
    """
    neutral, coloured = count(), count()
    found = []
    for index, scheme in enumerate(schemes):
        colours, place = (_NEUTRALS, next(neutral)) if is_uncompressed(scheme) else (_COLOURS, next(coloured))
        dashes = _DASHES[place // len(colours) % len(_DASHES)]
        found.append(Look(colours[place % len(colours)], _MARKERS[index % len(_MARKERS)], dashes))
    return found


def canvas(title: str, xlabel: str, bars: int | None = None) -> tuple[Figure, Axes]:
    """Return an empty figure, as high as its bars need if it has any."""
    figure = Figure(figsize=(5.4, 3.5 if bars is None else 1.1 + 0.5 * bars), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    dress(axes, title, xlabel, "both" if bars is None else "x")
    return figure, axes


def dress(axes: Axes, title: str, xlabel: str, grid: Literal["both", "x"] = "both") -> None:
    """Give axes their title, label, ticks and grid."""
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_xlabel(xlabel)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=FAINT, linewidth=0.6, axis=grid)
    axes.set_axisbelow(True)


def make_logarithmic(axes: Axes, which: Literal["x", "y"], low: float, high: float, text: Text = "{:g}".format) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks: fewer of them where it spans many decades."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", nonpositive="mask")
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_formatter(NullFormatter())


def legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Put the legend below the axes, where it covers nothing, and make the figure higher by it."""
    handles, labels = axes.get_legend_handles_labels()
    folded = ["\n".join(wrap(label, 28, break_long_words=False)) for label in labels]
    lines = sum(label.count("\n") + 1 for label in folded)
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-lines // columns))
    figure.legend(
        handles, folded, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, handlelength=2.6
    )


def check_format(option: str, path: Path | None) -> None:
    """Refuse a file for a figure whose ending is none of :data:`FORMATS`."""
    if path is not None and path.suffix not in FORMATS:
        raise InputError(f"{option} {path}: allowed endings: {', '.join(FORMATS)}")


def save_figure(figure: Figure, option: str, path: Path) -> None:
    """Write a figure to the file that an option names; its ending says how.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    try:
        figure.savefig(path, dpi=200, metadata={"Software": None} if path.suffix == ".png" else None)
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be written: {error.strerror or error}") from error
