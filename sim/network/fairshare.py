"""Fair sharing: transfers over links at their max-min fair rates, advanced from event to event in compiled code.

Transfers over the same links form a *class*; all transfers of a class have the same rate at every moment. A class
counts how many bytes each of its transfers has been served since the class was last empty, so a change of rate touches
one number, however many transfers there are, and the transfer that ends next is the one with the smallest goal.

What happens at one instant is taken together before rates are computed again, and only for the links and classes that
are connected, through transfers under way, to something that has changed.

The tables are arrays of records, passed one by one: compiled code that picks them out of a tuple counts references at
each access, which costs more than the work.
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

INSTANT = 1e-14
"""Events closer than this, relative to the time, are one: equal transfers may differ by so much through rounding."""
SAME_SHARE = 1e-12
"""Links whose fair shares differ by less than this, relatively, are saturated together."""

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


@compiled
def run(
    links: Table,
    crossings: Table,
    classes: Table,
    transfers: Table,
    followers: IntArray,
    left: IntArray,
    queue: Table,
    changes: Table,
    heap: IntArray,
    todo: IntArray,
    sizes: IntArray,
    clock: NDArray[np.float64],
    until_s: float,
) -> bool:
    """Advance to the end of the first collective that ends, or else as far as ``until_s``.

    Parameters
    ----------
    links, crossings, classes, transfers, queue, changes : Table
    followers : IntArray
        By transfer, those that wait for it.
    left : IntArray
        How many transfers of each collective are not done.
    heap : IntArray
        The busy classes, as a binary heap by their ends.
    todo : IntArray, shape [3, max(links, classes)]
        Scratch: links and classes to solve; classes that have changed.
    sizes : IntArray
    clock : array of one time
        Shows where it has stopped.

    Returns
    -------
    bool
        Whether a collective has ended.
    """
    while True:
        now = np.inf
        if sizes[QUEUE] > 0:
            now = queue[0].at
        if sizes[HEAP] > 0:
            now = min(now, classes[heap[0]].end)
        if now > until_s or now == np.inf:
            return False
        clock[0] = now
        limit = now + INSTANT * abs(now)
        ended = False
        while (sizes[QUEUE] > 0 and queue[0].at <= limit) or (sizes[HEAP] > 0 and classes[heap[0]].end <= limit):
            t = _next(now, limit, links, crossings, classes, transfers, queue, changes, heap, todo, sizes)
            while t != NONE:
                following = transfers[t].after
                transfers[t].after = NONE
                ended |= _arrive(t, now, transfers, followers, left, queue, sizes)
                t = following
        if sizes[DIRTY] > 0:
            _solve(now, links, crossings, classes, transfers, heap, todo, sizes)
        if ended:
            return True


# ------------------------------------------------------------------------------------------------- what happens


@compiled
def _next(
    now: float,
    limit: float,
    links: Table,
    crossings: Table,
    classes: Table,
    transfers: Table,
    queue: Table,
    changes: Table,
    heap: IntArray,
    todo: IntArray,
    sizes: IntArray,
) -> int:
    """Let one thing happen; return the first transfer whose bytes are all there now, which leads on to the others."""
    if sizes[QUEUE] == 0 or queue[0].at > limit:
        return _deliver(heap[0], now, links, crossings, classes, transfers, heap, todo, sizes)
    what = dequeue(queue, sizes)
    i, kind = what // KINDS, what % KINDS
    if kind == STARTS:
        return i if _start(i, now, links, crossings, classes, transfers, todo, sizes) else NONE
    if kind == ENDS:
        transfers[i].settle = 0.0
        return i
    if kind == CHANGES:
        _change(changes[i].link, changes[i].capacity, links, crossings, classes, todo, sizes)
    else:
        _stop(transfers[i].owner, now, links, crossings, classes, heap, todo, sizes)
    return NONE


@compiled
def _start(
    t: int,
    now: float,
    links: Table,
    crossings: Table,
    classes: Table,
    transfers: Table,
    todo: IntArray,
    sizes: IntArray,
) -> bool:
    """Let a transfer's bytes move; return whether it has none to move, or no link to cross, and so is there at once."""
    c = transfers[t].owner
    transfers[t].after = NONE
    if transfers[t].bytes == 0 or classes[c].first == classes[c].stop:
        return True
    if classes[c].count == 0:
        classes[c].served, classes[c].rate = 0.0, 0.0
        _join(c, links, crossings, classes)
    _settle(c, now, classes)
    goal = classes[c].served + transfers[t].bytes
    last, following = NONE, classes[c].head
    while following != NONE and transfers[following].goal <= goal:
        last, following = following, transfers[following].after
    transfers[t].goal, transfers[t].after = goal, following
    if last == NONE:
        classes[c].head = t
    else:
        transfers[last].after = t
    classes[c].count += 1
    _touch(c, classes, todo, sizes)
    return False


@compiled
def _deliver(
    c: int,
    now: float,
    links: Table,
    crossings: Table,
    classes: Table,
    transfers: Table,
    heap: IntArray,
    todo: IntArray,
    sizes: IntArray,
) -> int:
    """End those transfers of a class that have all their bytes; return the first, which leads on to the others."""
    first: int = classes[c].head
    classes[c].served, classes[c].since = transfers[first].goal, now
    enough = classes[c].served * (1 + INSTANT)
    last, following = first, first
    while following != NONE and transfers[following].goal <= enough:
        last = following
        following = transfers[last].after
        classes[c].count -= 1
        for k in range(classes[c].first, classes[c].stop):
            links[crossings[k].link].carried += transfers[last].bytes
    classes[c].head, transfers[last].after = following, NONE
    if classes[c].count == 0:
        _part(c, links, crossings, classes)
    _forget(c, classes, heap, sizes)
    _touch(c, classes, todo, sizes)
    return first


@compiled
def _arrive(
    t: int, now: float, transfers: Table, followers: IntArray, left: IntArray, queue: Table, sizes: IntArray
) -> bool:
    """Let the receiver work on what has arrived, if it has to; return whether a collective has ended."""
    if transfers[t].settle > 0:
        enqueue(now + transfers[t].settle, KINDS * t + ENDS, queue, sizes)
        return False
    return _finish(t, now, transfers, followers, left, queue, sizes)


@compiled
def _finish(
    t: int, now: float, transfers: Table, followers: IntArray, left: IntArray, queue: Table, sizes: IntArray
) -> bool:
    """Let go on what waited for a transfer; return whether its collective has ended."""
    transfers[t].end = now
    for k in range(transfers[t].first, transfers[t].stop):
        follower = followers[k]
        transfers[follower].waits -= 1
        if transfers[follower].waits == 0:
            start = max(now, transfers[follower].earliest) + transfers[follower].latency
            enqueue(start, KINDS * follower + STARTS, queue, sizes)
    group = transfers[t].group
    left[group] -= 1
    ended: bool = left[group] == 0
    return ended


@compiled
def _change(
    link: int, capacity: float, links: Table, crossings: Table, classes: Table, todo: IntArray, sizes: IntArray
) -> None:
    """Give a link another capacity."""
    links[link].capacity = capacity
    for k in range(links[link].first, links[link].first + links[link].busy):
        _touch(crossings[k].user, classes, todo, sizes)


@compiled
def _stop(
    c: int, now: float, links: Table, crossings: Table, classes: Table, heap: IntArray, todo: IntArray, sizes: IntArray
) -> None:
    """Take away an endless transfer, which has its class for itself."""
    _settle(c, now, classes)
    for k in range(classes[c].first, classes[c].stop):
        links[crossings[k].link].carried += classes[c].served
    classes[c].head, classes[c].count = NONE, 0
    _part(c, links, crossings, classes)
    _forget(c, classes, heap, sizes)
    _touch(c, classes, todo, sizes)


@compiled
def _settle(c: int, now: float, classes: Table) -> None:
    """Count what a class was served until now."""
    classes[c].served += classes[c].rate * (now - classes[c].since)
    classes[c].since = now


@compiled
def _touch(c: int, classes: Table, todo: IntArray, sizes: IntArray) -> None:
    """Note that a class has changed."""
    if classes[c].mark != sizes[EPOCH]:
        classes[c].mark = sizes[EPOCH]
        todo[2, sizes[DIRTY]] = c
        sizes[DIRTY] += 1


@compiled
def _join(c: int, links: Table, crossings: Table, classes: Table) -> None:
    """Move a class to the busy ones of its links."""
    for k in range(classes[c].first, classes[c].stop):
        link = crossings[k].link
        _swap(crossings[k].slot, links[link].first + links[link].busy, crossings)
        links[link].busy += 1


@compiled
def _part(c: int, links: Table, crossings: Table, classes: Table) -> None:
    """Move a class away from the busy ones of its links."""
    for k in range(classes[c].first, classes[c].stop):
        link = crossings[k].link
        links[link].busy -= 1
        _swap(crossings[k].slot, links[link].first + links[link].busy, crossings)


@compiled
def _swap(a: int, b: int, crossings: Table) -> None:
    """Exchange two entries of a link's list."""
    user, back = crossings[a].user, crossings[a].back
    crossings[a].user, crossings[a].back = crossings[b].user, crossings[b].back
    crossings[b].user, crossings[b].back = user, back
    crossings[crossings[a].back].slot = a
    crossings[crossings[b].back].slot = b


# ---------------------------------------------------------------------------------------------------- fair rates


@compiled
def _solve(
    now: float,
    links: Table,
    crossings: Table,
    classes: Table,
    transfers: Table,
    heap: IntArray,
    todo: IntArray,
    sizes: IntArray,
) -> None:
    """Give every class that a change can reach its new rate."""
    sizes[SOLUTIONS] += 1
    reached, solved = _reach(links, crossings, classes, todo, sizes)
    _fill(reached, solved, links, crossings, classes, todo)
    for k in range(solved):
        c = todo[1, k]
        share, rate = classes[c].share, classes[c].rate
        if abs(share - rate) > 0.1 * SAME_SHARE * share:
            _settle(c, now, classes)
            classes[c].rate = rate = share
        end = np.inf
        if rate > 0:
            end = classes[c].since + (transfers[classes[c].head].goal - classes[c].served) / rate
        if end != classes[c].end or classes[c].place == NONE:
            classes[c].end = end
            _file(c, classes, heap, sizes)


@compiled
def _reach(links: Table, crossings: Table, classes: Table, todo: IntArray, sizes: IntArray) -> tuple[int, int]:
    """Collect the links and busy classes that are connected to a changed class; return how many there are."""
    epoch = sizes[EPOCH] + 1
    sizes[EPOCH] = epoch + 1  # this search marks with ``epoch``, and changes after it with the next number
    reached = solved = 0
    for k in range(sizes[DIRTY]):
        c = todo[2, k]
        for m in range(classes[c].first, classes[c].stop):
            reached = _note(crossings[m].link, epoch, reached, links, todo)
    sizes[DIRTY] = 0
    seen = 0
    while seen < reached:
        link = todo[0, seen]
        seen += 1
        for m in range(links[link].first, links[link].first + links[link].busy):
            c = crossings[m].user
            if classes[c].mark != epoch:
                classes[c].mark = epoch
                todo[1, solved] = c
                solved += 1
                for n in range(classes[c].first, classes[c].stop):
                    reached = _note(crossings[n].link, epoch, reached, links, todo)
    return reached, solved


@compiled
def _note(link: int, epoch: int, reached: int, links: Table, todo: IntArray) -> int:
    """Add a link to those to solve, unless it is among them; return how many there are."""
    if links[link].mark == epoch:
        return reached
    links[link].mark = epoch
    links[link].spare, links[link].users = links[link].capacity, 0
    todo[0, reached] = link
    return reached + 1


@compiled
def _fill(reached: int, solved: int, links: Table, crossings: Table, classes: Table, todo: IntArray) -> None:
    """Raise all rates together; whoever crosses a link that is full keeps what it has (progressive filling)."""
    for k in range(solved):
        c = todo[1, k]
        classes[c].share = NONE
        for m in range(classes[c].first, classes[c].stop):
            links[crossings[m].link].users += classes[c].count
    rising = solved
    while rising > 0:
        level = np.inf
        kept = 0
        for k in range(reached):
            link = todo[0, k]
            if links[link].users > 0:
                todo[0, kept] = link
                kept += 1
                level = min(level, links[link].spare / links[link].users)
        reached = kept
        level = max(level, 0.0)
        for k in range(reached):
            link = todo[0, k]
            if links[link].users > 0 and links[link].spare <= level * (1 + SAME_SHARE) * links[link].users:
                rising -= _saturate(link, level, links, crossings, classes)


@compiled
def _saturate(link: int, level: float, links: Table, crossings: Table, classes: Table) -> int:
    """Fix the rates of the classes that cross a full link; return how many there were."""
    fixed = 0
    for m in range(links[link].first, links[link].first + links[link].busy):
        c = crossings[m].user
        if classes[c].share == NONE:
            classes[c].share = level
            fixed += 1
            for n in range(classes[c].first, classes[c].stop):
                crossed = crossings[n].link
                links[crossed].spare -= level * classes[c].count
                links[crossed].users -= classes[c].count
    return fixed


# --------------------------------------------------------------------------------------------------------- heaps


@compiled
def enqueue(at_s: float, what: int, queue: Table, sizes: IntArray) -> None:
    """Put an event into the queue; of equal times the smaller ``what`` is first."""
    i = sizes[QUEUE]
    sizes[QUEUE] = i + 1
    while i > 0:
        parent = (i - 1) // 2
        if queue[parent].at < at_s or (queue[parent].at == at_s and queue[parent].what <= what):
            break
        queue[i].at, queue[i].what = queue[parent].at, queue[parent].what
        i = parent
    queue[i].at, queue[i].what = at_s, what


@compiled
def dequeue(queue: Table, sizes: IntArray) -> int:
    """Take the first event from the queue."""
    first: int = queue[0].what
    size = sizes[QUEUE] - 1
    sizes[QUEUE] = size
    at_s, what = queue[size].at, queue[size].what
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and (
            queue[child + 1].at < queue[child].at
            or (queue[child + 1].at == queue[child].at and queue[child + 1].what < queue[child].what)
        ):
            child += 1
        if at_s < queue[child].at or (at_s == queue[child].at and what <= queue[child].what):
            break
        queue[i].at, queue[i].what = queue[child].at, queue[child].what
        i = child
    queue[i].at, queue[i].what = at_s, what
    return first


@compiled
def _file(c: int, classes: Table, heap: IntArray, sizes: IntArray) -> None:
    """Put a class where it belongs in the heap by its new end."""
    if classes[c].place == NONE:
        classes[c].place = sizes[HEAP]
        heap[sizes[HEAP]] = c
        sizes[HEAP] += 1
    _sink(_rise(classes[c].place, classes, heap), classes, heap, sizes)


@compiled
def _forget(c: int, classes: Table, heap: IntArray, sizes: IntArray) -> None:
    """Take a class out of the heap."""
    hole = classes[c].place
    classes[c].place = NONE
    size = sizes[HEAP] - 1
    sizes[HEAP] = size
    if hole != size:
        heap[hole] = heap[size]
        classes[heap[hole]].place = hole
        _sink(_rise(hole, classes, heap), classes, heap, sizes)


@compiled
def _rise(i: int, classes: Table, heap: IntArray) -> int:
    """Move a class towards the root of the heap; of equal ends the lower number is first. Return where it rests."""
    c = heap[i]
    end = classes[c].end
    while i > 0:
        above = heap[(i - 1) // 2]
        if classes[above].end < end or (classes[above].end == end and above < c):
            break
        heap[i] = above
        classes[above].place = i
        i = (i - 1) // 2
    heap[i] = c
    classes[c].place = i
    return i


@compiled
def _sink(i: int, classes: Table, heap: IntArray, sizes: IntArray) -> None:
    """Move a class away from the root of the heap."""
    size = sizes[HEAP]
    c = heap[i]
    end = classes[c].end
    while 2 * i + 1 < size:
        child = 2 * i + 1
        below = heap[child]
        if child + 1 < size:
            other = heap[child + 1]
            if classes[other].end < classes[below].end or (classes[other].end == classes[below].end and other < below):
                child, below = child + 1, other
        if end < classes[below].end or (end == classes[below].end and c < below):
            break
        heap[i] = below
        classes[below].place = i
        i = child
    heap[i] = c
    classes[c].place = i
