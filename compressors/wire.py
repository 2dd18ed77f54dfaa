"""Wire forms: packing small integers into bits, and the header of a payload.

Codes are laid end to end from the lowest bit of the first byte on, and each row is padded to whole bytes.
"""

import struct
from math import ceil, gcd
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from .payload import HEADER_BYTES

_VERSION = 1
_WHOLE = {16: torch.int16, 32: torch.int32}
"""Codes that fill a dtype, whose bytes lie as they shall on the little-endian machines that torch runs on."""

_FEW = 4_096
"""Fewer codes than this are packed bit by bit: the work is more, but the operations are fewer."""


class WireError(ValueError):
    """Bytes that arrived are not what this process expects: another scheme, size or version sent them."""


def index_bits(size: int) -> int:
    """Return the bits of an index into ``size`` entries: ceil(log2 size), at least 1."""
    return max(1, (size - 1).bit_length())


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes that ``count`` codes of ``bits`` bits take."""
    return ceil(count * bits / 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack integers into bits.

    Parameters
    ----------
    codes : Tensor, shape [R, m]
        Of any integer dtype, each in [0, 2**bits).
    bits : int
        1 to 32.

    Returns
    -------
    Tensor of uint8, shape [R, ceil(m * bits / 8)]
    """
    if bits in _WHOLE and codes.numel():
        return codes.to(_WHOLE[bits], copy=True, memory_format=torch.contiguous_format).view(torch.uint8)
    if codes.device.type == "cpu" and (bits == 1 or codes.numel() < _FEW):
        digits = codes.long().numpy()[:, :, None] >> np.arange(bits) & 1 if bits > 1 else codes.numpy()[:, :, None]
        return torch.from_numpy(np.packbits(digits.astype(np.uint8).reshape(len(codes), -1), axis=1, bitorder="little"))
    return _pack_lanes(codes, bits)


def _pack_lanes(codes: Tensor, bits: int) -> Tensor:
    """Pack on any device, in a number of operations that depends on ``bits`` alone."""
    rows, count = codes.shape
    per_group, group_bytes, groups = _groups(count, bits)
    wide = torch.uint8 if bits <= 8 else torch.int64  # of which only the low 8 bits of a sum are kept
    padded = codes.new_zeros(rows, groups * per_group, dtype=wide)
    padded[:, :count] = codes
    lanes = padded.view(rows, groups, per_group)
    out = torch.empty(rows, groups, group_bytes, dtype=torch.uint8, device=codes.device)
    for byte in range(group_bytes):
        total = torch.zeros(rows, groups, dtype=wide, device=codes.device)
        for lane in range(8 * byte // bits, min(per_group, (8 * byte + 7) // bits + 1)):
            shift = lane * bits - 8 * byte
            total |= lanes[:, :, lane] << shift if shift >= 0 else lanes[:, :, lane] >> -shift
        out[:, :, byte] = total & 0xFF
    return out.view(rows, -1)[:, : packed_bytes(count, bits)].contiguous()


def unpack(data: Tensor, bits: int, count: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """Undo :func:`pack`.

    Parameters
    ----------
    data : Tensor of uint8, shape [R, ceil(count * bits / 8)]

    Returns
    -------
    Tensor of ``dtype``, shape [R, count]
    """
    if bits in _WHOLE and data.numel():  # a copy, since bytes from the middle of a message need not be aligned
        signed = data.clone(memory_format=torch.contiguous_format).view(_WHOLE[bits])
        return (signed.long() & ((1 << bits) - 1)).to(dtype)
    if data.device.type == "cpu" and (bits == 1 or len(data) * count < _FEW):
        digits = np.unpackbits(data.numpy(), axis=1, count=count * bits, bitorder="little")
        if bits > 1:
            digits = digits.reshape(len(data), count, bits) @ (1 << np.arange(bits))
        return torch.from_numpy(digits).to(dtype)
    return _unpack_lanes(data, bits, count, dtype)


def _unpack_lanes(data: Tensor, bits: int, count: int, dtype: torch.dtype) -> Tensor:
    """Undo :func:`_pack_lanes`."""
    rows = len(data)
    per_group, group_bytes, groups = _groups(count, bits)
    wide = torch.uint8 if bits <= 8 else torch.int64
    padded = data.new_zeros(rows, groups * group_bytes, dtype=wide)
    padded[:, : data.shape[1]] = data
    pieces = padded.view(rows, groups, group_bytes)
    out = torch.empty(rows, groups, per_group, dtype=dtype, device=data.device)
    for lane in range(per_group):
        total = torch.zeros(rows, groups, dtype=wide, device=data.device)
        for byte in range(lane * bits // 8, min(group_bytes, (lane * bits + bits - 1) // 8 + 1)):
            shift = 8 * byte - lane * bits
            total |= pieces[:, :, byte] << shift if shift >= 0 else pieces[:, :, byte] >> -shift
        out[:, :, lane] = total & ((1 << bits) - 1)
    return out.view(rows, -1)[:, :count]


def _groups(count: int, bits: int) -> tuple[int, int, int]:
    """Return how many codes fill a whole number of bytes, that number, and how often ``count`` codes need it."""
    per_group = 8 // gcd(bits, 8)
    return per_group, per_group * bits // 8, ceil(count / per_group)


def header(scheme: str, elements: int) -> bytes:
    """Return the header of a unit's payload: version, scheme and number of values that it stands for.

    Parameters
    ----------
    scheme : str
        The text form, of which a 16-bit check sum travels.
    elements : int
        n, below 2**32.
    """
    return struct.pack("<BBHI", _VERSION, 0, crc32(scheme.encode()) & 0xFFFF, elements)


def check_header(found: bytes, scheme: str, elements: int, rank: int) -> None:
    """Raise a :class:`WireError` that says in what a received header differs from the own one."""
    if found == header(scheme, elements):
        return
    version, _, check_sum, count = struct.unpack("<BBHI", found)
    if version != _VERSION:
        reason = f"wire version {version} instead of {_VERSION}"
    elif count != elements:
        reason = f"a unit of {count} values instead of {elements}"
    else:
        reason = f"another scheme than {scheme} (check sum {check_sum:#06x})"
    raise WireError(f"worker {rank} sent {reason}: all workers must run the same scheme on the same units")


assert len(header("", 0)) == HEADER_BYTES
