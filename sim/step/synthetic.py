"""Synthetic step logs: what a scheme would put on the wire for a model, without training it.

The scheme itself encodes normal draws of every unit's shape, so the bytes are those of real payloads. One worker stands
for all: the others are taken to send as much as it does.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...compressors.base import Codec, Scheme, Shape, Turn
from ...compressors.drivers import (
    Driver,
    Frame,
    Item,
    chunk_lengths,
    log_all_to_all,
    log_movement,
    log_reduction,
    worked_bytes,
)
from ...compressors.keys import Purpose, stream
from ...compressors.partition import Message, Partition
from ...compressors.payload import Buffer, Payload, Ragged, element_bytes
from ...compressors.requests import AllReduce, AllToAll, Gather, Permute, ReduceScatter
from ...compressors.wire import header
from ...compressors.wirelog import Collective, MessageLog, StepLog, Work


class MirrorDriver(Driver):
    """One worker among N whose partners all do what it does; what it receives is its own payload, N times.

    Parameters
    ----------
    workers : int
        N.
    """

    def __init__(self, workers: int) -> None:
        self.ranks = (0,)
        self.size = workers

    def _perform(self, frames: list[Frame], number: int) -> tuple[list[Payload], list[Collective]]:
        replies = [Payload(tuple(self._reply(frame, b) for b in frame.request.payload.buffers)) for frame in frames]
        return replies, self.log(frames, number)

    def log(self, frames: list[Frame], number: int) -> list[Collective]:
        """Return what the N workers' equal requests launch."""
        if isinstance(frames[0].request, AllReduce | ReduceScatter):
            return log_reduction(frames, self.size, number)
        if isinstance(frames[0].request, AllToAll):
            row = np.zeros(self.size, np.int64)
            for frame in frames:
                for buffer in frame.request.payload.buffers:
                    row += np.array(chunk_lengths(buffer, self.size)[0]) * element_bytes(buffer)
            return log_all_to_all(frames, [row.tolist()] * self.size, number)
        sent = sum(frame.request.payload.row_bytes[0] for frame in frames)
        return log_movement(frames, [sent] * self.size, number)

    def _reply(self, frame: Frame, buffer: Buffer) -> Buffer:
        match frame.request:
            case AllReduce(op=op):
                total = _fixed(buffer)
                return total * self.size if op == "sum" else total
            case ReduceScatter():
                return _fixed(buffer).view(self.size, -1)[:1] * self.size
            case Gather():
                return _repeated(buffer, self.size)
            case AllToAll() if isinstance(buffer, Ragged):
                return _repeated(Ragged.of([buffer.row(0)]), self.size)
            case AllToAll():
                return _fixed(buffer).view(self.size, -1)[:1].repeat(1, self.size)
            case Permute(to=to):
                own = buffer if isinstance(buffer, Ragged) else Ragged.of(list(buffer))
                return own if 0 in to else Ragged.of([own.flat[:0]])
        return buffer  # a broadcast


Cache = dict[tuple[str, Shape, int, int], MessageLog]
"""What units of one shape put on the wire, as that of a single worker who stands for all.

By the scheme's text form, the shape, the step, and N where the payload depends on it, otherwise 0.
"""

LATE = 2**30
"""A step that comes after every schedule and warm-up that anybody trains with."""


def synthetic_log(
    partition: Partition,
    scheme: Scheme,
    workers: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    cache: Cache | None = None,
    step: int = LATE,
) -> StepLog:
    """Return the wire log of one step, in which schemes remember nothing yet.

    Parameters
    ----------
    partition : Partition
    scheme : Scheme
    workers : int
        N.
    seed : int
        Of the draws that stand for gradients, and of the scheme's own.
    dtype : torch.dtype
        Of the gradients.
    cache : dict, optional
        Filled, and used, by calls for other numbers of workers with this seed and dtype: what a scheme sends depends on
        N only if it says so (``by_workers``). Protocols that say so are run in each call.
    step : int
        From 0; schemes under a schedule differ by it. By default all of them have come to their end.

    Raises
    ------
    SchemeError
        If the scheme cannot take a unit.
    """
    driver = MirrorDriver(workers)
    kept: Cache = {} if cache is None else cache
    own: Cache = {}
    logs = []
    for number, message in enumerate(partition.messages):
        parts = []
        chosen = []
        for shape, one in _with_schemes(message, scheme):
            turn = Turn(seed, step, str(shape), driver.ranks, driver.size)
            by_workers = _by_workers(one, turn)
            chosen.append((shape, one, turn, by_workers, isinstance(one, Codec) or not by_workers))
        narrow = all(alike for *_, alike in chosen)
        for shape, one, turn, by_workers, alike in chosen:
            known = kept if alike else own
            key = str(one), shape, step, workers if by_workers else 0
            if key not in known:
                log = _unit_log(one, shape, driver, turn, dtype)
                known[key] = _narrowed(log) if alike else log
            parts.append(known[key] if narrow or not alike else _widened(known[key], workers))
        whole = fused(parts, number)
        logs.append(_widened(whole, workers) if narrow else whole)
    return tuple(logs)


def _narrowed(log: MessageLog) -> MessageLog:
    """Return the log of the first worker alone, where all do what it does."""
    collectives = (replace(c, sent_bytes=c.sent_bytes[:1]) for c in log.collectives)
    return MessageLog(log.message, log.work, tuple(collectives))


def _widened(log: MessageLog, workers: int) -> MessageLog:
    """Return the log of N workers that do what one does."""
    collectives = (replace(c, sent_bytes=c.sent_bytes * workers) for c in log.collectives)
    return MessageLog(log.message, log.work, tuple(collectives))


def _with_schemes(message: Message, scheme: Scheme) -> Iterator[tuple[Shape, Scheme]]:
    for unit in message:
        yield unit.shape, scheme.for_unit(unit.name, unit.shape)


def _by_workers(scheme: Scheme, turn: Turn) -> bool:
    """Return whether what is sent depends on N in the scheme that runs at a turn, or in any of its stages."""
    now = scheme.at(turn)
    return now.by_workers or any(part.by_workers for part in now.parts() if isinstance(part, Scheme))


def _unit_log(scheme: Scheme, shape: Shape, driver: MirrorDriver, turn: Turn, dtype: torch.dtype) -> MessageLog:
    """Return what one unit of a shape puts on the wire; of a codec, the log has one worker, who stands for all."""
    draws = np.random.Generator(stream(turn.seed, Purpose.MODEL, 0, str(shape)))
    x = torch.from_numpy(draws.standard_normal((1, *shape), np.float32)).to(dtype)
    state = scheme.init(shape, 1, x[0])
    if not isinstance(scheme, Codec):
        return driver.exchange([Item(x, scheme, state, turn)])[1]
    payload, _, _ = scheme.encode(x, state, turn)  # decoding N equal payloads would tell nothing
    work = (Work(str(scheme.at(turn)), shape, 1, worked_bytes(x)),)
    if not payload.buffers:
        return MessageLog(0, work, ())
    request = AllReduce(payload) if scheme.combine == "sum" else Gather(payload)
    elements = x[0].numel()
    frame = Frame(request, header(str(scheme), elements), str(scheme), elements)
    return MessageLog(0, work, tuple(MirrorDriver(1).log([frame], 0)))


def fused(parts: Sequence[MessageLog], number: int) -> MessageLog:
    """Return the log of one message in which these travel together, as a driver fuses the units of a message.

    Collectives of the same kind and round become one; so are the logs of messages that are sent as one bucket.
    """
    groups: dict[tuple[object, ...], list[Collective]] = {}
    for part in parts:
        kinds = [(c.round, c.operation, c.dtype, c.peers, bool(c.chunks)) for c in part.collectives]
        for i, (kind, c) in enumerate(zip(kinds, part.collectives, strict=True)):
            # An exchange of sizes comes before the gather that it is for, and both are all-gathers.
            groups.setdefault((*kind, kinds[i + 1 :].count(kind)), []).append(c)
    collectives = sorted((_sum(group) for group in groups.values()), key=lambda c: c.round)
    work: Counter[tuple[str, Shape, int]] = Counter()
    for part in parts:
        for done in part.work:
            work[done.scheme, done.shape, done.itemsize] += done.units
    works = tuple(Work(scheme, shape, units, itemsize) for (scheme, shape, itemsize), units in work.items())
    return MessageLog(number, works, tuple(collectives))


def _sum(group: list[Collective]) -> Collective:
    """Return one collective with the bytes of several."""
    first = group[0]
    if len(group) == 1:
        return first
    sent = np.sum([c.sent_bytes for c in group], axis=0).tolist()
    chunks = np.sum([c.chunks for c in group], axis=0).tolist() if first.chunks else ()
    return Collective(first.operation, first.round, first.dtype, tuple(sent), first.peers, tuple(map(tuple, chunks)))


def _fixed(buffer: Buffer) -> Tensor:
    assert isinstance(buffer, Tensor)
    return buffer


def _repeated(buffer: Buffer, times: int) -> Buffer:
    """Return N equal rows; of a fixed buffer they share memory."""
    if isinstance(buffer, Ragged):
        return Ragged.of([buffer.row(0)] * times)
    return buffer[:1].expand(times, -1)
