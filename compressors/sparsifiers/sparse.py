"""What the sparsifiers share: entries are selected, and their values travel with or without their positions."""

from abc import abstractmethod
from math import prod
from typing import Literal

from torch import Tensor

from ..base import Codec, Shape, State, Turn
from ..decoded import Aligned, Block, Decoded, RaggedSparse, Sparse
from ..indices import Coding, decode_indices, encode_indices, indices_bytes
from ..payload import HEADER_BYTES, Buffer, Payload, Ragged

Entries = Sparse | RaggedSparse | Aligned | Block
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
        """Return how many entries of a unit are selected; an estimate where that is ``ragged``."""

    def positions(self, entries: Entries) -> Buffer:
        """Return the positions in wire form."""
        assert isinstance(entries, Sparse | RaggedSparse)
        return encode_indices(entries.indices, entries.size, self.coding)

    def positions_bytes(self, shape: Shape) -> float:
        """Return the bytes of the positions."""
        return indices_bytes(self.count(shape), prod(shape), self.coding)

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
        return header + self.count(shape) * itemsize + self.positions_bytes(shape)


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
    positions = decode_indices(coded, [values.shape[1]] * len(values), size, coding)
    assert isinstance(positions, Tensor)
    return Sparse(values, positions, size)


def sparse_bytes(count: float, size: int, itemsize: int, coding: Coding) -> float:
    """Return the bytes of a payload of ``count`` entries, header included."""
    return HEADER_BYTES + count * itemsize + indices_bytes(count, size, coding)
