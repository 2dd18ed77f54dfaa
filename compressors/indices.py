"""Index coding: ascending positions of a unit's entries, in wire form and back.

A coding writes the positions of one row; a row of a fixed number of positions has a fixed length under ``raw`` and
``log2``.
"""

from typing import Literal

from torch import Tensor

from .payload import Buffer, Ragged
from .wire import index_bits, pack, packed_bytes, unpack

Coding = Literal["raw", "log2"]


def encode_indices(indices: Tensor | Ragged, size: int, coding: Coding) -> Buffer:
    """Write positions, row by row.

    Parameters
    ----------
    indices : Tensor of int64, shape [R, k], or Ragged of R rows
        Ascending and distinct in each row, in [0, size).
    size : int
        n.
    coding : {"raw", "log2"}
        32 bits a position, or ceil(log2 n).

    Returns
    -------
    Tensor of uint8, shape [R, bytes], or Ragged of uint8
    """
    bits = _bits(size, coding)
    if isinstance(indices, Tensor):
        return pack(indices, bits)
    return Ragged.of([pack(indices.row(r)[None], bits)[0] for r in range(len(indices.lengths))])


def decode_indices(buffer: Buffer, counts: list[int], size: int, coding: Coding) -> Tensor | Ragged:
    """Undo :func:`encode_indices`.

    Parameters
    ----------
    counts : list of int
        How many positions each row has, which its values tell.
    """
    bits = _bits(size, coding)
    if isinstance(buffer, Tensor):
        return unpack(buffer, bits, counts[0])
    return Ragged.of([unpack(buffer.row(r)[None], bits, count)[0] for r, count in enumerate(counts)])


def indices_bytes(count: float, size: int, coding: Coding) -> float:
    """Return the bytes that ``count`` positions take."""
    return packed_bytes(int(count), _bits(size, coding))


def _bits(size: int, coding: Coding) -> int:
    return 32 if coding == "raw" else index_bits(size)
