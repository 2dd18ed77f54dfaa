"""Gap codes: a row of ascending positions as the gaps between them, by Golomb-Rice and by Elias' delta code.

A gap is the number of entries skipped since the last position, or since the start. Both codes are laid out in parts:
first the same part of every gap, then the next part. That changes no code's length, and a whole row is read and written
by a few tensor operations, where code after code would have to be read one by one.
"""

from functools import lru_cache
from math import ceil, floor, log, log2

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln
from torch import Tensor

from .wire import pack, packed_bytes, unpack

_PADDING_BYTES = 7 / 16
"""What filling up to whole bytes adds on average to a length in bits that may be anything."""


def to_gaps(positions: Tensor) -> Tensor:
    """Return the gaps before ascending positions, both of shape [k]."""
    return torch.diff(positions, prepend=positions.new_full((1,), -1)) - 1


def from_gaps(gaps: Tensor) -> Tensor:
    """Undo :func:`to_gaps`."""
    return (gaps + 1).cumsum(0) - 1


# --------------------------------------------------------------------------------------------------------------- Rice


def rice_parameter(gaps: Tensor) -> tuple[int, int]:
    """Return the parameter b of a row's code and the bytes that the row takes.

    For geometric gaps of mean m the best b is about log2(m ln 2) [1]_; of it and its neighbours the shortest is taken.

    References
    ----------
    .. [1] Kiely. *Selecting the Golomb Parameter in Rice Coding*, IPN Progress Report 42-159, 2004,
       https://ipnpr.jpl.nasa.gov/progress_report/42-159/159E.pdf
    """
    count = len(gaps)
    middle = _middle(int(gaps.sum()) / count)
    lengths = {
        b: 1 + packed_bytes(count, b) + packed_bytes(count + int((gaps >> b).sum()), 1)
        for b in range(max(0, middle - 1), middle + 2)
    }
    best = min(lengths, key=lengths.__getitem__)
    return best, lengths[best]


def rice_encode(gaps: Tensor) -> Tensor:
    """Write the parameter b in a byte, then the low b bits of each gap, then each gap's other bits as a unary number.

    The low bits are packed and padded to whole bytes; a unary number q is q zeros and a one.

    Parameters
    ----------
    gaps : Tensor of int64, shape [k], k at least 1

    Returns
    -------
    Tensor of uint8, 1-D
    """
    b, _ = rice_parameter(gaps)
    parts = [torch.tensor([b], dtype=torch.uint8, device=gaps.device)]
    if b:
        parts.append(pack(gaps[None] & ((1 << b) - 1), b)[0])
    return torch.cat([*parts, _pack_bits(_unary(gaps >> b))])


def rice_decode(data: Tensor, count: int) -> Tensor:
    """Undo :func:`rice_encode` for ``count`` gaps."""
    b = int(data[0])
    low_bytes = packed_bytes(count, b)
    high = _read_unary(_unpack_bits(data[1 + low_bytes :]), count)[0]
    if not b:
        return high
    return high << b | unpack(data[None, 1 : 1 + low_bytes], b, count)[0]


@lru_cache(maxsize=1024)
def rice_bytes(count: float, size: int) -> float:
    """Return the expected bytes of ``count`` positions drawn at random without replacement, to about a byte."""
    middle = _middle((size - count) / (count + 1))
    return min(_rice_bytes(count, size, b) for b in range(max(0, middle - 1), middle + 2))


def _rice_bytes(count: float, size: int, b: int) -> float:
    """Return the expected bytes with one parameter: E(gap >> b) is the sum of P(gap >= j 2^b) over j >= 1."""
    steps = np.arange(1, min((size - count) / 2**b, 64 + 64 * size / count / 2**b), dtype=np.float64)
    high = _reached(np.append(steps, steps[-1:] + 1) * 2**b, count, size).sum()
    return 1 + ceil(count * b / 8) + count * (1 + float(high)) / 8 + _PADDING_BYTES


def _middle(mean: float) -> int:
    """Return about the best parameter for gaps of this mean."""
    return max(0, floor(log2(max(1.0, mean * log(2)))))


# -------------------------------------------------------------------------------------------------------------- Elias


def elias_bytes_of(gaps: Tensor) -> int:
    """Return the bytes that a row takes."""
    outer, inner = _elias_widths(gaps + 1)
    return packed_bytes(int((outer + 2 * inner + 1).sum()), 1)


def elias_encode(gaps: Tensor) -> Tensor:
    """Write x = gap + 1 in Elias' delta code [1]_, in three parts.

    x has N + 1 binary digits, and N + 1 has L + 1. The parts are: L as a unary number, L zeros and a one; the low L
    bits of N + 1; the low N bits of x. Each number's lowest bit comes first.

    Notes
    -----
    Delta rather than omega: the lengths are about the same for gaps of up to millions, and delta has three parts for
    every gap, where omega nests as deep as the largest one needs.

    References
    ----------
    .. [1] Elias. *Universal codeword sets and representations of the integers*, IEEE Trans. Inf. Theory 21(2), 1975,
       https://doi.org/10.1109/TIT.1975.1055349
    """
    x = gaps + 1
    outer, inner = _elias_widths(x)
    return _pack_bits(torch.cat([_unary(inner), _fields(outer + 1, inner), _fields(x, outer)]))


def elias_decode(data: Tensor, count: int) -> Tensor:
    """Undo :func:`elias_encode` for ``count`` gaps."""
    bits = _unpack_bits(data)
    inner, start = _read_unary(bits, count)
    outer = (_read_fields(bits[start:], inner) | 1 << inner) - 1
    start += int(inner.sum())
    return (_read_fields(bits[start:], outer) | 1 << outer) - 1


@lru_cache(maxsize=1024)
def elias_bytes(count: float, size: int) -> float:
    """Return the expected bytes of ``count`` positions drawn at random without replacement, to about a byte."""
    outer = np.arange(size.bit_length() + 1)
    reached = _reached(((1 << outer) - 1).astype(np.float64), count, size)
    share = reached - np.append(reached[1:], 0)
    inner = np.floor(np.log2(outer + 1))
    return count * float(share @ (outer + 2 * inner + 1)) / 8 + _PADDING_BYTES


def _elias_widths(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return N and L of each x."""
    outer = torch.frexp(x.double()).exponent.long() - 1
    return outer, torch.frexp((outer + 1).double()).exponent.long() - 1


# --------------------------------------------------------------------------------------------------------------- parts


def _reached(gap: NDArray[np.float64], count: float, size: int) -> NDArray[np.float64]:
    """Return P(a gap is at least ``gap``) = C(n - gap, k) / C(n, k) for k of n positions drawn at random."""
    possible = gap <= size - count
    rest = np.where(possible, size - gap, size)
    logs = gammaln(rest + 1) - gammaln(rest - count + 1) - gammaln(size + 1) + gammaln(size - count + 1)
    return np.where(possible, np.exp(logs), 0.0)


def _pack_bits(bits: Tensor) -> Tensor:
    return pack(bits[None], 1)[0]


def _unpack_bits(data: Tensor) -> Tensor:
    return unpack(data[None], 1, 8 * len(data), torch.uint8)[0]


def _unary(numbers: Tensor) -> Tensor:
    """Return, as one tensor of bits, each number q as q zeros and a one."""
    ends = (numbers + 1).cumsum(0) - 1
    bits = torch.zeros(int(ends[-1]) + 1, dtype=torch.uint8, device=numbers.device)
    bits[ends] = 1
    return bits


def _read_unary(bits: Tensor, count: int) -> tuple[Tensor, int]:
    """Return ``count`` unary numbers and where they end."""
    ends = bits.nonzero()[:count, 0]
    return to_gaps(ends), int(ends[-1]) + 1


def _places(widths: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each bit of fields laid end to end, which field it belongs to and its place in there."""
    owner = torch.arange(len(widths), device=widths.device).repeat_interleave(widths)
    return owner, torch.arange(len(owner), device=widths.device) - (widths.cumsum(0) - widths)[owner]


def _fields(values: Tensor, widths: Tensor) -> Tensor:
    """Return, as one tensor of bits, the low ``widths`` bits of each value, lowest first."""
    owner, place = _places(widths)
    return (values[owner] >> place & 1).to(torch.uint8)


def _read_fields(bits: Tensor, widths: Tensor) -> Tensor:
    """Undo :func:`_fields`; what follows the last field is ignored."""
    owner, place = _places(widths)
    return torch.zeros_like(widths).index_add_(0, owner, bits[: len(owner)].long() << place)
