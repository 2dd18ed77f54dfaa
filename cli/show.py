"""`gradwire show`: a finished run's table and verdict."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..analysis.comparison import Comparison, compare
from ..analysis.folder import read_run
from ..analysis.tables import comparison_table
from ..analysis.verdict import verdict

PIPE_WIDTH = 160
"""The width of tables that do not go to a terminal."""


def show(folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Show a finished run: its table and its verdict."""
    show_comparison(compare(read_run(folder)))


def show_comparison(comparison: Comparison) -> None:
    """Print a comparison's table, notes and verdict."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    console.print(comparison_table(comparison, console.width))
    for note in comparison.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    console.print(f"\n{verdict(comparison)}", markup=False, soft_wrap=True, style="bold")
