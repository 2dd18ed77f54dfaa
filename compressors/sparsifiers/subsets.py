"""Random positions from a keyed stream: with replacement, and distinct ones, exactly uniform."""

import numpy as np
from numpy.typing import NDArray

from ..keys import words

_COMPILED_FROM = 1 << 16
"""So many positions are worth loading the compiled loops for."""
_SORTED_BELOW = 1 / 32
"""Smaller fractions are sorted; for larger ones it is faster to mark them in a row of all entries."""


def positions(bits: np.random.Philox, size: int, count: int) -> NDArray[np.uint32]:
    """Return ``count`` independent positions, each uniform on [0, size), for a size of up to 2**32.

    Words of just as many bits as an index has are drawn, and those that are no index are left out.
    """
    width = max(1, (size - 1).bit_length())
    accepted = size / 2**width
    found = np.empty(0, dtype=np.uint32)
    while len(found) < count:
        drawn = words(bits, int((count - len(found)) / accepted * 1.01) + 8) >> np.uint32(32 - width)
        found = np.concatenate([found, drawn[drawn < size]])
    return found[:count]


def subset(bits: np.random.Philox, size: int, count: int) -> NDArray[np.int64]:
    """Return ``count`` distinct positions below ``size``, ascending; each such subset is equally likely.

    Positions are drawn until enough of them differ. That treats all positions alike, whichever they are, so no subset
    is favoured. Of more than half of the entries, those that stay out are drawn.
    """
    if 2 * count > size:
        kept = np.ones(size, dtype=np.bool_)
        kept[subset(bits, size, size - count)] = False
        return np.flatnonzero(kept)
    if count >= _COMPILED_FROM:
        return _by_bitmap(bits, size, count)
    if count < _SORTED_BELOW * size:
        return _by_sorting(bits, size, count)
    marked = np.zeros(size, dtype=np.bool_)
    missing = count
    while missing:
        marked[positions(bits, size, missing)] = True
        missing = count - int(np.count_nonzero(marked))
    return np.flatnonzero(marked)


def _by_bitmap(bits: np.random.Philox, size: int, count: int) -> NDArray[np.int64]:
    """Draw as :func:`subset` does, with compiled loops."""
    from .bitmap import Bitmap  # noqa: PLC0415 - numba loads slowly, and small units do not need it

    chosen = Bitmap(size)
    while chosen.count < count:
        chosen.add(positions(bits, size, count - chosen.count))
    return chosen.ascending()


def _by_sorting(bits: np.random.Philox, size: int, count: int) -> NDArray[np.int64]:
    """Draw as :func:`subset` does, with work in proportion to ``count``."""
    found = _distinct(positions(bits, size, count))
    while len(found) < count:
        new = _distinct(positions(bits, size, count - len(found)))
        places = np.searchsorted(found, new)
        fresh = np.append(found, new[-1:])[places] != new
        fresh |= places == len(found)
        found = np.insert(found, places[fresh], new[fresh])
    return found.astype(np.int64)


def _distinct(drawn: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return each number once, ascending."""
    ascending = np.sort(drawn)
    first = np.ones(len(ascending), dtype=np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    return ascending[first]
