"""The run of an experiment: each scheme's trajectory, played on the cluster, as one labelled dataset."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from .experiment import Experiment
from .recorded import add_record
from .step.timeline import Timeline
from .tasks.base import Task
from .timing import Timer
from .training.order import Order, candidates, chosen
from .training.plan import Training
from .training.store import Store
from .training.train import check
from .training.trajectory import Trajectory
from .training.tuning import best_rate

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
    """One scheme of a run: what it learnt, when, and where the cost of its compression comes from.

    ``bucket_bytes`` is the size of its buckets: of an uncompressed scheme the fastest of those that were tried; None
    where messages are not buckets. ``learning_rate`` is the one that was found best, if several were tried.
    """

    trajectory: Trajectory
    timeline: Timeline
    cost_source: str
    bucket_bytes: int | None
    learning_rate: float


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
        buckets = [float("nan") if row.bucket_bytes is None else float(row.bucket_bytes) for row in rows]
        data["bucket_bytes"] = "scheme", np.array(buckets), {"units": "byte", "long_name": "size of buckets"}
        if self.experiment.tune.learning_rates:
            rates = np.array([row.learning_rate for row in rows])
            data["tuned_learning_rate"] = "scheme", rates, {"units": "1", "long_name": "the best of those tried"}
        data["status"] = "scheme", np.array([row.trajectory.status for row in rows], dtype=object)
        data["cost_source"] = "scheme", np.array([row.cost_source for row in rows], dtype=object)
        engines = [f"{row.timeline.engine}: {row.timeline.why}" for row in rows]
        data["engine"] = "scheme", np.array(engines, dtype=object), {"long_name": "what timed the steps, and why"}
        beyond = ["; ".join(row.timeline.extrapolated) for row in rows]
        data["extrapolated"] = "scheme", np.array(beyond, dtype=object), {"long_name": "network beyond measurements"}
        traces = [row.trajectory.record for row in rows if row.trajectory.record is not None]
        if traces:
            add_record(data, traces, self.task, training)
        return data

    def _attributes(self) -> dict[str, str | int | float | list[float]]:
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
            **({} if experiment.training.message != "bucket" else {"bucket_bytes": experiment.training.bucket}),
            **({} if not experiment.tune.learning_rates else {"tuned_rates": list(experiment.tune.learning_rates)}),
            **({} if experiment.workload.model is None else {"proxy": experiment.workload.model}),
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
    timer = Timer(experiment, task)
    for parsed in experiment.parsed_schemes():
        check(task, parsed, experiment.training)
        timer.check(parsed)
    store.prepare()
    digest = task.digest()
    done = {}
    for scheme in experiment.schemes:
        plan, trajectory = _trajectory(experiment, task, digest, scheme, store, progress)
        bucket_bytes, times = timer.timeline(trajectory)
        source = timer.cost_source(times.plan)
        done[scheme] = SchemeRun(trajectory, times, source, bucket_bytes, plan.learning_rate)
    return Run(experiment, task, done)


def _trajectory(
    experiment: Experiment, task: Task, digest: str, scheme: str, store: Store, progress: Progress | None
) -> tuple[Training, Trajectory]:
    """Return a scheme's plan and trajectory at the learning rate that serves it best."""
    plan, tuning = experiment.training, experiment.tune
    trainings = count()

    def fetch(plan: Training) -> Trajectory:
        before = next(trainings) * plan.steps
        report = None if progress is None else lambda steps: progress(scheme, before + steps)
        return Order.of(task, digest, scheme, plan).fetch(store, report)

    tried = {rate: fetch(own) for rate, own in candidates(plan, tuning)}
    best = best_rate(tried, plan.target, task.higher_is_better) if tried else None
    final = chosen(plan, tuning, best)
    return final, fetch(final)


def _times(row: SchemeRun, evaluated: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the virtual time of each evaluation."""
    ends = np.concatenate([[0.0], row.timeline.end_s])
    reached = row.trajectory.evaluations.steps
    return _padded(ends[reached], len(evaluated))


def _padded(values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Fill up with NaN."""
    return np.concatenate([values, np.full(length - len(values), np.nan)])
