"""Checks, and what stands around them, as data for JSON; what is not a finite number is null."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from .assumptions import Assumption
from .check import Condition, Floats, Judged
from .constants import Constants
from .landscape import Landscape
from .rates import Rate


def checks_data(judged: Iterable[Judged]) -> list[dict[str, Any]]:
    """Return everything about checks."""
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
        "axis": finding.axis,
        "at": _numbers(finding.steps),
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


def rates_data(rates: Iterable[Rate]) -> list[dict[str, Any]]:
    """Return everything about fitted rates."""
    return [_finite(asdict(rate)) for rate in rates]


def assumptions_data(rows: Iterable[Assumption]) -> list[dict[str, Any]]:
    """Return what was met of what proofs take for bounded."""
    return [_finite(row._asdict()) for row in rows]


def landscape_data(lands: Mapping[str, Landscape]) -> dict[str, Any]:
    """Return a problem's constants as each scheme met them."""
    return {
        "landscape": {
            scheme: {row.symbol: _finite({"value": row.value, "known": row.how}) for row in land.rows()}
            for scheme, land in lands.items()
        }
    }


def constants_data(found: Constants) -> dict[str, Any]:
    """Return a scheme's constants."""
    measured = {name: _finite(estimate._asdict()) for name, estimate in found.measured.items()}
    return {
        "constants": {
            "constant": "omega" if found.unbiased else "1 - delta",
            "stated": _number(found.stated),
            "measured": measured,
            "worst_found": _finite(found.found._asdict()) | {"from": found.found_from},
            "level": found.level,
        }
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return values with null for numbers that are not finite, in lists too."""
    return {key: _clean(value) for key, value in values.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_clean(item) for item in value]
    return _number(value) if isinstance(value, float) else value
