"""Broadcasts: one worker's payload to all others."""

import numpy as np

from .moves import Moves, Rounds, bounds, near_even


def binomial(size: int, workers: int, root: int) -> Moves:
    """In each round everyone who has the payload sends it to one who has not, so their number doubles."""
    rounds = Rounds(workers)
    holders = 1
    while holders < workers:
        new = np.arange(min(holders, workers - holders))
        rounds.add((root + new) % workers, (root + holders + new) % workers, 0, size)
        holders += len(new)
    return rounds.moves()


def chain(size: int, workers: int, root: int, pieces: int) -> Moves:
    """Send near-even pieces, one after the other, down a chain from the root through all workers.

    NCCL's ring broadcast is this chain.
    """
    rounds = Rounds(workers)
    sizes = near_even(size, pieces)
    edges = bounds(sizes)
    for k in range(workers - 1 + pieces - 1):
        link = np.arange(max(0, k - pieces + 1), min(k, workers - 2) + 1)
        rounds.add((root + link) % workers, (root + link + 1) % workers, edges[k - link], sizes[k - link])
    return rounds.moves()
