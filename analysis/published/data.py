"""The validation on published runs as plain data, for JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .orders import Pair, schedule_pairs, winner_pairs
from .validation import Errors, Outcome, Part, Role

_TERMS = {
    "inside": "inside_bps",
    "between": "between_bps",
    "share": "share",
    "latency": "latency_s",
    "launch": "launch_s",
}


def published_data(parts: Sequence[Part]) -> dict[str, Any]:
    """Return sets with their terms, calibration rows and errors; all rows; and the pairs whose order was asked for."""
    everything = [one for part in parts for one in part.outcomes]
    predicted = [one for one in everything if one.role == Role.PREDICTED]
    return {
        "sets": [_set(part) for part in parts],
        "rows": [_row(one) for one in everything],
        "errors": {
            "strength_a": _errors([one for one in predicted if one.run.strength == "A"]),
            "compressed": _errors([one for one in predicted if one.run.compressed]),
        },
        "schedules": [_pair(pair) for pair in schedule_pairs(parts)],
        "winners": [_pair(pair) for pair in winner_pairs(parts)],
    }


def _set(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "title": part.of.title,
        "network": part.of.network,
        "strength": part.strength,
        "fitted": {_TERMS[name]: getattr(part.terms, name) for name in part.of.fit},
        "calibration": list(part.of.calibration),
        "errors": _errors(list(part.having(Role.PREDICTED))),
    }


def _errors(outcomes: Sequence[Outcome]) -> dict[str, float | int | None]:
    """Return errors as shares; null where there are none."""
    return {name: None if np.isnan(value) else value for name, value in asdict(Errors.of(outcomes)).items()}


def _row(one: Outcome) -> dict[str, Any]:
    return {
        "run": one.run.run,
        "set": one.run.set,
        "strength": one.run.strength,
        "role": str(one.role),
        "unknown": one.run.unknown,
        "measured_s": one.measured_s,
        "predicted_s": one.predicted_s,
        "error": None if np.isnan(one.error) else one.error,
        "source": one.run.source,
        "where": one.run.where,
    }


def _pair(pair: Pair) -> dict[str, Any]:
    return {"first": pair.first.run.run, "second": pair.second.run.run, "right": pair.right}
