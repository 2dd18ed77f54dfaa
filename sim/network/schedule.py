"""Schedules: a collective as data, who sends how much to whom and after which other transfers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...compressors.errors import InputError

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class Transfer(NamedTuple):
    """Bytes from one worker to another, once the transfers at the positions ``after`` of the schedule are done."""

    src: int
    dst: int
    bytes: int
    after: tuple[int, ...] = ()
    reduces: bool = False


@dataclass(frozen=True, eq=False)
class Schedule:
    """T transfers with dependencies and no barriers; it knows nothing of bandwidths or latencies.

    Attributes
    ----------
    src, dst : IntArray, shape [T]
        Workers. A transfer from a worker to itself crosses no link and takes no time: it joins what it waits for.
    bytes : IntArray, shape [T]
    first, after : IntArray, shapes [T + 1] and [D]
        Transfer t waits for the transfers ``after[first[t]:first[t + 1]]``.
    reduces : BoolArray, shape [T]
        Whether what arrives is added to what the receiver has, before anything that waits for it can start.
    """

    src: IntArray
    dst: IntArray
    bytes: IntArray
    first: IntArray
    after: IntArray
    reduces: BoolArray

    @classmethod
    def of(cls, transfers: Iterable[Transfer]) -> "Schedule":
        """Return a schedule of single transfers, in any order.

        Raises
        ------
        InputError
            As :meth:`check`.
        """
        listed = list(transfers)
        counts = [0, *(len(transfer.after) for transfer in listed)]
        result = cls(
            _ints([t.src for t in listed]),
            _ints([t.dst for t in listed]),
            _ints([t.bytes for t in listed]),
            np.cumsum(_ints(counts)),
            _ints([i for t in listed for i in t.after]),
            np.array([t.reduces for t in listed], np.bool_),
        )
        result.check()
        return result

    def __len__(self) -> int:
        return len(self.src)

    def transfers(self) -> list[Transfer]:
        """Return the transfers one by one."""
        waits = [tuple(self.after[a:b].tolist()) for a, b in zip(self.first[:-1], self.first[1:], strict=True)]
        columns = (self.src.tolist(), self.dst.tolist(), self.bytes.tolist(), waits, self.reduces.tolist())
        return [Transfer(*row) for row in zip(*columns, strict=True)]

    def check(self) -> None:
        """Refuse what cannot be played.

        Raises
        ------
        InputError
            As :meth:`check_numbers`, or if transfers wait for each other.
        """
        self.check_numbers()
        if stuck := self._stuck():
            names = ", ".join(map(str, stuck[:8])) + (", ..." if len(stuck) > 8 else "")
            raise InputError(f"transfers {names} wait for each other in a cycle")

    def check_numbers(self) -> None:
        """Refuse numbers that mean nothing; unlike the search for cycles, this takes no time.

        Raises
        ------
        InputError
            If a size is negative, there is no such worker, or a transfer waits for one that does not exist.
        """
        if len(self) and self.bytes.min() < 0:
            worst = int(self.bytes.argmin())
            raise InputError(f"transfer {worst} has {self.bytes[worst]} bytes; a transfer has 0 bytes or more")
        for workers in (self.src, self.dst):
            if len(self) and workers.min() < 0:
                worst = int(workers.argmin())
                raise InputError(f"transfer {worst} is of worker {workers[worst]}; workers count from 0")
        if len(self.after) and not (self.after.min() >= 0 and self.after.max() < len(self)):
            raise InputError(f"a transfer waits for one that is not among the schedule's {len(self)}")

    def _stuck(self) -> list[int]:
        """Return the transfers that can never start."""
        waits_for = np.diff(self.first)
        followers: list[list[int]] = [[] for _ in range(len(self))]
        for waiting, needed in zip(np.repeat(np.arange(len(self)), waits_for), self.after, strict=True):
            followers[needed].append(int(waiting))
        missing = waits_for.tolist()
        ready = [t for t, count in enumerate(missing) if not count]
        for t in ready:  # the list grows while it is read
            for follower in followers[t]:
                missing[follower] -= 1
                if not missing[follower]:
                    ready.append(follower)
        return sorted(set(range(len(self))) - set(ready)) if len(ready) < len(self) else []


def _ints(values: Sequence[int]) -> IntArray:
    return np.array(values, np.int64)
