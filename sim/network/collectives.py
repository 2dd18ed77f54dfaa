"""Collectives as schedules of transfers: who sends how much to whom, and after which other transfers.

A schedule is data. It has dependencies and no barriers, and knows nothing of bandwidths or latencies: the engine
(:mod:`gradwire.sim.network.engine`) plays it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...compressors.wirelog import Operation
from .closed_form import moves


class Transfer(NamedTuple):
    """Bytes from one host to another, once the transfers at the positions ``after`` of the schedule are done."""

    src: int
    dst: int
    bytes: int
    after: tuple[int, ...]


Schedule = tuple[Transfer, ...]
"""Transfers in an order in which each comes after those it waits for. Empty: nothing is launched."""


def schedule(operation: Operation, sent_bytes: Sequence[int], peers: Sequence[int] = ()) -> Schedule:
    """Return the transfers of a collective in its textbook algorithm.

    In a ring, worker i passes on in round k what started at worker i - k: its own block in a gather, its chunk of that
    number in a reduction. The second half of an all-reduce continues the count, for the chunk that a worker has summed
    when the first half ends is the one whose turn it is.

    Parameters
    ----------
    operation : str
        As in the wire log; the algorithms are those of :func:`gradwire.sim.network.closed_form.critical_path`.
    sent_bytes : sequence of int
        What each of the N workers hands over.
    peers : sequence of int
        Permute: whom each worker sends to, or -1. Broadcast: the root alone.

    Returns
    -------
    Schedule
        Empty where no byte has to move.
    """
    workers = len(sent_bytes)
    chunks = split(max(sent_bytes), workers)
    match operation:
        case "all-reduce":
            transfers = _ring(workers, 2 * (workers - 1), lambda i, k: chunks[(i - k) % workers])
        case "reduce-scatter":
            transfers = _ring(workers, workers - 1, lambda i, k: chunks[(i - k - 1) % workers])
        case "all-gather":
            transfers = _ring(workers, workers - 1, lambda i, k: sent_bytes[(i - k) % workers])
        case "broadcast":
            transfers = _binomial_tree(workers, peers[0], max(sent_bytes))
        case "all-to-all":
            transfers = _all_to_all([split(size, workers) for size in sent_bytes])
        case "permute":
            transfers = [Transfer(src, dst, sent_bytes[src], ()) for src, dst in moves(peers)]
    return tuple(transfers) if any(transfer.bytes for transfer in transfers) else ()


def split(size: int, parts: int) -> list[int]:
    """Cut a number of bytes into whole, near-even parts; the first ones are one larger where it does not divide.

    >>> split(10, 4)
    [3, 3, 2, 2]
    """
    return [size // parts + (part < size % parts) for part in range(parts)]


def _ring(workers: int, rounds: int, size: Callable[[int, int], int]) -> list[Transfer]:
    """In round k worker i sends ``size(i, k)`` bytes to i + 1, after i - 1 and i are through with round k - 1."""
    transfers: list[Transfer] = []
    for k in range(rounds):
        last = (k - 1) * workers
        for i in range(workers):
            after = (last + (i - 1) % workers, last + i) if k else ()
            transfers.append(Transfer(i, (i + 1) % workers, size(i, k), after))
    return transfers


def _binomial_tree(workers: int, root: int, size: int) -> list[Transfer]:
    """In each round everyone who has the payload sends it to one who has not, so their number doubles."""
    transfers: list[Transfer] = []
    latest: dict[int, int] = {}  # by worker, counted from the root: the last transfer that it took part in
    while len(transfers) < workers - 1:
        holders = len(transfers) + 1
        for i in range(min(holders, workers - holders)):
            after = (latest[i],) if i in latest else ()
            latest[i] = latest[holders + i] = len(transfers)
            transfers.append(Transfer((root + i) % workers, (root + holders + i) % workers, size, after))
    return transfers


def _all_to_all(chunks: list[list[int]]) -> list[Transfer]:
    """In round k worker i sends its chunk for worker i + k, after its own round k - 1; rounds count from 1."""
    workers = len(chunks)
    transfers: list[Transfer] = []
    for k in range(1, workers):
        for i in range(workers):
            dst = (i + k) % workers
            transfers.append(Transfer(i, dst, chunks[i][dst], (len(transfers) - workers,) if k > 1 else ()))
    return transfers
