"""The hierarchical all-reduce: inside the hosts, then across them, then inside again.

Each host's workers reduce-scatter among themselves in a ring; the workers of equal rank in their hosts all-reduce their
chunk in a ring across the hosts; the hosts gather in a ring. The slow links between hosts carry each byte once a host.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ....compressors.errors import InputError
from ..schedule import IntArray
from .moves import Moves, Rounds, bounds, near_even


def all_reduce(size: int, member: IntArray) -> Moves:
    """All-reduce over H hosts of G workers, given as an array [H, G]."""
    hosts, local = member.shape
    chunk = bounds(near_even(size, local))
    rounds = Rounds(member.size)
    host, rank = (grid.ravel() for grid in np.meshgrid(np.arange(hosts), np.arange(local), indexing="ij"))
    beside = member[host, (rank + 1) % local]
    across = member[(host + 1) % hosts, rank]
    own = member[host, rank]
    piece = np.stack([a + bounds(near_even(b - a, hosts)) for a, b in pairwise(chunk.tolist())])
    for k in range(local - 1):
        part = (rank - k - 1) % local
        rounds.add(own, beside, chunk[part], np.diff(chunk)[part], reduces=True)
    for k in range(2 * (hosts - 1)):
        part = (host - k) % hosts
        start = piece[rank, part]
        rounds.add(own, across, start, piece[rank, part + 1] - start, reduces=k < hosts - 1)
    for k in range(local - 1):
        part = (rank - k) % local
        rounds.add(own, beside, chunk[part], np.diff(chunk)[part])
    return rounds.moves()


def grouped(groups: Sequence[Sequence[int]], workers: int) -> IntArray:
    """Return the workers of each host, shape [H, G].

    Raises
    ------
    InputError
        If the groups differ in size, or do not hold each of the N workers once.
    """
    sizes = sorted({len(group) for group in groups})
    if len(sizes) != 1 or not sizes[0]:
        found = " and ".join(map(str, sizes)) or "none"
        raise InputError(f"groups of a hierarchical all-reduce must be of one size; their sizes are {found}")
    member = np.array([list(group) for group in groups], np.int64)
    if not np.array_equal(np.sort(member, axis=None), np.arange(workers)):
        raise InputError(f"groups of a hierarchical all-reduce must hold each worker from 0 to {workers - 1} once")
    return member
