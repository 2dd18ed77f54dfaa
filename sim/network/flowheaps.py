"""Flow heaps: the classes of transfers by their ends, and the queue of what else is to come, in compiled code."""

from .flowtables import HEAP, NONE, QUEUE, IntArray, Table, compiled


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
def file(c: int, classes: Table, heap: IntArray, sizes: IntArray) -> None:
    """Put a class where it belongs in the heap by its new end."""
    if classes[c].place == NONE:
        classes[c].place = sizes[HEAP]
        heap[sizes[HEAP]] = c
        sizes[HEAP] += 1
    _sink(_rise(classes[c].place, classes, heap), classes, heap, sizes)


@compiled
def forget(c: int, classes: Table, heap: IntArray, sizes: IntArray) -> None:
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
