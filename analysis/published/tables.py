"""The validation on published runs as tables and sentences for the terminal and the documentation."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from rich import box
from rich.table import Table

from ..formatting import MISSING, format_seconds, significant
from .orders import Pair, schedule_pairs, winner_pairs
from .sets import Term
from .validation import Errors, Outcome, Part, Role

SUMMARY = ("set", "strength", "fitted", "predicted", "median", "95th", "worst", "not counted")
"""The columns of a summary."""


def summary_rows(parts: Sequence[Part]) -> list[tuple[str, ...]]:
    """Return the cells of a summary: a row for each set, and one for all rows of each kind."""
    rows = [_summary(part.of.title, part.strength, part.outcomes) for part in parts]
    everything = [one for part in parts for one in part.outcomes]
    rows.append(_summary("all of strength A", "A", [one for one in everything if one.run.strength == "A"]))
    rows.append(_summary("all compressed", "B", [one for one in everything if one.run.compressed]))
    return rows


def _summary(title: str, strength: str, outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """Return the cells of one row."""
    kept = list(outcomes)
    errors = Errors.of(one for one in kept if one.role == Role.PREDICTED)
    fitted, left_out = (sum(one.role == role for one in kept) for role in (Role.FITTED, Role.UNCOUNTED))
    shares = (percent(value) for value in (errors.median, errors.high, errors.worst))
    return title, strength, str(fitted), str(errors.rows), *shares, str(left_out)


def summary_table(parts: Sequence[Part]) -> Table:
    """Return the errors by set, and of all."""
    table = _table()
    table.add_column(SUMMARY[0], overflow="fold")
    for name in SUMMARY[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    cells = summary_rows(parts)
    for i, row in enumerate(cells):
        table.add_row(*row, style="bold" if i >= len(parts) else "")
    return table


def rows_table(parts: Iterable[Part]) -> Table:
    """Return every run with both times of a step, and what it was used for."""
    table = _table()
    table.add_column("run", overflow="fold", min_width=44)
    for name in ("measured", "predicted", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("used as", overflow="fold")
    for part in parts:
        for one in part.outcomes:
            use = f"{one.role}: {one.run.unknown} unknown" if one.run.unknown else str(one.role)
            times = format_seconds(one.measured_s), format_seconds(one.predicted_s)
            table.add_row(one.run.run, *times, percent(one.error, signed=True), use)
    return table


def calibration_lines(parts: Iterable[Part]) -> Iterator[str]:
    """Yield what each set fits, to which rows, and what came out."""
    for part in parts:
        if part.of.fit:
            found = ", ".join(f"{name} {term_text(part, name)}" for name in part.of.fit)
            yield f"{part.of.title}: {found}; fitted to {', '.join(part.of.calibration)}"
        else:
            yield f"{part.of.title}: nothing is fitted"


def term_text(part: Part, name: Term) -> str:
    """Write a term of a set's network with its unit."""
    value = getattr(part.terms, name)
    match name:
        case "inside" | "between":
            return f"{significant(value / 1e9)} Gbit/s"
        case "share":
            return significant(value)
        case _:
            return format_seconds(value)


def order_lines(parts: Sequence[Part]) -> Iterator[str]:
    """Yield how often the faster of two is told."""
    yield _order("Order of schedules", "pairs at equal cluster, model and workers", schedule_pairs(parts))
    yield _order("Winner between dense and compressed", "pairs in the same set-up", winner_pairs(parts))


def _order(what: str, of: str, pairs: Sequence[Pair]) -> str:
    """Return one such sentence, with the pairs of which it is not told."""
    right = sum(pair.right for pair in pairs)
    share = f" ({percent(right / len(pairs))})" if pairs else ""
    wrong = "; ".join(f"{pair.first.run.run} against {pair.second.run.run}" for pair in pairs if not pair.right)
    return f"{what}: right in {right} of {len(pairs)} {of}{share}" + (f"; wrong: {wrong}" if wrong else "")


def trivial_line(parts: Iterable[Part]) -> str:
    """Return how many compressed rows are predicted by an uncompressed one, and the error of the others."""
    rows = [one for part in parts for one in part.having(Role.PREDICTED) if one.run.compressed]
    others = [one for one in rows if not one.nothing_sent]
    return (
        f"{len(rows) - len(others)} of the {len(rows)} compressed runs are on one host, between whose GPUs their "
        f"software compresses nothing; without them the median is {percent(Errors.of(others).median)}"
    )


def unknown_lines(parts: Iterable[Part]) -> Iterator[str]:
    """Yield the unknown inputs, and of how many runs they are."""
    known: dict[str, int] = {}
    for part in parts:
        for one in part.having(Role.UNCOUNTED):
            known[one.run.unknown] = known.get(one.run.unknown, 0) + 1
    yield from (f"Not counted, for it is not published {what}: {count} runs" for what, count in known.items())


def percent(share: float, signed: bool = False) -> str:
    """Write a share in percent with one decimal."""
    return MISSING if np.isnan(share) else f"{100 * share:{'+' if signed else ''}.1f} %"


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
