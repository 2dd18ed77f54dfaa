"""Advice as plain data, for programs."""

from dataclasses import asdict
from math import isfinite
from typing import Any

from .advice import Advice
from .sentence import sentence


def advice_data(advice: Advice) -> dict[str, Any]:
    """Return an advice as plain data, ready for ``json.dumps``; durations in seconds, what is missing is None."""
    data = asdict(advice)
    data["verdict"] = sentence(advice)
    data["price"] = None if advice.price is None else advice.price._asdict()
    for option, part in zip(advice.options, data["options"], strict=True):
        costs = advice.costs(option)
        part["affordable"] = option.affordable
        part["memory"]["total_bytes"] = option.memory.total_bytes
        part["costs"] = None if costs is None else asdict(costs)
    plain: dict[str, Any] = _plain(data)
    return plain


def _plain(value: Any) -> Any:
    """Turn tuples into lists, and what is not finite into None."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not isfinite(value) else value
