"""A comparison as a table for the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .columns import Column, columns
from .comparison import Comparison
from .formatting import format_target

_SCHEME_WIDTH = 36
_AMPLE = Console(width=1000)  # measures what a table needs, whatever the real console has


def comparison_table(comparison: Comparison, width: int = 120) -> Table:
    """Return a table of at most ``width`` columns of text.

    Where that is too narrow for all numbers, the least important columns are left out one by one; names of schemes are
    folded between their parameters, never cut.

    Parameters
    ----------
    comparison : Comparison
    width : int
        The console's, usually.
    """
    shown = list(columns(comparison))
    left_out: list[Column] = []
    longest_word = max((len(word) for row in comparison.rows for word in row.scheme.split()), default=0)
    narrowest = min(longest_word, _SCHEME_WIDTH)
    while len(shown) > 1 and _AMPLE.measure(_table(comparison, shown, narrowest, narrowest)).maximum > width:
        left_out.append(min(shown, key=lambda column: column.importance))
        shown.remove(left_out[-1])
    table = _table(comparison, shown, narrowest, _SCHEME_WIDTH)
    table.caption = _caption(comparison, left_out)
    return table


def _table(comparison: Comparison, shown: list[Column], narrowest: int, widest: int) -> Table:
    """Build the table with some of its columns, and names of schemes between two widths."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, caption_justify="left")
    table.add_column("\nscheme", overflow="fold", min_width=narrowest, max_width=widest)
    for column in shown:
        table.add_column(column.brief, justify="right", no_wrap=True)
    for row in comparison.rows:
        name = Text(row.scheme, style="bold" if row == comparison.baseline else "")
        table.add_row(name, *(Text(column.text(row).replace(" at ", "\nat ")) for column in shown))
    return table


def _caption(comparison: Comparison, left_out: list[Column]) -> Text:
    """Say what the columns mean, and which there was no room for."""
    parts = ["Means of a step in virtual time; bytes are what a worker hands over"]
    if comparison.target is not None:
        parts.append(f"target: validation {comparison.metric} {format_target(comparison.target, comparison.metric)}")
    if comparison.baseline is not None:
        parts.append(f"speed-up over {comparison.baseline.scheme}")
    if comparison.proxy is not None:
        parts.append(comparison.proxy)
    if left_out:
        parts.append("no room for " + ", ".join(column.title for column in left_out))
    return Text("; ".join(parts) + ".")
