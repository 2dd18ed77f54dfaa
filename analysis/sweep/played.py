"""Played trajectories: when each evaluation of a training comes, at one point of a sweep or at many at once."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ...sim.cluster.cluster import Cluster
from ...sim.experiment import Experiment
from ...sim.network.critical import FloatArray, IntArray
from ...sim.step.phases import Phases
from ...sim.step.timeline import Plan
from ...sim.timing import Timer
from ...sim.training.order import Order
from ...sim.training.plan import source_digest
from ...sim.training.trajectory import Trajectory

Plans = tuple[tuple[int | None, Plan], ...]
"""Sizes of buckets, with the plan for each."""


class Points(NamedTuple):
    """Clusters of three numbers, and factors on the cost of compression; arrays that broadcast against each other.

    Attributes
    ----------
    bandwidth_bps : array
        Of payload.
    latency_s, launch_s, factor : array
    """

    bandwidth_bps: ArrayLike
    latency_s: ArrayLike
    launch_s: ArrayLike
    factor: ArrayLike

    @classmethod
    def of(cls, experiment: Experiment) -> "Points | None":
        """Return an experiment's own point, None if there is more to its cluster than the closed form takes."""
        uniform = experiment.cluster.cluster().uniform(experiment.training.workers)
        if isinstance(uniform, str):
            return None
        return cls(uniform.bandwidth_bps, uniform.latency_s, uniform.launch_s, experiment.overhead.factor)


class Times(NamedTuple):
    """Where the time goes until each mark.

    Attributes
    ----------
    elapsed : Phases
        Sums over steps; arrays in the shape of the points, followed by [marks].
    sent_bytes : FloatArray, shape [marks]
        What a worker has handed over until then, on average over the workers.
    bucket_bytes : FloatArray
        In the shape of the points: of the fastest variant; NaN where messages are not buckets.
    engine : str
        What computed it, and why.
    cost_source : str
        Where the costs of encoding and decoding come from.
    """

    elapsed: Phases
    sent_bytes: FloatArray
    bucket_bytes: FloatArray
    engine: str
    cost_source: str


def marks_of(trajectory: Trajectory) -> IntArray:
    """Return the steps whose times are wanted: those of the evaluations, and how many were completed."""
    return np.append(trajectory.evaluations.steps, len(trajectory.logs)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Played:
    """A trajectory with all that is needed to time it at many points at once.

    Attributes
    ----------
    trajectory : Trajectory
    plans : tuple of (bytes, Plan)
        One or, for an uncompressed scheme, one for each size of bucket, the fastest of which counts at each point.
    cost_source : str
        Where the costs of encoding and decoding come from.
    """

    trajectory: Trajectory
    plans: Plans
    cost_source: str

    @property
    def elements(self) -> int:
        """How many values the gradient has whose bytes are timed."""
        (first, *_) = self.plans[0][1].graphs
        return sum(prod(work.shape) * work.units for message in first.logs[0] for work in message.work)

    def one_point_only(self) -> str | None:
        """Say why many points cannot be evaluated at once, if so."""
        return next(filter(None, (plan.one_point_only() for _, plan in self.plans)), None)

    def seconds(self, steps: Sequence[int], points: Points) -> FloatArray:
        """Return the time until some numbers of steps are completed, in the shape of the points followed by [steps]."""
        parts = np.stack([plan.elapsed([*steps, len(self.trajectory.logs)], *points).step_s for _, plan in self.plans])
        return _picked(parts[..., -1].argmin(axis=0), parts)[..., :-1]

    def times(self, points: Points) -> Times:
        """Return the times until every mark; raises as :meth:`gradwire.sim.step.timeline.Plan.elapsed`."""
        marks = marks_of(self.trajectory)
        parts = [plan.elapsed(marks, *points) for _, plan in self.plans]
        best = np.argmin([part.step_s[..., -1] for part in parts], axis=0)
        elapsed = Phases(*(_picked(best, values) for values in zip(*parts, strict=True)))
        sizes = np.array([np.nan if size is None else size for size, _ in self.plans])
        first = self.plans[0][1]
        engine = f"closed-form: {first.why}"
        return Times(elapsed, _until(marks, first.sent_bytes()), sizes[best], engine, self.cost_source)


def _until(marks: IntArray, values: FloatArray) -> FloatArray:
    """Return the sums of a step's values until every mark."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(sums[marks])


def _picked(best: IntArray, variants: Iterable[FloatArray]) -> FloatArray:
    """Return at each point the values, [marks], of the variant that is best there."""
    return np.asarray(np.take_along_axis(np.stack(list(variants)), best[None, ..., None], axis=0)[0])


@dataclass(frozen=True, eq=False)
class Play:
    """A trajectory that is to be timed at one point, where that may take the event engine.

    Attributes
    ----------
    experiment : Experiment
    order : Order
        What was trained.
    trajectory : str
        As JSON text, so that it travels as it is stored.
    """

    experiment: Experiment
    order: Order
    trajectory: str

    @property
    def key(self) -> str:
        """A fingerprint of all that the times depend on."""
        experiment = self.experiment
        complete: Cluster = experiment.cluster.cluster()
        sections = (complete, experiment.overhead, experiment.workload, experiment.timing, experiment.baseline)
        parts = [
            self.order.key,
            *(
                section.model_dump(mode="json", by_alias=True, exclude={"source", "description"})
                for section in sections
            ),
            source_digest("compressors", "sim"),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def run(self) -> str:
        """Return the times as JSON text, for :func:`read_times`."""
        trajectory = Trajectory.from_json(self.trajectory)
        timer = Timer(self.experiment, self.order.task)
        bucket_bytes, line = timer.timeline(trajectory)
        marks = marks_of(trajectory)
        return json.dumps(
            {
                "elapsed": {name: _until(marks, getattr(line, name)).tolist() for name in Phases._fields},
                "sent_bytes": _until(marks, line.sent_bytes).tolist(),
                "bucket_bytes": bucket_bytes,
                "engine": f"{line.engine}: {line.why}",
                "cost_source": timer.cost_source(line.plan),
            }
        )


def read_times(text: str) -> Times:
    """Read what :meth:`Play.run` wrote."""
    data = json.loads(text)
    elapsed = Phases(*(np.array(data["elapsed"][name]) for name in Phases._fields))
    size = np.nan if data["bucket_bytes"] is None else float(data["bucket_bytes"])
    sent_bytes = np.array(data["sent_bytes"])
    return Times(elapsed, sent_bytes, np.array(size), data["engine"], data["cost_source"])
