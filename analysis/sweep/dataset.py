"""The dataset of a sweep: arrays with named dimensions, one for the schemes and one for each axis, and units."""

from collections.abc import Iterator
from importlib.metadata import version
from math import prod
from typing import Any

import numpy as np
import torch
import xarray as xr

from ...sim.models import load_model
from ...sim.network.critical import FloatArray
from ...sim.step.phases import Phases
from ...sim.training.tuning import first_at_target
from .baseline import with_baseline
from .grid import Grid
from .sweep import Cell, Sweep

_ONLY_TIMED = ("cluster.", "overhead.", "timing.", "baseline.")
"""Keys that change no trajectory and no byte, unless a scheme adapts to the cluster."""

_MEANINGS = {
    "density": "kept fraction of entries",
    "cost": "factor on the cost of encoding and decoding",
    "bandwidth": "link bandwidth",
    "latency": "one-way latency",
    "launch": "launch of a collective",
    "workers": "workers",
    "seed": "seed",
}
_LEARNT = {
    "steps_to_target": ("1", "completed steps at the first evaluation that meets the target"),
    "bytes_to_target": ("byte", "bytes that a worker hands over until the target is met"),
    "sent_bytes": ("byte", "mean bytes that a worker hands over in a step"),
    "final_metric": ("1", "test metric after the last step"),
    "completed_steps": ("1", "completed steps"),
    "learning_rate": ("1", "learning rate, the best of those tried"),
}
_TIMED = {
    "time_to_target_s": ("s", "virtual time until the target is met"),
    "run_s": ("s", "virtual time of the whole training"),
    "bucket_bytes": ("byte", "size of buckets"),
    **{name: ("s", f"mean time of a step: {name.removesuffix('_s').replace('_', ' ')}") for name in Phases._fields},
}
CURVES = ("validation_metric", "test_metric")


def assemble(sweep: Sweep) -> xr.Dataset:
    """Return a sweep's results as one dataset, with the best uncompressed scheme and speed-ups over it.

    Variables that an axis cannot change do not have its dimension.
    """
    grid = sweep.grid
    data = _empty(sweep)
    values = {name: np.full((len(grid.labels), *grid.shape), np.nan) for name in (*_LEARNT, *_TIMED)}
    status = np.full((len(grid.labels), *grid.shape), "", dtype=object)
    evaluated = data["evaluated_step"].values
    curves = {name: np.full((*status.shape, len(evaluated)), np.nan) for name in CURVES}
    for cell in sweep.cells:
        trajectory = sweep.trajectories[cell.order.key]
        place = _place(sweep, cell)
        for name, value in _numbers(sweep, cell):
            values[name][place] = value
        status[place] = trajectory.status
        rows = np.searchsorted(evaluated, trajectory.evaluations.steps)
        for name in CURVES:
            curve = np.full(len(evaluated), np.nan)
            curve[rows] = getattr(trajectory.evaluations, name)
            curves[name][place] = curve
    dims = ("scheme", *(axis.name for axis in grid.axes))
    constant = {axis.name: 0 for axis in grid.axes if _only_timed(axis.key, grid)}
    for name, (units, meaning) in {**_LEARNT, **_TIMED}.items():
        whole = xr.DataArray(values[name], dims=dims, attrs={"units": units, "long_name": meaning})
        data[name] = whole.isel(constant) if name in _LEARNT else whole
    data["status"] = xr.DataArray(status, dims=dims).isel(constant)
    for name in CURVES:
        meaning = name.replace("_", " ").replace("metric", sweep.task.metric)
        attributes = {"units": "1", "long_name": meaning}
        data[name] = xr.DataArray(curves[name], dims=(*dims, "evaluation"), attrs=attributes).isel(constant)
    return with_baseline(data)


def _empty(sweep: Sweep) -> xr.Dataset:
    """Return a dataset with coordinates and attributes alone."""
    grid = sweep.grid
    steps = sorted({step for t in sweep.trajectories.values() for step in t.evaluations.steps.tolist()})
    coordinates: dict[str, Any] = {"scheme": ("scheme", np.array(grid.labels, dtype=object))}
    for i, axis in enumerate(grid.axes):
        found, unit = grid.coordinate(i)
        column = np.array(found) if unit else np.array(found, dtype=object)
        attributes = {"units": unit, "key": axis.key, "long_name": _MEANINGS.get(axis.name, axis.key)}
        coordinates[axis.name] = (axis.name, column, attributes)
    meaning = "completed steps at the evaluation"
    coordinates["evaluated_step"] = ("evaluation", np.array(steps, np.int64), {"long_name": meaning})
    sources: dict[int, str] = {}
    for cell in sweep.cells:
        sources.setdefault(cell.label, sweep.times[cell].cost_source)
    coordinates["cost_source"] = ("scheme", np.array([sources[i] for i in range(len(grid.labels))], dtype=object))
    return xr.Dataset(coords=coordinates, attrs=_attributes(sweep))


def _attributes(sweep: Sweep) -> dict[str, Any]:
    """Return what holds for all points."""
    experiment, task = sweep.grid.first, sweep.task
    training = experiment.training
    own = {axis.key for axis in sweep.grid.axes}
    return {
        "title": experiment.title,
        "task": experiment.task.name,
        "metric": task.metric,
        "higher_is_better": int(task.higher_is_better),
        "steps": training.steps,
        "workers": training.workers,
        "cluster": experiment.cluster.label,
        "device": experiment.workload.device,
        "elements": _elements(sweep),
        "axes": [axis.name for axis in sweep.grid.axes],
        "engines": sorted({times.engine for times in sweep.times.values()}),
        "experiment": experiment.to_toml(task),
        "gradwire": version("gradwire"),
        "torch": str(torch.__version__),
        **({} if training.target is None or "training.target" in own else {"target": training.target}),
        **({"tuned_rates": list(experiment.tune.learning_rates)} if experiment.tune.learning_rates else {}),
        **({} if experiment.workload.model is None else {"proxy": _proxy(sweep.grid)}),
    }


def _proxy(grid: Grid) -> str:
    """Return as which models steps are timed."""
    axis = grid.axis("workload.model")
    return str(grid.first.workload.model) if axis is None else " or ".join(map(str, axis.values))


def _elements(sweep: Sweep) -> int:
    """Return how many values the gradient has that is timed, at the first point."""
    first = sweep.trajectories[sweep.cells[0].order.key]
    name = sweep.grid.first.workload.model
    return first.parameters if name is None else sum(prod(shape) for _, shape in load_model(name).parameters())


def _only_timed(key: str, grid: Grid) -> bool:
    return key.startswith(_ONLY_TIMED) and not any("cost=cluster" in text for text in grid.schemes)


def _place(sweep: Sweep, cell: Cell) -> tuple[int | slice, ...]:
    """Return where in the arrays a cell's numbers belong."""
    index = (slice(None) if cell.whole and i in sweep.at_once else own for i, own in enumerate(cell.index))
    return (cell.label, *index)


def _numbers(sweep: Sweep, cell: Cell) -> Iterator[tuple[str, float | FloatArray]]:
    """Yield a cell's numbers by the name of their variable, in the shape of its points or as one number."""
    trajectory, times = sweep.trajectories[cell.order.key], sweep.times[cell]
    evaluations, training = trajectory.evaluations, cell.experiment.training
    completed = len(trajectory.logs)
    reached = first_at_target(evaluations, training.target, sweep.task.higher_is_better)
    if reached is not None:
        yield "steps_to_target", float(evaluations.steps[reached])
        yield "bytes_to_target", float(times.sent_bytes[reached])
        yield "time_to_target_s", times.elapsed.step_s[..., reached]
    if len(evaluations.steps):
        yield "final_metric", float(evaluations.test_metric[-1])
    yield "completed_steps", float(completed)
    yield "learning_rate", cell.order.plan.learning_rate
    yield "bucket_bytes", times.bucket_bytes
    yield "run_s", times.elapsed.step_s[..., -1]
    if completed:
        yield "sent_bytes", float(times.sent_bytes[-1]) / completed
        yield from ((name, getattr(times.elapsed, name)[..., -1] / completed) for name in Phases._fields)
