"""Traffic: the transfers under way on a topology, put in as whole schedules and advanced in simulated time."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from .closed_form import FloatArray
from .fairshare import (
    CHANGE,
    CHANGES,
    CLASS,
    CROSSING,
    EVENT,
    KINDS,
    LINK,
    NONE,
    SOLUTIONS,
    STARTS,
    STOPS,
    TRANSFER,
    IntArray,
    Table,
    enqueue,
    run,
)
from .schedule import Schedule


class Routes(Protocol):
    """The ways of some pairs of workers: pair p crosses ``links[first[p]:first[p + 1]]``."""

    @property
    def first(self) -> IntArray: ...
    @property
    def links(self) -> IntArray: ...
    @property
    def latency_s(self) -> FloatArray: ...


class Links(Protocol):
    """What the traffic needs to know of a topology."""

    @property
    def capacity_bps(self) -> FloatArray:
        """Bits a second of each link, shape [L]."""
        ...

    def routes(self, src: IntArray, dst: IntArray) -> Routes:
        """Return the ways from each worker ``src`` to the worker ``dst``."""
        ...


class Charges(NamedTuple):
    """What a schedule's transfers pay besides sharing links.

    Attributes
    ----------
    launch_s : float
        Before the first transfer.
    latency_s : float or FloatArray, shape [T]
        Of each transfer, in addition to its way's.
    efficiency : float
        Payload bytes per byte that loads the links.
    reduce_bps : float
        At which a receiver adds what arrives to what it has; infinity if that takes no time.
    """

    launch_s: float = 0.0
    latency_s: float | FloatArray = 0.0
    efficiency: float = 1.0
    reduce_bps: float = np.inf


FREE = Charges()
"""Nothing."""


class Background(NamedTuple):
    """Other people's transfer: endless, as fast as fair sharing lets it, but not above ``rate_bps``."""

    src: int
    dst: int
    rate_bps: float = np.inf
    start_s: float = 0.0
    stop_s: float = np.inf


class Change(NamedTuple):
    """From ``at_s`` on a link has another capacity."""

    link: int
    at_s: float
    capacity_bps: float


class Traffic:
    """All transfers that share the links of a topology.

    Parameters
    ----------
    links : Links
    background : sequence of Background
    changes : sequence of Change
    """

    def __init__(self, links: Links, background: Sequence[Background] = (), changes: Sequence[Change] = ()) -> None:
        self._topology = links
        self._numbers: dict[int, int] = {}
        self._ended = 0
        capacity = np.append(links.capacity_bps, [other.rate_bps for other in background]) / 8
        self._links = np.zeros(len(capacity), LINK)
        self._links["capacity"] = capacity
        self._crossings = np.zeros(0, CROSSING)
        self._classes = np.zeros(0, CLASS)
        self._transfers = np.zeros(0, TRANSFER)
        self._followers = np.zeros(0, np.int64)
        self._endless = len(background)
        self._left = np.array([self._endless + 1])  # collective 0 is the background, which never ends
        self._queue = np.zeros(len(changes) + 2 * len(background), EVENT)
        self._changes = np.array([(change.link, change.capacity_bps / 8) for change in changes], CHANGE)
        self._heap = np.zeros(0, np.int64)
        self._todo = np.zeros((3, len(capacity)), np.int64)
        self._sizes = np.array([0, 0, 0, 1, 0])
        self._clock = np.zeros(1)
        for i, change in enumerate(changes):
            enqueue(change.at_s, KINDS * i + CHANGES, self._queue, self._sizes)
        for i, other in enumerate(background):
            self._add_background(i, other)

    @property
    def now_s(self) -> float:
        """Until when it has been advanced."""
        return float(self._clock[0])

    @property
    def carried_bytes(self) -> FloatArray:
        """What each link of the topology has carried so far, of transfers that are done."""
        return np.asarray(self._links["carried"][: len(self._topology.capacity_bps)])

    @property
    def solutions(self) -> int:
        """How often rates have been computed."""
        return int(self._sizes[SOLUTIONS])

    def add(
        self, schedule: Schedule, at_s: float, charges: Charges = FREE, earliest_s: FloatArray | None = None
    ) -> int:
        """Put in a collective that is launched at ``at_s``.

        Parameters
        ----------
        schedule : Schedule
            At least one transfer.
        at_s : float
            Not before :attr:`now_s`.
        charges : Charges
        earliest_s : FloatArray, shape [T], optional
            When each transfer may start, should those that it waits for be done before.

        Returns
        -------
        int
            Its number, for :meth:`done`.
        """
        self._drop_ended()
        first, collective, more = len(self._transfers), len(self._left), len(schedule)
        launched_s = at_s + charges.launch_s
        new = np.zeros(more, TRANSFER)
        new["owner"], way_s = self._classes_of(schedule.src, schedule.dst)
        new["group"] = collective
        new["bytes"] = schedule.bytes / charges.efficiency
        new["earliest"] = launched_s if earliest_s is None else np.maximum(earliest_s, launched_s)
        new["latency"] = way_s + charges.latency_s
        new["settle"] = np.where(schedule.reduces, schedule.bytes * 8 / charges.reduce_bps, 0.0)
        new["waits"] = waits = np.diff(schedule.first)
        stops = len(self._followers) + np.cumsum(np.bincount(schedule.after, minlength=more))
        new["first"], new["stop"] = np.append(len(self._followers), stops[:-1]), stops
        waiting = np.repeat(np.arange(more), waits)[np.argsort(schedule.after, kind="stable")]
        self._followers = np.concatenate([self._followers, first + waiting])
        self._transfers = np.concatenate([self._transfers, new])
        self._left = np.append(self._left, more)
        room = len(self._transfers) + self._endless + len(self._changes)
        self._queue = _longer(self._queue, room - len(self._queue))
        for root in np.flatnonzero(waits == 0).tolist():
            start_s = new["earliest"][root] + new["latency"][root]
            enqueue(start_s, KINDS * (first + root) + STARTS, self._queue, self._sizes)
        return self._ended + collective

    def advance(self, until_s: float) -> bool:
        """Advance until a collective ends, or as far as ``until_s``; return whether one has ended."""
        tables = (self._links, self._crossings, self._classes, self._transfers, self._followers, self._left)
        events = (self._queue, self._changes, self._heap, self._todo, self._sizes, self._clock)
        return bool(run(*tables, *events, until_s))

    def done(self, number: int) -> bool:
        """Return whether a collective has ended."""
        place = number - self._ended
        return place < 1 or bool(self._left[place] == 0)

    def end_s(self, schedule: Schedule) -> FloatArray:
        """Return when each transfer of the collective that was put in last has ended."""
        return np.asarray(self._transfers["end"][-len(schedule) :])

    # ------------------------------------------------------------------------------------------------- its tables

    def _add_background(self, i: int, other: Background) -> None:
        """Put in transfer i, endless, over its way and a link of its own that limits its rate."""
        routes = self._topology.routes(np.array([other.src]), np.array([other.dst]))
        self._extend([np.append(routes.links, len(self._topology.capacity_bps) + i)])
        new = np.zeros(1, TRANSFER)
        new["owner"], new["bytes"] = i, np.inf
        self._transfers = np.concatenate([self._transfers, new])
        first_bit_s = other.start_s + float(routes.latency_s[0])
        if other.stop_s <= first_bit_s:
            return
        enqueue(first_bit_s, KINDS * i + STARTS, self._queue, self._sizes)
        if other.stop_s < np.inf:
            enqueue(other.stop_s, KINDS * i + STOPS, self._queue, self._sizes)

    def _drop_ended(self) -> None:
        """Forget the transfers of the past once nothing but the background is under way."""
        if not self._left[1:].any():
            self._ended += len(self._left) - 1
            self._left = self._left[:1]
            self._transfers = self._transfers[: self._endless]
            self._followers = self._followers[:0]

    def _classes_of(self, src: IntArray, dst: IntArray) -> tuple[IntArray, FloatArray]:
        """Return the class of each pair of workers, and the latency of its way."""
        pairs, place = np.unique(src * _PAIR + dst, return_inverse=True)
        routes = self._topology.routes(pairs // _PAIR, pairs % _PAIR)
        unknown = [i for i, pair in enumerate(pairs.tolist()) if pair not in self._numbers]
        first = len(self._classes)
        self._extend([routes.links[routes.first[i] : routes.first[i + 1]] for i in unknown])
        self._numbers.update({int(pairs[i]): first + j for j, i in enumerate(unknown)})
        numbers = np.array([self._numbers[pair] for pair in pairs.tolist()], np.int64)
        return numbers[place], np.asarray(routes.latency_s)[place]

    def _extend(self, ways: list[IntArray]) -> None:
        """Add classes that cross these links."""
        if not ways:
            return
        before = len(self._crossings)
        stops = before + np.cumsum([len(way) for way in ways])
        new = np.zeros(len(ways), CLASS)
        new["first"], new["stop"], new["head"], new["place"] = np.append(before, stops[:-1]), stops, NONE, NONE
        self._classes = np.concatenate([self._classes, new])
        crossings = _longer(self._crossings, int(stops[-1]) - before)
        crossings["link"][before:] = np.concatenate(ways)
        users = np.repeat(np.arange(len(self._classes)), self._classes["stop"] - self._classes["first"])
        idle = self._classes["count"][users] == 0
        order = np.lexsort((idle, crossings["link"]))  # by link; its busy classes first
        crossings["user"], crossings["back"] = users[order], order
        crossings["slot"][order] = np.arange(len(order))
        self._crossings = crossings
        ends = np.cumsum(np.bincount(crossings["link"], minlength=len(self._links)))
        self._links["first"] = np.append(0, ends[:-1])
        self._heap = _longer(self._heap, len(ways))
        room = max(len(self._links), len(self._classes))
        self._todo = np.concatenate([self._todo, np.zeros((3, room - self._todo.shape[1]), np.int64)], axis=1)


_PAIR = 1 << 32


def _longer(values: Table, more: int) -> Table:
    """Return a longer copy, with zeros at its end."""
    return np.concatenate([values, np.zeros(max(more, 0), values.dtype)])
