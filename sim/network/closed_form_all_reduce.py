"""All-reduces in closed form, over arrays of sizes and numbers of workers at once.

Every number here is that of the schedules in :mod:`gradwire.sim.network.collectives`, on equal links: the largest piece
of each round goes along one chain, and no chain is longer. S is the size in bytes, N the number of workers, P the
largest power of two up to N. What arrives at one receiver from several senders at once is added side by side.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ...compressors.errors import InputError
from .closed_form_hosts import hierarchical_paths
from .collectives import PIECES, tree
from .critical import ClosedFormError, CriticalPath, FloatArray, IntArray, check_numbers, check_sizes


def all_reduce_seconds(
    algorithm: str,
    size_bytes: ArrayLike,
    workers: ArrayLike,
    bandwidth_bps: ArrayLike,
    latency_s: ArrayLike,
    launch_s: ArrayLike,
    reduce_bytes_per_s: ArrayLike = np.inf,
) -> FloatArray:
    """Return how long all-reduces take in seconds; all arguments but the first broadcast.

    Raises
    ------
    InputError
        If a link has no bandwidth, or a time is negative; and as :func:`all_reduce_path`.
    ClosedFormError
        As :func:`all_reduce_path`.
    """
    check_numbers(bandwidth_bps=bandwidth_bps, latency_s=latency_s, launch_s=launch_s)
    path = all_reduce_path(algorithm, size_bytes, workers)
    return path.seconds(bandwidth_bps, latency_s, launch_s, reduce_bytes_per_s)


def all_reduce_path(
    algorithm: str, size_bytes: ArrayLike, workers: ArrayLike, hosts: ArrayLike = 1, pieces: int = PIECES
) -> CriticalPath:
    """Return the critical path of all-reduces.

    Parameters
    ----------
    algorithm : str
        One of :data:`gradwire.sim.network.collectives.ALGORITHMS` for an all-reduce.
    size_bytes, workers : array of int
    hosts : array of int
        Hierarchical: into how many equal hosts the workers fall, all links being equal.
    pieces : int
        Double tree: the most pieces that each tree's half is cut into.

    Raises
    ------
    InputError
        If the algorithm is unknown, a size is negative, there is no worker, or hosts do not divide workers.
    ClosedFormError
        If payloads are so small that the double tree's longest chain depends on the cluster.
    """
    check_sizes((size_bytes,), (workers,))
    size, count = np.broadcast_arrays(np.asarray(size_bytes, np.int64), np.asarray(workers, np.int64))
    match algorithm:
        case "ring":
            chunk = _ceil(size, count)
            hops, carried, reduced = 2 * (count - 1), 2 * (count - 1) * chunk, (count - 1) * chunk
        case "recursive-doubling":
            rounds, folds = _rounds(count)
            hops, reduced = rounds + 2 * folds, (rounds + folds) * size
            carried = hops * size
        case "halving-doubling":
            rounds, folds = _rounds(count)
            reduced = halved(size, rounds) + folds * size
            hops, carried = 2 * (rounds + folds), 2 * reduced
        case "direct":
            reduced = _ceil(size, count)
            hops, carried = np.asarray(2), 2 * (count - 1) * reduced
        case "double-tree":
            return _double_tree(size, count, pieces)
        case "hierarchical":
            inside, across = hierarchical_paths(size, count, hosts)
            return inside.then(across)
        case _:
            raise InputError(f"algorithm {algorithm!r} of all-reduce is unknown")
    return CriticalPath.moving(hops, carried, reduced, (size > 0) & (count > 1))


def halved(size: IntArray, rounds: IntArray) -> IntArray:
    """Return what the chain of the largest halves carries: the first 2^k of 2^rounds near-even pieces, for all k."""
    parts = np.left_shift(1, rounds)
    even, rest = np.divmod(size, parts)
    total = (parts - 1) * even
    for k in range(int(rounds.max(initial=0))):
        total = total + np.where(k < rounds, np.minimum(rest, 1 << k), 0)
    return np.asarray(total)


def _rounds(workers: IntArray) -> tuple[IntArray, IntArray]:
    """Return log2 P, and 1 where N is no power of two."""
    rounds = np.frexp(workers)[1].astype(np.int64) - 1
    return rounds, (np.left_shift(1, rounds) != workers).astype(np.int64)


def _ceil(size: IntArray, parts: IntArray) -> IntArray:
    return np.asarray(-(-size // parts))


def _double_tree(size: IntArray, workers: IntArray, limit: int) -> CriticalPath:
    """Return the path of a reduction up both trees and a broadcast down."""
    up, down = (double_tree_pass(size, workers, limit, which) for which in ("up", "down"))
    return up._replace(reduced=up.bytes).then(down._replace(launches=np.zeros_like(down.launches)))


def double_tree_pass(
    size: IntArray, workers: IntArray, limit: int, which: Literal["up", "down", "broadcast"]
) -> CriticalPath:
    """Return the path of one pass: as many pieces as the longest chain has steps, of which some are a byte larger."""
    hops, carried = (np.zeros(size.shape, np.int64) for _ in range(2))
    for place in np.ndindex(size.shape):
        total, count = int(size[place]), int(workers[place])
        if total == 0 or count == 1:
            continue
        pieces = tree.pieces(total, limit)
        even, rest = divmod(total, 2 * pieces)
        steps, larger = _longest(count, pieces, rest, which)
        if even < steps:  # or else a chain of fewer steps could be longer, in some clusters
            raise ClosedFormError(f"{total} bytes are too few to tell which chain of the double tree is the slowest")
        hops[place], carried[place] = steps, steps * even + larger
    return CriticalPath.moving(hops, carried, 0, carried > 0)


@lru_cache(maxsize=4096)
def _longest(workers: int, pieces: int, larger: int, which: str) -> tuple[int, int]:
    """Return the steps of a pass's longest chain, and on how many of the larger pieces such a chain can meet."""
    if which == "up":
        rounds = [(child, parent, piece) for child, parent, piece in tree.upwards(workers, pieces)]
    else:
        downwards = tree.downwards(workers, pieces, sourced=which == "broadcast")
        rounds = [(parent, child, piece) for child, parent, piece in downwards]
    step = 1 << 32
    sent, received = np.zeros((2, workers), np.int64)
    for src, dst, piece in rounds:
        end = np.maximum(np.maximum(received[src], sent[src]), received[dst]) + step + (piece < larger)
        sent[src] = received[dst] = end
    return divmod(int(received.max()), step)
