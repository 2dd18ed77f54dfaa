"""Compiled loops of the quantizers for large units on a CPU; each gives bit for bit what torch's operations give.

Kernels work on one row from ``start`` to ``stop``, in blocks that stay in the cache, and release the interpreter's
lock, so that threads share the rows' parts. ``start`` is a multiple of :data:`PART`, so no two of them write to the
same byte. What they compute is said where they are called; this module is imported only then, since numba loads slowly.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from numba import njit

from .rounding import GOLDEN, MIX1, MIX2, Key

PART = 40 * 2048
"""Values that a thread takes at a time: a multiple of 8 and of 5, so codes of any kind end with a byte."""

_BLOCK = 1024  # values that are worked on at a time; 8 random words give each of them 8 bits
_DECODED = 40 * 32  # and so many when codes are read, whatever their width
_GOLDEN, _MIX1, _MIX2 = np.uint64(GOLDEN), np.uint64(MIX1), np.uint64(MIX2)
_U1, _U8, _U20, _U27, _U30, _U31 = (np.uint64(k) for k in (1, 8, 20, 27, 30, 31))
_DIGIT = np.uint32(3)

compiled = njit(cache=True, nogil=True)
inlined = njit(cache=True, nogil=True, inline="always")


def share(work: Callable[[int, int, int], object], rows: int, size: int) -> None:
    """Call ``work(row, start, stop)`` for all parts of all rows, on as many threads as torch uses."""
    parts = [(row, start, min(start + PART, size)) for row in range(rows) for start in range(0, size, PART)]
    threads = min(torch.get_num_threads(), len(parts))

    def some(first: int) -> None:
        for part in parts[first::threads]:
            work(*part)

    others = [_pool(os.getpid(), threads - 1).submit(some, first) for first in range(1, threads)] if threads > 1 else []
    some(0)
    for other in others:
        other.result()


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:  # noqa: ARG001 - it keys the cache
    """Return threads that wait for work; those of another process did not survive the fork that made this one."""
    return ThreadPoolExecutor(threads, thread_name_prefix="gradwire")


def unsigned(keys: list[Key]) -> list[tuple[np.uint64, np.uint64]]:
    """Return keys as the loops take them."""
    return [(np.uint64(first), np.uint64(more)) for first, more in keys]


@inlined
def _word(key, index):
    z = key + (np.uint64(index) + _U1) * _GOLDEN
    z = (z ^ (z >> _U30)) * _MIX1
    z = (z ^ (z >> _U27)) * _MIX2
    return z ^ (z >> _U31)


@compiled
def _round(scaled, start, key, more, words, up):
    """Fill ``up`` with 1 where an entry is rounded up, whose probabilities times 256 are ``scaled``."""
    count = len(scaled)
    for j in range((count + 7) // 8):
        words[j] = _word(key, start // 8 + j)
    coarse = words.view(np.uint8)
    ties = 0
    for i in range(count):
        whole = np.int32(scaled[i])
        up[i] = np.int32(coarse[i]) < whole
        ties += np.int32(coarse[i]) == whole
    if ties:
        for i in range(count):
            whole = np.int32(scaled[i])
            if np.int32(coarse[i]) == whole:
                rest = (np.float64(scaled[i]) - np.float64(whole)) * 2.0**44
                up[i] = np.float64(_word(more, start + i) >> _U20) < rest


@compiled
def levels(x, norms, bucket, top, limit, key, more, start, stop, codes):
    """Round |x| / norm * top at random; write top + level or top - level."""
    one, highest = x.dtype.type(1), x.dtype.type(top)
    scaled, up = np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, np.uint8)
    level, words = np.empty(_BLOCK, np.int32), np.empty(_BLOCK // 8, np.uint64)
    for begin in range(start, stop, _BLOCK):
        part, out = x[begin : min(begin + _BLOCK, stop)], codes[begin : min(begin + _BLOCK, stop)]
        at = 0
        while at < len(part):
            number = (begin + at) // bucket
            end = min(len(part), (number + 1) * bucket - begin)
            norm = norms[number] if norms[number] > 0 else one
            values, whole, rest = part[at:end], level[at:end], scaled[at:end]
            for i in range(len(values)):
                position = min(min(abs(values[i]), limit) / norm * highest, highest)
                whole[i] = np.int32(position)
                rest[i] = (position - x.dtype.type(whole[i])) * x.dtype.type(256)
            at = end
        _round(scaled[: len(part)], begin, key, more, words, up)
        for i in range(len(part)):
            size = level[i] + np.int32(up[i])
            out[i] = np.int32(top) + size if part[i] >= 0 else np.int32(top) - size


@compiled
def nearest(x, norms, bucket, top, start, stop, codes):
    """Round |x| / norm * top to the nearest integer, halves to even; write top + level or top - level."""
    one, highest = x.dtype.type(1), x.dtype.type(top)
    for begin in range(start, stop, _BLOCK):
        part, out = x[begin : min(begin + _BLOCK, stop)], codes[begin : min(begin + _BLOCK, stop)]
        at = 0
        while at < len(part):
            number = (begin + at) // bucket
            end = min(len(part), (number + 1) * bucket - begin)
            norm = norms[number] if norms[number] > 0 else one
            values, chosen = part[at:end], out[at:end]
            for i in range(len(values)):
                chosen[i] = np.int32(top) + np.int32(np.rint(values[i] / norm * highest))
            at = end


@compiled
def powers(x, norms, bucket, top, ratio, bits, mantissa, bias, scaled, key, more, start, stop, codes):
    """Round |x| / norm at random to 0 or a power of two from 2**(1 - top) on; write top + number or top - number.

    ``ratio`` and ``bits``, its bits as integers, are scratch memory, and so is ``scaled``.
    """
    one = x.dtype.type(1)
    up, words = np.empty(_BLOCK, np.uint8), np.empty(_BLOCK // 8, np.uint64)
    level = np.empty(_BLOCK, np.int32)
    lowest, unit, mask = bias - top + 1, x.dtype.type(2.0 ** (top - 1)), (1 << mantissa) - 1
    fraction, steps = x.dtype.type(2.0 ** (8 - mantissa)), x.dtype.type(256)
    for begin in range(start, stop, _BLOCK):
        part, out = x[begin : min(begin + _BLOCK, stop)], codes[begin : min(begin + _BLOCK, stop)]
        at = 0
        while at < len(part):
            number = (begin + at) // bucket
            end = min(len(part), (number + 1) * bucket - begin)
            norm = norms[number] if norms[number] > 0 else one
            values, quotient = part[at:end], ratio[at:end]
            for i in range(len(values)):
                quotient[i] = min(abs(values[i]) / norm, one)
            at = end
        for i in range(len(part)):
            above = (bits[i] >> mantissa) - lowest
            level[i] = above + 1 if above >= 0 else 0
            scaled[i] = (
                x.dtype.type(bits[i] & mask) * fraction if above >= 0 else ratio[i] * unit * steps
            )  # 2**(top + 7) overflows
        _round(scaled[: len(part)], begin, key, more, words, up)
        for i in range(len(part)):
            size = level[i] + np.int32(up[i])
            out[i] = np.int32(top) + size if part[i] >= 0 else np.int32(top) - size


@compiled
def exponents(bits, mantissa, highest, scaled, key, more, start, stop, codes):
    """Round floats, given as their bits, at random to powers of two; write sign and exponent field."""
    up, words = np.empty(_BLOCK, np.uint8), np.empty(_BLOCK // 8, np.uint64)
    mask, fraction = (1 << mantissa) - 1, scaled.dtype.type(2.0 ** (8 - mantissa))
    for begin in range(start, stop, _BLOCK):
        part, out = bits[begin : min(begin + _BLOCK, stop)], codes[begin : min(begin + _BLOCK, stop)]
        for i in range(len(part)):
            scaled[i] = scaled.dtype.type(part[i] & mask) * fraction
        _round(scaled[: len(part)], begin, key, more, words, up)
        for i in range(len(part)):
            field = np.int32((part[i] >> mantissa) & (highest + 1))
            field = min(field + np.int32(up[i]), np.int32(highest))
            out[i] = field + (np.int32(highest + 2) if part[i] < 0 else np.int32(0))


@compiled
def block_sums(x, deviation, shift, start, stop, sums):
    """Write the sum of each block's |x|, x or (x - shift)**2, by halving, in float64."""
    terms = np.empty(_BLOCK, np.float64)
    for begin in range(start, stop, _BLOCK):
        part = x[begin : min(begin + _BLOCK, stop)]
        terms[len(part) :] = 0
        if deviation == 0:
            for i in range(len(part)):
                terms[i] = abs(np.float64(part[i]))
        elif deviation == 1:
            for i in range(len(part)):
                terms[i] = np.float64(part[i])
        else:
            for i in range(len(part)):
                difference = np.float64(part[i]) - shift
                terms[i] = difference * difference
        half = _BLOCK // 2
        while half:
            left, right = terms[:half], terms[half : 2 * half]
            for i in range(len(left)):
                left[i] += right[i]
            half //= 2
        sums[begin // _BLOCK] = terms[0]


# ------------------------------------------------------------------------------------------------------- wire and back


@compiled
def pack_bits(codes, bits, start, stop, packed):
    """Lay codes of ``bits`` bits end to end."""
    at, held, bitcount = start * bits // 8, np.uint64(0), 0
    for i in range(start, stop):
        held |= np.uint64(codes[i]) << np.uint64(bitcount)
        bitcount += bits
        while bitcount >= 8:
            packed[at] = np.uint8(held & np.uint64(255))
            held >>= _U8
            bitcount -= 8
            at += 1
    if bitcount:
        packed[at] = np.uint8(held & np.uint64(255))


@compiled
def pack_trits(codes, start, stop, packed):
    """Write five digits of base 3 to a byte, the first the lowest."""
    part, out = codes[start:stop], packed[start // 5 :]
    for j in range(len(part) // 5):
        five = part[5 * j : 5 * j + 5]
        out[j] = five[0] + 3 * five[1] + 9 * five[2] + 27 * five[3] + 81 * five[4]
    rest = part[len(part) // 5 * 5 :]
    if len(rest):
        total = 0
        for i in range(len(rest) - 1, -1, -1):
            total = 3 * total + rest[i]
        out[len(part) // 5] = total


@compiled
def _unpack(packed, bits, begin, codes):
    """Read codes from the one at ``begin``, a multiple of 40, on; 0 bits are digits of base 3."""
    if bits == 8:
        part = packed[begin : begin + len(codes)]
        for i in range(len(codes)):
            codes[i] = part[i]
    elif bits == 4:
        part = packed[begin // 2 :]
        for i in range(len(codes)):
            codes[i] = (part[i >> 1] >> np.uint8(4 * (i & 1))) & np.uint8(15)
    elif bits == 0:
        part = packed[begin // 5 :]
        for j in range(len(codes) // 5):
            byte, five = np.uint32(part[j]), codes[5 * j : 5 * j + 5]
            five[0] = byte % _DIGIT
            five[1] = byte // np.uint32(3) % _DIGIT
            five[2] = byte // np.uint32(9) % _DIGIT
            five[3] = byte // np.uint32(27) % _DIGIT
            five[4] = byte // np.uint32(81)
        for i in range(len(codes) // 5 * 5, len(codes)):
            codes[i] = part[i // 5] // 3 ** (i % 5) % 3
    else:
        at, held, bitcount, mask = begin * bits // 8, np.uint64(0), 0, np.uint64((1 << bits) - 1)
        for i in range(len(codes)):
            while bitcount < bits:
                held |= np.uint64(packed[at]) << np.uint64(bitcount)
                bitcount += 8
                at += 1
            codes[i] = held & mask
            held >>= np.uint64(bits)
            bitcount -= bits


@compiled
def add_codes(packed, bits, table, scales, bucket, store, start, stop, out):
    """Add table[code] * scale to ``out``, or write it there."""
    codes = np.empty(_DECODED, np.uint16)
    for begin in range(start, stop, _DECODED):
        target = out[begin : min(begin + _DECODED, stop)]
        _unpack(packed, bits, begin, codes[: len(target)])
        at = 0
        while at < len(target):
            number = (begin + at) // bucket
            end = min(len(target), (number + 1) * bucket - begin)
            scale, chosen, part = scales[number], codes[at:end], target[at:end]
            if store:
                for i in range(len(part)):
                    part[i] = table[chosen[i]] * scale
            else:
                for i in range(len(part)):
                    part[i] += table[chosen[i]] * scale
            at = end


@compiled
def add_signs(packed, low, high, store, start, stop, out):
    """Add ``high`` to ``out`` where a bit is set and ``low`` elsewhere, or write them there."""
    part, target = packed[start // 8 : (stop + 7) // 8], out[start:stop]
    for j in range(len(target) // 8):
        byte, eight = np.int32(part[j]), target[8 * j : 8 * j + 8]
        for k in range(8):
            value = high if byte & (1 << k) else low
            eight[k] = value if store else eight[k] + value
    for i in range(len(target) // 8 * 8, len(target)):
        value = high if (part[i >> 3] >> (i & 7)) & 1 else low
        target[i] = value if store else target[i] + value
