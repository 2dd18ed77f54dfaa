"""Checks, and what stands around them, as tables for the terminal."""

import math
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from ..formatting import MISSING, significant
from .assumptions import Assumption
from .check import Condition, Judged, Verdict
from .constants import Constants
from .landscape import Landscape
from .rates import Rate
from .registry import GUARANTEES

GRAVEST = (Verdict.VIOLATED, Verdict.INCONCLUSIVE, Verdict.NOT_REFUTED, Verdict.HOLDS, Verdict.NOT_APPLICABLE)
"""Verdicts, the one to look at first in front."""

BLIND = "cannot discriminate"


def checks_table(judged: Sequence[Judged]) -> Table:
    """Return a table with a row for each check: conditions, both sides where they are nearest, verdict and reason."""
    table = _table()
    table.add_column("check", overflow="fold", max_width=30)
    table.add_column("on", overflow="fold", min_width=24)
    table.add_column("conditions", no_wrap=True)
    for name in ("measured", "bound", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold", min_width=12)
    marks = _marks(judged)
    for one in judged:
        table.add_row(*_row(one, marks.get(one.reason, "")))
    table.caption = Text("\n".join(f"{mark} {reason}" for reason, mark in marks.items()))
    table.caption_justify = "left"
    return table


def _marks(judged: Sequence[Judged]) -> dict[str, str]:
    """Return a mark for each reason, so that it need be written but once."""
    reasons = dict.fromkeys(one.reason for one in judged if one.reason)
    return {reason: f"[{number}]" for number, reason in enumerate(reasons, 1)}


def landscape_table(lands: Mapping[str, Landscape]) -> Table:
    """Return a table of a problem's constants as each scheme met them, and how they are known."""
    table = _table()
    table.add_column("constant")
    for scheme in lands:
        table.add_column(scheme, justify="right", overflow="fold")
    table.add_column("known")
    table.add_column("meaning", overflow="fold")
    for rows in zip(*(land.rows() for land in lands.values()), strict=True):
        known = ", ".join(dict.fromkeys(row.how or "no" for row in rows))
        table.add_row(rows[0].symbol, *(significant(row.value) for row in rows), known, rows[0].meaning)
    return table


def constants_title(found: Constants) -> str:
    """Return what the table of constants shows."""
    what = "omega" if found.unbiased else "1 - delta"
    return f"{what} of {found.scheme}: E||C(x) - x||^2 / ||x||^2, stated at most {significant(found.stated)}"


def constants_table(found: Constants) -> Table:
    """Return a table of a scheme's constant on each vector, with its confidence limits."""
    table = _table()
    for name in ("vector", "measured", "at least", "at most"):
        table.add_column(name, justify="left" if name == "vector" else "right")
    for name, estimate in found.measured.items():
        table.add_row(name, *map(significant, estimate))
    table.add_row(f"worst found, from {found.found_from}", *map(significant, found.found))
    return table


def rates_table(rates: Sequence[Rate]) -> Table:
    """Return a table of fitted exponents and constants next to the exponents that theory promises.

    The misfit is the largest difference between a logarithm and the fit: large where the form is wrong.
    """
    table = _table()
    table.add_column("on", overflow="fold")
    for name in ("T counts", "form", "p", "interval", "promised", "by", "c", "misfit"):
        words = name in ("T counts", "form", "by")
        table.add_column(name, justify="left" if words else "right", no_wrap=True)
    for rate in rates:
        p = rate.exponent
        interval = f"{significant(p.low)} to {significant(p.high)}"
        numbers = significant(rate.constant.value), significant(rate.misfit)
        fitted = significant(p.value), interval, significant(rate.predicted), rate.source
        table.add_row(rate.subject, rate.against, rate.form, *fitted, *numbers)
    return table


def assumptions_table(rows: Sequence[Assumption]) -> Table:
    """Return a table of what proofs take for bounded, as it was met."""
    table = _table()
    table.add_column("quantity", no_wrap=True)
    table.add_column("on", overflow="fold")
    for name in ("median", "90 %", "99 %", "largest", "stated"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("meaning", overflow="fold")
    for row in rows:
        numbers = (row.median, row.percentile_90, row.percentile_99, row.largest, row.allowed)
        table.add_row(row.symbol, row.subject, *map(significant, numbers), row.meaning)
    return table


def outlook(subject: str, judged: Sequence[Judged]) -> str:
    """Return a sentence on the convergence guarantees that apply to a subject, or that none does."""
    found = {one.finding.statement.name: one.verdict for one in gravest(judged)}
    apply = {name: found[name] for name in found if name in GUARANTEES and found[name] != Verdict.NOT_APPLICABLE}
    if not apply:
        return f"{subject} is outside of every convergence guarantee that is checked here."
    told = ", ".join(f"{name} ({verdict})" for name, verdict in apply.items())
    return f"Convergence guarantees that apply to {subject}: {told}."


def left_out(judged: Iterable[Judged]) -> list[str]:
    """Return a line for each reason why statements apply to none of the instances, with their names.

    A statement's reason is that of the instance where the fewest of its conditions do not hold.
    """
    judged = list(judged)
    applied = {one.finding.statement.name for one in judged if one.verdict != Verdict.NOT_APPLICABLE}
    nearest: dict[str, Judged] = {}
    for one in judged:
        known = nearest.setdefault(one.finding.statement.name, one)
        if len(one.finding.refused) < len(known.finding.refused):
            nearest[one.finding.statement.name] = one
    reasons: dict[str, dict[str, None]] = {}
    for name, one in nearest.items():
        if name not in applied:
            reasons.setdefault(one.reason, {})[name] = None
    return [f"Not applicable (needed: {reason}): {', '.join(names)}." for reason, names in reasons.items()]


def _table() -> Table:
    """Return an empty table."""
    return Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)


def _row(one: Judged, mark: str) -> tuple[str | Text, ...]:
    """Return a check's cells."""
    finding = one.finding
    shown = one.worst >= 0 and one.verdict != Verdict.NOT_APPLICABLE
    sides = (one.measured[one.worst], finding.bound[one.worst], one.ratio) if shown else (None, None, None)
    numbers = (MISSING if side is None else significant(float(side)) for side in sides)
    blind = "" if one.discriminates else f", {BLIND}"
    verdict = Text(f"{one.verdict}{blind} {mark}".rstrip(), style="bold red" if one.verdict == Verdict.VIOLATED else "")
    return finding.statement.name, finding.subject, hold(finding.conditions), *numbers, verdict


def hold(conditions: Iterable[Condition]) -> str:
    """Return in a word whether conditions hold."""
    states = {condition.holds for condition in conditions}
    if False in states:
        return "no"
    return "estimated" if None in states else "hold"


def gravest(judged: Sequence[Judged]) -> list[Judged]:
    """Return for each statement the instance to look at first: by its verdict, then by its ratio of both sides.

    Instances to which a statement does not apply stand for it only where it applies to none.
    """
    chosen: dict[str, Judged] = {}
    for one in judged:
        name = one.finding.statement.name
        if name not in chosen or _rank(one) < _rank(chosen[name]):
            chosen[name] = one
    return list(chosen.values())


def _rank(one: Judged) -> tuple[int, float]:
    return GRAVEST.index(one.verdict), -(one.ratio if math.isfinite(one.ratio) else 0.0)


def tally(judged: Iterable[Judged]) -> str:
    """Return how many checks came out how, in a sentence."""
    verdicts = [one.verdict for one in judged]
    parts = [f"{verdicts.count(verdict)} {verdict}" for verdict in reversed(GRAVEST) if verdict in verdicts]
    return f"{len(verdicts)} checks: {', '.join(parts)}."
