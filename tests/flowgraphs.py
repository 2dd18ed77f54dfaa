"""What the network's tests share: topologies written down by hand, and a plain progressive-filling simulation."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwire.sim.cluster.topology import Changes, Flows, Routes, Terms
from gradwire.sim.network.schedule import Transfer


class HandWritten:
    """Links with capacities in bit/s, and for every pair of workers the links that it crosses and its latency.

    ``background`` lists (pair, bit/s at most, from, until), ``changes`` (time, link, factor).
    """

    def __init__(
        self,
        capacity_bps: Sequence[float],
        ways: dict[tuple[int, int], tuple[list[int], float]],
        background: Sequence[tuple[tuple[int, int], float, float, float]] = (),
        changes: Sequence[tuple[float, int, float]] = (),
    ) -> None:
        self.capacity_bps = np.array(capacity_bps, float)
        self.ways = ways
        pairs, *numbers = zip(*background, strict=True) if background else ((), (), (), ())
        found = [ways[pair][0] for pair in pairs]
        first = np.cumsum([0, *map(len, found)])
        flat = np.array([link for way in found for link in way], np.int64)
        self.background = Flows(first, flat, *(np.array(column, float) for column in numbers))
        times, links, factors = zip(*changes, strict=True) if changes else ((), (), ())
        self.changes = Changes(np.array(times, float), np.array(links, np.int64), np.array(factors, float))

    def routes(self, src: np.ndarray, dst: np.ndarray, terms: Terms) -> Routes:
        found = [self.ways[pair] for pair in zip(src.tolist(), dst.tolist(), strict=True)]
        lengths = [len(links) for links, _ in found]
        links = np.array([link for way, _ in found for link in way], np.int64)
        return Routes(np.cumsum([0, *lengths]), links, np.array([latency for _, latency in found]) + terms.latency_s)


def star(
    up: Sequence[float], down: Sequence[float], latency: Sequence[float], core: float | None = None, **others: Any
) -> HandWritten:
    """Hosts around a switch: rates in bytes/s, shared separately; ``core`` is crossed by every transfer."""
    hosts = len(up)
    ways = {
        (i, j): (
            ([i, hosts + j] + ([2 * hosts] if core else [])) if i != j else [],
            (latency[i] + latency[j]) * (i != j),
        )
        for i in range(hosts)
        for j in range(hosts)
    }
    return HandWritten([8 * rate for rate in (*up, *down, *([core] if core else []))], ways, **others)


def plain_filling(
    topology: HandWritten, transfers: Sequence[Transfer], delay: Sequence[float], start: Sequence[float]
) -> list[float]:
    """Return when each transfer ends, by recomputing all rates at every event from nothing.

    No classes, no heaps, no reuse: the definition, and independent of the engine.
    """
    count = len(transfers)
    links = [topology.ways[t.src, t.dst][0] for t in transfers]
    begins: list[float | None] = [None] * count  # when the bytes start to move
    left = [float(t.bytes) for t in transfers]
    end: list[float | None] = [None] * count
    moving: set[int] = set()
    now = 0.0
    while None in end:
        for i, t in enumerate(transfers):
            if begins[i] is None and all(end[j] is not None for j in t.after):
                ready = max([start[i], *(end[j] for j in t.after)])
                begins[i] = ready + delay[i] + topology.ways[t.src, t.dst][1]
        rates = _rates(topology, {i: links[i] for i in moving})
        ends = {i: now + left[i] / rates[i] for i in moving}
        pending = [b for i, b in enumerate(begins) if b is not None and end[i] is None and i not in moving]
        then = min([*ends.values(), *pending])
        for i in moving:
            left[i] -= rates[i] * (then - now)
        now = then
        for i in [i for i in moving if ends[i] <= now * (1 + 1e-13)]:
            moving.remove(i)
            end[i] = now
        for i, b in enumerate(begins):
            if b is not None and b <= now * (1 + 1e-13) and end[i] is None and i not in moving:
                if left[i] == 0 or not links[i]:
                    end[i] = now
                else:
                    moving.add(i)
    return [e for e in end if e is not None]


def _rates(topology: HandWritten, links: dict[int, list[int]]) -> dict[int, float]:
    """Raise all rates together until a link is full, fix those that cross it, and go on with the others."""
    rates: dict[int, float] = {}
    spare = (topology.capacity_bps / 8).tolist()
    while len(rates) < len(links):
        users: dict[int, list[int]] = {}
        for i, crossed in links.items():
            if i not in rates:
                for link in crossed:
                    users.setdefault(link, []).append(i)
        level, full = min((spare[link] / len(flows), link) for link, flows in users.items())
        for i in users[full]:
            rates[i] = level
            for link in links[i]:
                spare[link] = max(spare[link] - level, 0.0)
    assert all(math.isfinite(rate) for rate in rates.values())
    return rates
