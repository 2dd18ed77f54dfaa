"""Payloads: the buffers that cross the wire, as they cross it.

The driver charges the length of these buffers and nothing else, so whatever a receiver needs must be in them.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

HEADER_BYTES = 8
"""Length of the header that precedes each unit's payload in a gather, a permute or a push to a server."""
SIZE_BYTES = 8
"""What a worker says of the length of each ragged buffer before a gather."""


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, end to end: row r is ``flat[offsets[r]:offsets[r + 1]]``."""

    flat: Tensor
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, rows: list[Tensor]) -> "Ragged":
        """Join 1-D tensors; an empty one is an idle worker's row."""
        return cls(torch.cat(rows), tuple(accumulate((len(row) for row in rows), initial=0)))

    @property
    def lengths(self) -> list[int]:
        """The number of entries of each row."""
        return [stop - start for start, stop in pairwise(self.offsets)]

    def row(self, r: int) -> Tensor:
        """Return row r, a view."""
        return self.flat[self.offsets[r] : self.offsets[r + 1]]


Buffer = Tensor | Ragged


def element_bytes(buffer: Buffer) -> int:
    """Return the bytes of one entry of a buffer."""
    return buffer.flat.element_size() if isinstance(buffer, Ragged) else buffer.element_size()


def row_bytes(buffer: Buffer) -> list[int]:
    """Return the length in bytes of each row of a buffer."""
    if isinstance(buffer, Ragged):
        return [length * buffer.flat.element_size() for length in buffer.lengths]
    return [buffer.shape[1] * buffer.element_size()] * buffer.shape[0]


@dataclass(frozen=True)
class Payload:
    """What workers hand over for one unit.

    Attributes
    ----------
    buffers : tuple of Tensor [R, m] or Ragged of R rows
        In wire form: values in their wire dtype, indices coded, signs and levels packed. R is the number of workers
        whose payloads these are. No buffers at all: nothing is sent, and every worker knows it.
    """

    buffers: tuple[Buffer, ...] = ()

    @property
    def row_bytes(self) -> list[int]:
        """The bytes of each row, over all buffers, without headers."""
        return [sum(lengths) for lengths in zip(*(row_bytes(buffer) for buffer in self.buffers), strict=True)]

    @property
    def is_ragged(self) -> bool:
        """Whether the rows' lengths may differ, so that receivers must be told them."""
        return any(isinstance(buffer, Ragged) for buffer in self.buffers)

    def fixed(self, index: int) -> Tensor:
        """Return a buffer that is known to be ``[R, m]``."""
        buffer = self.buffers[index]
        if isinstance(buffer, Ragged):
            raise TypeError(f"buffer {index} is ragged")
        return buffer

    def apart_from(self, memory: Tensor) -> "Payload":
        """Return a payload that shares no memory with a tensor that is about to change."""
        place = memory.untyped_storage().data_ptr()

        def apart(buffer: Buffer) -> Buffer:
            if isinstance(buffer, Ragged) or buffer.untyped_storage().data_ptr() != place:
                return buffer
            return buffer.clone()

        return Payload(tuple(apart(buffer) for buffer in self.buffers))
