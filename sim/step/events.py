"""A step as events: every worker's compute and communication, and every transfer, played in simulated time."""

from collections.abc import Sequence
from typing import NamedTuple

from simpy import Environment, Event

from ...compressors.wirelog import Collective, StepLog
from ..cluster.topology import Terms
from ..network.costs import Costs
from ..network.critical import FloatArray
from ..network.engine import Network, Steps
from ..network.schedule import Schedule
from .graph import OVERHEAD, Exchange, Resource, StepGraph, Task
from .phases import EXCHANGE, WAIT, Activity


class Played(NamedTuple):
    """What happened in a step.

    Attributes
    ----------
    activities : list of Activity
        Of all workers, in the order in which they ended.
    carried_bytes : FloatArray, shape [L]
        What each link of the cluster has carried.
    """

    activities: list[Activity]
    carried_bytes: FloatArray


def play_step(graph: StepGraph, log: StepLog, costs: Costs, factor: float, start_s: float = 0.0) -> Played:
    """Play one step of all workers.

    An exchange begins when every worker has come to it and ends, for all of them, with its last transfer.

    Parameters
    ----------
    graph : StepGraph
    log : StepLog
        One of the graph's logs.
    costs : Costs
        Of the cluster.
    factor : float
        The overhead's factor.
    start_s : float
        When the step begins, since the start of the run.
    """
    step = _Step(graph, log, costs, factor, start_s)
    for worker in range(costs.workers):
        step.start(worker)
    step.env.run(until=step.env.all_of(step.workers))
    return Played(step.done, step.network.traffic.carried_bytes)


class _Step:
    """What the workers of one step share: the clock, the network, the exchanges, and the record."""

    def __init__(self, graph: StepGraph, log: StepLog, costs: Costs, factor: float, start_s: float) -> None:
        self.graph = graph
        self.factor = factor
        self.size = costs.workers
        self.env = Environment()
        self.network = Network(self.env, costs.cluster, costs.workers, start_s)
        self.schedules = [_schedules(exchange, log, costs) for exchange in graph.exchanges]
        self.finished = [self.env.event() for _ in graph.exchanges]
        self.arrived = [0 for _ in graph.exchanges]
        self.workers: list[Event] = []
        self.done: list[Activity] = []

    def start(self, worker: int) -> None:
        """Let a worker begin."""
        posted = [self.env.event() for _ in self.graph.exchanges]
        ended = [self.env.event() for _ in self.graph.tasks]
        for resource in dict.fromkeys(task.resource for task in self.graph.tasks):
            self.workers.append(self.env.process(self._work(worker, resource, posted, ended)))
        for stream in dict.fromkeys(exchange.stream for exchange in self.graph.exchanges):
            self.workers.append(self.env.process(self._communicate(worker, stream, posted)))

    def _work(self, worker: int, resource: Resource, posted: Sequence[Event], ended: Sequence[Event]) -> Steps:
        """Do a resource's tasks one after the other."""
        for i, task in enumerate(self.graph.tasks):
            if task.resource != resource:
                continue
            yield from self._wait(worker, task, ended)
            start_s = self.env.now
            yield self.env.timeout(task.seconds * (self.factor if task.kind in OVERHEAD else 1))
            self._record(worker, resource, task.kind, task.message, start_s)
            ended[i].succeed()
            if task.before is not None:
                posted[task.before].succeed()

    def _wait(self, worker: int, task: Task, ended: Sequence[Event]) -> Steps:
        """Wait for what must be over before a task."""
        start_s = self.env.now
        if task.after is not None:
            yield self.finished[task.after]
        if task.needs is not None:
            yield ended[task.needs]
        if task.after is not None or task.needs is not None:
            self._record(worker, task.resource, WAIT, task.message, start_s)

    def _communicate(self, worker: int, stream: int, posted: Sequence[Event]) -> Steps:
        """Take part in a stream's exchanges one after the other; who comes last starts them."""
        for i, exchange in enumerate(self.graph.exchanges):
            if exchange.stream != stream:
                continue
            yield posted[i]
            start_s = self.env.now
            self.arrived[i] += 1
            if self.arrived[i] == self.size:
                self.env.process(self._exchange(i))
            yield self.finished[i]
            self._record(worker, "network", EXCHANGE, exchange.message, start_s)

    def _exchange(self, i: int) -> Steps:
        for transfers, terms in self.schedules[i]:
            yield self.network.play(transfers, terms)
        self.finished[i].succeed()

    def _record(self, worker: int, resource: Resource, kind: str, message: int | None, start_s: float) -> None:
        self.done.append(Activity(worker, resource, kind, message, start_s, self.env.now - start_s))


def _schedules(exchange: Exchange, log: StepLog, costs: Costs) -> list[tuple[Schedule, Terms]]:
    """Return the schedules of an exchange's collectives, in order."""
    collectives: list[Collective] = [
        c for message in log if message.message == exchange.message for c in message.collectives
    ]
    return [costs.schedule(c) for c in collectives if c.round == exchange.round]
