"""Judged checks as a table for the terminal, and as data."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table

from ..formatting import MISSING, significant
from .check import Condition, Floats, Judged, Verdict
from .landscape import Landscape

GRAVEST = (Verdict.VIOLATED, Verdict.INCONCLUSIVE, Verdict.NOT_REFUTED, Verdict.HOLDS, Verdict.NOT_APPLICABLE)
"""Verdicts, the one to look at first in front."""

BLIND = "cannot discriminate"


def checks_table(judged: Sequence[Judged], title: str | None = None) -> Table:
    """Return a table with a row for each check: conditions, both sides where they are nearest, verdict and reason."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, title=title, title_justify="left")
    table.add_column("check", overflow="fold", max_width=30)
    table.add_column("on", overflow="fold", min_width=24)
    table.add_column("conditions", no_wrap=True)
    for name in ("measured", "bound", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold", min_width=12)
    for one in judged:
        table.add_row(*_row(one))
    return table


def landscape_table(land: Landscape, title: str) -> Table:
    """Return a table of a problem's constants and how each is known."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, title=title, title_justify="left")
    for name in ("constant", "value", "known", "meaning"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for row in land.rows():
        table.add_row(row.symbol, significant(row.value), row.how or "no", row.meaning)
    return table


def _row(one: Judged) -> tuple[str, ...]:
    """Return a check's cells."""
    finding = one.finding
    shown = one.worst >= 0 and one.verdict != Verdict.NOT_APPLICABLE
    sides = (one.measured[one.worst], finding.bound[one.worst], one.ratio) if shown else (None, None, None)
    numbers = (MISSING if side is None else significant(float(side)) for side in sides)
    verdict = one.verdict if one.discriminates else f"{one.verdict} ({BLIND})"
    reason = f": {one.reason}" if one.reason else ""
    return finding.statement.name, finding.subject, hold(finding.conditions), *numbers, f"{verdict}{reason}"


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


def checks_data(judged: Iterable[Judged]) -> list[dict[str, Any]]:
    """Return everything about checks, for JSON; what is not a number is null."""
    return [_data(one) for one in judged]


def _data(one: Judged) -> dict[str, Any]:
    finding, statement = one.finding, one.finding.statement
    return {
        "check": statement.name,
        "title": statement.title,
        "source": statement.source,
        "formula": statement.formula,
        "kind": statement.kind,
        "grade": statement.grade,
        "relation": statement.relation,
        "attained": statement.attained or None,
        "discriminates": one.discriminates,
        "on": finding.subject,
        "conditions": [_condition(condition) for condition in finding.conditions],
        "verdict": str(one.verdict),
        "reason": one.reason or None,
        "runs": len(finding.values) if finding.measured else 0,
        finding.axis: _numbers(finding.steps),
        "measured": _numbers(one.measured),
        "lower_limit": _numbers(one.low),
        "upper_limit": _numbers(one.high),
        "bound": _numbers(finding.bound),
        "ratio": _number(one.ratio),
    }


def _condition(condition: Condition) -> dict[str, Any]:
    sides = {"measured": _number(condition.measured), "allowed": _number(condition.allowed)}
    return {"text": condition.text, "holds": condition.holds, **sides}


def _numbers(values: Floats) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
