"""`gradwire show`: the table and verdict of a finished run or sweep."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
import xarray as xr
from rich.console import Console

from ..analysis.comparison import Comparison, compare
from ..analysis.folder import read_run
from ..analysis.sweep.answer import Answer, answer
from ..analysis.sweep.folder import SWEEP, read_sweep
from ..analysis.sweep.summary import sweep_table
from ..analysis.tables import comparison_table
from ..analysis.verdict import verdict

PIPE_WIDTH = 160
"""The width of tables that do not go to a terminal."""


def show(folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run or a sweep.")]) -> None:
    """Show a finished run or sweep: its table and its verdict."""
    if (folder / SWEEP.data).is_file():
        data = read_sweep(folder)
        show_sweep(data, answer(data))
    else:
        show_comparison(compare(read_run(folder)))


def show_comparison(comparison: Comparison) -> None:
    """Print a comparison's table, notes and verdict."""
    console = _console()
    console.print(comparison_table(comparison, console.width))
    _say(console, comparison.notes, verdict(comparison))


def show_sweep(data: xr.Dataset, found: Answer) -> None:
    """Print a sweep's table, notes and answer."""
    console = _console()
    console.print(sweep_table(data, found))
    _say(console, found.notes, found.sentence)


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def _say(console: Console, notes: Iterable[str], answer: str) -> None:
    for note in notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    console.print(f"\n{answer}", markup=False, soft_wrap=True, style="bold")
