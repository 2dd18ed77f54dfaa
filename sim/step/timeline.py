"""The timeline of a run: when each of its steps ends in virtual time, and where its time goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ...compressors.spec import parse_scheme
from ...compressors.wirelog import StepLog
from ..cluster import Cluster
from ..network.closed_form import FloatArray, IntArray
from .closed_form import activities, step_times
from .device import Device
from .events import play_step
from .graph import GraphBuilder, StepGraph, structure
from .overhead import Overhead, Parse
from .phases import EXCHANGE, WAIT, Activity, Phases, add_up
from .workload import Workload

Engine = Literal["closed-form", "events"]
Resource = Literal["compute", "network"]


class Span(NamedTuple):
    """Something that a worker's ``compute`` or ``network`` did, from when to when in virtual time."""

    worker: int
    resource: Resource
    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class Plan:
    """The steps of a run, sorted so that equal ones are evaluated once.

    Attributes
    ----------
    graphs : tuple of StepGraph
        One for each structure that a step has.
    graph, row : IntArray, shape [steps]
        Which graph a step has, and which of its logs.
    """

    graphs: tuple[StepGraph, ...]
    graph: IntArray
    row: IntArray

    def run_s(
        self, bandwidth_bps: ArrayLike, latency_s: ArrayLike, launch_s: ArrayLike, factor: ArrayLike = 1.0
    ) -> FloatArray:
        """Return the duration of the whole run at many points at once: clusters and overhead factors.

        Parameters
        ----------
        bandwidth_bps, latency_s, launch_s : array
            As in :class:`gradwire.sim.cluster.Cluster`; these and the factor broadcast against each other.
        factor : array
            The overhead's factor.

        Returns
        -------
        FloatArray
            Seconds, in the shape of the points.
        """
        points = [np.asarray(value, np.float64)[..., None] for value in (bandwidth_bps, latency_s, launch_s, factor)]
        total = np.zeros(np.broadcast_shapes(*(np.shape(value)[:-1] for value in points)))
        for i, graph in enumerate(self.graphs):
            times = np.bincount(self.row[self.graph == i], minlength=len(graph.logs))
            total = total + step_times(graph, *points).step_s @ times
        return total


@dataclass(frozen=True, eq=False)
class Timeline:
    """Where the time of each step of a run goes; arrays of shape [steps].

    ``forward_s``, ``backward_s``, ``encode_s``, ``decode_s``, ``optimizer_s`` and ``exposed_communication_s`` add up to
    ``step_s``.

    Attributes
    ----------
    step_s : FloatArray
    end_s : FloatArray
        When each step ends, counted from the start of the run.
    forward_s, backward_s, encode_s, optimizer_s : FloatArray
    decode_s : FloatArray
        Decoding and the work between rounds.
    communication_s : FloatArray
        How long the communication stream is busy.
    exposed_communication_s : FloatArray
        How long the compute resource waits for it.
    sent_bytes : FloatArray
        What a worker hands over to the network, on average over the workers.
    plan, cluster, factor, engine
        What the times were computed from and how, for :meth:`spans`.
    """

    step_s: FloatArray
    end_s: FloatArray
    forward_s: FloatArray
    backward_s: FloatArray
    encode_s: FloatArray
    decode_s: FloatArray
    optimizer_s: FloatArray
    communication_s: FloatArray
    exposed_communication_s: FloatArray
    sent_bytes: FloatArray
    plan: Plan
    cluster: Cluster
    factor: float
    engine: Engine

    def spans(self, step: int) -> list[Span]:
        """Return what happened in a step, for a trace.

        Returns
        -------
        list of Span
            Of worker 0, which stands for all, by the closed form; of every worker by the event engine. What took no
            time is left out.
        """
        graph, row = self.plan.graphs[self.plan.graph[step]], int(self.plan.row[step])
        start_s = float(self.end_s[step] - self.step_s[step])
        if self.engine == "events":
            done = play_step(graph, graph.logs[row], self.cluster, self.factor)
        else:
            done = list(activities(graph, *_point(self.cluster, self.factor)))
        spans = (_span(activity, row, start_s) for activity in done if activity.kind != WAIT)
        return [span for span in spans if span.end_s > span.start_s]


def timeline(
    steps: Sequence[StepLog],
    ready: Sequence[int],
    workload: Workload,
    cluster: Cluster,
    overhead: Overhead,
    device: Device,
    *,
    overlap: bool = True,
    engine: Engine = "closed-form",
    parse: Parse = parse_scheme,
) -> Timeline:
    """Play the steps of a run on a cluster of equal workers, one after the other.

    The order of things within a step is fixed (:mod:`gradwire.sim.step.graph`), so that a step's duration is a
    continuous and monotone function of every rate and cost.

    Parameters
    ----------
    steps : sequence of StepLog
        The wire log. Steps that differ in nothing are evaluated once.
    ready : sequence of int
        For each message, the position in backward order of the layer that completes it
        (:func:`gradwire.sim.step.workload.ready_after`).
    workload, cluster, overhead, device
        What a worker computes; what connects the workers; how compression is charged, and on what.
    overlap : bool
        Whether messages are encoded and sent while the backward pass goes on.
    engine : {"closed-form", "events"}
        Both give the same times to rounding. The events are slower and show every worker.
    parse : callable
        Reads the text form of the schemes in the log.

    Raises
    ------
    ValueError
        If the log does not fit ``ready``, or ``ready`` does not fit the workload, or the cluster is described by more
        than bandwidth, latency and launch.
    """
    cluster.require_simple()
    plan = plan_steps(steps, ready, workload, overhead, device, overlap=overlap, parse=parse)
    if engine == "events":
        parts = [_by_events(graph, cluster, overhead.factor) for graph in plan.graphs]
    else:
        parts = [step_times(graph, *_point(cluster, overhead.factor)) for graph in plan.graphs]
    of_step = {name: _spread(plan, [getattr(part, name) for part in parts]) for name in Phases._fields}
    sent_bytes = _spread(plan, [graph.sent_bytes for graph in plan.graphs])
    return Timeline(
        **of_step,
        end_s=np.cumsum(of_step["step_s"]),
        sent_bytes=sent_bytes,
        plan=plan,
        cluster=cluster,
        factor=overhead.factor,
        engine=engine,
    )


def plan_steps(
    steps: Sequence[StepLog],
    ready: Sequence[int],
    workload: Workload,
    overhead: Overhead,
    device: Device,
    *,
    overlap: bool = True,
    parse: Parse = parse_scheme,
) -> Plan:
    """Sort the steps of a run by what they do, for :func:`timeline` or for many points at once.

    The parameters are those of :func:`timeline`; the overhead's factor is not used.
    """
    builder = GraphBuilder(ready, workload, overhead, device, overlap, parse)
    numbers: dict[StepLog, int] = {}
    number = np.array([numbers.setdefault(step, len(numbers)) for step in steps], np.int64)
    distinct = tuple(numbers)
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, step in enumerate(distinct):
        groups.setdefault(structure(step), []).append(i)
    graph, row = np.empty((2, len(distinct)), np.int64)
    for i, members in enumerate(groups.values()):
        graph[members], row[members] = i, range(len(members))
    graphs = tuple(builder.graph([distinct[i] for i in members]) for members in groups.values())
    return Plan(graphs, graph[number], row[number])


def _spread(plan: Plan, by_graph: list[FloatArray]) -> FloatArray:
    """Bring values of shape [G] for each graph into the order of the steps."""
    values = np.zeros(len(plan.graph))
    for i, value in enumerate(by_graph):
        here = plan.graph == i
        values[here] = value[plan.row[here]]
    return values


def _by_events(graph: StepGraph, cluster: Cluster, factor: float) -> Phases:
    """Play each of a graph's logs; add up what worker 0 did, which all workers did alike."""
    played = [play_step(graph, log, cluster, factor) for log in graph.logs]
    each = [add_up((activity for activity in step if activity.worker == 0), ()) for step in played]
    return Phases(*(np.array(values) for values in zip(*each, strict=True)))


def _point(cluster: Cluster, factor: float) -> tuple[float, float, float, float]:
    """Return a cluster and an overhead factor as the closed form takes them."""
    return cluster.bandwidth, cluster.latency, cluster.launch, factor


def _span(activity: Activity, row: int, offset_s: float) -> Span:
    """Turn an activity into a span of virtual time; ``row`` picks the log where times are arrays over logs."""
    start_s, seconds = (
        float(np.ravel(value)[row if np.size(value) > 1 else 0]) for value in (activity.start_s, activity.seconds)
    )
    name = activity.kind if activity.message is None else f"{activity.kind} {activity.message}"
    resource: Resource = "network" if activity.kind == EXCHANGE else "compute"
    return Span(activity.worker, resource, name, offset_s + start_s, offset_s + start_s + seconds)
