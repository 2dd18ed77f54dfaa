"""Drivers: they run the units of a message in lock-step, do the exchanges they ask for, and write the wire log.

A driver knows nothing of any scheme. Each round's requests of the same kind are fused into one collective, whatever
the number of units. :class:`StackedDriver` holds all workers as rows in one process;
:class:`gradwire.compressors.processes.ProcessGroupDriver` does the same exchanges over ``torch.distributed``.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .base import (
    Codec,
    NonFiniteError,
    Outcome,
    Protocol,
    Rounds,
    Scheme,
    State,
    Turn,
    check_elements,
    check_finite,
    not_finite,
)
from .payload import SIZE_BYTES, Buffer, Payload, Ragged, element_bytes, row_bytes
from .requests import AllReduce, AllToAll, Broadcast, Gather, Permute, ReduceScatter, Request
from .wire import header
from .wirelog import Collective, MessageLog, Operation, Work

_FAILED = -1
"""Told in place of the first unit that is not finite by a worker that cannot encode at all."""


class WorkerError(RuntimeError):
    """Another worker cannot go on, so nobody can."""


class Item(NamedTuple):
    """One unit to exchange: its values ``[W, *shape]``, how, and what is remembered and known of it."""

    x: Tensor
    scheme: Scheme
    state: State
    turn: Turn


class Frame(NamedTuple):
    """A unit's part of a fused exchange: whose request it is, and what its payload's header says."""

    request: Request
    header: bytes
    scheme: str
    elements: int


class Driver(ABC):
    """Exchanges messages between ``size`` workers, of which ``ranks`` are rows of this process."""

    ranks: tuple[int, ...]
    size: int

    def exchange(self, items: Sequence[Item], message: int = 0) -> tuple[list[Outcome], MessageLog]:
        """Exchange one message.

        Parameters
        ----------
        items : sequence of Item
            Its units, in the same order on every worker.
        message : int
            The message's index within the step, for the log.

        Returns
        -------
        list of Outcome
            One for each unit.
        MessageLog

        Raises
        ------
        SchemeError
            If a unit has no values.
        NonFiniteError
            If a value is infinite or NaN on any worker: some schemes would hide it. Nothing has been sent then, but
            the states may have changed; whoever means to go on keeps copies (``state.map(torch.clone)``).
        WorkerError
            If another process failed to encode for any other reason, which it raises itself.
        """
        for item in items:
            check_elements(item.x.shape[1:], item.turn.unit)
        units = [_Exchange(item) for item in items]
        collectives = self._open(items, units)
        number = 0
        while requests := {i: unit.request for i, unit in enumerate(units) if unit.request is not None}:
            replies: dict[int, Payload] = {}
            for group in _fuse(requests):
                answers, log = self._perform([Frame(requests[i], *units[i].heading) for i in group], number)
                replies.update(zip(group, answers, strict=True))
                collectives += log
            for i, reply in replies.items():
                units[i].advance(reply)
            number += 1
        work = Counter((str(i.scheme.at(i.turn)), tuple(i.x.shape[1:]), worked_bytes(i.x)) for i in items)
        done = tuple(Work(scheme, shape, count, itemsize) for (scheme, shape, itemsize), count in work.items())
        return [unit.result() for unit in units], MessageLog(message, done, tuple(collectives))

    def _open(self, items: Sequence[Item], units: "Sequence[_Exchange]") -> list[Collective]:
        """Encode every unit; raise on all workers alike if a gradient, or what a memory makes of it, is not finite."""
        if not items:
            return []
        clean = 2 * len(items)  # each is looked at before and after it is encoded
        failure: Exception | None = None
        try:
            at, ranks = _encode(items, units)
        except Exception as error:  # noqa: BLE001 - the others wait to be told; it is raised below
            failure, at, ranks = error, _FAILED, self.ranks
        first_bad = [at if rank in ranks else clean for rank in self.ranks]
        everyones, log = self._agree(first_bad, clean, items[0].x.device)
        worst = min(everyones)
        if failure is not None:
            raise failure
        if worst == _FAILED:
            failed = ", ".join(str(rank) for rank, code in enumerate(everyones) if code == _FAILED)
            raise WorkerError(f"step {items[0].turn.step}: worker {failed} failed to encode; its own error says why")
        if worst < clean:
            item, ranks = items[worst % len(items)], tuple(r for r, bad in enumerate(everyones) if bad == worst)
            raise not_finite(item.turn, ranks, None if worst < len(items) else item.scheme)
        return log

    def _agree(self, first_bad: list[int], clean: int, device: torch.device) -> tuple[list[int], list[Collective]]:
        """Tell all N workers what is first not finite on each, or ``clean``, or that it failed; return that of all.

        What it cost is returned besides.
        """
        return first_bad, []

    @abstractmethod
    def _perform(self, frames: list[Frame], number: int) -> tuple[list[Payload], list[Collective]]:
        """Do requests of one kind as one exchange; return the replies and the log of round ``number``."""


def worked_bytes(x: Tensor) -> int:
    """Return the bytes of a value while it is worked on, at least 4: half precision is compressed in float32."""
    return max(torch.float32.itemsize, x.element_size())


class _Exchange:
    """The exchange of one unit: its rounds, and the request that waits for a reply until there is an outcome."""

    def __init__(self, item: Item) -> None:
        scheme, elements = str(item.scheme), item.x[0].numel()
        self.heading = (header(scheme, elements), scheme, elements)
        self.request: Request | None = None
        self._rounds = _start(item)
        self._outcome: Outcome | None = None

    def advance(self, reply: Payload | None = None) -> None:
        """Go on to the next request or to the outcome; the first call, without a reply, encodes."""
        try:
            self.request = next(self._rounds) if reply is None else self._rounds.send(reply)
        except StopIteration as stop:
            self.request, self._outcome = None, stop.value

    def result(self) -> Outcome:
        """Return the outcome, once no request is left."""
        assert self._outcome is not None
        return self._outcome


def _encode(items: Sequence[Item], units: Sequence[_Exchange]) -> tuple[int, tuple[int, ...]]:
    """Encode all units; return the first step of it to find what is not finite, and on which of this process's workers.

    The steps are to look at each unit, and then to encode each.
    """
    acts: list[Callable[[], None]] = [partial(check_finite, item.x, item.turn) for item in items]
    acts += [unit.advance for unit in units]
    for i, act in enumerate(acts):
        try:
            act()
        except NonFiniteError as error:
            return i, error.ranks or items[0].turn.ranks
    return len(acts), ()


def _start(item: Item) -> Rounds:
    """Return the rounds of a unit's exchange."""
    if isinstance(item.scheme, Protocol):
        return item.scheme.rounds(item.x, item.state, item.turn)
    if isinstance(item.scheme, Codec):
        return codec_rounds(item.scheme, item.x, item.state, item.turn)
    raise TypeError(f"{item.scheme!r} is neither a codec nor a protocol")


def codec_rounds(codec: Codec, x: Tensor, state: State, turn: Turn) -> Rounds:
    """Exchange a codec's payload in the one round that it needs."""
    shape = x.shape[1:]
    payload, sent, state = codec.encode(x, state, turn)
    if not payload.buffers:
        mean = x.new_zeros(shape)
    else:
        reply = yield AllReduce(payload) if codec.combine == "sum" else Gather(payload)
        total = codec.decode(reply, tuple(shape), turn).total(x[0].reshape(-1))
        mean = total.div_(turn.size).view(shape)
    mean, state = codec.receive(mean, state, turn)
    return Outcome(mean, sent, state)


def _fuse(requests: dict[int, Request]) -> list[list[int]]:
    """Group the requests that one collective can serve, in order of first appearance."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, request in requests.items():
        match request:
            case AllReduce(op=op):
                key: tuple[object, ...] = (AllReduce, op)
            case Broadcast(root=root):
                key = (Broadcast, root)
            case Permute(to=to):
                key = (Permute, to)
            case _:
                key = (type(request),)
        groups.setdefault(key, []).append(i)
    return list(groups.values())


# ------------------------------------------------------------------------------------------------------- the wire log


def log_reduction(frames: list[Frame], size: int, number: int) -> list[Collective]:
    """Return what an all-reduce or reduce-scatter launches: a collective for each dtype, equal on all workers."""
    summed = isinstance(frames[0].request, AllReduce)
    operation: Operation = "all-reduce" if summed else "reduce-scatter"
    lengths: Counter[str] = Counter()
    for frame in frames:
        for buffer in frame.request.payload.buffers:
            if isinstance(buffer, Ragged):
                raise TypeError("buffers that are summed must have the same length on every worker")
            lengths[str(buffer.dtype).removeprefix("torch.")] += row_bytes(buffer)[0]
    return [Collective(operation, number, dtype, (length,) * size) for dtype, length in lengths.items()]


def log_movement(frames: list[Frame], sent: list[int], number: int) -> list[Collective]:
    """Return what any other exchange launches.

    Parameters
    ----------
    sent : list of int
        The bytes of each of the N workers' payloads, without headers; of a broadcast, the root's alone count.
    """
    request = frames[0].request
    headers = sum(len(frame.header) for frame in frames)
    ragged = sum(isinstance(buffer, Ragged) for frame in frames for buffer in frame.request.payload.buffers)
    sizes = [Collective("all-gather", number, "bytes", (SIZE_BYTES * ragged,) * len(sent))] if ragged else []
    match request:
        case Gather():
            return [*sizes, Collective("all-gather", number, "bytes", tuple(b + headers for b in sent))]
        case Permute(to=to):
            moved = tuple(b + headers if peer >= 0 else 0 for b, peer in zip(sent, to, strict=True))
            return [*sizes, Collective("permute", number, "bytes", moved, to)]
        case Broadcast(root=root):
            only = tuple(b if rank == root else 0 for rank, b in enumerate(sent))
            return [*sizes, Collective("broadcast", number, "bytes", only, (root,))]
        case _:
            raise TypeError(f"{request!r} is not a movement")


def log_all_to_all(frames: list[Frame], chunks: list[list[int]], number: int) -> list[Collective]:
    """Return what an all-to-all launches.

    Parameters
    ----------
    chunks : list of list of int
        The bytes of the chunk from each of the N workers to each.
    """
    ragged = sum(isinstance(buffer, Ragged) for frame in frames for buffer in frame.request.payload.buffers)
    if not ragged:
        return [Collective("all-to-all", number, "bytes", tuple(map(sum, chunks)))]
    size = len(chunks)
    moved = tuple(tuple(0 if r == s else b for r, b in enumerate(row)) for s, row in enumerate(chunks))
    return [
        Collective("all-to-all", number, "bytes", (SIZE_BYTES * ragged * size,) * size),
        Collective("all-to-all", number, "bytes", tuple(map(sum, moved)), chunks=moved),
    ]


def chunk_lengths(buffer: Buffer, size: int) -> list[list[int]]:
    """Return how many entries of a buffer each local worker sends to each of the N workers.

    Raises
    ------
    ValueError
        If a ragged buffer has not N rows for each worker.
    """
    if not isinstance(buffer, Ragged):
        return [[buffer.shape[1] // size] * size] * len(buffer)
    lengths = buffer.lengths
    if len(lengths) % size:
        raise ValueError(f"an all-to-all of {size} workers needs {size} chunks of each, not {len(lengths)} in total")
    return [lengths[start : start + size] for start in range(0, len(lengths), size)]


# --------------------------------------------------------------------------------------------- workers in one process


def sum_rows(buffer: Tensor) -> Tensor:
    """Return the sum of rows ``[R, m]`` as ``[1, m]``, added in row order and rounded to their dtype each time.

    The order makes it equal, bit for bit, however the rows are spread over processes or threads.
    """
    total = buffer[:1].clone()
    for row in buffer[1:]:
        total.add_(row)
    return total


class StackedDriver(Driver):
    """All workers are rows of the tensors of this process.

    Parameters
    ----------
    workers : int
        N.
    """

    def __init__(self, workers: int) -> None:
        self.ranks = tuple(range(workers))
        self.size = workers

    def _perform(self, frames: list[Frame], number: int) -> tuple[list[Payload], list[Collective]]:
        replies = [Payload(tuple(self._reply(frame.request))) for frame in frames]
        if isinstance(frames[0].request, AllReduce | ReduceScatter):
            return replies, log_reduction(frames, self.size, number)
        if isinstance(frames[0].request, AllToAll):
            return replies, log_all_to_all(frames, self._chunk_bytes(frames), number)
        rows = [frame.request.payload.row_bytes for frame in frames]
        return replies, log_movement(frames, [sum(lengths) for lengths in zip(*rows, strict=True)], number)

    def _reply(self, request: Request) -> list[Buffer]:
        """Return what each worker would receive."""
        buffers = request.payload.buffers
        match request:
            case Gather():
                return list(buffers)
            case AllReduce(op="sum"):
                return [sum_rows(_fixed(buffer)) for buffer in buffers]
            case AllReduce():
                return [_fixed(buffer).amax(0, keepdim=True) for buffer in buffers]
            case ReduceScatter():
                return [sum_rows(_fixed(buffer)).view(self.size, -1) for buffer in buffers]
            case Broadcast(root=root):
                return [_fixed(buffer)[root : root + 1] for buffer in buffers]
            case AllToAll():
                return [self._transposed(buffer) for buffer in buffers]
            case Permute(to=to):
                return [permuted(buffer, to) for buffer in buffers]

    def _chunk_bytes(self, frames: list[Frame]) -> list[list[int]]:
        """Return how many bytes each worker sends to each, over all buffers."""
        total = np.zeros((self.size, self.size), np.int64)
        for frame in frames:
            for buffer in frame.request.payload.buffers:
                total += np.array(chunk_lengths(buffer, self.size)) * element_bytes(buffer)
        return [list(map(int, row)) for row in total]

    def _transposed(self, buffer: Buffer) -> Buffer:
        """Exchange chunk r of row s with chunk s of row r."""
        if isinstance(buffer, Ragged):
            chunk_lengths(buffer, self.size)
            return Ragged.of([buffer.row(s * self.size + r) for r in range(self.size) for s in range(self.size)])
        return buffer.view(self.size, self.size, -1).transpose(0, 1).reshape(self.size, -1)


def permuted(buffer: Buffer, to: tuple[int, ...]) -> Ragged:
    """Return rows such that row ``to[s]`` is what row s was; rows to which nothing comes are empty."""
    flat = buffer.flat if isinstance(buffer, Ragged) else buffer.reshape(-1)
    rows = [flat[:0]] * len(to)
    for source, target in enumerate(to):
        if target >= 0:
            rows[target] = buffer.row(source) if isinstance(buffer, Ragged) else buffer[source]
    return Ragged.of(rows)


def _fixed(buffer: Buffer) -> Tensor:
    if isinstance(buffer, Ragged):
        raise TypeError("this exchange needs buffers of the same length on every worker")
    return buffer
