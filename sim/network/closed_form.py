"""Collectives in closed form: exact where hosts and links are equal, over whole arrays.

On equal links the slowest chain of transfers in a schedule of :mod:`gradwire.sim.network.collectives` is known: the
ring's largest chunk, or block, is passed on without ever waiting, and no chain is longer. Where transfers share a link
from the first to the last, as in direct exchanges, the busiest link's bytes take the place of the chain's. A collective
then lasts ``launches * launch + hops * latency + 8 * bytes / bandwidth + reduced / reduce rate`` with four whole
numbers that do not depend on the cluster. Where there are none, :class:`ClosedFormError` says why. ``N`` is the number
of workers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ...compressors.wirelog import Operation
from .closed_form_all_reduce import (
    all_reduce_path,
    all_reduce_seconds,
    double_tree_pass,
    halved,
)
from .closed_form_hosts import hierarchical_paths, ring_across_hosts
from .collectives import PIECES, check, chunk_matrix, equal
from .collectives.exchange import permuted
from .collectives.hierarchical import grouped
from .critical import ClosedFormError, CriticalPath, FloatArray, IntArray, check_sizes

__all__ = [
    "ClosedFormError",
    "CriticalPath",
    "FloatArray",
    "IntArray",
    "all_reduce_path",
    "all_reduce_seconds",
    "critical_path",
    "hierarchical_paths",
    "parameter_server_path",
    "ring_across_hosts",
]


def critical_path(
    operation: Operation,
    sent_bytes: ArrayLike,
    peers: Sequence[int] = (),
    algorithm: str = "",
    *,
    groups: Sequence[Sequence[int]] = (),
    chunks: ArrayLike | None = None,
    pieces: int = PIECES,
) -> CriticalPath:
    """Return what a collective's duration consists of.

    With S the bytes that a worker hands over: ring all-reduce, 2(N-1) hops of ceil(S/N) bytes; ring reduce-scatter,
    N-1 hops of ceil(S/N); ring all-gather, N-1 hops of the largest S; broadcast by a binomial tree, not pipelined,
    ceil(log2 N) hops of S; pairwise all-to-all, N-1 hops, of the same size where all S are equal; permute, one hop.
    Direct exchanges carry as much as rings in one hop a pass.

    Parameters
    ----------
    operation, peers, algorithm, groups, chunks, pieces
        As for :func:`gradwire.sim.network.collectives.schedule`.
    sent_bytes : array of int, shape [..., N]
        What each worker hands over, in any number of collectives at once.

    Returns
    -------
    CriticalPath
        Of shape [...]. All zero where no byte has to move, as with N = 1.

    Raises
    ------
    InputError
        As :func:`gradwire.sim.network.collectives.schedule`.
    ClosedFormError
        If no closed form is exact: a direct all-to-all of unequal chunks, very small payloads in a double tree.
    """
    sent = np.asarray(sent_bytes, np.int64)
    algorithm = check(operation, sent, algorithm, pieces, peers)
    workers = sent.shape[-1]
    largest = np.asarray(sent.max(axis=-1))
    reduced: ArrayLike = 0
    match operation:
        case "all-reduce":
            hosts = len(grouped(groups, workers)) if algorithm == "hierarchical" else 1
            return all_reduce_path(algorithm, equal(sent, operation), workers, hosts, pieces)
        case "reduce-scatter":
            hops, carried, reduced = _reduce_scatter(algorithm, equal(sent, operation), workers)
        case "all-gather" if algorithm == "bruck":
            hops, carried = (workers - 1).bit_length(), _bruck(sent)
        case "all-gather":
            hops, carried = 1 if algorithm == "direct" else workers - 1, (workers - 1) * largest
        case "broadcast" if algorithm == "chain":
            hops, carried = workers + pieces - 2, largest + (workers - 2) * -(-largest // pieces)
            carried = carried * (workers > 1)
        case "broadcast" if algorithm == "double-tree":
            return double_tree_pass(largest, np.full_like(largest, workers), pieces, "broadcast")
        case "broadcast":
            hops = (workers - 1).bit_length()
            carried = hops * largest
        case "all-to-all":
            hops = 1 if algorithm == "direct" else workers - 1
            carried = _all_to_all(algorithm, sent, chunks)
        case "permute":
            hops, carried = 1, np.asarray(sent[..., permuted(peers)[0]].max(axis=-1, initial=0))
    return CriticalPath.moving(hops, carried, reduced, carried > 0)


def parameter_server_path(push_bytes: ArrayLike, pull_bytes: ArrayLike, workers: int, servers: int = 1) -> CriticalPath:
    """Return the critical path of a push to servers that are nodes of their own, and a pull.

    Each server's link carries its shard of all workers, or each worker's all of its shards, whichever is more. This
    holds for one server and any payloads, and for several if the workers' payloads are equal.

    Parameters
    ----------
    push_bytes, pull_bytes : array of int, shape [..., N] or [..., 1]
        What each worker sends, and receives. If a worker is the one server, its own are 0.
    workers, servers : int

    Raises
    ------
    InputError
        If a size is negative, or there is no worker or no server.
    ClosedFormError
        If several servers have shards of unequal payloads.
    """
    check_sizes((push_bytes, pull_bytes), (workers, servers))
    push, pull = (np.broadcast_to(v, (*np.shape(v)[:-1], workers)) for v in (push_bytes, pull_bytes))
    if servers > 1 and ((push != push[..., :1]).any() or (pull != pull[..., :1]).any()):
        raise ClosedFormError("unequal payloads share the links of several servers")
    shard, rest = np.divmod(push[..., 0], servers)
    reduced = push.max(axis=-1) if servers == 1 else shard + (rest > 0)
    carried = _incast(push, servers) + _incast(pull, servers)
    return CriticalPath.moving(2, carried, reduced, carried > 0)


def _incast(sizes: IntArray, servers: int) -> IntArray:
    """Return what crosses the busiest link while N workers exchange near-even shards with the servers."""
    if servers == 1:
        return np.asarray(sizes.sum(axis=-1))
    workers = sizes.shape[-1]
    shard, rest = np.divmod(sizes[..., 0], servers)  # `rest` of the shards have one byte more, which comes last
    return np.asarray(shard * max(workers, servers) + np.where(rest > 0, np.maximum(workers, rest), 0))


def _reduce_scatter(algorithm: str, size: IntArray, workers: int) -> tuple[int, IntArray, IntArray]:
    """Return hops, bytes, and what is added."""
    chunk = np.asarray(-(-size // workers))
    if algorithm == "halving":
        hops = workers.bit_length() - 1
        carried = halved(size, np.asarray(hops))
        return hops, carried, carried
    if algorithm == "direct":
        return 1, (workers - 1) * chunk, chunk
    return workers - 1, (workers - 1) * chunk, (workers - 1) * chunk


def _bruck(sent: IntArray) -> IntArray:
    """Return the bytes of the slowest chain, round by round: every chain has a transfer of each round."""
    workers = sent.shape[-1]
    own = np.arange(workers)
    zeros = np.zeros((*sent.shape[:-1], 1), np.int64)
    edges = np.concatenate([zeros, np.cumsum(np.concatenate([sent, sent], axis=-1), axis=-1)], axis=-1)
    out, into = np.zeros_like(sent), np.zeros_like(sent)
    distance = 1
    while distance < workers:
        to = (own - distance) % workers
        size = edges[..., own + min(distance, workers - distance)] - edges[..., own]
        out = np.maximum(np.maximum(out, into), into[..., to]) + size
        into = out[..., (own + distance) % workers]
        distance *= 2
    return np.asarray(out.max(axis=-1))


def _all_to_all(algorithm: str, sent: IntArray, chunks: ArrayLike | None) -> IntArray:
    """Return N - 1 of the largest chunk where all workers hand over the same; otherwise look at every pair."""
    if chunks is None and (sent == sent[..., :1]).all():
        workers = sent.shape[-1]
        return np.asarray((workers - 1) * -(-sent[..., 0] // workers))
    matrices = chunk_matrix(sent, chunks)
    return _shared(matrices) if algorithm == "direct" else _pairwise(matrices)


def _pairwise(chunks: IntArray) -> IntArray:
    """Return the bytes of the slowest chain, round by round: every chain has a transfer of each round."""
    workers = chunks.shape[-1]
    own = np.arange(workers)
    out = into = np.zeros(chunks.shape[:-1], np.int64)
    for k in range(1, workers):
        to = (own + k) % workers
        out = np.maximum(np.maximum(out, into), into[..., to]) + chunks[..., own, to]
        into = out[..., (own - k) % workers]
    return np.asarray(out.max(axis=-1))


def _shared(chunks: IntArray) -> IntArray:
    """Return what the busiest link carries if all pairs' chunks go at once and it is full until the end.

    It is if the chunks depend on their source only, or on their destination only: then those that end last share a link
    among themselves from the beginning.
    """
    workers = chunks.shape[-1]
    apart = ~np.eye(workers, dtype=np.bool_)
    largest = np.where(apart, chunks, 0)
    by_source, by_destination = largest.max(axis=-1, keepdims=True), largest.max(axis=-2, keepdims=True)
    even = ((chunks == by_source) | ~apart).all(axis=(-1, -2)) | ((chunks == by_destination) | ~apart).all(
        axis=(-1, -2)
    )
    if not even.all():
        raise ClosedFormError("chunks of different sizes share links in a direct all-to-all")
    return np.asarray((workers - 1) * largest.max(axis=(-1, -2)))
