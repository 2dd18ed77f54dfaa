"""Results of cases as text, so that what was checked once is not run again while all that it depends on is the same."""

import hashlib
import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from ...sim.training.plan import source_digest
from .assumptions import Assumption
from .cases import Result
from .check import Condition, Finding
from .rates import Interval, Rate
from .registry import STATEMENTS


def key(case: object) -> str:
    """Return the name under which a case's findings are stored: a sha256 over the case, versions and source."""
    source = source_digest("compressors", "sim/tasks", "sim/training", "analysis/theory")
    versions = [version("gradwire"), torch.__version__, np.__version__, version("scipy"), platform.python_version()]
    return hashlib.sha256(json.dumps([repr(case), versions, source]).encode()).hexdigest()


def to_text(result: Result) -> str:
    """Write a case's result as JSON, exactly."""
    data = {
        "findings": [_data(finding) for finding in result.findings],
        "rates": [asdict(rate) for rate in result.rates],
        "assumptions": [assumption._asdict() for assumption in result.assumptions],
    }
    return json.dumps(data)


def from_text(text: str) -> Result:
    """Read what :func:`to_text` wrote."""
    data = json.loads(text)
    return Result(
        [_finding(finding) for finding in data["findings"]],
        [_rate(rate) for rate in data["rates"]],
        [Assumption(**assumption) for assumption in data["assumptions"]],
    )


_SIDES = ("steps", "values", "bound", "least", "most")


def _data(finding: Finding) -> dict[str, Any]:
    return {
        "statement": finding.statement.name,
        "subject": finding.subject,
        "conditions": [vars(condition) for condition in finding.conditions],
        **{name: getattr(finding, name).tolist() for name in _SIDES},
        "slack": finding.slack,
        "axis": finding.axis,
        "exact": finding.exact,
    }


def _finding(data: dict[str, Any]) -> Finding:
    parts = dict(data)
    statement = STATEMENTS[parts.pop("statement")]
    conditions = tuple(Condition(**condition) for condition in parts.pop("conditions"))
    sides: dict[str, Any] = {name: np.asarray(parts.pop(name), dtype=np.float64) for name in _SIDES}
    return Finding(statement, conditions=conditions, **sides, **parts)


def _rate(data: dict[str, Any]) -> Rate:
    intervals = {name: Interval(*data[name]) for name in ("exponent", "constant")}
    return Rate(**{**data, **intervals})
