"""Flow tables: what the fair-sharing engine knows of links, classes of transfers and what is to come, as records.

They are passed one by one: compiled code that picks them out of a tuple counts references at each access, which costs
more than the work.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Table = NDArray[Any]
"""Records; each kind is described by its dtype below."""
F = TypeVar("F", bound=Callable[..., object])

NONE = -1
STARTS, ENDS, CHANGES, STOPS = range(4)
KINDS = 4
HEAP, QUEUE, DIRTY, EPOCH, SOLUTIONS = range(5)
"""Places in ``sizes``: lengths of the heap, the queue and the list of changed classes; the search's number; a count."""

LINK = np.dtype([
    ("capacity", "f8"),  # bytes a second
    ("carried", "f8"),  # bytes, of transfers that have arrived
    ("first", "i8"),  # where the classes that cross it begin in the list of crossings
    ("busy", "i8"),  # how many classes with transfers under way cross it; they come first in that list
    ("spare", "f8"),  # scratch: capacity not given away yet
    ("users", "i8"),  # scratch: transfers without a rate yet
    ("mark", "i8"),  # the last search that has seen it
])  # fmt: skip
CLASS = np.dtype([
    ("first", "i8"),  # its links: crossed[first:stop]
    ("stop", "i8"),
    ("count", "i8"),  # transfers under way
    ("rate", "f8"),  # bytes a second of each
    ("served", "f8"),  # bytes that each had got at the time ``since``
    ("since", "f8"),
    ("head", "i8"),  # the transfer that ends next
    ("end", "f8"),  # when it does, if nothing changes
    ("place", "i8"),  # in the heap
    ("mark", "i8"),
    ("share", "f8"),  # scratch: the new rate
])  # fmt: skip
CROSSING = np.dtype([
    ("link", "i8"),  # by class: a link that it crosses,
    ("slot", "i8"),  # and where it stands in that link's part of the list below
    ("user", "i8"),  # by link: a class that crosses it,
    ("back", "i8"),  # and the place of that crossing by class
])  # fmt: skip
TRANSFER = np.dtype([
    ("owner", "i8"),  # its class
    ("group", "i8"),  # its collective
    ("bytes", "f8"),
    ("earliest", "f8"),  # when it may start
    ("latency", "f8"),  # before its bytes move
    ("settle", "f8"),  # after they have arrived
    ("goal", "f8"),  # what its class has been served when it ends
    ("after", "i8"),  # the next transfer of its class
    ("waits", "i8"),  # how many transfers it still waits for
    ("first", "i8"),  # those that wait for it: followers[first:stop]
    ("stop", "i8"),
    ("end", "f8"),  # when it was done
])  # fmt: skip
EVENT = np.dtype([("at", "f8"), ("what", "i8")])  # KINDS * index + kind
CHANGE = np.dtype([("link", "i8"), ("capacity", "f8")])


def compiled(function: F) -> F:
    """Compile a function to machine code at its first call, and keep the result on disk."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))
