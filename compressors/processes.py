"""The driver over ``torch.distributed``: the same exchanges between real processes, on Gloo or NCCL.

Process q of G holds workers q W to (q + 1) W - 1 as rows. With W = 1 that is ordinary data-parallel training; with
more, virtual workers spread over several processes or GPUs.

The log holds the rows of a gather without padding, and of a permute each worker's own bytes, as that of
:class:`gradwire.compressors.drivers.StackedDriver` does. What crosses are all-gathers of rows padded to the longest.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate, pairwise, product

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from .base import Outcome
from .drivers import (
    Driver,
    Frame,
    Item,
    chunk_lengths,
    log_all_to_all,
    log_movement,
    log_reduction,
    permuted,
    sum_rows,
)
from .keys import hash64
from .payload import Buffer, Payload, Ragged, element_bytes, row_bytes
from .requests import AllReduce, AllToAll, Broadcast, Gather, Permute, ReduceScatter
from .watch import Watch
from .wire import check_header
from .wirelog import Collective, MessageLog

IntArray = NDArray[np.int64]

ALL_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
"""torch 2.13 has renamed it and warns about the old name."""


class ProcessGroupDriver(Driver):
    """Workers are spread evenly over the processes of a group.

    Parameters
    ----------
    rows : int
        W, the workers that each process holds.
    exact : bool
        Sum all-reduces in rank order, which gives the result of :class:`StackedDriver` bit for bit at the price of an
        all-gather. Otherwise the backend's own all-reduce is used, whose order of additions is its own.
    group : ProcessGroup, optional
        Default: the world.
    agree : bool
        Before anything is sent, let all processes know of a value that is not finite, or of any other failure to
        encode, so that all of them raise. It costs a gather of 4 bytes a worker for each message, which the wire log
        shows. Without it a process raises alone, and its end must end the others.
    watch : Watch, optional
        Is told when each message is encoded, exchanged and decoded.
    """

    def __init__(
        self,
        rows: int = 1,
        exact: bool = False,
        group: dist.ProcessGroup | None = None,
        agree: bool = True,
        watch: Watch | None = None,
    ) -> None:
        self._group = group
        self._processes = dist.get_world_size(group)
        self._process = dist.get_rank(group)
        self._rows = rows
        self._exact = exact
        self._agreeing = agree
        self._watch = watch
        self.size = self._processes * rows
        self.ranks = tuple(range(self._process * rows, (self._process + 1) * rows))

    def exchange(self, items: Sequence[Item], message: int = 0) -> tuple[list[Outcome], MessageLog]:
        if self._watch is None:
            return super().exchange(items, message)
        self._watch.begin(message)
        result = super().exchange(items, message)
        self._watch.end(message)
        return result

    def _perform(self, frames: list[Frame], number: int) -> tuple[list[Payload], list[Collective]]:
        replies, log = self._exchanged(frames, number)
        if self._watch is not None:
            self._watch.exchanged(log)
        return replies, log

    def _launched(self) -> AbstractContextManager[object]:
        """Return the context in which every operation of ``torch.distributed`` runs."""
        return nullcontext() if self._watch is None else self._watch.launched()

    def _exchanged(self, frames: list[Frame], number: int) -> tuple[list[Payload], list[Collective]]:
        """Do requests of one kind as one exchange; return the replies and the log."""
        match frames[0].request:
            case AllReduce(op=op):
                return self._reduce(frames, op), log_reduction(frames, self.size, number)
            case ReduceScatter():
                return self._reduce_scatter(frames), log_reduction(frames, self.size, number)
            case AllToAll():
                lengths = self._chunk_lengths(frames)  # one of [N, N] for each buffer
                buffers = _all_buffers(frames)
                chunks = sum(n * element_bytes(buffer) for buffer, n in zip(buffers, lengths, strict=True))
                whole = iter([self._chunks_to_all(b, n) for b, n in zip(buffers, lengths, strict=True)])
                replies = [Payload(tuple(next(whole) for _ in frame.request.payload.buffers)) for frame in frames]
                return replies, log_all_to_all(frames, np.asarray(chunks).tolist(), number)
            case Broadcast(root=root):
                replies = [Payload(tuple(self._broadcast(b, root) for b in _tensors(frame))) for frame in frames]
                return replies, log_movement(frames, [_length(frames)] * self.size, number)
            case Gather():
                replies, sent = self._gather(frames)
                return replies, log_movement(frames, sent, number)
            case Permute(to=to):
                # Moved by a gather: which worker sends to which is known to all, and rows may differ in length.
                everyone, sent = self._gather(frames)
                replies = [Payload(tuple(self._own(permuted(b, to)) for b in whole.buffers)) for whole in everyone]
                return replies, log_movement(frames, sent, number)

    def _agree(self, first_bad: list[int], clean: int, device: torch.device) -> tuple[list[int], list[Collective]]:
        if not self._agreeing:
            first, last = self.ranks[0], self.ranks[-1]
            return [clean] * first + first_bad + [clean] * (self.size - 1 - last), []
        own = torch.tensor(first_bad, dtype=torch.int32, device=device)
        everyones: list[int] = self.all_gather(own[:, None])[:, 0].tolist()
        log = [Collective("all-gather", 0, "bytes", (own.itemsize,) * self.size)]
        if self._watch is not None:
            self._watch.exchanged(log)
        return everyones, log

    def differences(self, given: dict[str, str], device: torch.device) -> dict[str, list[int]]:
        """Return, for each text that is not the same everywhere, the workers whose text differs from worker 0's."""
        hashes = torch.tensor([[hash64(text) >> 1 for text in given.values()]] * self._rows, device=device)
        everyones = self.all_gather(hashes).tolist()
        found = {
            key: [r for r, row in enumerate(everyones) if row[i] != everyones[0][i]] for i, key in enumerate(given)
        }
        return {key: others for key, others in found.items() if others}

    # ---------------------------------------------------------------------------------------------------- reductions

    def _reduce(self, frames: list[Frame], op: str) -> list[Payload]:
        """Sum all buffers of a dtype in one all-reduce."""
        buffers = [_tensors(frame) for frame in frames]
        summed: dict[torch.dtype, list[Tensor]] = {}
        for dtype in dict.fromkeys(buffer.dtype for part in buffers for buffer in part):
            same = [buffer for part in buffers for buffer in part if buffer.dtype == dtype]
            total = self._all_reduce(torch.cat(same, dim=1), op)
            summed[dtype] = list(torch.split(total, [buffer.shape[1] for buffer in same], dim=1))
        return [Payload(tuple(summed[buffer.dtype].pop(0) for buffer in part)) for part in buffers]

    def _all_reduce(self, rows: Tensor, op: str) -> Tensor:
        """Reduce ``[W, m]`` over all workers to ``[1, m]``."""
        if op == "max":
            total = rows.amax(0, keepdim=True)
            with self._launched():
                dist.all_reduce(total, dist.ReduceOp.MAX, group=self._group)
            return total
        if self._exact:
            return sum_rows(self.all_gather(rows))
        total = sum_rows(rows)
        with self._launched():
            dist.all_reduce(total, dist.ReduceOp.SUM, group=self._group)
        return total

    def _reduce_scatter(self, frames: list[Frame]) -> list[Payload]:
        """Exchange chunks and sum each in rank order."""
        replies = []
        for frame in frames:
            sums = []
            for buffer in _tensors(frame):
                received = self._all_to_all(buffer).view(self._rows, self.size, -1)
                sums.append(torch.cat([sum_rows(chunks) for chunks in received]))
            replies.append(Payload(tuple(sums)))
        return replies

    # ------------------------------------------------------------------------------------------------------ movements

    def all_gather(self, rows: Tensor) -> Tensor:
        """Gather ``[W, m]`` from every process as ``[N, m]``, bit for bit."""
        everyone = rows.new_empty(self.size, *rows.shape[1:])
        own = rows.contiguous()
        with self._launched():
            if rows.numel():
                ALL_GATHER(_bytes(everyone), _bytes(own), group=self._group)
        return everyone

    def _all_to_all(self, buffer: Tensor) -> Tensor:
        """Send chunk r of ``[W, N * m]`` to worker r; return ``[W, N * m]`` whose chunk s came from worker s."""
        chunks = buffer.view(self._rows, self._processes, self._rows, -1).permute(1, 0, 2, 3).contiguous()
        received = torch.empty_like(chunks)
        with self._launched():
            dist.all_to_all_single(_bytes(received), _bytes(chunks), group=self._group)
        # [source process, source row, own row, m] -> [own row, source worker, m]
        return received.permute(2, 0, 1, 3).reshape(self._rows, -1)

    def _chunk_lengths(self, frames: list[Frame]) -> list[IntArray]:
        """Return the entries of each buffer from every worker to every other; told by all where rows are ragged."""
        buffers = _all_buffers(frames)
        own = np.array([chunk_lengths(buffer, self.size) for buffer in buffers], np.int64)
        if not any(isinstance(buffer, Ragged) for buffer in buffers):
            return list(np.repeat(own[:, :1], self.size, axis=1))
        told = torch.from_numpy(own.transpose(1, 0, 2).copy()).to(_device(frames))  # [W, buffers, N]
        return list(self.all_gather(told).cpu().numpy().transpose(1, 0, 2))

    def _chunks_to_all(self, buffer: Buffer, lengths: IntArray) -> Buffer:
        """Send chunk r of each row to worker r, be the chunks equally long or not; ``lengths`` [N, N] in entries."""
        if not isinstance(buffer, Ragged):
            return self._all_to_all(buffer)
        rows, first, size = range(self._rows), self.ranks[0], element_bytes(buffer)
        chunks = [buffer.row(w * self.size + q * self._rows + v) for q, w, v in self._order()]
        splits = [lengths[np.ix_(self.ranks, self._workers_of(q))].sum() for q in range(self._processes)]
        coming = [lengths[np.ix_(self._workers_of(q), self.ranks)].sum() for q in range(self._processes)]
        sent = torch.cat(chunks)
        received = sent.new_empty(int(sum(coming)))
        lengths_in, lengths_out = [int(n) * size for n in coming], [int(n) * size for n in splits]
        with self._launched():
            dist.all_to_all_single(_bytes(received), _bytes(sent), lengths_in, lengths_out, group=self._group)
        # In order of the source process, its row, the own row.
        order = [(q * self._rows + s, w) for q, s, w in self._order()]
        parts = torch.split(received, [int(lengths[source, first + w]) for source, w in order])
        found = dict(zip(order, parts, strict=True))
        return Ragged.of([found[source, w] for w in rows for source in range(self.size)])

    def _order(self) -> Iterator[tuple[int, int, int]]:
        """Yield process, row of the sender, row of the receiver, as chunks lie in the memory of an all-to-all."""
        return product(range(self._processes), range(self._rows), range(self._rows))

    def _workers_of(self, process: int) -> tuple[int, ...]:
        """Return the ranks of a process's workers."""
        return tuple(range(process * self._rows, (process + 1) * self._rows))

    def _broadcast(self, buffer: Tensor, root: int) -> Tensor:
        """Return the root's row as ``[1, m]``."""
        source = root // self._rows
        row = buffer[root % self._rows : root % self._rows + 1].clone()
        with self._launched():
            dist.broadcast(_bytes(row), group=self._group, group_src=source)
        return row

    def _gather(self, frames: list[Frame]) -> tuple[list[Payload], list[int]]:
        """Gather all units' headers and buffers as one row of bytes a worker; return payloads and bytes sent."""
        lengths = self._lengths(frames)  # [N][buffer of all frames] bytes
        headers = [torch.frombuffer(bytearray(frame.header), dtype=torch.uint8) for frame in frames]
        heading = torch.cat(headers)
        rows = [heading.numel() + sum(row) for row in lengths]
        device = _device(frames)
        mine = torch.zeros(self._rows, max(rows), dtype=torch.uint8, device=device)  # padded to the longest
        mine[:, : heading.numel()] = heading.to(device)
        for row, rank in enumerate(self.ranks):
            at = heading.numel()
            for buffer, length in zip(_all_buffers(frames), lengths[rank], strict=True):
                mine[row, at : at + length] = _bytes(_row(buffer, row))
                at += length
        everyone = self.all_gather(mine)
        self._check(frames, everyone[:, : heading.numel()])
        replies, place = [], 0
        for frame in frames:
            count = len(frame.request.payload.buffers)
            cuts = [list(accumulate(row, initial=heading.numel()))[place : place + count + 1] for row in lengths]
            buffers = [
                _rebuild(buffer, [everyone[rank, cut[i] : cut[i + 1]] for rank, cut in enumerate(cuts)])
                for i, buffer in enumerate(frame.request.payload.buffers)
            ]
            replies.append(Payload(tuple(buffers)))
            place += count
        return replies, [sum(row) for row in lengths]

    def _lengths(self, frames: list[Frame]) -> list[list[int]]:
        """Return the bytes of each buffer on every worker, which must be asked for where rows are ragged."""
        buffers = _all_buffers(frames)
        own = [[row_bytes(buffer)[row] for buffer in buffers] for row in range(self._rows)]
        if not any(isinstance(buffer, Ragged) for buffer in buffers):
            return own[:1] * self.size
        return [list(map(int, row)) for row in self.all_gather(torch.tensor(own, device=_device(frames))).tolist()]

    def _check(self, frames: list[Frame], headings: Tensor) -> None:
        """Refuse what other schemes or units have sent."""
        for rank, heading in enumerate(headings.cpu()):
            found = bytes(heading.tolist())
            cuts = accumulate((len(frame.header) for frame in frames), initial=0)
            for frame, (start, stop) in zip(frames, pairwise(cuts), strict=True):
                check_header(found[start:stop], frame.scheme, frame.elements, rank)

    def _own(self, buffer: Ragged) -> Ragged:
        """Return this process's rows."""
        return Ragged.of([buffer.row(rank) for rank in self.ranks])


def _bytes(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor's memory as 1-D bytes; odd strides of one-element tensors are no obstacle."""
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def _row(buffer: Buffer, row: int) -> Tensor:
    return buffer.row(row).contiguous() if isinstance(buffer, Ragged) else buffer[row].contiguous()


def _rebuild(like: Buffer, rows: list[Tensor]) -> Buffer:
    """Read rows of bytes as a buffer of the same kind and dtype."""
    dtype = like.flat.dtype if isinstance(like, Ragged) else like.dtype
    # A copy starts at an aligned address, which a view into the middle of a row need not.
    values = [row.clone().view(dtype) for row in rows]
    return Ragged.of(values) if isinstance(like, Ragged) else torch.stack(values)


def _all_buffers(frames: list[Frame]) -> list[Buffer]:
    return [buffer for frame in frames for buffer in frame.request.payload.buffers]


def _tensors(frame: Frame) -> list[Tensor]:
    return [frame.request.payload.fixed(i) for i in range(len(frame.request.payload.buffers))]


def _length(frames: list[Frame]) -> int:
    return sum(row_bytes(buffer)[0] for buffer in _all_buffers(frames))


def _device(frames: list[Frame]) -> torch.device:
    first = _all_buffers(frames)[0]
    return first.flat.device if isinstance(first, Ragged) else first.device
