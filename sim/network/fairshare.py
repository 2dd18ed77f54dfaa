"""Fair sharing: transfers over links at their max-min fair rates, advanced from event to event in compiled code.

Transfers over the same links form a *class*; all transfers of a class have the same rate at every moment. A class
counts how many bytes each of its transfers has been served since the class was last empty, so a change of rate touches
one number, however many transfers there are, and the transfer that ends next is the one with the smallest goal.

What happens at one instant is taken together before rates are computed again, and only for the links and classes that
are connected, through transfers under way, to something that has changed.
"""

import numpy as np
from numpy.typing import NDArray

from .flowheaps import dequeue, enqueue, file, forget
from .flowtables import (
    CHANGES,
    DIRTY,
    ENDS,
    EPOCH,
    HEAP,
    KINDS,
    NONE,
    QUEUE,
    SOLUTIONS,
    STARTS,
    IntArray,
    Table,
    compiled,
)

INSTANT = 1e-14
"""Events closer than this, relative to the time, are one: equal transfers may differ by so much through rounding."""
SAME_SHARE = 1e-12
"""Links whose fair shares differ by less than this, relatively, are saturated together."""


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
        _stop(transfers[i].owner, links, crossings, classes, heap, todo, sizes)
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
    forget(c, classes, heap, sizes)
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
    c: int, links: Table, crossings: Table, classes: Table, heap: IntArray, todo: IntArray, sizes: IntArray
) -> None:
    """Take away an endless transfer, which has its class for itself."""
    classes[c].head, classes[c].count = NONE, 0
    _part(c, links, crossings, classes)
    forget(c, classes, heap, sizes)
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
            file(c, classes, heap, sizes)


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
