"""Moves: the transfers of a collective with the place in the buffer that each one carries, built round by round."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..schedule import BoolArray, IntArray, Schedule


@dataclass(frozen=True, eq=False)
class Moves(Schedule):
    """A schedule that tells which part of the collective's buffer each transfer carries.

    The place is what proves a schedule: whoever follows the parts from worker to worker sees what everybody ends with.

    Attributes
    ----------
    start : IntArray, shape [T]
        The transfer carries the bytes ``start`` to ``start + bytes`` of the buffer: of what is summed, of all workers'
        blocks one after the other (a part that reaches the end goes on at the beginning), of all pairs' chunks by
        source, or of the root's payload.
    """

    start: IntArray

    @classmethod
    def padded(
        cls, src: IntArray, dst: IntArray, start: IntArray, size: IntArray, after: IntArray, reduces: BoolArray
    ) -> "Moves":
        """Return moves that wait for the rows of ``after``, shape [T, K], in which -1 stands for nothing."""
        waits = after >= 0
        return cls(src, dst, size, bounds(waits.sum(axis=1)), after[waits], reduces, start)


class Rounds:
    """Collects transfers in rounds in which a worker sends at most once and receives at most once.

    A transfer waits until its sender is through with its last send and has what it received last, and until its
    receiver is through with its last receipt. So no two transfers ever share a direction of a worker's link, whatever
    the links' rates, and what a worker passes on has arrived.

    Parameters
    ----------
    workers : int
    """

    def __init__(self, workers: int) -> None:
        self.sent: IntArray = np.full(workers, -1, np.int64)
        self.received: IntArray = np.full(workers, -1, np.int64)
        self._count = 0
        self._rounds: list[tuple[NDArray[np.int64], ...]] = []

    def add(
        self,
        src: IntArray,
        dst: IntArray,
        start: ArrayLike,
        size: ArrayLike,
        reduces: bool = False,
        gate: ArrayLike = -1,
    ) -> None:
        """Add a round; ``gate`` names one more transfer that each one waits for, or -1."""
        sent, arrived = self.sent[src], self.received[dst]
        columns = (self.received[src], sent, np.where(arrived == sent, -1, arrived), gate)
        after = np.stack([np.broadcast_to(column, src.shape) for column in columns], axis=1)
        filled = [np.broadcast_to(np.asarray(value, np.int64), src.shape) for value in (start, size, reduces)]
        self._rounds.append((src, dst, *filled, after))
        self.sent[src] = self.received[dst] = self._count + np.arange(len(src))
        self._count += len(src)

    def moves(self) -> Moves:
        """Return what was collected."""
        if not self._rounds:
            return nothing()
        src, dst, start, size, reduces, after = (np.concatenate(column) for column in zip(*self._rounds, strict=True))
        return Moves.padded(src, dst, start, size, after, reduces.astype(np.bool_))


def nothing() -> Moves:
    """Return what a single worker has to move."""
    none = np.empty(0, np.int64)
    return Moves.padded(none, none, none, none, np.empty((0, 1), np.int64), np.empty(0, np.bool_))


def split(size: int, parts: int) -> list[int]:
    """Cut a number of bytes into whole, near-even parts; the first ones are one larger where it does not divide.

    >>> split(10, 4)
    [3, 3, 2, 2]
    """
    return [size // parts + (part < size % parts) for part in range(parts)]


def near_even(size: int, parts: int) -> IntArray:
    """Return :func:`split` as an array."""
    return np.asarray(size // parts + (np.arange(parts) < size % parts), np.int64)


def bounds(sizes: Sequence[int] | IntArray) -> IntArray:
    """Return where parts of these sizes begin when they stand one after the other, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(sizes, np.int64))])
