"""Traffic: the transfers under way on a topology, put in as whole schedules and advanced in simulated time."""

from typing import Protocol

import numpy as np

from ..cluster.topology import Changes, Routes, Terms
from ..cluster.topology import Flows as Background
from .critical import FloatArray
from .fairshare import run
from .flowheaps import enqueue
from .flowtables import (
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
)
from .schedule import Schedule


class Links(Protocol):
    """What the traffic needs to know of a topology."""

    @property
    def capacity_bps(self) -> FloatArray:
        """Bits a second of each link, shape [L]."""

    @property
    def background(self) -> Background:
        """Traffic of others: endless, as fast as fair sharing lets it, but not above its rate."""

    @property
    def changes(self) -> Changes:
        """Capacities that change with time."""

    def routes(self, src: IntArray, dst: IntArray, terms: Terms | None = None) -> Routes:
        """Return the ways from each worker ``src`` to the worker ``dst``."""


class Traffic:
    """All transfers that share the links of a topology.

    Parameters
    ----------
    links : Links
    start_s : float
        When time 0 is, counted as the topology's background and changes are.
    """

    def __init__(self, links: Links, start_s: float = 0.0) -> None:
        self._topology = links
        self._numbers: dict[int, int] = {}
        self._ended = 0
        background, changes = links.background, links.changes
        capacity = np.append(links.capacity_bps, background.rate_bps) / 8
        self._links = np.zeros(len(capacity), LINK)
        self._links["capacity"] = capacity
        self._crossings = np.zeros(0, CROSSING)
        self._classes = np.zeros(0, CLASS)
        self._transfers = np.zeros(0, TRANSFER)
        self._followers = np.zeros(0, np.int64)
        self._endless = len(background.rate_bps)
        self._left = np.array([self._endless + 1])  # collective 0 is the background, which never ends
        self._changes = np.zeros(len(changes.link), CHANGE)
        self._changes["link"] = changes.link
        self._changes["capacity"] = changes.factor * capacity[changes.link]
        self._queue = np.zeros(len(changes.link) + 2 * self._endless, EVENT)
        self._heap = np.zeros(0, np.int64)
        self._todo = np.zeros((3, len(capacity)), np.int64)
        self._sizes = np.array([0, 0, 0, 1, 0])
        self._clock = np.zeros(1)
        for i, at_s in enumerate((changes.time_s - start_s).tolist()):
            enqueue(max(at_s, 0.0), KINDS * i + CHANGES, self._queue, self._sizes)
        for i in range(self._endless):
            self._add_background(i, start_s)

    @property
    def now_s(self) -> float:
        """Until when it has been advanced."""
        return float(self._clock[0])

    @property
    def carried_bytes(self) -> FloatArray:
        """What each link of the topology has carried so far: transfers that are done, without the background."""
        return np.asarray(self._links["carried"][: len(self._topology.capacity_bps)])

    @property
    def solutions(self) -> int:
        """How often rates have been computed."""
        return int(self._sizes[SOLUTIONS])

    def add(
        self,
        schedule: Schedule,
        at_s: float,
        terms: Terms,
        reduce_bytes_s: float = np.inf,
        earliest_s: FloatArray | None = None,
    ) -> int:
        """Put in a collective that is launched at ``at_s``.

        Parameters
        ----------
        schedule : Schedule
            At least one transfer.
        at_s : float
            Not before :attr:`now_s`.
        terms : Terms
            What it pays besides sharing links.
        reduce_bytes_s : float
            At which a receiver adds what arrives to what it has.
        earliest_s : FloatArray, shape [T], optional
            When each transfer may start, should those that it waits for be done before.

        Returns
        -------
        int
            Its number, for :meth:`done`.

        Raises
        ------
        InputError
            As :meth:`Schedule.check_numbers`, or if a worker is not on the topology. Cycles are not looked for: they
            stand still.
        """
        schedule.check_numbers()
        self._drop_ended()
        first, collective, more = len(self._transfers), len(self._left), len(schedule)
        launched_s = at_s + terms.launch_s
        new = np.zeros(more, TRANSFER)
        new["owner"], new["latency"] = self._classes_of(schedule.src, schedule.dst, terms)
        new["group"] = collective
        new["bytes"] = schedule.bytes / terms.efficiency
        new["earliest"] = launched_s if earliest_s is None else np.maximum(earliest_s, launched_s)
        new["settle"] = np.where(schedule.reduces, schedule.bytes / reduce_bytes_s, 0.0)
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

    def _add_background(self, i: int, start_s: float) -> None:
        """Put in transfer i, endless, over its way and a link of its own that limits its rate."""
        flows = self._topology.background
        way = flows.links[flows.first[i] : flows.first[i + 1]]
        self._extend([np.append(way, len(self._topology.capacity_bps) + i)])
        new = np.zeros(1, TRANSFER)
        new["owner"], new["bytes"] = i, np.inf
        self._transfers = np.concatenate([self._transfers, new])
        begin_s, end_s = max(float(flows.start_s[i]) - start_s, 0.0), float(flows.stop_s[i]) - start_s
        if end_s <= begin_s:
            return
        enqueue(begin_s, KINDS * i + STARTS, self._queue, self._sizes)
        if end_s < np.inf:
            enqueue(end_s, KINDS * i + STOPS, self._queue, self._sizes)

    def _drop_ended(self) -> None:
        """Forget the transfers of the past once nothing but the background is under way."""
        if not self._left[1:].any():
            self._ended += len(self._left) - 1
            self._left = self._left[:1]
            self._transfers = self._transfers[: self._endless]
            self._followers = self._followers[:0]

    def _classes_of(self, src: IntArray, dst: IntArray, terms: Terms) -> tuple[IntArray, FloatArray]:
        """Return the class of each pair of workers, and the latency of its way."""
        pairs, place = np.unique(src * _PAIR + dst, return_inverse=True)
        routes = self._topology.routes(pairs // _PAIR, pairs % _PAIR, terms)
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
