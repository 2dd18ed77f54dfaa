"""Logarithmic exchanges: partners at distances that double or halve, ceil(log2 N) rounds a pass.

Thakur, Rabenseifner and Gropp 2005, "Optimization of collective communication operations in MPICH", describe them all.
As in MPICH, N workers that are no power of two fold first: with P the largest power of two below N, the first N - P
even workers hand their buffer to the worker after them, P workers go on, and the others are sent the result at the end.
"""

import numpy as np

from ..schedule import IntArray
from .moves import Moves, Rounds, bounds, near_even


def recursive_doubling(size: int, workers: int) -> Moves:
    """All-reduce: in round k partners at distance 2^k swap and add whole buffers. Few hops, much volume."""
    rounds, active = _fold(size, workers)
    own = np.arange(len(active))
    for k in range(_log2(len(active))):
        rounds.add(active[own], active[own ^ (1 << k)], 0, size, reduces=True)
    return _unfold(rounds, size, workers)


def halving_doubling(size: int, workers: int) -> Moves:
    """All-reduce: reduce-scatter by halves, then all-gather by doubling, of P near-even pieces.

    The partner with the higher number keeps the lower half. The folded workers, which come late, thereby send the
    larger halves where they differ, so the chain of the largest pieces is the slowest. MPICH keeps the other half.
    """
    rounds, active = _fold(size, workers)
    pieces = len(active)
    edges = bounds(near_even(size, pieces))
    own = np.arange(pieces)
    kept = own ^ (pieces - 1)  # the piece that a worker ends the first pass with
    _halve(rounds, active, kept, edges)
    for k in range(_log2(pieces)):
        low = kept >> k << k  # the aligned block of 2^k pieces around the kept one is summed
        rounds.add(active[own], active[own ^ (1 << k)], edges[low], edges[low + (1 << k)] - edges[low])
    return _unfold(rounds, size, workers)


def reduce_scatter(size: int, workers: int) -> Moves:
    """Recursive halving; N must be a power of two, and worker i ends with chunk i."""
    rounds = Rounds(workers)
    own = np.arange(workers)
    _halve(rounds, own, own, bounds(near_even(size, workers)))
    return rounds.moves()


def bruck(sizes: IntArray) -> Moves:
    """All-gather of any N blocks: in round k each worker sends all that it has, 2^k blocks, to the one 2^k before it.

    Bruck et al. 1997. Blocks may differ in size; the last round sends only what is missing.
    """
    workers = len(sizes)
    rounds = Rounds(workers)
    own = np.arange(workers)
    edges = bounds(np.concatenate([sizes, sizes]))
    distance = 1
    while distance < workers:
        size = edges[own + min(distance, workers - distance)] - edges[own]
        rounds.add(own, (own - distance) % workers, edges[own], size)
        distance *= 2
    return rounds.moves()


def _halve(rounds: Rounds, active: IntArray, kept: IntArray, edges: IntArray) -> None:
    """Add rounds after which worker ``active[i]`` has the sum of piece ``kept[i]``; pieces lie between the edges."""
    own = np.arange(len(active))
    for k in reversed(range(_log2(len(active)))):
        low = (kept ^ (1 << k)) >> k << k  # the half that the partner keeps
        rounds.add(active[own], active[own ^ (1 << k)], edges[low], edges[low + (1 << k)] - edges[low], reduces=True)


def _fold(size: int, workers: int) -> tuple[Rounds, IntArray]:
    """Begin with the first N - P even workers handing over their buffers; return who goes on."""
    rounds = Rounds(workers)
    extra = np.arange(workers - (1 << _log2(workers)))
    if len(extra):
        rounds.add(2 * extra, 2 * extra + 1, 0, size, reduces=True)
    return rounds, np.concatenate([2 * extra + 1, np.arange(2 * len(extra), workers)])


def _unfold(rounds: Rounds, size: int, workers: int) -> Moves:
    """End with the result for those who had handed over their buffers."""
    extra = np.arange(workers - (1 << _log2(workers)))
    if len(extra):
        rounds.add(2 * extra + 1, 2 * extra, 0, size)
    return rounds.moves()


def _log2(count: int) -> int:
    """Return the binary logarithm, rounded down."""
    return count.bit_length() - 1
