"""The timeline of a run: when each of its steps ends in virtual time, and where its time goes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ...compressors.errors import InputError
from ...compressors.spec import parse_scheme
from ...compressors.wirelog import StepLog
from ..cluster import Cluster
from ..network.costs import Costs
from ..network.critical import ClosedFormError, FloatArray, IntArray, check_numbers
from .closed_form import Priced, activities, price, step_times
from .device import Device
from .events import play_step
from .graph import GraphBuilder, Resource, StepGraph, structure
from .options import Engine, StepOptions
from .overhead import Overhead, Parse
from .phases import WAIT, Activity, Phases, add_up
from .synthetic import fused
from .workload import Workload

DEFAULTS = StepOptions()


class Span(NamedTuple):
    """Something that a worker's ``compute``, ``codec`` or ``network`` did, from when to when in virtual time."""

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
    costs : tuple of Costs
        What prices each graph's exchanges.
    priced : tuple of Priced, or None
        What each graph's exchanges cost in closed form; None if there is none for all of them.
    why : str
        Why there is a closed form, or why not.
    graph, row : IntArray, shape [steps]
        Which graph a step has, and which of its logs.
    """

    graphs: tuple[StepGraph, ...]
    costs: tuple[Costs, ...]
    priced: tuple[Priced, ...] | None
    why: str
    graph: IntArray
    row: IntArray

    def run_s(
        self, bandwidth_bps: ArrayLike, latency_s: ArrayLike, launch_s: ArrayLike, factor: ArrayLike = 1.0
    ) -> FloatArray:
        """Return the duration of the whole run at many points at once: clusters and overhead factors.

        Parameters and errors are those of :meth:`elapsed`.

        Returns
        -------
        FloatArray
            Seconds, in the shape of the points.
        """
        last = [len(self.row)]
        parts = self._many(last, bandwidth_bps, latency_s, launch_s, factor)
        shape = np.broadcast_shapes(*map(np.shape, (bandwidth_bps, latency_s, launch_s, factor)))
        return sum((phases.step_s @ times[0] for phases, times in parts), start=np.zeros(shape))

    def elapsed(
        self,
        steps: Sequence[int] | IntArray,
        bandwidth_bps: ArrayLike,
        latency_s: ArrayLike,
        launch_s: ArrayLike,
        factor: ArrayLike = 1.0,
    ) -> Phases:
        """Return where the time of the first so many steps goes, at many points at once.

        Parameters
        ----------
        steps : sequence of int, length E
            Numbers of completed steps.
        bandwidth_bps, latency_s, launch_s : array
            In place of the cluster's; these and the factor broadcast against each other.
        factor : array
            The overhead's factor.

        Returns
        -------
        Phases
            Sums over steps; arrays in the shape of the points, followed by [E].

        Raises
        ------
        InputError
            If :meth:`one_point_only` says why not, a bandwidth is not above 0, or another number is below 0 or not
            finite.

        Notes
        -----
        Algorithms that are chosen automatically are those of the cluster as it is, at every point.
        """
        shape = (*np.broadcast_shapes(*map(np.shape, (bandwidth_bps, latency_s, launch_s, factor))), len(steps))
        total = Phases(*(np.zeros(shape) for _ in Phases._fields))
        for phases, times in self._many(steps, bandwidth_bps, latency_s, launch_s, factor):
            total = Phases(*(whole + part @ times.T for whole, part in zip(total, phases, strict=True)))
        return total

    def one_point_only(self) -> str | None:
        """Say why the run cannot be evaluated at many points at once, if so.

        There must be a closed form, and bandwidth, latency and launch must be all that there is to the network, which
        they are not if the fabric has bandwidths of its own, terms differ by the size of a collective, or links inside
        of hosts take part.
        """
        if self.priced is None:
            return f"many points at once need the closed form, but {self.why}"
        reason = next(filter(None, (_more_than_numbers(costs) for costs in self.costs)), None)
        return None if reason is None else f"many points at once need a cluster of three numbers, but {reason}"

    def sent_bytes(self) -> FloatArray:
        """Return what a worker hands over in each step, on average over the workers; shape [steps]."""
        return _spread(self, [graph.sent_bytes for graph in self.graphs])

    def _many(self, steps: Sequence[int] | IntArray, *point: ArrayLike) -> Iterator[tuple[Phases, IntArray]]:
        """Yield each graph's phases, [*points, G], and how often its logs occur in the first steps, [E, G]."""
        if reason := self.one_point_only():
            raise InputError(reason)
        assert self.priced is not None
        check_numbers(**dict(zip(("bandwidth_bps", "latency_s", "launch_s", "factor"), point, strict=True)))
        bandwidth, latency, launch, factor = (np.asarray(value, np.float64)[..., None] for value in point)
        for i, (graph, priced) in enumerate(zip(self.graphs, self.priced, strict=True)):
            size = len(graph.logs)
            here = (self.row[:end][self.graph[:end] == i] for end in steps)
            times = step_times(graph, priced, bandwidth, latency, launch, factor)
            yield times, np.stack([np.bincount(rows, minlength=size) for rows in here])


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
    plan, cluster, factor
        What the times were computed from, for :meth:`spans`.
    engine : {"closed-form", "events"}
        What computed them, and ``why``.
    carried_bytes : FloatArray, shape [L], or None
        What each link of the cluster's topology carried in the whole run; None by the closed form.
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
    why: str
    carried_bytes: FloatArray | None = None

    @property
    def extrapolated(self) -> tuple[str, ...]:
        """What of the network is extrapolated beyond what the cluster says was measured."""
        return tuple(dict.fromkeys(why for costs in self.plan.costs for why in costs.extrapolated.values()))

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
        costs = self.plan.costs[self.plan.graph[step]]
        if self.engine == "events" or self.plan.priced is None:
            done = play_step(graph, graph.logs[row], costs, self.factor, start_s).activities
        else:
            priced = self.plan.priced[self.plan.graph[step]]
            done = list(activities(graph, priced, *_point(costs, self.factor), costs.cluster.shaper))
        spans = (_span(activity, row, start_s) for activity in done if activity.kind != WAIT)
        return [span for span in spans if span.end_s > span.start_s]


def timeline(
    steps: Sequence[StepLog],
    ready: Sequence[int],
    workload: Workload,
    cluster: Cluster,
    overhead: Overhead,
    device: Device,
    options: StepOptions = DEFAULTS,
    *,
    parse: Parse = parse_scheme,
) -> Timeline:
    """Play the steps of a run on a cluster, one after the other.

    The order of things within a step is fixed (:mod:`gradwire.sim.step.graph`), so that a step's duration is a
    continuous and monotone function of every rate and cost, as long as collectives do not share links.

    Parameters
    ----------
    steps : sequence of StepLog
        The wire log. Steps that differ in nothing are evaluated once.
    ready : sequence of int
        For each message, the position in backward order of the layer that completes it
        (:func:`gradwire.sim.step.workload.ready_after`).
    workload, cluster, overhead, device
        What a worker computes; what connects the workers; how compression is charged, and on what.
    options : StepOptions
    parse : callable
        Reads the text form of the schemes in the log.

    Raises
    ------
    InputError
        If the cluster has too few GPUs, or a closed form is asked for where there is none.
    ValueError
        If the log does not fit ``ready``, or ``ready`` does not fit the workload.
    """
    plan = plan_steps(steps, ready, workload, overhead, device, cluster, options, parse=parse)
    if options.engine == "closed-form" and plan.priced is None:
        raise InputError(f"timing.engine = 'closed-form': there is none, for {plan.why}; use 'auto' or 'events'")
    carried = None
    if options.engine == "events" or plan.priced is None:
        _check_playable(cluster, plan, options)
        engine: Engine = "events"
        of_step, carried = _by_events(plan, cluster, overhead.factor)
    else:
        engine = "closed-form"
        parts = [
            step_times(graph, priced, *_point(costs, overhead.factor), cluster.shaper)
            for graph, priced, costs in zip(plan.graphs, plan.priced, plan.costs, strict=True)
        ]
        of_step = {name: _spread(plan, [getattr(part, name) for part in parts]) for name in Phases._fields}
    return Timeline(
        **of_step,
        end_s=np.cumsum(of_step["step_s"]),
        sent_bytes=plan.sent_bytes(),
        plan=plan,
        cluster=cluster,
        factor=overhead.factor,
        engine=engine,
        why="asked for" if options.engine == engine else plan.why,
        carried_bytes=carried,
    )


def plan_steps(
    steps: Sequence[StepLog],
    ready: Sequence[int],
    workload: Workload,
    overhead: Overhead,
    device: Device,
    cluster: Cluster,
    options: StepOptions = DEFAULTS,
    *,
    parse: Parse = parse_scheme,
) -> Plan:
    """Sort the steps of a run by what they do, for :func:`timeline` or for many points at once.

    The parameters are those of :func:`timeline`; the overhead's factor is not used.
    """
    builder = GraphBuilder(ready, workload, overhead, device, options, parse)
    if options.one_bucket_first and steps and steps[0]:
        last = max(steps[0], key=builder.ready_after)
        steps = [(fused(steps[0], last.message),), *steps[1:]]
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
    workers = _workers(distinct)
    costs = tuple(Costs(cluster, workers, options.algorithms, options.gathers, device.generation) for _ in graphs)
    try:
        priced = tuple(price(*pair, options) for pair in zip(graphs, costs, strict=True))
    except ClosedFormError as error:
        return Plan(graphs, costs, None, str(error), graph[number], row[number])
    return Plan(graphs, costs, priced, "hosts and links are equal, and nothing contends", graph[number], row[number])


def _workers(steps: Sequence[StepLog]) -> int:
    """Return how many workers a run has, all of which take part in each exchange; 1 if there is none."""
    return max((len(c.sent_bytes) for step in steps for message in step for c in message.collectives), default=1)


def _more_than_numbers(costs: Costs) -> str | None:
    """Say why bandwidth, latency and launch are not all there is to the network, if so."""
    cluster, hosts = costs.cluster, -(-costs.workers // costs.cluster.gpus)
    if cluster.pieces:
        return "cluster.pieces sets terms by size; allowed: none"
    if cluster.shaper is not None:
        return "cluster.shaper has a rate of its own; allowed: none"
    if hosts > 1 and cluster.gpus > 1:
        return f"cluster.gpus = {cluster.gpus} on {hosts} hosts; allowed: 1, or one host"
    if hosts > 1 and (cluster.fabric.kind != "switch" or cluster.fabric.core is not None):
        return "cluster.fabric has bandwidths of its own; allowed: a switch without core"
    return None


def _check_playable(cluster: Cluster, plan: Plan, options: StepOptions) -> None:
    """Refuse what the event engine does not model."""
    if cluster.shaper is None:
        return
    if options.engine == "events":
        raise InputError("timing.engine = 'events': cluster.shaper has a closed form only; allowed: 'auto'")
    raise InputError(f"cluster.shaper: has a closed form only, and there is none, for {plan.why}")


def _spread(plan: Plan, by_graph: list[FloatArray]) -> FloatArray:
    """Bring values of shape [G] for each graph into the order of the steps."""
    values = np.zeros(len(plan.graph))
    for i, value in enumerate(by_graph):
        here = plan.graph == i
        values[here] = value[plan.row[here]]
    return values


def _by_events(plan: Plan, cluster: Cluster, factor: float) -> tuple[dict[str, FloatArray], FloatArray]:
    """Play every step, equal ones once as long as the cluster does not change.

    Returns
    -------
    phases : dict of str to FloatArray, shape [steps]
        Of the worker that is last; without stragglers all workers do alike.
    carried_bytes : FloatArray, shape [L]
        What each link carried in all steps together.
    """
    workers = plan.costs[0].workers if plan.costs else 1
    changes = [change_s for change_s in _changes_s(cluster, workers) if change_s > 0]
    settled_s = max(changes, default=0.0)
    known: dict[tuple[int, int], tuple[Phases, FloatArray]] = {}
    found: list[Phases] = []
    total = np.zeros(())
    now_s = 0.0
    for i, row in zip(plan.graph.tolist(), plan.row.tolist(), strict=True):
        steady = now_s >= settled_s
        if not steady or (i, row) not in known:
            played = play_step(plan.graphs[i], plan.graphs[i].logs[row], plan.costs[i], factor, now_s)
            phases = add_up((activity for activity in played.activities if activity.worker == 0), ())
            carried = played.carried_bytes
            if steady:
                known[i, row] = phases, carried
        else:
            phases, carried = known[i, row]
        found.append(phases)
        total = total + carried
        now_s += float(phases.step_s)
    of_step = {name: np.array([getattr(phases, name) for phases in found], np.float64) for name in Phases._fields}
    return of_step, total


def _changes_s(cluster: Cluster, workers: int) -> list[float]:
    """Return when the cluster changes in the course of a run."""
    topology = cluster.topology(workers)
    flows = topology.background
    return [*topology.changes.time_s.tolist(), *flows.start_s.tolist(), *flows.stop_s[flows.stop_s < np.inf].tolist()]


def _point(costs: Costs, factor: float) -> tuple[float, float, float, float]:
    """Return a uniform cluster and an overhead factor as the closed form takes them."""
    uniform = costs.check_uniform()
    return uniform.bandwidth_bps, uniform.latency_s, uniform.launch_s, factor


def _span(activity: Activity, row: int, offset_s: float) -> Span:
    """Turn an activity into a span of virtual time; ``row`` picks the log where times are arrays over logs."""
    start_s, seconds = (
        float(np.ravel(value)[row if np.size(value) > 1 else 0]) for value in (activity.start_s, activity.seconds)
    )
    name = activity.kind if activity.message is None else f"{activity.kind} {activity.message}"
    return Span(activity.worker, activity.resource, name, offset_s + start_s, offset_s + start_s + seconds)
