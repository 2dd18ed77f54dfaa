"""Predictions: a step of a model of the literature on a cluster, under a scheme, without training anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..compressors.base import Scheme, SchemeError
from ..compressors.costs import on_cluster
from ..compressors.errors import InputError
from ..compressors.partition import BUCKET_BYTES, FIRST_BUCKET_BYTES, Granularity, partition
from ..compressors.spec import parse_scheme
from ..compressors.wirelog import Operation, StepLog
from .cluster import Cluster
from .experiment import ClusterSection
from .faults import fault_lines
from .models import load_model, model_workload
from .models.times import Times
from .network.costs import AUTO, Costs
from .network.gather_cost import gather_line
from .step.device import Device, load_device
from .step.options import Engine, StepOptions
from .step.overhead import Overhead, cost_source
from .step.synthetic import LATE, Cache, synthetic_log
from .step.timeline import Timeline, timeline
from .step.workload import Workload, ready_after
from .units import Size

MOST_WORKERS = 2**20
"""Logs and links have an entry for each worker."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingSection(_Section):
    """What a step depends on of the keys that an experiment's section ``training`` has, and which step it is."""

    workers: Annotated[int, Field(strict=True, ge=1, le=MOST_WORKERS, description="N, the number of workers")] = 8
    batch_size: Annotated[
        int | None,
        Field(
            strict=True, ge=1, le=10**9, description="samples of a worker and step; by default the model's customary"
        ),
    ] = None
    step: Annotated[
        int,
        Field(
            strict=True, ge=0, le=LATE, description="of the run, from 0; by default one after all schedules have ended"
        ),
    ] = LATE
    unit: Annotated[Granularity, Field(description="what a scheme sees as one tensor")] = "layer"
    message: Annotated[Granularity, Field(description="what one exchange carries; at least a unit")] = "bucket"
    bucket: Annotated[Size, Field(description="size at which a bucket is closed")] = BUCKET_BYTES
    first_bucket: Annotated[Size, Field(description="the same for the first bucket")] = FIRST_BUCKET_BYTES


class WorkloadSection(_Section):
    """How long a worker computes."""

    device: Annotated[str, Field(description="a listed device; also prices compression")] = "v100"
    times: Annotated[
        Times, Field(description="published figures, the roofline's estimate, or the first where there are any")
    ] = "auto"

    @field_validator("device")
    @classmethod
    def _known(cls, name: str) -> str:
        load_device(name)
        return name


class Job(_Section):
    """What is predicted. Its sections and keys are called as those of an experiment are."""

    model: Annotated[str, Field(description="a listed model")]
    scheme: Annotated[str, Field(description="text form")] = "dense"
    training: TrainingSection = TrainingSection()
    cluster: ClusterSection = ClusterSection(preset="ethernet-10g")
    workload: WorkloadSection = WorkloadSection()
    overhead: Overhead = Overhead()
    timing: StepOptions = StepOptions()

    @field_validator("model")
    @classmethod
    def _known(cls, name: str) -> str:
        load_model(name)
        return name

    @field_validator("scheme")
    @classmethod
    def _readable(cls, text: str) -> str:
        return str(parse_scheme(text))

    @model_validator(mode="after")
    def _workers_fit(self) -> "Job":
        self.cluster.cluster().uniform(self.training.workers)
        return self

    @property
    def batch(self) -> int:
        """Samples of one worker's batch."""
        return self.training.batch_size or load_model(self.model).batch

    def at(self, workers: int, batch: int | None = None) -> "Job":
        """Return the job with another number of workers, and another batch if one is given."""
        changes = {"workers": workers} | ({} if batch is None else {"batch_size": batch})
        return self.model_copy(update={"training": self.training.model_copy(update=changes)})


class Algorithm(NamedTuple):
    """What serves the collectives of one operation and size, in bytes that a worker hands over; ``why`` if ``auto``."""

    operation: Operation
    size_bytes: int
    name: str
    why: str


class LinkUse(NamedTuple):
    """A link, or what many that are alike are called, and the share of the step for which its payload fills it.

    The whole is what the link could have carried in the step, less where its bandwidth is lower for a time; background
    traffic is not counted. ``at_most``: the share is a bound, since the chain of transfers that it is of may pass by
    other links.
    """

    name: str
    share: float
    at_most: bool = False


class Inputs(NamedTuple):
    """The models that a job names: what is evaluated, and what may be varied without a name for it."""

    cluster: Cluster
    device: Device
    overhead: Overhead


@dataclass(frozen=True, eq=False)
class Prediction:
    """One step of a job.

    Attributes
    ----------
    job : Job
    inputs : Inputs
    timeline : Timeline
        Of one step.
    workload : Workload
        Its ``source`` says where the compute times come from.
    cost_source : str
        Where the costs of encoding and decoding come from.
    sent_bytes : tuple of float
        What a worker hands over in a step, on average over the workers, by message.
    algorithms : tuple of Algorithm
        In the order of their first use.
    links : tuple of LinkUse
        The busiest first. By the event engine single links by what they have carried; in closed form all NICs, and all
        ports of GPUs, by what the chain of transfers carries that a collective's duration consists of. In rings, direct
        exchanges and hierarchical all-reduces of equal payloads every link carries as much.
    """

    job: Job
    inputs: Inputs
    timeline: Timeline
    workload: Workload
    cost_source: str
    sent_bytes: tuple[float, ...]
    algorithms: tuple[Algorithm, ...]
    links: tuple[LinkUse, ...]

    @property
    def step_s(self) -> float:
        """How long the step takes."""
        return float(self.timeline.step_s[0])

    @property
    def alone_s(self) -> float:
        """How long one worker without partners takes for its batch, uncompressed."""
        return self.workload.forward_s + self.workload.backward_s + self.workload.optimizer_s

    @property
    def throughput(self) -> float:
        """Samples a second of all workers."""
        return self.job.training.workers * self.job.batch / self.step_s

    @property
    def efficiency(self) -> float:
        """What one worker takes alone, over what the step takes: 1 if partners and compression cost nothing."""
        return self.alone_s / self.step_s

    @property
    def speedup(self) -> float:
        """Throughput over that of one worker alone, whose batch is as large as each one's here."""
        return self.job.training.workers * self.efficiency

    @property
    def engine(self) -> Engine:
        """What computed the step; ``timeline.why`` says why."""
        return self.timeline.engine


def make_job(data: dict[str, Any]) -> Job:
    """Return the job that data describe.

    Raises
    ------
    InputError
        A line for each fault, with its key, value and what is allowed.
    """
    try:
        return Job.model_validate(data)
    except ValidationError as error:
        raise InputError("\n".join(fault_lines(error.errors(), Job))) from error


def predict(job: Job, inputs: Inputs | None = None, cache: Cache | None = None) -> Prediction:
    """Predict a step, on the cluster as it is at the start of a run if it changes in its course.

    Schemes that change with the step are taken as they are at ``training.step``, by default after all schedules. What
    they would remember from earlier steps is empty.

    ``timing.one_bucket_first`` has no influence, for it concerns what DistributedDataParallel does once.

    Parameters
    ----------
    job : Job
    inputs : Inputs, optional
        In place of what the job names.
    cache : dict, optional
        Of :func:`gradwire.sim.step.synthetic.synthetic_log`, over predictions of one model.

    Raises
    ------
    InputError
        If the scheme cannot take such units, the cluster has too few GPUs, nothing is published where published times
        are asked for, there is no closed form where one is asked for, or more would have to be played than can be.
    """
    inputs = inputs or Inputs(job.cluster.cluster(), load_device(job.workload.device), job.overhead)
    model, training = load_model(job.model), job.training
    cut = partition(model.parameters(), training.unit, training.message, training.bucket, training.first_bucket)
    work = model_workload(model, inputs.device, job.batch, job.workload.times)
    scheme = _scheme(job, inputs)
    check_unit(scheme, training.unit)
    log = synthetic_log(cut, scheme, training.workers, cache=cache, step=training.step)
    options = job.timing.model_copy(update={"one_bucket_first": False})
    where = inputs.cluster, inputs.overhead, inputs.device
    parse = lru_cache(parse_scheme)  # a step's units have the same few schemes
    times = timeline([log], ready_after(cut, work), work, *where, options, parse=parse)
    return Prediction(
        job=job,
        inputs=inputs,
        timeline=times,
        workload=work,
        cost_source=cost_source([log], inputs.overhead, inputs.device, parse),
        sent_bytes=tuple(sum(float(np.mean(c.sent_bytes)) for c in message.collectives) for message in log),
        algorithms=tuple(_algorithms(log, times.plan.costs[0])),
        links=tuple(sorted(_links(times), key=lambda link: -link.share)),
    )


def check_unit(scheme: Scheme, unit: Granularity) -> None:
    """Raise ``SchemeError`` if a scheme does not work on such units."""
    if unit not in scheme.granularity:
        allowed = ", ".join(sorted(scheme.granularity))
        raise SchemeError(f"training.unit = {unit!r}: {scheme} works on {allowed} only")


def _scheme(job: Job, inputs: Inputs) -> Scheme:
    """Return the scheme, with the cluster's own cost if it adapts to that."""
    if "cost=cluster" not in job.scheme:
        return parse_scheme(job.scheme)
    costs = Costs(inputs.cluster, job.training.workers, job.timing.algorithms, job.timing.gathers)
    return parse_scheme(on_cluster(job.scheme, gather_line(costs)))


def _algorithms(log: StepLog, costs: Costs) -> Iterator[Algorithm]:
    """Yield what serves each operation and size of a step."""
    done: set[tuple[Operation, int]] = set()
    for collective in (c for message in log for c in message.collectives):
        size = max(collective.sent_bytes)
        if (collective.operation, size) in done:
            continue
        done.add((collective.operation, size))
        name = costs.algorithm(collective.operation, size)
        chosen = costs.algorithms.get(collective.operation) == AUTO
        why = costs.choices[collective.operation, size].reason if chosen else ""
        yield Algorithm(collective.operation, size, name, why)


_EVEN = {"ring", "direct", "pairwise", "hierarchical"}
"""Algorithms in which every link carries what the longest chain of transfers does."""


def _even(log: StepLog, costs: Costs) -> bool:
    """Return whether every NIC carries the same in each collective of a step."""
    collectives = [c for message in log for c in message.collectives]
    return all(
        c.operation not in ("permute", "broadcast")
        and costs.algorithm(c.operation, max(c.sent_bytes)) in _EVEN
        and min(costs.sent(c.operation, np.array(c.sent_bytes))) == max(c.sent_bytes)
        and not c.chunks
        for c in collectives
    )


def _links(times: Timeline) -> Iterator[LinkUse]:
    """Yield how busy links are."""
    costs, step_s = times.plan.costs[0], float(times.step_s[0])
    if times.carried_bytes is not None:
        topology = costs.cluster.topology(costs.workers)
        most_bits = topology.capacity_bps * topology.changes.mean_factors(len(topology.names), step_s) * step_s
        bits = 8 * times.carried_bytes
        used = np.flatnonzero(bits).tolist()
        yield from (LinkUse(topology.names[i], float(bits[i] / most_bits[i])) for i in used)
        return
    uniform, priced = costs.check_uniform(), times.plan.priced
    assert priced is not None
    parts = [cost for exchange in priced[0] for cost in exchange]
    at_most = not _even(times.plan.graphs[0].logs[0], costs)
    across, inside = (sum(float(getattr(cost, name)[0]) for cost in parts) for name in ("bytes", "inside_bytes"))
    if across:
        yield LinkUse("NICs of all hosts, each way", 8 * across / uniform.bandwidth_bps / step_s, at_most)
    if inside and uniform.intra is not None:
        yield LinkUse("ports of all GPUs, each way", 8 * inside / uniform.intra.bandwidth_bps / step_s, at_most)
