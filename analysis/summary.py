"""A run's numbers and verdict as plain data: what becomes ``summary.json``."""

from dataclasses import asdict
from math import isfinite
from typing import Any

import numpy as np
import xarray as xr

from .comparison import Comparison
from .verdict import verdict

_FACTS = ("cluster", "device", "parameters", "task", "workers")


def summary(comparison: Comparison, dataset: xr.Dataset) -> dict[str, Any]:
    """Return what a program needs of a run, ready for ``json.dumps``.

    Keys are sorted, numbers are not rounded, and what is missing is None; the same run gives the same text. The
    schemes are in the run's order.
    """
    content = {
        **{name: dataset.attrs.get(name) for name in _FACTS},
        "baseline": None if comparison.baseline is None else comparison.baseline.scheme,
        "higher_is_better": comparison.higher_is_better,
        "metric": comparison.metric,
        "notes": comparison.notes,
        "schemes": [asdict(row) for row in comparison.rows],
        "steps": comparison.steps,
        "target": comparison.target,
        "verdict": verdict(comparison),
        "versions": {name: dataset.attrs.get(name) for name in ("gradwire", "torch")},
    }
    result: dict[str, Any] = plain(content)
    return result


def plain(value: Any) -> Any:
    """Turn containers into dicts and lists, numpy's scalars into Python's, and what is not finite into None."""
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not isfinite(value) else value
