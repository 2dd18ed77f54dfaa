"""Direct exchanges: everybody sends to everybody at once, so N - 1 transfers share each link and latency is paid once.

This is also how NCCL runs an all-to-all: sends and receives in one group.
"""

import numpy as np

from ..schedule import IntArray
from .moves import Moves, bounds, near_even, nothing


def reduce_scatter(size: int, workers: int) -> Moves:
    """Chunk j goes to worker j from all others."""
    return all_to_all(np.tile(near_even(size, workers), (workers, 1)), reduces=True)


def all_gather(sizes: IntArray) -> Moves:
    """Every worker's block goes to all others; the blocks may differ in size."""
    src, dst = _pairs(len(sizes))
    return at_once(src, dst, bounds(sizes)[src], sizes[src], reduces=False)


def all_reduce(size: int, workers: int) -> Moves:
    """Scatter directly, then gather directly, between workers that are through with the first pass."""
    if workers == 1:
        return nothing()
    push = reduce_scatter(size, workers)
    own = np.arange(workers)
    return in_turn(push, own, all_gather(near_even(size, workers)))


def in_turn(push: Moves, members: IntArray, pull: Moves) -> Moves:
    """Return two schedules of independent transfers, a transfer of the second waiting for both its ends.

    A member is through with the first when all its transfers are. It joins them in one to itself, or every transfer
    would have to list them.

    Parameters
    ----------
    push, pull : Moves
    members : IntArray, shape [M]
        Who sends and receives, sorted. Who takes no part in the push may pull at once.
    """
    count, none = len(push), np.zeros(len(members), np.int64)
    ends = np.concatenate([push.src, push.dst])
    order = np.argsort(ends, kind="stable")
    joined = np.bincount(np.searchsorted(members, ends), minlength=len(members))
    entered = count + np.searchsorted(members, np.stack([pull.src, pull.dst], axis=1).ravel())
    waits = np.concatenate([np.zeros(count, np.int64), joined, np.full(len(pull), 2)])
    return Moves(
        np.concatenate([push.src, members, pull.src]),
        np.concatenate([push.dst, members, pull.dst]),
        np.concatenate([push.bytes, none, pull.bytes]),
        bounds(waits),
        np.concatenate([order % count, entered]),
        np.arange(len(waits)) < count,
        np.concatenate([push.start, none, pull.start]),
    )


def all_to_all(chunks: IntArray, reduces: bool = False) -> Moves:
    """Worker i sends ``chunks[i, j]`` bytes to worker j, for all pairs at once."""
    src, dst = _pairs(len(chunks))
    start = bounds(chunks[0])[dst] if reduces else bounds(chunks.ravel())[src * len(chunks) + dst]
    return at_once(src, dst, start, chunks[src, dst], reduces)


def at_once(src: IntArray, dst: IntArray, start: IntArray, size: IntArray, reduces: bool) -> Moves:
    """Return transfers that wait for nothing."""
    return Moves.padded(src, dst, start, size, np.full((len(src), 1), -1), np.full(len(src), reduces))


def _pairs(workers: int) -> tuple[IntArray, IntArray]:
    """Return all pairs of different workers, by source, each beginning with its next neighbour."""
    src = np.repeat(np.arange(workers), workers - 1)
    return src, (src + np.tile(np.arange(1, workers), workers)) % workers
