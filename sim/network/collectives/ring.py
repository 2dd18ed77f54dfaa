"""Rings: every worker talks to its two neighbours only, and each link carries every chunk, or block, once a pass.

Worker i passes on in round k what started at worker i - k: its own block in a gather, its chunk of that number in a
reduction. The second half of an all-reduce continues the count, for the chunk that a worker has summed when the first
half ends is the one whose turn it is. (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms".)
"""

import numpy as np

from ..schedule import IntArray
from .moves import Moves, bounds, near_even, nothing


def all_reduce(size: int, workers: int) -> Moves:
    """Reduce-scatter, then all-gather, of chunks that differ by a byte at most."""
    return _ring(near_even(size, workers), rounds=2 * (workers - 1), reducing=workers - 1)


def reduce_scatter(size: int, workers: int) -> Moves:
    """N - 1 rounds, after which worker i has the sum of chunk i."""
    return _ring(near_even(size, workers), rounds=workers - 1, reducing=workers - 1, shift=1)


def all_gather(sizes: IntArray) -> Moves:
    """N - 1 rounds; the workers' blocks may differ in size."""
    return _ring(sizes, rounds=len(sizes) - 1, reducing=0)


def _ring(sizes: IntArray, rounds: int, reducing: int, shift: int = 0) -> Moves:
    """In round k worker i sends part i - k - shift to i + 1, after i - 1 and i are through with round k - 1."""
    workers = len(sizes)
    if workers == 1:
        return nothing()
    own = np.arange(workers)
    part = (own - np.arange(rounds)[:, None] - shift) % workers
    last = np.arange(rounds - 1)[:, None] * workers
    after = np.stack([last + (own - 1) % workers, last + own], axis=-1)
    return Moves(
        np.tile(own, rounds),
        np.tile((own + 1) % workers, rounds),
        sizes[part].ravel(),
        2 * np.maximum(np.arange(rounds * workers + 1) - workers, 0),
        after.ravel(),
        np.repeat(np.arange(rounds) < reducing, workers),
        bounds(sizes)[part].ravel(),
    )
