"""Index coding: ascending positions of a unit's entries, in wire form and back.

A coding writes the positions of one row. Under ``raw``, ``log2`` and ``bitmap`` a row's length follows from the number
of its positions; under the others it depends on where they are. A row of no positions is empty.
"""

from math import ceil
from typing import Literal

import torch
from torch import Tensor

from .gapcodes import (
    elias_bytes,
    elias_bytes_of,
    elias_decode,
    elias_encode,
    from_gaps,
    rice_bytes,
    rice_decode,
    rice_encode,
    rice_parameter,
    to_gaps,
)
from .payload import Buffer, Ragged
from .wire import index_bits, pack, packed_bytes, unpack

Coding = Literal["raw", "log2", "bitmap", "rice", "elias", "auto"]
"""32 bits a position; ceil(log2 n) bits; a bit for each of the n entries; Golomb-Rice or Elias' delta code on gaps; the
shortest of the last four for each row, which a byte before it names."""

_CANDIDATES: tuple[Coding, ...] = ("log2", "bitmap", "rice", "elias")
"""What ``auto`` chooses from; the byte is the place in this tuple."""


def length_varies(coding: Coding) -> bool:
    """Return whether a row's length depends on where its positions are, so that receivers must be told it."""
    return coding in ("rice", "elias", "auto")


def encode_indices(indices: Tensor | Ragged, size: int, coding: Coding) -> Buffer:
    """Write positions, row by row.

    Parameters
    ----------
    indices : Tensor of int64, shape [R, k], or Ragged of R rows
        Ascending and distinct in each row, in [0, size).
    size : int
        n.
    coding : Coding

    Returns
    -------
    Tensor of uint8, shape [R, bytes], or Ragged of uint8 if the rows or the coding vary in length
    """
    if isinstance(indices, Tensor) and not length_varies(coding):
        return _encode_fixed(indices, size, coding)
    rows = list(indices) if isinstance(indices, Tensor) else [indices.row(r) for r in range(len(indices.lengths))]
    return Ragged.of([_encode_row(row, size, coding) for row in rows])


def decode_indices(buffer: Buffer, counts: list[int], size: int, coding: Coding) -> Tensor | Ragged:
    """Undo :func:`encode_indices`.

    Parameters
    ----------
    counts : list of int
        How many positions each row has, which its values tell.

    Returns
    -------
    Tensor of int64, shape [R, k], or Ragged if the buffer is
    """
    if isinstance(buffer, Tensor):
        return _decode_fixed(buffer, counts[0], size, coding)
    return Ragged.of([_decode_row(buffer.row(r), count, size, coding) for r, count in enumerate(counts)])


def indices_bytes(count: float, size: int, coding: Coding) -> float:
    """Return the bytes that ``count`` positions take.

    Where that depends on the positions, it is the expectation for positions drawn at random, to about a byte. Clustered
    positions take less under ``elias`` and ``auto``, and about the same under ``rice``.
    """
    if not count:
        return 0
    match coding:
        case "bitmap":
            return packed_bytes(size, 1)
        case "rice":
            return rice_bytes(count, size)
        case "elias":
            return elias_bytes(count, size)
        case "auto":
            return 1 + min(indices_bytes(count, size, candidate) for candidate in _CANDIDATES)
        case _:
            return ceil(count * _bits(size, coding) / 8)


def _bits(size: int, coding: Coding) -> int:
    return 32 if coding == "raw" else index_bits(size)


def _encode_fixed(indices: Tensor, size: int, coding: Coding) -> Tensor:
    """Write ``[R, k]`` positions by a coding of fixed length."""
    if coding != "bitmap":
        return pack(indices, _bits(size, coding))
    marks = torch.zeros(len(indices), size, dtype=torch.uint8, device=indices.device)
    return pack(marks.scatter_(1, indices, 1), 1)


def _decode_fixed(data: Tensor, count: int, size: int, coding: Coding) -> Tensor:
    """Undo :func:`_encode_fixed`."""
    if coding != "bitmap":
        return unpack(data, _bits(size, coding), count)
    return unpack(data, 1, size, torch.uint8).nonzero()[:, 1].view(len(data), count)


def _encode_row(indices: Tensor, size: int, coding: Coding) -> Tensor:
    """Write the positions of one row."""
    if not len(indices):
        return torch.empty(0, dtype=torch.uint8, device=indices.device)
    match coding:
        case "rice":
            return rice_encode(to_gaps(indices))
        case "elias":
            return elias_encode(to_gaps(indices))
        case "auto":
            tag = _shortest(indices, size)
            code = _encode_row(indices, size, _CANDIDATES[tag])
            return torch.cat([code.new_full((1,), tag), code])
        case _:
            return _encode_fixed(indices[None], size, coding)[0]


def _decode_row(data: Tensor, count: int, size: int, coding: Coding) -> Tensor:
    """Undo :func:`_encode_row`."""
    if not count:
        return torch.empty(0, dtype=torch.int64, device=data.device)
    match coding:
        case "rice":
            return from_gaps(rice_decode(data, count))
        case "elias":
            return from_gaps(elias_decode(data, count))
        case "auto":
            return _decode_row(data[1:], count, size, _CANDIDATES[int(data[0])])
        case _:
            return _decode_fixed(data[None], count, size, coding)[0]


def _shortest(indices: Tensor, size: int) -> int:
    """Return which candidate writes a row in the fewest bytes, the first of equals."""
    gaps, count = to_gaps(indices), len(indices)
    lengths = [indices_bytes(count, size, "log2"), packed_bytes(size, 1), rice_parameter(gaps)[1], elias_bytes_of(gaps)]
    return lengths.index(min(lengths))
