"""Recorded runs as evidence: from the folders of runs that were recorded to what checks are made on."""

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from ...compressors.base import Shape
from ...compressors.errors import InputError
from ...compressors.spec import parse_scheme
from ...sim.experiment import Experiment, validate_experiment
from ...sim.recorded import Record, read_record
from ...sim.tasks.convex import Convex
from ...sim.training.nature import Nature
from ...sim.training.plan import Training
from ...sim.training.record import AT_ITERATES, VECTORS, Trace
from ..folder import read_run
from .check import Condition, Floats
from .evidence import Evidence, Facts
from .landscape import Landscape, landscape_of

_FLOAT32 = 1e-5
"""What a step in float32 may be off, relative to the largest vector: a hundred times its unit of rounding."""


_EXPLODED = 1e60
"""Beyond this, squares and products of measured values would overflow, of which no bound says anything."""


class _Run(NamedTuple):
    experiment: Experiment
    status: dict[str, str]
    record: Record


class _Objective(NamedTuple):
    """f and its gradient, of parameters [d]."""

    value: Callable[[Floats], float]
    gradient: Callable[[Floats], Floats]


@dataclass(frozen=True, eq=False)
class _Group:
    """Runs of a scheme that differ in their seeds alone."""

    scheme: str
    plan: Training
    task: str
    traces: tuple[Trace, ...]
    status: tuple[str, ...]
    nature: Nature
    shapes: tuple[Shape, ...]

    @property
    def landscape(self) -> Landscape:
        return landscape_of(self.traces, self.nature, self.plan.workers, self.plan.batch_size)


def evidence_of(*runs: xr.Dataset | Path) -> list[Evidence]:
    """Return what recorded runs give, for each of their schemes.

    Parameters
    ----------
    runs : xarray.Dataset or Path
        Datasets of runs, or run folders. Several must be the same experiment with other seeds; together they are the
        evidence for statements about means over runs.

    Raises
    ------
    InputError
        If a run was not recorded, or runs differ in more than their seeds.
    FolderError
        If a folder is no run.
    """
    read = [_read(run) for run in runs]
    found = []
    for group in _groups(read):
        subject = f"{group.scheme} on {group.task}"
        facts = _facts(group, _objective(read[0].experiment, group.traces))
        scheme = parse_scheme(group.scheme)
        found.append(Evidence(subject, scheme, group.shapes, group.plan.workers, group.traces, facts))
    return found


def landscapes_of(*runs: xr.Dataset | Path) -> dict[str, Landscape]:
    """Return the constants of the problem as each scheme met them; parameters and errors as :func:`evidence_of`."""
    return {group.scheme: group.landscape for group in _groups([_read(run) for run in runs])}


def _read(run: xr.Dataset | Path) -> _Run:
    data = run if isinstance(run, xr.Dataset) else read_run(run)
    record = read_record(data)
    experiment = validate_experiment(tomllib.loads(data.attrs["experiment"]))
    status = dict(zip(map(str, data["scheme"].values), map(str, data["status"].values), strict=True))
    return _Run(experiment, status, record)


def _groups(runs: Sequence[_Run]) -> list[_Group]:
    """Return the runs by scheme, all cut to the length of the shortest."""
    first = runs[0].experiment
    for run in runs[1:]:
        if differs := _difference(first, run.experiment):
            raise InputError(f"the runs differ in {differs}; give runs that differ in training.seed alone")
    seeds = [run.experiment.training.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"the runs have the seeds {', '.join(map(str, seeds))}; give each seed once")
    found = []
    for scheme in dict.fromkeys(scheme for run in runs for scheme in run.record.traces):
        having = [run for run in runs if scheme in run.record.traces]
        traces = [run.record.traces[scheme] for run in having]
        steps = min(map(_examined, traces))
        status = tuple(run.status[scheme] for run in having)
        cut = tuple(_cut(trace, steps) for trace in traces)
        record, plan = having[0].record, having[0].experiment.training
        found.append(_Group(scheme, plan, first.task.name, cut, status, record.nature, record.shapes))
    return found


def _difference(one: Experiment, other: Experiment) -> str:
    """Return the first key in which two experiments would learn differently, besides seed and target; or nothing."""
    for section, ignored in (("task", set()), ("training", {"seed", "target", "device"}), ("tune", {"seed"})):
        a, b = (getattr(experiment, section).model_dump(exclude=ignored) for experiment in (one, other))
        for key in sorted(a | b, key=lambda key: key != "name"):  # another task has other options
            if a.get(key) != b.get(key):
                return f"{section}.{key}"
    return ""


def _examined(trace: Trace) -> int:
    """Return how many steps of a trace are told: all, or of a training that explodes those before, and at least one."""
    sizes = np.stack([np.abs(getattr(trace, name)) for name in ("loss", "gradient2", "memory2")])
    beyond = np.flatnonzero((sizes > _EXPLODED).any(axis=0))  # what was not measured, NaN, is not
    return max(int(beyond[0]) - 1 if len(beyond) else len(trace.lr), 1)


def _cut(trace: Trace, steps: int) -> Trace:
    """Return the first steps of a trace."""
    changes: dict[str, Any] = {}
    for field in fields(Trace):
        values = getattr(trace, field.name)
        if values is not None:
            changes[field.name] = values[: steps + (field.name in (*AT_ITERATES, *VECTORS))]
    return replace(trace, **changes)


def _facts(group: _Group, objective: _Objective | None) -> Facts:
    land, plan = group.landscape, group.plan
    drawing = (Condition("examples drawn independently: they are shuffled, without replacement in an epoch", None),)
    return Facts(
        smoothness=land.smoothness,
        strong_convexity=land.strong_convexity,
        convex=land.convex,
        least=land.least,
        optimum=land.optimum,
        noise=land.noise,
        value=None if objective is None else objective.value,
        gradient=None if objective is None else objective.gradient,
        conditions=(*_conditions(group), *drawing),
        drawing=drawing,
        rough=land.rough or (),
        rounding=_FLOAT32 if plan.dtype == "float32" else Facts.rounding,
    )


def _conditions(group: _Group) -> tuple[Condition, ...]:
    """Return what holds of how it was trained, whatever was drawn."""
    plan, found = group.plan, [_plain(group.plan)]
    if not group.nature.alone:
        found.append(Condition("a loss of parameters and examples alone: not with dropout or batch statistics", False))
    if plan.dtype == "float32":
        found.append(Condition("exact arithmetic: every step is rounded to float32", None))
    broken = [status for status in group.status if status != "completed"]
    if broken:
        text = f"trainings that were completed: {len(broken)} of {len(group.status)} did not, one {broken[0]}"
        found.append(Condition(text, None))
    return tuple(found)


def _plain(plan: Training) -> Condition:
    """Return the condition of plain SGD, with what breaks it."""
    text = "plain SGD"
    if plan.optimizer != "SGD":
        return Condition(f"{text}: training.optimizer is {plan.optimizer}", False)
    for option, value in plan.optimizer_options.items():
        if value and option in ("momentum", "weight_decay", "maximize"):
            return Condition(f"{text}: training.optimizer_options has {option} = {value}", False)
    return Condition(text, True)


def _objective(experiment: Experiment, traces: Sequence[Trace]) -> _Objective | None:
    """Return f and its gradient of a convex task, if the task can be made here and is the one that was trained."""
    position = traces[0].position
    if position is None:
        return None
    try:
        task = experiment.make_task()
    except InputError:
        return None
    if not isinstance(task, Convex):
        return None
    split, model = task.splits().train.to(dtype=torch.float64), task.model().double().eval()
    (parameter,) = (p for p in model.parameters() if p.requires_grad)

    def loss(x: Floats) -> torch.Tensor:
        with torch.no_grad():
            parameter.copy_(torch.as_tensor(x).view_as(parameter))
        return task.loss(model, split.tensors)

    def value(x: Floats) -> float:
        with torch.no_grad():
            return float(loss(x))

    def gradient(x: Floats) -> Floats:
        found: Floats = torch.autograd.grad(loss(x), parameter)[0].reshape(-1).numpy()
        return found

    same = np.isclose(value(position[0]), traces[0].loss[0], rtol=1e-9, atol=1e-12)
    return _Objective(value, gradient) if same else None
