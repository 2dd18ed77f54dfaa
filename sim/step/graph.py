"""The graph of a training step: what a worker computes and exchanges, in which order, and what waits for what.

A worker has one compute resource and one communication stream or several, and each does one thing at a time in an
order that is fixed beforehand:

- compute: the forward pass; then, for each message in order, the backward pass of the layers that complete it, and its
  encoding; the rest of the backward pass; then, for each round r from 1 on and each message in order that has so many
  rounds, the work between rounds, in whose place the decoding stands after the last one; the optimizer;
- communication: by round, then by message; of several streams, each takes the next exchange in turn.

A worker that is blocked by its exchanges, instead, decodes each message before the next one's backward pass and
encoding.

Encoding, the work between rounds and decoding may have a stream of their own (``codec``), in the same order; the
optimizer waits for its end.

An exchange starts when its message's work is done and the stream is free; the work after a round starts when its
exchange is done and the compute resource is free. Because the order does not depend on what happens to be ready first,
a step's duration is a sum and maximum of its parts' durations: continuous and monotone in every rate and cost. Taking
whatever is ready first would make it jump, and a faster network could lengthen a step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ...compressors.wirelog import MessageLog, StepLog, Work
from ..network.costs import Batch
from ..network.critical import FloatArray
from .device import Device
from .options import StepOptions
from .overhead import Overhead, Parse, cost_of, decodes_all, message_cost
from .workload import Workload

Kind = Literal["forward", "backward", "encode", "between", "decode", "optimizer"]
Resource = Literal["compute", "codec", "network"]
OVERHEAD: frozenset[str] = frozenset({"encode", "between", "decode"})
"""The kinds of tasks that the overhead's factor multiplies."""


class Task(NamedTuple):
    """What the compute resource does next.

    Attributes
    ----------
    kind : str
    message : int or None
        The message that it is done for; None where it is for none in particular.
    seconds : float
        At an overhead factor of 1.
    after : int or None
        The exchange that it waits for, a position in the step's exchanges.
    before : int or None
        The exchange that waits for it.
    resource : {"compute", "codec"}
        Which of the worker's resources does it.
    needs : int or None
        The task on another resource that it waits for, a position in the step's tasks.
    """

    kind: Kind
    message: int | None
    seconds: float
    after: int | None = None
    before: int | None = None
    resource: Resource = "compute"
    needs: int | None = None


class Exchange(NamedTuple):
    """What the communication stream does next: the collectives of one round of one message.

    Attributes
    ----------
    message, round : int
    stream : int
        The communication stream that does it.
    batches : tuple of Batch
        Its collectives, one after the other, in each of the graph's G logs.
    """

    message: int
    round: int
    stream: int
    batches: tuple[Batch, ...]


@dataclass(frozen=True, eq=False)
class StepGraph:
    """The graph that G different step logs share: they differ in bytes and in nothing else.

    Attributes
    ----------
    tasks : tuple of Task
        In an order in which each comes after what it waits for; on each resource they are done in this order.
    exchanges : tuple of Exchange
        In communication order, which is also the order in which tasks let them start.
    logs : tuple of StepLog, length G
    sent_bytes : FloatArray, shape [G]
        What a worker hands over, on average over the workers.
    """

    tasks: tuple[Task, ...]
    exchanges: tuple[Exchange, ...]
    logs: tuple[StepLog, ...]
    sent_bytes: FloatArray


class _Message(NamedTuple):
    """What one message makes a worker do, at an overhead factor of 1."""

    number: int
    backward_s: float
    encode_s: float
    after_round_s: tuple[float, ...]
    rounds: tuple[tuple[Batch, ...], ...]


class GraphBuilder:
    """Turns step logs into graphs, for one workload and one way of charging compression.

    Parameters
    ----------
    ready : sequence of int
        For each message, the position in backward order of the layer that completes it.
    workload : Workload
    overhead : Overhead
    device : Device
    options : StepOptions
    parse : callable
        Reads a scheme's text form.
    """

    def __init__(
        self,
        ready: Sequence[int],
        workload: Workload,
        overhead: Overhead,
        device: Device,
        options: StepOptions,
        parse: Parse,
    ) -> None:
        layers = len(workload.layers)
        if any(not 0 <= last < layers for last in ready):
            raise ValueError(f"ready = {tuple(ready)} must be positions in the workload's {layers} layers")
        self.ready = ready
        self.workload = workload
        self.overhead = overhead
        self.device = device
        self.options = options
        self.parse = parse
        self._costs: dict[tuple[Work, int], FloatArray] = {}

    def graph(self, logs: Sequence[StepLog]) -> StepGraph:
        """Return the graph of step logs that have the same :func:`structure`."""
        backward_s = [layer.backward_s for layer in reversed(self.workload.layers)]
        messages: list[_Message] = []
        through = 0
        for position, log in enumerate(logs[0]):
            end = max(through, self.ready_after(log)) if self.options.overlap else len(backward_s)
            own_logs = [step[position] for step in logs]
            messages.append(self._message(own_logs, math.fsum(backward_s[through:end])))
            through = end
        order = _Order(self.options)
        tasks, exchanges = order.step(self.workload, messages, math.fsum(backward_s[through:]))
        return StepGraph(tasks, exchanges, tuple(logs), np.array([_mean_sent_bytes(step) for step in logs]))

    def ready_after(self, log: MessageLog) -> int:
        """Return how many layers' backward passes a message needs.

        Raises
        ------
        ValueError
            If the log does not fit ``ready``.
        """
        if log.message >= len(self.ready):
            raise ValueError(f"the log has a message {log.message}, but ready tells of {len(self.ready)} messages only")
        return self.ready[log.message] + 1

    def _message(self, logs: list[MessageLog], backward_s: float) -> _Message:
        """Return what a message needs; the logs are those of all G steps."""
        first = logs[0]
        rounds = [[j for j, c in enumerate(first.collectives) if c.round == r] for r in range(first.rounds)]
        if not rounds:  # every worker knew that there was nothing to send, so there was nothing to encode
            return _Message(first.message, backward_s, 0.0, (), ())
        workers = len(first.collectives[0].sent_bytes)
        costs = [self._work(work, workers) for work in first.work]
        encode_s, between_s, decode_s = sum(costs, np.zeros(3)).tolist()
        more = message_cost(first.work, self.overhead)
        encode_s, decode_s = encode_s + more[0], decode_s + more[1]
        after_round_s = (between_s,) * (len(rounds) - 1) + (decode_s,)
        batches = tuple(tuple(_batch(logs, j) for j in own) for own in rounds)
        return _Message(first.message, backward_s, encode_s, after_round_s, batches)

    def _work(self, work: Work, workers: int) -> FloatArray:
        """Return the seconds before the first round, before each further one, and after the last one."""
        key = (work, workers)
        if key not in self._costs:
            seconds = dict.fromkeys(("encode", "between", "decode", "receive"), 0.0)
            for charge in cost_of(work, self.overhead, self.device, self.parse, workers):
                seconds[charge.phase] += charge.seconds
            payloads = workers if decodes_all(self.parse(work.scheme)) else 1
            decode_s = payloads * seconds["decode"] + seconds["receive"]
            self._costs[key] = np.array([seconds["encode"], seconds["between"], decode_s])
        return self._costs[key]


def structure(step: StepLog) -> tuple[object, ...]:
    """Return all of a step log but the numbers of bytes; steps that agree in it share a graph."""
    return tuple(
        (
            m.message,
            m.work,
            tuple((c.operation, c.round, c.peers, len(c.sent_bytes), bool(c.chunks)) for c in m.collectives),
        )
        for m in step
    )


class _Order:
    """Puts tasks and exchanges in the order that the module's docstring describes."""

    def __init__(self, options: StepOptions) -> None:
        self.streams = options.streams
        self.blocking = options.blocking
        self.codec: Resource = "codec" if options.codec == "stream" else "compute"
        self.slowdown = options.slowdown if options.codec == "stream" else 1.0
        self.tasks: list[Task] = []
        self.exchanges: list[Exchange] = []
        self.place: dict[tuple[int, int], int] = {}  # of an exchange, by message and round

    def step(
        self, workload: Workload, messages: list[_Message], rest_s: float
    ) -> tuple[tuple[Task, ...], tuple[Exchange, ...]]:
        """Return the tasks and exchanges of a step."""
        self.tasks.append(Task("forward", None, workload.forward_s))
        for message in messages:
            self.tasks.append(Task("backward", message.number, message.backward_s))
            self._work("encode", message, message.encode_s, 0, needs=len(self.tasks) - 1)
            if self.blocking:
                self._rounds([message])
        self.tasks.append(Task("backward", None, rest_s))
        if not self.blocking:
            self._rounds(messages)
        last = max((i for i, task in enumerate(self.tasks) if task.resource == "codec"), default=None)
        self.tasks.append(Task("optimizer", None, workload.optimizer_s, needs=last))
        return tuple(self.tasks), tuple(self.exchanges)

    def _rounds(self, messages: Sequence[_Message]) -> None:
        """Add what is done for messages after each of their rounds."""
        for r in range(1, 1 + max((len(message.rounds) for message in messages), default=0)):
            for message in messages:
                if r <= len(message.rounds):
                    kind: Kind = "between" if r < len(message.rounds) else "decode"
                    self._work(kind, message, message.after_round_s[r - 1], r)

    def _work(self, kind: Kind, message: _Message, seconds: float, r: int, needs: int | None = None) -> None:
        """Add what is done for a message before its round r, and that round if there is one."""
        after = self.place[message.number, r - 1] if r else None
        before = self._post(message, r)
        needs = needs if self.codec == "codec" else None
        self.tasks.append(Task(kind, message.number, seconds * self.slowdown, after, before, self.codec, needs))

    def _post(self, message: _Message, r: int) -> int | None:
        """Add round r of a message; return its place, or None if there is no such round."""
        if r == len(message.rounds):
            return None
        number = len(self.exchanges)
        self.place[message.number, r] = number
        self.exchanges.append(Exchange(message.number, r, number % self.streams, message.rounds[r]))
        return number


def _batch(logs: list[MessageLog], j: int) -> Batch:
    """Return a message's collective number j in each log."""
    first = logs[0].collectives[j]
    if len(logs) == 1 and _alike(first.sent_bytes):  # thousands of workers need no array of them all
        sent = np.broadcast_to(np.int64(first.sent_bytes[0]), (1, len(first.sent_bytes)))
    else:
        sent = np.array([log.collectives[j].sent_bytes for log in logs], np.int64)
    chunks = tuple(log.collectives[j].chunks for log in logs) if first.chunks else ()
    return Batch(first.operation, first.peers, sent, chunks)


def _mean_sent_bytes(step: StepLog) -> float:
    """Return what a worker hands over in a step, on average over the workers."""
    return sum(_mean(c.sent_bytes) for message in step for c in message.collectives)


def _mean(sent_bytes: tuple[int, ...]) -> float:
    return sent_bytes[0] if _alike(sent_bytes) else sum(sent_bytes) / len(sent_bytes)


def _alike(sent_bytes: tuple[int, ...]) -> bool:
    return sent_bytes.count(sent_bytes[0]) == len(sent_bytes)
