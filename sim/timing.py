"""Timing: how the steps of a trajectory are played on an experiment's cluster, as the task's own model or as a proxy.

A proxy is a listed model whose shapes and compute times stand in for the task's: what is learnt is the small task's,
what a step takes is the large model's.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import nn

from ..compressors.base import Scheme
from ..compressors.partition import Partition, partition
from ..compressors.quantizers.dense import Dense
from ..compressors.spec import parse_scheme
from ..compressors.wirelog import StepLog
from .experiment import Experiment
from .models import load_model, model_workload
from .step.analytic import analytic_workload
from .step.graph import structure
from .step.overhead import cost_source
from .step.synthetic import LATE, Cache, synthetic_log
from .step.timeline import Plan, Timeline, plan_steps, timeline
from .step.workload import Workload, ready_after
from .tasks.base import Task
from .training.plan import Training
from .training.train import cut, new_model
from .training.trajectory import Trajectory


class Variant(NamedTuple):
    """The steps of a trajectory with buckets of one size.

    Attributes
    ----------
    bucket_bytes : int or None
        None where messages are not buckets.
    logs : sequence of StepLog
    ready : tuple of int
        As in :func:`gradwire.sim.step.timeline.timeline`.
    """

    bucket_bytes: int | None
    logs: Sequence[StepLog]
    ready: tuple[int, ...]


class Timer:
    """Plays trajectories of an experiment's task.

    Parameters
    ----------
    experiment : Experiment
        Only what the timing of steps depends on is used; not the schemes, for instance.
    task : Task
    workload : Workload, optional
        How long a worker computes in a step, if that is known already.
    """

    def __init__(self, experiment: Experiment, task: Task, workload: Workload | None = None) -> None:
        self.experiment = experiment
        self.task = task
        if workload is not None:
            self.workload = workload
        self._synthetic: Cache = {}

    @cached_property
    def workload(self) -> Workload:
        """How long a worker computes in a step."""
        experiment, section = self.experiment, self.experiment.workload
        if section.model is not None:
            model = load_model(section.model)
            return model_workload(model, section.device_model(), section.batch or model.batch)
        module = self._module
        if section.times is not None:
            return section.times.workload({name: tuple(p.shape) for name, p in module.named_parameters()})
        batch = self.task.splits().train.take(slice(0, experiment.training.batch_size))
        dtype = next(module.parameters()).dtype
        inputs = tuple(t.to(dtype) if t.is_floating_point() else t for t in batch)
        return analytic_workload(module, lambda module: self.task.loss(module, inputs), section.device_model())

    def check(self, scheme: Scheme) -> None:
        """Find out before any training whether a scheme can be timed.

        Raises
        ------
        SchemeError
            If it cannot take a unit of the proxy.
        """
        for message in self.partition(self.experiment.training).messages:
            for unit in message:
                scheme.for_unit(unit.name, unit.shape).init(unit.shape, 1, torch.zeros(()))

    def variants(self, trajectory: Trajectory) -> Iterator[Variant]:
        """Yield the ways to play a trajectory: one or, for an uncompressed scheme, one for each size of bucket."""
        scheme = parse_scheme(trajectory.scheme)
        trained_so = self.experiment.workload.model is None
        for place, (bucket_bytes, cut_so) in enumerate(self._partitions(scheme)):
            logs: Sequence[StepLog] = trajectory.logs
            if place or not trained_so:
                logs = self._relogged(trajectory, cut_so, scheme)
            yield Variant(bucket_bytes, logs, ready_after(cut_so, self.workload))

    def untrained(self, scheme: str) -> list[Plan]:
        """Return the plans of one step of a scheme that was not trained, after all its schedules have ended."""
        parsed = parse_scheme(scheme)
        logs = (
            Variant(size, [self._made_up(cut_so, parsed, LATE)], ready_after(cut_so, self.workload))
            for size, cut_so in self._partitions(parsed)
        )
        return [self._plan(variant) for variant in logs]

    def plans(self, trajectory: Trajectory) -> list[tuple[int | None, Plan]]:
        """Return the size of buckets and the plan of each variant."""
        return [(variant.bucket_bytes, self._plan(variant)) for variant in self.variants(trajectory)]

    def _plan(self, variant: Variant) -> Plan:
        experiment = self.experiment
        shared = (experiment.overhead, experiment.workload.device_model(), experiment.cluster.cluster())
        return plan_steps(variant.logs, variant.ready, self.workload, *shared, experiment.timing)

    def timeline(self, trajectory: Trajectory) -> tuple[int | None, Timeline]:
        """Return the fastest variant's size of buckets and timeline."""
        experiment = self.experiment
        cluster, device = experiment.cluster.cluster(), experiment.workload.device_model()
        played = (
            (
                variant.bucket_bytes,
                timeline(
                    variant.logs,
                    variant.ready,
                    self.workload,
                    cluster,
                    experiment.overhead,
                    device,
                    experiment.timing,
                ),
            )
            for variant in self.variants(trajectory)
        )
        return min(played, key=lambda one: float(one[1].step_s.sum()))

    def cost_source(self, plan: Plan) -> str:
        """Return in words where the costs of encoding and decoding come from."""
        logs = [log for graph in plan.graphs for log in graph.logs]
        return cost_source(logs, self.experiment.overhead, self.experiment.workload.device_model())

    @cached_property
    def _module(self) -> nn.Module:
        return new_model(self.task, self.experiment.training)

    def partition(self, plan: Training) -> Partition:
        """Return how a plan cuts the model that is timed."""
        name = self.experiment.workload.model
        if name is None:
            return cut(self._module, plan)
        shapes = load_model(name).parameters()
        return partition(shapes, plan.unit, plan.message, plan.bucket, plan.first_bucket)

    def _partitions(self, scheme: Scheme) -> Iterator[tuple[int | None, Partition]]:
        """Yield the plan's own cut and, for an uncompressed scheme, others with buckets of other sizes."""
        plan = self.experiment.training
        own = self.partition(plan)
        bucketed = plan.message == "bucket"
        yield plan.bucket if bucketed else None, own
        seen = [own]
        for size in self.experiment.baseline.buckets if bucketed and isinstance(scheme, Dense) else ():
            changed = plan.model_copy(update={"bucket": size, "first_bucket": min(size, plan.first_bucket)})
            other = self.partition(changed)
            if other not in seen:
                seen.append(other)
                yield size, other

    def _relogged(self, trajectory: Trajectory, other: Partition, scheme: Scheme) -> list[StepLog]:
        """Return what another partition would have put on the wire, step by step.

        Steps of one structure and one stage of the scheme, which schedules change, are taken to be alike: the first of
        them is made up. The structure alone does not do: a small model may have no unit that a stage concerns.
        """
        known: dict[tuple[object, ...], StepLog] = {}
        logs = []
        for step, log in enumerate(trajectory.logs):
            kind = structure(log), scheme.stage(step)
            if kind not in known:
                known[kind] = self._made_up(other, scheme, step)
            logs.append(known[kind])
        return logs

    def _made_up(self, other: Partition, scheme: Scheme, step: int) -> StepLog:
        """Return what a scheme would put on the wire in a step."""
        training = self.experiment.training
        float64 = training.dtype == "float64" and self.experiment.workload.model is None
        dtype = torch.float64 if float64 else torch.float32
        return synthetic_log(other, scheme, training.workers, dtype=dtype, cache=self._synthetic, step=step)
