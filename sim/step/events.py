"""A step as events: every worker's compute and communication, and every transfer, played in simulated time."""

from collections.abc import Sequence

from simpy import Environment, Event

from ...compressors.wirelog import Collective, StepLog
from ..cluster import Cluster
from ..network.collectives import Schedule, schedule
from ..network.engine import Network, Steps
from .graph import OVERHEAD, Exchange, StepGraph
from .phases import EXCHANGE, WAIT, Activity


def play_step(graph: StepGraph, log: StepLog, cluster: Cluster, factor: float) -> list[Activity]:
    """Play one step of all workers.

    An exchange begins when every worker has come to it and ends, for all of them, with its last transfer.

    Parameters
    ----------
    graph : StepGraph
    log : StepLog
        One of the graph's logs.
    cluster : Cluster
    factor : float
        The overhead's factor.

    Returns
    -------
    list of Activity
        Of all workers, in the order in which they ended.
    """
    workers = max((len(c.sent_bytes) for message in log for c in message.collectives), default=1)
    step = _Step(graph, log, cluster, factor, workers)
    for worker in range(workers):
        posted = [step.env.event() for _ in graph.exchanges]
        step.env.process(step.compute(worker, posted))
        step.env.process(step.communicate(worker, posted))
    step.env.run()
    return step.done


class _Step:
    """What the workers of one step share: the clock, the network, the exchanges, and the record."""

    def __init__(self, graph: StepGraph, log: StepLog, cluster: Cluster, factor: float, workers: int) -> None:
        self.graph = graph
        self.factor = factor
        self.workers = workers
        self.env = Environment()
        self.network = Network(self.env, cluster)
        self.schedules = [_schedules(exchange, log) for exchange in graph.exchanges]
        self.finished = [self.env.event() for _ in graph.exchanges]
        self.arrived = [0 for _ in graph.exchanges]
        self.done: list[Activity] = []

    def compute(self, worker: int, posted: Sequence[Event]) -> Steps:
        """Do a worker's tasks one after the other."""
        for task in self.graph.tasks:
            if task.after is not None:
                start_s = self.env.now
                yield self.finished[task.after]
                self._record(worker, WAIT, task.message, start_s)
            start_s = self.env.now
            yield self.env.timeout(task.seconds * (self.factor if task.kind in OVERHEAD else 1))
            self._record(worker, task.kind, task.message, start_s)
            if task.before is not None:
                posted[task.before].succeed()

    def communicate(self, worker: int, posted: Sequence[Event]) -> Steps:
        """Take part in the exchanges one after the other; who comes last starts them."""
        for i, exchange in enumerate(self.graph.exchanges):
            yield posted[i]
            start_s = self.env.now
            self.arrived[i] += 1
            if self.arrived[i] == self.workers:
                self.env.process(self._exchange(i))
            yield self.finished[i]
            self._record(worker, EXCHANGE, exchange.message, start_s)

    def _exchange(self, i: int) -> Steps:
        for transfers in self.schedules[i]:
            yield self.network.play(transfers)
        self.finished[i].succeed()

    def _record(self, worker: int, kind: str, message: int | None, start_s: float) -> None:
        self.done.append(Activity(worker, kind, message, start_s, self.env.now - start_s))


def _schedules(exchange: Exchange, log: StepLog) -> list[Schedule]:
    """Return the schedules of an exchange's collectives, in order."""
    collectives: list[Collective] = [
        c for message in log if message.message == exchange.message for c in message.collectives
    ]
    return [schedule(c.operation, c.sent_bytes, c.peers) for c in collectives if c.round == exchange.round]
