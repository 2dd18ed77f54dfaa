"""The run of an experiment: each scheme's trajectory, played on the cluster, as one labelled dataset."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from ..compressors.base import Scheme
from .experiment import Experiment
from .step.analytic import analytic_workload
from .step.overhead import cost_source
from .step.timeline import Timeline, timeline
from .step.workload import Workload, ready_after
from .tasks.base import Task
from .training.plan import fingerprint
from .training.spread import train_spread
from .training.store import Store
from .training.train import check, cut, find_device, new_model
from .training.trajectory import Trajectory

Progress = Callable[[str, int], None]
"""Called with a scheme and the number of its completed steps."""

PHASES = ("forward", "backward", "encode", "decode", "optimizer", "exposed_communication")
"""What a step's time is made of."""

_SECONDS = {
    "step_s": "duration of the step",
    "end_s": "end of the step since the start of the run",
    "communication_s": "time for which the communication stream is busy",
    **{f"{phase}_s": f"time of the step spent on: {phase.replace('_', ' ')}" for phase in PHASES},
}


@dataclass(frozen=True, eq=False)
class SchemeRun:
    """One scheme of a run: what it learnt, when, and where the cost of its compression comes from."""

    trajectory: Trajectory
    timeline: Timeline
    cost_source: str


@dataclass(frozen=True, eq=False)
class Run:
    """An experiment and its result.

    Attributes
    ----------
    experiment : Experiment
    task : Task
    schemes : dict of str to SchemeRun
        In the experiment's order.
    """

    experiment: Experiment
    task: Task
    schemes: dict[str, SchemeRun]

    def dataset(self) -> xr.Dataset:
        """Return the run as arrays with named dimensions (scheme, step, evaluation) and units.

        What a diverged training did not reach is NaN.
        """
        training = self.experiment.training
        steps = np.arange(1, training.steps + 1)
        evaluated = np.array(sorted({*range(0, training.steps, training.evaluate_every), training.steps}))
        data = xr.Dataset(
            coords={
                "scheme": ("scheme", np.array(list(self.schemes), dtype=object)),
                "step": ("step", steps, {"long_name": "optimizer step"}),
                "evaluated_step": ("evaluation", evaluated, {"long_name": "completed steps at the evaluation"}),
            },
            attrs=self._attributes(),
        )
        rows = list(self.schemes.values())
        for name, meaning in _SECONDS.items():
            values = [_padded(getattr(row.timeline, name), len(steps)) for row in rows]
            data[name] = ("scheme", "step"), np.stack(values), {"units": "s", "long_name": meaning}
        sent = np.stack([_padded(row.timeline.sent_bytes, len(steps)) for row in rows])
        data["sent_bytes"] = ("scheme", "step"), sent, {"units": "byte", "long_name": "mean bytes sent by a worker"}
        for name in ("train_loss", "learning_rate"):
            values = [_padded(getattr(row.trajectory, name), len(steps)) for row in rows]
            data[name] = ("scheme", "step"), np.stack(values), {"units": "1", "long_name": name.replace("_", " ")}
        for name in ("validation_loss", "validation_metric", "test_loss", "test_metric"):
            values = [_padded(getattr(row.trajectory.evaluations, name), len(evaluated)) for row in rows]
            meaning = name.replace("_", " ").replace("metric", self.task.metric)
            data[name] = ("scheme", "evaluation"), np.stack(values), {"units": "1", "long_name": meaning}
        when = np.stack([_times(row, evaluated) for row in rows])
        attributes = {"units": "s", "long_name": "virtual time of the evaluation"}
        data["evaluation_s"] = ("scheme", "evaluation"), when, attributes
        data["completed_steps"] = "scheme", np.array([len(row.trajectory.logs) for row in rows])
        data["status"] = "scheme", np.array([row.trajectory.status for row in rows], dtype=object)
        data["cost_source"] = "scheme", np.array([row.cost_source for row in rows], dtype=object)
        engines = [f"{row.timeline.engine}: {row.timeline.why}" for row in rows]
        data["engine"] = "scheme", np.array(engines, dtype=object), {"long_name": "what timed the steps, and why"}
        return data

    def _attributes(self) -> dict[str, str | int | float]:
        """Return what holds for all schemes."""
        experiment = self.experiment
        target = experiment.training.target
        return {
            "title": experiment.title,
            "task": experiment.task.name,
            "metric": self.task.metric,
            "higher_is_better": int(self.task.higher_is_better),
            "workers": experiment.training.workers,
            "cluster": experiment.cluster.label,
            "device": experiment.workload.device,
            "parameters": next(iter(self.schemes.values())).trajectory.parameters,
            "experiment": experiment.to_toml(self.task),
            "gradwire": version("gradwire"),
            "torch": str(torch.__version__),
            **({} if target is None else {"target": target}),
        }


def run(
    experiment: Experiment,
    store: Store,
    progress: Progress | None = None,
    search: Path | None = None,
) -> Run:
    """Train an experiment's schemes, or take their trajectories from the store, and time them.

    Parameters
    ----------
    experiment : Experiment
    store : Store
        Each trajectory is put in as soon as it is complete, so an interrupted run goes on where it was.
    progress : callable, optional
    search : Path, optional
        Where a task of one's own is looked up first.

    Raises
    ------
    ValueError
        Of a kind that says which key, value and allowed range are at fault, before any training.
    """
    task = experiment.make_task(search)
    schemes = experiment.parsed_schemes()
    for scheme in schemes:
        check(task, scheme, experiment.training)
    store.prepare()
    work = workload(experiment, task)
    digest = task.digest()
    done = {}
    for scheme in schemes:
        trajectory = _trajectory(experiment, task, digest, scheme, store, progress)
        done[str(scheme)] = SchemeRun(
            trajectory,
            time_trajectory(experiment, task, trajectory, work),
            cost_source(trajectory.logs, experiment.overhead, experiment.workload.device_model()),
        )
    return Run(experiment, task, done)


def workload(experiment: Experiment, task: Task) -> Workload:
    """Return how long a worker of the experiment computes in a step."""
    model = new_model(task, experiment.training)
    section = experiment.workload
    if section.times is not None:
        return section.times.workload({name: tuple(p.shape) for name, p in model.named_parameters()})
    batch = task.splits().train.take(slice(0, experiment.training.batch_size))
    dtype = next(model.parameters()).dtype
    inputs = tuple(t.to(dtype) if t.is_floating_point() else t for t in batch)
    return analytic_workload(model, lambda module: task.loss(module, inputs), section.device_model())


def time_trajectory(experiment: Experiment, task: Task, trajectory: Trajectory, work: Workload) -> Timeline:
    """Play a trajectory's wire log on the experiment's cluster."""
    ready = ready_after(cut(new_model(task, experiment.training), experiment.training), work)
    return timeline(
        trajectory.logs,
        ready,
        work,
        experiment.cluster.cluster(),
        experiment.overhead,
        experiment.workload.device_model(),
        experiment.timing,
    )


def _trajectory(
    experiment: Experiment, task: Task, digest: str, scheme: Scheme, store: Store, progress: Progress | None
) -> Trajectory:
    """Return a scheme's trajectory, trained if it is not stored."""
    plan = experiment.training
    key = fingerprint(digest, str(scheme), plan, find_device(plan.device))
    trajectory = store.get(key)
    if trajectory is None:
        report = None if progress is None else lambda steps: progress(str(scheme), steps)
        trajectory = train_spread(task, scheme, plan, report)
        store.put(key, trajectory)
    if progress is not None:
        progress(str(scheme), plan.steps)
    return trajectory


def _times(row: SchemeRun, evaluated: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the virtual time of each evaluation."""
    ends = np.concatenate([[0.0], row.timeline.end_s])
    reached = row.trajectory.evaluations.steps
    return _padded(ends[reached], len(evaluated))


def _padded(values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Fill up with NaN."""
    return np.concatenate([values, np.full(length - len(values), np.nan)])
