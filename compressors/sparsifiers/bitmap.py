"""Bitmaps: sets of positions as bits, filled and read by compiled loops; faster than sorting where there are many."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_DE_BRUIJN = 0x03F79D71B4CB0A89
"""Its 64 windows of six bits all differ, so a product with a power of two tells which one it was."""
_PLACE = np.empty(64, np.int64)
_PLACE[[(((_DE_BRUIJN << i) & (2**64 - 1)) >> 58) for i in range(64)]] = np.arange(64)
_NUMBER, _ONE, _SIX, _LOW, _TOP = (np.uint64(value) for value in (_DE_BRUIJN, 1, 6, 63, 58))


class Bitmap:
    """A set of positions below ``size``.

    Parameters
    ----------
    size : int
    """

    def __init__(self, size: int) -> None:
        self._words = np.zeros(size // 64 + 1, np.uint64)
        self.count = 0

    def add(self, positions: NDArray[np.uint32]) -> None:
        """Put positions in, each once."""
        self.count += int(_mark(self._words, positions))

    def ascending(self) -> NDArray[np.int64]:
        """Return all positions."""
        found = np.empty(self.count, np.int64)
        _read(self._words, found)
        return found


@njit(cache=True, nogil=True)
def _mark(words, positions):
    new = 0
    for position in positions:
        place, bit = np.uint64(position) >> _SIX, _ONE << (np.uint64(position) & _LOW)
        if words[place] & bit == 0:
            words[place] |= bit
            new += 1
    return new


@njit(cache=True, nogil=True)
def _read(words, found):
    count = 0
    for i in range(len(words)):
        word = words[i]
        while word:
            lowest = word & (~word + _ONE)
            found[count] = 64 * i + _PLACE[(lowest * _NUMBER) >> _TOP]
            count += 1
            word ^= lowest
