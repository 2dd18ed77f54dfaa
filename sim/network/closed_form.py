"""Collectives in closed form: exact where hosts and links are equal and nothing contends, over whole arrays.

On equal links the slowest chain of transfers in a schedule of :mod:`gradwire.sim.network.collectives` is known: the
ring's largest chunk, or block, is passed on without ever waiting, and no chain is longer. A collective then lasts
``launches * launch + hops * latency + 8 * bytes / bandwidth`` with three whole numbers that do not depend on the
cluster. ``N`` is the number of workers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...compressors.wirelog import Operation

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class CriticalPath(NamedTuple):
    """The chain of transfers that a collective's duration consists of; three arrays of one shape.

    Attributes
    ----------
    launches : IntArray
        How many operations are launched: 1, or 0 where no byte moves.
    hops : IntArray
        How many transfers follow each other, each paying the latency.
    bytes : IntArray
        What these transfers carry in total.
    """

    launches: IntArray
    hops: IntArray
    bytes: IntArray

    def seconds(self, bandwidth_bps: ArrayLike, latency_s: ArrayLike, launch_s: ArrayLike) -> FloatArray:
        """Return the duration in seconds on clusters whose numbers broadcast against this path's shape."""
        latencies = self.hops * np.asarray(latency_s, np.float64)
        serial = 8 * self.bytes / np.asarray(bandwidth_bps, np.float64)
        return np.asarray(self.launches * np.asarray(launch_s, np.float64) + latencies + serial)

    def then(self, other: "CriticalPath") -> "CriticalPath":
        """Return the path of two collectives, one after the other."""
        return CriticalPath(*(a + b for a, b in zip(self, other, strict=True)))


def critical_path(operation: Operation, sent_bytes: ArrayLike, peers: Sequence[int] = ()) -> CriticalPath:
    """Return what a collective's duration consists of, in its textbook algorithm.

    Parameters
    ----------
    operation : str
        As in the wire log. With S the bytes that a worker hands over: ring all-reduce, 2(N-1) hops of ceil(S/N) bytes;
        ring reduce-scatter, N-1 hops of ceil(S/N); ring all-gather, N-1 hops of the largest S; broadcast by a binomial
        tree, not pipelined, ceil(log2 N) hops of S; all-to-all, each worker's N-1 chunks one after the other; permute,
        one hop.
    sent_bytes : array of int, shape [..., N]
        What each worker hands over, in any number of collectives at once.
    peers : sequence of int
        Permute: whom each worker sends to, or -1.

    Returns
    -------
    CriticalPath
        Of shape [...]. All zero where no byte has to move, as with N = 1.

    Raises
    ------
    ValueError
        If buffers that are to be summed differ in length, or two workers permute to the same one.
    """
    sent = np.asarray(sent_bytes, np.int64)
    workers = sent.shape[-1]
    largest = np.asarray(sent.max(axis=-1))
    match operation:
        case "all-reduce":
            hops, carried = 2 * (workers - 1), 2 * (workers - 1) * -(-_equal(sent, operation) // workers)
        case "reduce-scatter":
            hops, carried = workers - 1, (workers - 1) * -(-_equal(sent, operation) // workers)
        case "all-gather":
            hops, carried = workers - 1, (workers - 1) * largest
        case "broadcast":
            hops = (workers - 1).bit_length()
            carried = hops * largest
        case "all-to-all":
            kept = sent // workers + (np.arange(workers) < sent % workers)
            hops, carried = workers - 1, np.asarray((sent - kept).max(axis=-1))
        case "permute":
            senders = [worker for worker, _ in moves(peers)]
            hops, carried = 1, np.asarray(sent[..., senders].max(axis=-1, initial=0))
    moving = (carried > 0).astype(np.int64)
    return CriticalPath(moving, moving * hops, carried)


def moves(peers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the (source, destination) pairs of a permutation, without those who send to nobody or to themselves.

    Raises
    ------
    ValueError
        If two workers send to the same one, which would share its link.
    """
    pairs = [(src, dst) for src, dst in enumerate(peers) if dst not in (-1, src)]
    if len({dst for _, dst in pairs}) < len(pairs):
        raise ValueError(f"permute: two workers send to the same one: {tuple(peers)}")
    return pairs


def _equal(sent: IntArray, operation: Operation) -> IntArray:
    """Return the length of the buffers that are summed, which all workers share."""
    if (sent != sent[..., :1]).any():
        raise ValueError(f"{operation}: workers hand over buffers of different lengths, which cannot be summed")
    return np.asarray(sent[..., 0])
