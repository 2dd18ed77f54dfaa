"""Compiled loops of Elias's recursive code; see :mod:`gradwire.compressors.quantizers.elias`."""

import numpy as np

from .kernels import compiled


@compiled
def _code_length(number):
    length = 1
    while number > 1:
        bits = 0
        while number >> bits:
            bits += 1
        length += bits
        number = bits - 1
    return length


@compiled
def length(codes, top, gaps):
    """Return the bits of a row."""
    total, last = 0, -1
    for i in range(len(codes)):
        level = abs(np.int64(codes[i]) - top)
        if gaps and level:
            total += _code_length(i - last) + 1 + _code_length(level)
            last = i
        elif not gaps:
            total += _code_length(level + 1) + (level > 0)
    return total


@compiled
def _put(number, at, out):
    """Write a number from bit ``at`` on; return the place behind it."""
    end = at + _code_length(number)
    stop = end - 1  # the closing 0, which is there already
    while number > 1:
        bits = 0
        while number >> bits:
            stop -= 1
            out[stop >> 3] |= ((number >> bits) & 1) << (stop & 7)
            bits += 1
        number = bits - 1
    return end


@compiled
def write(codes, top, gaps, out):
    """Write a row into ``out``, which it fills up to less than a byte."""
    out[:] = 0
    at, last = 0, -1
    for i in range(len(codes)):
        signed = np.int64(codes[i]) - top
        level = abs(signed)
        if gaps and not level:
            continue
        at = _put(i - last if gaps else level + 1, at, out)
        last = i
        if level:
            out[at >> 3] |= np.int64(signed < 0) << (at & 7)
            at += 1
        if gaps:
            at = _put(level, at, out)
    while at < 8 * len(out):
        out[at >> 3] |= 1 << (at & 7)
        at += 1


@compiled
def _get(data, at):
    """Read a number from bit ``at`` on; return it, 0 where it does not end, and the place behind it."""
    number, end = 1, 8 * len(data)
    while at < end:
        if not (data[at >> 3] >> (at & 7)) & 1:
            return number, at + 1
        stop = at + number + 1
        if stop > end:
            break
        number = 0
        while at < stop:
            number = 2 * number + ((np.int64(data[at >> 3]) >> (at & 7)) & 1)
            at += 1
    return 0, end


@compiled
def read(data, top, gaps, codes):
    """Read a row into ``codes``, which are ``top`` where nothing else is said."""
    at, i = 0, -1
    while i + 1 < len(codes):
        number, at = _get(data, at)
        if number == 0:
            break
        i += number if gaps else 1
        level = number - 1
        if gaps or level:
            sign = (np.int64(data[at >> 3]) >> (at & 7)) & 1
            at += 1
            if gaps:
                level, at = _get(data, at)
            codes[i] = top - level if sign else top + level
