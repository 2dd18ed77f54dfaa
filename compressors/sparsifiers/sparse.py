"""What the sparsifiers share: entries are selected, and their values travel with or without their positions."""

from abc import abstractmethod
from math import prod
from typing import Literal

from torch import Tensor

from ..base import Codec, Shape, State, Turn
from ..decoded import Aligned, Block, Blocks, Decoded, RaggedSparse, Sparse
from ..indices import Coding, decode_indices, encode_indices, indices_bytes, length_varies
from ..payload import HEADER_BYTES, SIZE_BYTES, Buffer, Payload, Ragged

Entries = Sparse | RaggedSparse | Aligned | Block | Blocks
"""Some entries of each row: their values, and where they stand."""


class Sparsifier(Codec):
    """Base of codecs that select entries, and so can be followed by a quantizer of their values, ``topk | qsgd``.

    A subclass says what it selects and about how many entries that are. If workers choose entries of their own and the
    positions travel as :func:`sparse_payload` writes them, that is all. Else it overrides ``sends_positions``,
    ``positions``, ``place`` and ``positions_bytes``, which say how a receiver learns where the values belong; and
    ``combine`` where all workers have the same places, so that values can be summed.
    """

    coding: Coding = "log2"
    """How positions are written; a subclass may make it a parameter."""

    collective = "all-gather"

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def selects(self) -> bool:
        return True

    @property
    def varying(self) -> bool:
        return self.ragged or (self.sends_positions and length_varies(self.coding))

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "gather"

    @property
    def ragged(self) -> bool:
        """Whether workers may select different numbers of entries."""
        return False

    @property
    def sends_positions(self) -> bool:
        """Whether a payload holds a buffer of positions; else they follow from the turn."""
        return True

    @abstractmethod
    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[Entries, State]:
        """Return the entries to send of values ``[W, *shape]``; otherwise as :meth:`Codec.encode`."""

    @abstractmethod
    def count(self, shape: Shape) -> float:
        """Return how many values of a unit are sent; an estimate where that is ``ragged``."""

    def positions(self, entries: Entries) -> Buffer:
        """Return the positions in wire form."""
        assert isinstance(entries, Sparse | RaggedSparse)
        return encode_indices(entries.indices, entries.size, self.coding)

    def positions_bytes(self, shape: Shape) -> float:
        """Return the bytes of the positions, with those that announce their length where it varies."""
        if not self.sends_positions:
            return 0.0
        return SIZE_BYTES * self.varying + indices_bytes(self.count(shape), prod(shape), self.coding)

    def place(self, values: Tensor | Ragged, positions: Buffer | None, shape: Shape, turn: Turn) -> Entries:
        """Return entries of the given values; undoes :meth:`positions`.

        Parameters
        ----------
        values : Tensor, shape [R, k], or Ragged of R rows
        positions : Tensor or Ragged of R rows, or None
            As they were received; None where they follow from the turn.
        """
        assert positions is not None
        return read_sparse(Payload((values, positions)), prod(shape), self.coding)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        entries, state = self.select(x, state, turn)
        positions = (self.positions(entries),) if self.sends_positions else ()
        return Payload((entries.values, *positions)), entries, state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        return self.place(payload.buffers[0], payload.buffers[1] if self.sends_positions else None, shape, turn)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        header = HEADER_BYTES if self.combine == "gather" else 0
        announced = SIZE_BYTES if self.ragged else 0
        return header + announced + self.count(shape) * itemsize + self.positions_bytes(shape)


def sparse_payload(entries: Sparse | RaggedSparse, coding: Coding) -> Payload:
    """Return the payload of some entries: their values, then their positions."""
    return Payload((entries.values, encode_indices(entries.indices, entries.size, coding)))


def read_sparse(payload: Payload, size: int, coding: Coding) -> Sparse | RaggedSparse:
    """Undo :func:`sparse_payload` for a unit of ``size`` values."""
    values, coded = payload.buffers
    if isinstance(values, Ragged):
        indices = decode_indices(coded, values.lengths, size, coding)
        assert isinstance(indices, Ragged)
        return RaggedSparse(values, indices, size)
    return Sparse(values, read_positions(coded, len(values), values.shape[1], size, coding), size)


def read_positions(coded: Buffer, rows: int, count: int, size: int, coding: Coding) -> Tensor:
    """Read ``count`` positions of each row as ``[R, count]``, be their code of fixed length or not."""
    positions = decode_indices(coded, [count] * rows, size, coding)
    return positions.flat.view(rows, count) if isinstance(positions, Ragged) else positions
