"""Two oracles for schedules: what everybody ends with, and how long it takes when links are shared fairly."""

import math

import numpy as np

from gradwire.sim.network import Schedule
from gradwire.sim.network.collectives import Moves


def holdings(moves: Moves, initial):
    """What each worker holds at the end, [workers, elements, ...], from what it held at the beginning.

    A transfer carries what its sender has from the transfers that it waits for, directly or not, and from no others:
    so a dependency that is missing shows. What replaces something must be ordered against whatever else arrives there.
    """
    total = initial.shape[1]
    reads = [set() for _ in range(len(moves))]
    carried: list[tuple] = []
    arrivals: dict[int, list[int]] = {}

    def buffer(worker: int, known):
        held = initial[worker].copy()
        used: list[int] = []
        for u in arrivals.get(worker, []):
            if u not in known:
                continue
            where, value = carried[u]
            for other in used:
                if not (moves.reduces[u] and moves.reduces[other]) and np.intersect1d(where, carried[other][0]).size:
                    assert other in reads[u], f"transfers {other} and {u} race for a place of worker {worker}"
            held[where] = held[where] + value if moves.reduces[u] else value
            used.append(u)
        return held

    for t, transfer in enumerate(moves.transfers()):
        assert all(a < t for a in transfer.after)
        for a in transfer.after:
            reads[t] |= reads[a] | {a}
        where = (int(moves.start[t]) + np.arange(transfer.bytes)) % max(total, 1)
        carried.append((where, buffer(transfer.src, reads[t])[where]))
        if transfer.src != transfer.dst:
            arrivals.setdefault(transfer.dst, []).append(t)
    return np.stack([buffer(worker, range(len(moves))) for worker in range(len(initial))])


class Star:
    """Workers on one switch: each sends at ``up``, receives at ``down`` bytes a second, and adds its latency."""

    def __init__(self, up, down, latency):
        self.up, self.down, self.latency = up, down, latency

    def latency_s(self, src: int, dst: int):
        return self.latency[src] + self.latency[dst]

    def links(self, src: int, dst: int):
        return {("up", src): self.up[src], ("down", dst): self.down[dst]}


class TwoTiers:
    """Hosts of equal workers with a port each inside, and one link a host to the others."""

    def __init__(self, local: int, inside, across):
        self.local, self.inside, self.across = local, inside, across  # (bytes/s, s) each

    def latency_s(self, src: int, dst: int):
        return (self.inside if src // self.local == dst // self.local else self.across)[1]

    def links(self, src: int, dst: int):
        if src // self.local == dst // self.local:
            return {("out", src): self.inside[0], ("in", dst): self.inside[0]}
        return {("up", src // self.local): self.across[0], ("down", dst // self.local): self.across[0]}


def played_s(schedule: Schedule, network, launch: float = 0.0, reduce_rate: float = math.inf):
    """Seconds until the last transfer is done, by progressive filling.

    A transfer pays its latency, then moves its bytes at its max-min fair share; what is summed takes bytes / rate more.
    """
    return _Play(schedule, network, reduce_rate).run(launch) if len(schedule) else 0.0


class _Play:
    def __init__(self, schedule: Schedule, network, reduce_rate: float):
        self.transfers, self.network, self.reduce_rate = schedule.transfers(), network, reduce_rate
        self.missing = [len(transfer.after) for transfer in self.transfers]
        self.followers: list[list[int]] = [[] for _ in self.transfers]
        for t, transfer in enumerate(self.transfers):
            for a in transfer.after:
                self.followers[a].append(t)
        self.starts: dict[int, float] = {}  # when a transfer's bytes begin to move
        self.left: dict[int, float] = {}
        self.done: dict[int, float] = {}  # when a transfer that has arrived has been added

    def begin(self, t: int, now: float):
        src, dst = self.transfers[t][:2]
        self.starts[t] = now + (0.0 if src == dst else self.network.latency_s(src, dst))

    def run(self, now: float):
        for t, count in enumerate(self.missing):
            if not count:
                self.begin(t, now)
        while self.starts or self.left or self.done:
            rates = max_min([self.network.links(*self.transfers[t][:2]) for t in self.left])
            ends = {t: now + self.left[t] / rate for t, rate in zip(self.left, rates, strict=True)}
            soonest = min([*self.starts.values(), *ends.values(), *self.done.values()])
            due = soonest * (1 + 1e-13)
            for t, rate in zip(self.left, rates, strict=True):
                self.left[t] -= rate * (soonest - now)
            now = soonest
            self.arrive([t for t, end in ends.items() if end <= due], now)
            self.move([t for t, start in self.starts.items() if start <= due], now)
            self.finish([t for t, end in self.done.items() if end <= due], now)
        return now

    def arrive(self, arrived: list[int], now: float):
        for t in arrived:
            self.left.pop(t, None)
            added = self.transfers[t].bytes / self.reduce_rate if self.transfers[t].reduces else 0.0
            self.done[t] = now + added

    def move(self, started: list[int], now: float):
        for t in started:
            del self.starts[t]
            if self.transfers[t].bytes:
                self.left[t] = float(self.transfers[t].bytes)
        self.arrive([t for t in started if not self.transfers[t].bytes], now)

    def finish(self, finished: list[int], now: float):
        for t in finished:
            del self.done[t]
            for follower in self.followers[t]:
                self.missing[follower] -= 1
                if not self.missing[follower]:
                    self.begin(follower, now)


def max_min(paths):
    """Rates of flows, each a dict of its links' capacities: fill all equally until a link is full, freeze, go on."""
    rate = [0.0] * len(paths)
    room = {link: capacity for path in paths for link, capacity in path.items()}
    growing = set(range(len(paths)))
    while growing:
        users: dict = {}
        for f in growing:
            for link in paths[f]:
                users.setdefault(link, []).append(f)
        share = {link: room[link] / len(members) for link, members in users.items()}
        least = min(share.values())
        full = {f for link, members in users.items() if share[link] <= least * (1 + 1e-12) for f in members}
        for f in full:
            rate[f] = least
            for link in paths[f]:
                room[link] -= least
        growing -= full
    return rate
