"""Composition, ``topk | qsgd``: a sparsifier selects entries, and a quantizer sends their values in fewer bits."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod, sqrt
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from .base import Codec, Memory, Passes, Scheme, SchemeError, Shape, State, Turn
from .decoded import Decoded
from .payload import HEADER_BYTES, SIZE_BYTES, Buffer, Payload, Ragged
from .sparsifiers.sparse import Entries, Sparsifier

COUNT = torch.int32
"""How a worker says how many entries it selected, where that varies."""


@dataclass(frozen=True)
class Placed(Decoded):
    """Values that a quantizer decoded, at the places of a sparsifier's entries.

    Attributes
    ----------
    values : Decoded of R rows, or list of one Decoded or None (no entries) for each row
    place : callable
        Turns values ``[R, k]``, or ragged ones, into entries.
    """

    values: Decoded | list[Decoded | None]
    place: Callable[[Tensor | Ragged], Entries]

    def _entries(self, like: Tensor) -> Entries:
        """Return the entries with values of the dtype and on the device of ``like``."""
        if isinstance(self.values, Decoded):
            return self.place(self.values.dense(like))
        nothing = like.new_empty(0)
        return self.place(Ragged.of([nothing if row is None else row.dense(like)[0] for row in self.values]))

    def add_to_(self, out: Tensor) -> Tensor:
        return self._entries(out).add_to_(out)

    def residual_of_(self, p: Tensor) -> Tensor:
        return self._entries(p).residual_of_(p)

    def clear_(self, x: Tensor) -> Tensor:
        return self._entries(x).clear_(x)

    def dense(self, like: Tensor) -> Tensor:
        return self._entries(like).dense(like)


@dataclass(frozen=True)
class Composition(Codec):
    """Send a sparsifier's positions and, instead of the values, what a quantizer makes of them.

    The kept values of a worker, ``[k]``, are the quantizer's unit. They are summed on the way where both schemes allow
    it: where all workers keep the same entries, and codes can be added.

    Raises
    ------
    SchemeError
        If the first is no sparsifier, or the second is no quantizer that remembers nothing.
    """

    sparsifier: Sparsifier
    quantizer: Codec

    name = "|"
    title = "some of the entries, their values in fewer bits"
    paper = "of its parts"

    def __post_init__(self) -> None:
        one, other = self.sparsifier, self.quantizer
        if not isinstance(one, Sparsifier):
            raise SchemeError(f"{one} | {other}: the first must select entries, as topk does; {one} does not")
        simple = isinstance(other, Codec) and not isinstance(other, Sparsifier | Composition)
        if not simple or len(other.parts()) > 1 or other.ever() != (other,):
            hint = "; a memory or schedule goes around the whole" if isinstance(other, Codec) else ""
            raise SchemeError(f"{one} | {other}: the second must be a quantizer of one round, as qsgd is{hint}")
        if other.law != "mean of sent":
            raise SchemeError(f"{one} | {other}: the workers keep different entries, on which they cannot vote")
        if one.ragged and other.varying:
            raise SchemeError(f"{one} | {other}: either how many entries are kept may vary, or the length of a code")

    @property
    def collective(self) -> str:  # type: ignore[override]
        """The collective operation, as shown in tables."""
        return "all-reduce" if self.combine == "sum" else "all-gather"

    @property
    def unbiased(self) -> bool:
        return self.sparsifier.unbiased and self.quantizer.unbiased

    @property
    def granularity(self) -> frozenset[str]:
        return self.sparsifier.granularity

    @property
    def selects(self) -> bool:
        return self.sparsifier.selects and self.quantizer.selects

    @property
    def varying(self) -> bool:
        return self.sparsifier.varying or self.quantizer.varying

    @property
    def homogeneous(self) -> bool:
        return self.sparsifier.homogeneous and self.quantizer.homogeneous

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "sum" if self.sparsifier.combine == self.quantizer.combine == "sum" else "gather"

    def check_optimizer(self, optimizer: Optimizer) -> None:
        self.sparsifier.check_optimizer(optimizer)
        self.quantizer.check_optimizer(optimizer)

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        kept = self._kept(shape)
        state = self.quantizer.init(kept, workers, like)
        if state != State():
            raise SchemeError(f"{self}: {self.quantizer} remembers values, but the kept entries change")
        return self.sparsifier.init(shape, workers, like)

    def _kept(self, shape: Shape) -> Shape:
        """Return the shape of a worker's kept values, or about that."""
        return (max(1, round(self.sparsifier.count(shape))),)

    def error_bound(self, shape: Shape) -> float:
        """Return an upper bound from the two parts' bounds e of the sparsifier and w of the quantizer.

        If entries are sent whole or not at all, what the two lose lies on disjoint supports. Of a squared norm of 1
        let r <= e be dropped; the loss is at most r + w (1 - r), largest at r = e or r = 0: max(e + w (1 - e), w). The
        latter is attained by an input that the sparsifier keeps whole and that is the quantizer's worst.

        Else the norm of the selected values is at most 1 + e squared if the sparsifier is unbiased, (1 + sqrt e)^2 if
        not, and the two errors add up squared if one is of mean zero given the other, as norms if not.
        """
        dropped = self.sparsifier.error_bound(shape)
        longest = (prod(shape),) if self.sparsifier.ragged else self._kept(shape)
        added = self.quantizer.error_bound(longest)
        if self.sparsifier.selects:
            return max(dropped + added * (1 - dropped), added)
        added *= 1 + dropped if self.sparsifier.unbiased else (1 + sqrt(dropped)) ** 2
        return dropped + added + (0.0 if self.quantizer.unbiased else 2 * sqrt(dropped * added))

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        values = self.quantizer.wire_bytes(self._kept(shape), itemsize)
        header = HEADER_BYTES if self.combine == "gather" and self.quantizer.combine == "sum" else 0
        return header + self._counted + self.sparsifier.positions_bytes(shape) + values

    @cached_property
    def _counted(self) -> int:
        """The bytes that say how many entries were selected and how long the quantizer's buffers are, if it varies."""
        if not self.sparsifier.ragged:
            return 0
        payload, _, _ = self.quantizer.encode(torch.zeros(1, 1), State(), Turn(0, 0, "", (0,), 1))
        return COUNT.itemsize + SIZE_BYTES * len(payload.buffers)

    def passes(self, shape: Shape) -> Passes:
        """Return the sparsifier's, and of the quantizer's the fraction that it has to touch."""
        fraction = self._kept(shape)[0] / prod(shape)
        one, other = self.sparsifier.passes(shape), self.quantizer.passes(self._kept(shape))
        return Passes(*(a + fraction * b for a, b in zip(one, other, strict=True)))

    def stage(self, step: int) -> Hashable:
        return self.sparsifier.stage(step), self.quantizer.stage(step)

    def parts(self) -> tuple[Scheme | Memory, ...]:
        return (self.sparsifier, self.quantizer)

    def shaped_parts(self, shape: Shape) -> tuple[tuple[Scheme | Memory, Shape], ...]:
        return ((self.sparsifier, shape), (self.quantizer, self._kept(shape)))

    def __str__(self) -> str:
        return f"{self.sparsifier} | {self.quantizer}"

    # -------------------------------------------------------------------------------------------------- the exchange

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        entries, state = self.sparsifier.select(x, state, turn)
        encode = self._encode_ragged if isinstance(entries.values, Ragged) else self._encode_fixed
        buffers, values = encode(entries, turn)
        positions = (self.sparsifier.positions(entries),) if self.sparsifier.sends_positions else ()
        sent = Placed(values, partial(_with_values, entries))
        return Payload((*buffers, *positions)), sent, state

    def _encode_fixed(self, entries: Entries, turn: Turn) -> tuple[tuple[Buffer, ...], Decoded]:
        """Quantize equally many values of all workers together."""
        assert isinstance(entries.values, Tensor)
        payload, sent, _ = self.quantizer.encode(entries.values, State(), turn)
        return payload.buffers, sent

    def _encode_ragged(self, entries: Entries, turn: Turn) -> tuple[tuple[Buffer, ...], list[Decoded | None]]:
        """Quantize each worker's values; an empty row borrows the buffers' dtypes from a row of one zero."""
        assert isinstance(entries.values, Ragged)
        rows: list[tuple[Tensor, ...]] = []
        sent: list[Decoded | None] = []
        for r, length in enumerate(entries.values.lengths):
            values = entries.values.row(r) if length else entries.values.flat.new_zeros(1)
            payload, own, _ = self.quantizer.encode(values[None], State(), replace(turn, ranks=(turn.ranks[r],)))
            rows.append(tuple(payload.fixed(i)[0, : None if length else 0] for i in range(len(payload.buffers))))
            sent.append(own if length else None)
        counts = torch.tensor(entries.values.lengths, dtype=COUNT, device=entries.values.flat.device)[:, None]
        return (counts, *(Ragged.of(list(column)) for column in zip(*rows, strict=True))), sent

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        buffers = list(payload.buffers)
        positions = buffers.pop() if self.sparsifier.sends_positions else None
        values: Decoded | list[Decoded | None]
        if self.sparsifier.ragged:
            values = self._decode_ragged(buffers, turn)
        else:
            values = self.quantizer.decode(Payload(tuple(buffers)), self._kept(shape), turn)
        return Placed(values, partial(self.sparsifier.place, positions=positions, shape=shape, turn=turn))

    def _decode_ragged(self, buffers: list[Buffer], turn: Turn) -> list[Decoded | None]:
        """Read each worker's values; the first buffer says how many there are."""
        counts, *coded = buffers
        assert isinstance(counts, Tensor)
        rows: list[Decoded | None] = []
        for r, count in enumerate(counts[:, 0].tolist()):
            own = (buffer.row(r) if isinstance(buffer, Ragged) else buffer[r] for buffer in coded)
            payload = Payload(tuple(row[None] for row in own))
            rows.append(self.quantizer.decode(payload, (count,), turn) if count else None)
        return rows


def compose(sparsifier: Scheme, quantizer: Scheme) -> Composition:
    """Make a composition of two schemes, whose kinds are checked."""
    return Composition(sparsifier, quantizer)  # type: ignore[arg-type]


def _with_values(entries: Entries, values: Tensor | Ragged) -> Entries:
    """Return the same places with other values."""
    return replace(entries, values=values)  # type: ignore[arg-type]
