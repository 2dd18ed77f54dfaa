"""Collectives as schedules of transfers: who sends how much to whom, and after which other transfers.

A schedule is data. It has dependencies and no barriers, and knows nothing of bandwidths or latencies: the engine
(:mod:`gradwire.sim.network.engine`) plays it.
"""

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
from numpy.typing import ArrayLike

from ....compressors.errors import InputError
from ....compressors.wirelog import Operation
from ..schedule import IntArray, Schedule, Transfer
from . import broadcast, direct, doubling, exchange, hierarchical, ring, tree
from .moves import Moves, nothing, split
from .server import parameter_server

__all__ = ["ALGORITHMS", "PIECES", "Moves", "Schedule", "Transfer", "parameter_server", "schedule", "split"]

ALGORITHMS: dict[Operation, tuple[str, ...]] = {
    "all-reduce": ("ring", "halving-doubling", "recursive-doubling", "double-tree", "hierarchical", "direct"),
    "reduce-scatter": ("ring", "halving", "direct"),
    "all-gather": ("ring", "bruck", "direct"),
    "broadcast": ("binomial", "chain", "double-tree"),
    "all-to-all": ("pairwise", "direct"),
    "permute": ("direct",),
}
"""The algorithms of each operation; the first one is the default."""

PIECES = 8
"""Into how many pieces a pipelined algorithm cuts what it sends, if nothing else is said."""


def schedule(
    operation: Operation,
    sent_bytes: Sequence[int],
    peers: Sequence[int] = (),
    algorithm: str = "",
    *,
    groups: Sequence[Sequence[int]] = (),
    chunks: ArrayLike | None = None,
    pieces: int = PIECES,
) -> Moves:
    """Return the transfers of a collective.

    Parameters
    ----------
    operation : str
        As in the wire log.
    sent_bytes : sequence of int
        What each of the N workers hands over.
    peers : sequence of int
        Permute: whom each worker sends to, or -1. Broadcast: the root alone.
    algorithm : str
        One of the operation's :data:`ALGORITHMS`; empty: the first.
    groups : sequence of sequences of int
        Hierarchical: the workers of each host, equally many.
    chunks : array of int, shape [N, N]
        All-to-all: what worker i sends to worker j, in place of near-even chunks of what it hands over.
    pieces : int
        Pipelined algorithms (chain, and at most so many in double-tree): pieces that follow each other.

    Returns
    -------
    Moves
        Empty where no byte has to move.

    Raises
    ------
    InputError
        If the operation or the algorithm is unknown, the algorithm cannot serve so many workers, a size is negative,
        groups are unequal, the matrix of chunks is not square, buffers that are to be summed differ in length, a peer
        is no worker, or two workers permute to the same one.
    """
    checked = check(operation, sent_bytes, algorithm, pieces, peers)
    sent = np.array(sent_bytes, np.int64)
    match operation:
        case "all-reduce":
            moves = _all_reduce(checked, int(equal(sent, operation)), len(sent), groups, pieces)
        case "reduce-scatter":
            reduce_scatter = {"direct": direct, "halving": doubling, "ring": ring}[checked].reduce_scatter
            moves = reduce_scatter(int(equal(sent, operation)), len(sent))
        case "all-gather":
            gather = {"direct": direct.all_gather, "bruck": doubling.bruck, "ring": ring.all_gather}[checked]
            moves = gather(sent)
        case "broadcast" if checked == "binomial":
            moves = broadcast.binomial(int(sent.max()), len(sent), peers[0])
        case "broadcast":
            spread = broadcast.chain if checked == "chain" else tree.broadcast
            moves = spread(int(sent.max()), len(sent), peers[0], pieces)
        case "all-to-all":
            matrix = chunk_matrix(sent, chunks)
            moves = direct.all_to_all(matrix) if checked == "direct" else exchange.pairwise(matrix)
        case "permute":
            moves = exchange.permute(sent, peers)
    return moves if moves.bytes.any() else nothing()


def _all_reduce(algorithm: str, size: int, workers: int, groups: Sequence[Sequence[int]], limit: int) -> Moves:
    match algorithm:
        case "double-tree":
            return tree.all_reduce(size, workers, limit)
        case "hierarchical":
            return hierarchical.all_reduce(size, hierarchical.grouped(groups, workers))
        case "halving-doubling":
            return doubling.halving_doubling(size, workers)
        case "recursive-doubling":
            return doubling.recursive_doubling(size, workers)
        case "direct":
            return direct.all_reduce(size, workers)
    return ring.all_reduce(size, workers)


def check(
    operation: Operation, sent_bytes: Sequence[int] | IntArray, algorithm: str, pieces: int, peers: Sequence[int]
) -> str:
    """Return the algorithm's name, after having refused what it cannot do."""
    if operation not in ALGORITHMS:
        raise InputError(f"operation {operation!r} is unknown; there are {', '.join(ALGORITHMS)}")
    known = ALGORITHMS[operation]
    if algorithm and algorithm not in known:
        nearest = get_close_matches(algorithm, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(known)}"
        raise InputError(f"algorithm {algorithm!r} of {operation} is unknown; {hint}")
    sent = np.asarray(sent_bytes, np.int64)
    workers = sent.shape[-1]
    if not workers:
        raise InputError(f"{operation}: there are no workers; allowed: 1 or more")
    if sent.size and sent.min() < 0:
        raise InputError(f"{operation}: a worker hands over {sent.min()} bytes; allowed: 0 bytes or more")
    _check_peers(operation, peers, workers)
    if algorithm == "halving" and workers & (workers - 1):
        raise InputError(f"a reduce-scatter by halving needs 2, 4, 8, ... workers; there are {workers}")
    if pieces < 1:
        raise InputError(f"pieces = {pieces} must be at least 1")
    return algorithm or known[0]


def _check_peers(operation: Operation, peers: Sequence[int], workers: int) -> None:
    """Refuse a root, or receivers, that are no workers."""
    if operation == "broadcast" and not (len(peers) == 1 and 0 <= peers[0] < workers):
        raise InputError(f"broadcast: peers = {tuple(peers)} must be the root alone, a worker from 0 to {workers - 1}")
    if operation == "permute" and not (len(peers) == workers and all(-1 <= peer < workers for peer in peers)):
        raise InputError(
            f"permute: peers = {tuple(peers)} must tell for each of the {workers} workers whom it sends to, a worker "
            f"from 0 to {workers - 1}, or -1"
        )


def equal(sent: IntArray, operation: Operation) -> IntArray:
    """Return the length of the buffers that are summed, which all N workers share; of shape [...] for [..., N]."""
    if (sent != sent[..., :1]).any():
        raise InputError(f"{operation}: workers hand over buffers of different lengths, which cannot be summed")
    return np.asarray(sent[..., 0])


def chunk_matrix(sent: IntArray, chunks: ArrayLike | None) -> IntArray:
    """Return what each worker of an all-to-all sends to each other one, of shape [..., N, N] for [..., N]."""
    workers = sent.shape[-1]
    if chunks is None:
        total = sent[..., None]
        return np.asarray(total // workers + (np.arange(workers) < total % workers), np.int64)
    matrix = np.asarray(chunks, np.int64)
    if matrix.shape != (workers, workers) or (matrix < 0).any():
        raise InputError(f"chunks of an all-to-all must be {workers} x {workers} sizes of 0 bytes or more")
    return matrix
