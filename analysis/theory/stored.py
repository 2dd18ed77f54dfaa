"""Findings as text, so that what was checked once is not run again while nothing that it depends on has changed."""

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import torch

from ...sim.training.plan import source_digest
from .check import Condition, Finding
from .registry import STATEMENTS


def key(case: object) -> str:
    """Return the name under which a case's findings are stored: a sha256 over the case, versions and source."""
    source = source_digest("compressors", "sim/tasks", "sim/training", "analysis/theory")
    versions = [version("gradwire"), torch.__version__, np.__version__, version("scipy"), platform.python_version()]
    return hashlib.sha256(json.dumps([repr(case), versions, source]).encode()).hexdigest()


def to_text(findings: Sequence[Finding]) -> str:
    """Write findings as JSON, exactly."""
    return json.dumps([_data(finding) for finding in findings])


def from_text(text: str) -> list[Finding]:
    """Read what :func:`to_text` wrote."""
    return [_finding(data) for data in json.loads(text)]


_SIDES = ("steps", "values", "bound", "least", "most")


def _data(finding: Finding) -> dict[str, object]:
    return {
        "statement": finding.statement.name,
        "subject": finding.subject,
        "conditions": [vars(condition) for condition in finding.conditions],
        **{name: getattr(finding, name).tolist() for name in _SIDES},
        "slack": finding.slack,
        "axis": finding.axis,
        "exact": finding.exact,
    }


def _finding(data: dict[str, object]) -> Finding:
    parts = dict(data)
    statement = STATEMENTS[str(parts.pop("statement"))]
    conditions = tuple(Condition(**condition) for condition in parts.pop("conditions"))  # type: ignore[attr-defined]
    sides = {name: np.asarray(parts.pop(name), dtype=np.float64) for name in _SIDES}
    return Finding(statement, conditions=conditions, **sides, **parts)  # type: ignore[arg-type]
