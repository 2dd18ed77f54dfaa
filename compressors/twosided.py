"""Two-sided error feedback: a chunk's owner averages what workers sent, compresses again and remembers what is left."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import inf, prod
from typing import NamedTuple

import torch
from torch import Tensor

from .base import (
    Codec,
    NonFiniteError,
    Outcome,
    Passes,
    Protocol,
    Rate,
    Rounds,
    Scheme,
    SchemeError,
    Shape,
    State,
    Turn,
    check_finite,
    not_finite,
)
from .decoded import Decoded, Dense, Nothing
from .feedback import ErrorFeedback
from .keys import Purpose, stream
from .payload import Buffer, Payload, Ragged
from .remember import Remembering
from .requests import AllToAll, Gather


@dataclass(frozen=True)
class TwoSided(ErrorFeedback):
    """Compress on the way to the owners of chunks and on the way back, with error feedback on both ways.

    A unit is cut into N near-equal chunks, of which each worker owns one. Workers add their memory, compress each chunk
    and hand it to its owner (an all-to-all). The owner averages, adds its own memory, compresses with the same codec
    and hands the result to all (an all-gather). No worker decodes N whole payloads, and what comes back is as small as
    what was sent. A codec sees chunks as vectors. With a top-k codec inside, this is sparse push and sparse pull with a
    residual on either side.

    Parameters
    ----------
    units : {"update", "gradient"}
        What both memories are measured in when the learning rate changes, as in :class:`ErrorFeedback`.
    decay : float
        What both memories are multiplied by before they are added, in (0, 1].

    Notes
    -----
    The laws of the exchange hold with the owners' memories: the sum of means, the average of the workers' memories and
    the owners' memories add up to the average of all inputs. An owner's ``sent`` counts what its memory gave or took.
    Differences from DoubleSqueeze: there is no separate server; each worker serves one chunk, and every chunk is
    compressed as a unit of its own. Only codecs without a state of their own can be inside. The bytes of
    ``wire_bytes`` are those to the owners; the way back adds about one N-th of them.

    References
    ----------
    .. [1] Tang, Lian, Yu, Zhang, Liu. *DoubleSqueeze: Parallel Stochastic Gradient Descent with Double-pass
       Error-Compensated Compression*, ICML 2019, https://arxiv.org/abs/1905.05957
    .. [2] Aji, Heafield. *Sparse Communication for Distributed Gradient Descent*, EMNLP 2017,
       https://aclanthology.org/D17-1045
    """

    name = "twosided"
    title = "error feedback on the way to the owner of a chunk and on the way back"
    paper = "Tang et al. 2019, arXiv 1905.05957; Aji & Heafield 2017, D17-1045"
    state = "residuals: n values a worker, n / N values of its own chunk"

    def around(self, inner: Scheme) -> Scheme:
        """Return the two-sided protocol.

        Raises
        ------
        SchemeError
            If the scheme is a protocol, or remembers something.
        """
        if not isinstance(inner, Codec) or len(inner.parts()) > 1 or inner.state != "none":
            raise SchemeError(f"twosided({inner}): {inner} must be a scheme of one round that remembers nothing")
        return TwoSidedProtocol(self, inner)

    def passes(self, shape: Shape) -> Passes:
        """Return what error feedback takes, and as much between the rounds for all that an owner does.

        That is to decode one unit's worth of chunks, and error feedback and encoding of an N-th of a unit: about as
        much with two workers, less with more of them.
        """
        once = super().passes(shape).encode
        return Passes(encode=once, between=once, decode=0)


@dataclass(frozen=True)
class TwoSidedProtocol(Remembering, Protocol):
    """A codec between two memories."""

    memory: TwoSided
    inner: Codec

    def error_bound(self, shape: Shape) -> float:
        """Return infinity: what comes out is what memories hold, be the input ever so small."""
        return inf

    @property
    def varying(self) -> bool:
        """Return True: the owner's share depends on the number of workers."""
        return True

    @property
    def by_workers(self) -> bool:
        return True

    def rounds(self, x: Tensor, state: State, turn: Turn) -> Rounds:
        if self.memory.idle(turn):
            return Outcome(x.new_zeros(x.shape[1:]), Nothing(len(x), prod(x.shape[1:])), state)
        last, chunks = state.shared["lr"], cut(x[0].numel(), turn.size)
        owned = state.rows.get("owned", x.new_zeros(len(x), chunks[0].stop))
        p = self.memory.before(x, state, turn)
        check_finite(p, turn)
        payloads, sent = self._encode(p.reshape(len(x), -1), chunks, turn)
        reply = yield AllToAll(for_all(payloads, len(x)))
        served = [
            self._serve(from_all(reply, row, turn.size, payloads[rank]), owned[row], last, chunks[rank], rank, turn)
            for row, rank in enumerate(turn.ranks)
        ]
        # Only the owner sees what its memory makes of the average, so it tells the others whether that is finite.
        flags = x.new_tensor([[not own.finite] for own in served], dtype=torch.uint8)
        reply = yield Gather(Payload((*own_rows([own.payload for own in served], payloads).buffers, flags)))
        if bad := tuple(reply.fixed(-1)[:, 0].nonzero()[:, 0].tolist()):
            raise not_finite(turn, bad, self)
        mean = x.new_empty(x[0].numel())
        for rank, part in enumerate(chunks):
            if part.start < part.stop:
                mean[part] = self._read(reply, rank, payloads[rank], part, turn, mean)
        state = replace(self.memory.after(p, Dense(sent), state, turn), inner=state.inner)
        state.rows["owned"] = torch.stack([own.memory for own in served])
        for row, rank in enumerate(turn.ranks):  # what the owner's memory gave or took
            sent[row, chunks[rank]] += turn.size * mean[chunks[rank]] - served[row].total
        return Outcome(mean.view(x.shape[1:]), Dense(sent), state)

    def _encode(self, flat: Tensor, chunks: list[slice], turn: Turn) -> tuple[list[Payload | None], Tensor]:
        """Compress each chunk of each worker; return the payloads and what they stand for, [W, n]."""
        payloads: list[Payload | None] = []
        sent = torch.empty_like(flat)
        for rank, part in enumerate(chunks):
            if part.start == part.stop:
                payloads.append(None)
                continue
            payload, own, _ = self.inner.encode(flat[:, part].contiguous(), State(), _of_chunk(turn, rank))
            payloads.append(payload)
            sent[:, part] = own.dense(flat[0, part])
        return payloads, sent

    def _serve(self, chunk: Payload, owned: Tensor, last: Rate, part: slice, rank: int, turn: Turn) -> "_Served":
        """Average what came for a local worker's chunk, add what the worker remembers of it, and compress that."""
        length = part.stop - part.start
        if not length:
            return _Served(None, owned[:0], owned, finite=True)
        at_chunk = replace(_of_owner(turn, rank), lr=_rate(turn.lr, part))
        memory = State(elements={"residual": owned[None, :length].clone()}, shared={"lr": _rate(last, part)})
        try:
            total = self.inner.decode(chunk, (length,), _of_chunk(turn, rank)).total(owned[:length])
            q, payload, sent = self._compressed(total[None] / turn.size, memory, at_chunk)
        except NonFiniteError:  # which nobody else sees; zeros stand in until all are told
            nothing = torch.zeros_like(owned[None, :length])
            return _Served(self.inner.encode(nothing, State(), at_chunk)[0], nothing[0], owned, finite=False)
        if not self.memory.idle(at_chunk):
            memory = self.memory.after(q, sent, memory, at_chunk)
        kept = owned.clone()
        kept[:length] = memory.elements["residual"][0]
        return _Served(payload, total, kept, finite=True)

    def _compressed(self, average: Tensor, memory: State, at_chunk: Turn) -> tuple[Tensor, Payload, Decoded]:
        """Add an owner's memory to an average, unless none of its parameters moves, and compress that."""
        q = torch.zeros_like(average) if self.memory.idle(at_chunk) else self.memory.before(average, memory, at_chunk)
        check_finite(q, at_chunk)
        payload, sent, _ = self.inner.encode(q, State(), at_chunk)
        return q, payload.apart_from(q), sent

    def _read(
        self, reply: Payload, rank: int, like_payload: Payload | None, part: slice, turn: Turn, like: Tensor
    ) -> Tensor:
        """Decode what the owner of a chunk has sent."""
        assert like_payload is not None
        row = Payload(
            tuple(_cut_to(b, rank, own) for b, own in zip(reply.buffers[:-1], like_payload.buffers, strict=True))
        )
        size = part.stop - part.start
        return self.inner.decode(row, (size,), _of_owner(turn, rank)).dense(like.new_empty(size))[0]


class _Served(NamedTuple):
    """What the owner of a chunk made of it: what it sends, the sum of what came, its memory, and if all is finite."""

    payload: Payload | None
    total: Tensor
    memory: Tensor
    finite: bool


# --------------------------------------------------------------------------------------------------------------- chunks


def cut(elements: int, size: int) -> list[slice]:
    """Cut a unit into one near-equal chunk for each worker; those of the last workers may be empty.

    >>> cut(5, 3)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    lengths = [elements // size + (rank < elements % size) for rank in range(size)]
    return [slice(start, stop) for start, stop in pairwise(accumulate(lengths, initial=0))]


def for_all(payloads: Sequence[Payload | None], workers: int) -> Payload:
    """Join the payloads of N chunks, each of W rows, for an all-to-all.

    Where rows have fixed lengths they are padded to the longest chunk's, so that nobody needs to be told them.
    """
    real = [payload for payload in payloads if payload is not None]
    buffers: list[Buffer] = []
    for i in range(len(real[0].buffers)):
        columns = [None if payload is None else payload.buffers[i] for payload in payloads]
        first = real[0].buffers[i]
        if isinstance(first, Ragged):
            rows = [[first.flat[:0] if c is None else _row(c, w) for c in columns] for w in range(workers)]
            buffers.append(Ragged.of([chunk for row in rows for chunk in row]))
            continue
        width = max(payload.fixed(i).shape[1] for payload in real)
        out = first.new_zeros(workers, len(columns), width)
        for r, column in enumerate(columns):
            if isinstance(column, Tensor):
                out[:, r, : column.shape[1]] = column
        buffers.append(out.view(workers, -1))
    return Payload(tuple(buffers))


def from_all(reply: Payload, row: int, size: int, own: Payload | None) -> Payload:
    """Return the N payloads of the chunk that a local worker owns; ``own`` has the lengths that all of them have."""
    if own is None:
        return Payload()
    buffers: list[Buffer] = []
    for buffer, like in zip(reply.buffers, own.buffers, strict=True):
        if isinstance(buffer, Ragged):
            buffers.append(Ragged.of([buffer.row(row * size + source) for source in range(size)]))
        else:
            assert isinstance(like, Tensor)
            buffers.append(buffer[row].view(size, -1)[:, : like.shape[1]].contiguous())
    return Payload(tuple(buffers))


def own_rows(outer: Sequence[Payload | None], payloads: Sequence[Payload | None]) -> Payload:
    """Join one payload of each local worker for a gather, padded as in :func:`for_all`."""
    real = [payload for payload in payloads if payload is not None]
    buffers: list[Buffer] = []
    for i, first in enumerate(real[0].buffers):
        if isinstance(first, Ragged):
            buffers.append(Ragged.of([first.flat[:0] if p is None else _row(p.buffers[i], 0) for p in outer]))
            continue
        out = first.new_zeros(len(outer), max(payload.fixed(i).shape[1] for payload in real))
        for row, payload in enumerate(outer):
            if payload is not None:
                out[row, : payload.fixed(i).shape[1]] = payload.fixed(i)[0]
        buffers.append(out)
    return Payload(tuple(buffers))


def _row(buffer: Buffer, row: int) -> Tensor:
    return buffer.row(row) if isinstance(buffer, Ragged) else buffer[row]


def _cut_to(buffer: Buffer, row: int, like: Buffer) -> Buffer:
    """Return one row as a buffer of its own, without padding."""
    if isinstance(buffer, Ragged):
        return Ragged.of([buffer.row(row)])
    assert isinstance(like, Tensor)
    return buffer[row : row + 1, : like.shape[1]].contiguous()


def _rate(rate: Rate, part: slice) -> Rate:
    return rate.reshape(-1)[part] if isinstance(rate, Tensor) else rate


def _of_chunk(turn: Turn, rank: int) -> Turn:
    """Return the turn of a worker's chunk, a unit of its own."""
    return replace(turn, unit=f"{turn.unit}[{rank}]")


def _of_owner(turn: Turn, rank: int) -> Turn:
    """Return the turn of a chunk's owner: it draws from streams of its own, and is alone."""
    seed = int(stream(turn.seed, Purpose.SERVER, turn.step, turn.unit).random_raw())
    return replace(turn, seed=seed, unit=f"{turn.unit}[{rank}]", ranks=(0,), size=1)
