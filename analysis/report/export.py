"""Candidates as plain data: all that the page needs to time them anew, equal parts once."""

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from ...sim.network.costs import Cost
from ...sim.step.graph import Task
from ...sim.step.timeline import Plan
from ..exploration import Candidate, Curve
from ..style import Look, looks

_KINDS = ("forward", "backward", "encode", "between", "decode", "optimizer")
_COLUMNS = ("launches", "hops", "bytes", "fixed_s", "inside_s")


class _Pool:
    """Values of which equal ones are kept once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        """Return where a value is; it is put in if it is new."""
        place = self._places.setdefault(json.dumps(value), len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


def exported(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return candidates as plain data, ready for ``json.dumps``.

    Returns
    -------
    dict
        ``tasks``: of each graph, a list for each task (kind, seconds, after, before, resource, needs; -1 for none).
        ``costs``: of each graph, for each exchange and collective the columns of a cost, each of them one number or
        one for each log. ``plans``: graphs as (tasks, costs, logs), and the steps as runs of equal ones, (log, count),
        logs being counted through all of the plan's graphs. ``curves``; ``looks`` by scheme; ``candidates``.
    """
    pools = {name: _Pool() for name in ("tasks", "costs", "plans", "curves")}
    rows = [
        {
            "scheme": one.scheme,
            "uncompressed": one.uncompressed,
            "density": one.density,
            "workers": one.workers,
            "variants": [[pools["plans"].place(_plan(plan, pools)) for plan in plans] for plans in one.variants],
            "curves": [pools["curves"].place(_curve(curve)) for curve in one.curves],
        }
        for one in candidates
    ]
    schemes = list(dict.fromkeys(one.scheme for one in candidates))
    return {
        **{name: pool.values for name, pool in pools.items()},
        "looks": {scheme: _look(look) for scheme, look in zip(schemes, looks(schemes), strict=True)},
        "candidates": rows,
    }


def _plan(plan: Plan, pools: dict[str, _Pool]) -> dict[str, Any]:
    assert plan.priced is not None
    sizes = [len(graph.logs) for graph in plan.graphs]
    first = np.cumsum([0, *sizes])
    numbers = first[plan.graph] + plan.row
    return {
        "graphs": [
            [
                pools["tasks"].place([_task(task) for task in graph.tasks]),
                pools["costs"].place([[_cost(cost) for cost in exchange] for exchange in priced]),
                size,
            ]
            for graph, priced, size in zip(plan.graphs, plan.priced, sizes, strict=True)
        ],
        "steps": [[number, len(list(members))] for number, members in groupby(numbers.tolist())],
    }


def _task(task: Task) -> list[float]:
    after, before, needs = (-1 if place is None else place for place in (task.after, task.before, task.needs))
    return [_KINDS.index(task.kind), task.seconds, after, before, int(task.resource == "codec"), needs]


def _cost(cost: Cost) -> list[float | list[float]]:
    return [_column(getattr(cost, name)) for name in _COLUMNS]


def _column(values: npt.NDArray[np.float64]) -> float | list[float]:
    """Return one number if all are equal; whole ones as integers, which are shorter."""
    numbers = [int(value) if value.is_integer() else value for value in map(float, values)]
    return numbers[0] if numbers.count(numbers[0]) == len(numbers) else numbers


def _curve(curve: Curve) -> dict[str, Any]:
    return {
        "steps": curve.steps.tolist(),
        "metric": _finite(curve.metric.tolist()),
        "status": curve.status,
        "final": curve.final_metric,
    }


def _finite(values: Iterable[float]) -> list[float | None]:
    return [value if isfinite(value) else None for value in values]


def _look(look: Look) -> dict[str, Any]:
    dashes = [] if isinstance(look.dashes, str) else list(look.dashes[1])
    return {"colour": look.colour, "marker": look.marker, "dashes": dashes}
