"""A fabric of any shape: nodes, cables between them, and the best way over them, found when it is first asked for."""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Literal, NamedTuple

import numpy as np

from .topology import NO_LINK, FloatArray, IntArray

Cost = tuple[int, int]
Way = tuple[tuple[int, ...], float]
"""The links in order, and the latency that they add."""


class Edge(NamedTuple):
    """One direction of a cable: from node to node over a link, which the two directions of half duplex share."""

    src: int
    dst: int
    link: int
    latency_s: float


class GraphWays:
    """The ways through a graph.

    The way has the fewest hops, and among those the least latency, or the other way about. Of equally good ways the one
    is taken whose next node comes first in the order of the nodes. Where every edge has one back that is as long, ways
    are sought from the lower-numbered end, and the way back is the same reversed. Hosts pass on what is not for them,
    as in a torus.

    Parameters
    ----------
    names, capacity_bps
        Of the links.
    nodes : int
    edges : sequence of Edge
        At most one from a node to another.
    routing : {"hops", "latency"}
    fixed : sequence of sequence of int
        Ways that are given, as nodes.

    Notes
    -----
    Pairs that are asked for must have a way: the cluster's description is checked with :meth:`cut_off`.
    """

    def __init__(
        self,
        names: Sequence[str],
        capacity_bps: FloatArray,
        nodes: int,
        edges: Sequence[Edge],
        routing: Literal["hops", "latency"],
        fixed: Iterable[Sequence[int]],
    ) -> None:
        self.names = tuple(names)
        self.capacity_bps = capacity_bps
        self._nodes = nodes
        self._out: list[dict[int, Edge]] = [{} for _ in range(nodes)]
        self._in: list[dict[int, Edge]] = [{} for _ in range(nodes)]
        for edge in edges:
            self._out[edge.src][edge.dst] = edge
            self._in[edge.dst][edge.src] = edge
        self._symmetric = all(
            edge.src in self._out[edge.dst] and self._out[edge.dst][edge.src].latency_s == edge.latency_s
            for edge in edges
        )
        dead_end = [len({*self._out[node], *self._in[node]}) < 2 for node in range(nodes)]
        self._ends_here = {node for node in range(nodes) if dead_end[node]}
        self._passing = [[e for e in self._in[node].values() if not dead_end[e.src]] for node in range(nodes)]
        self._routing = routing
        self._known: dict[int, Way] = {path[0] * nodes + path[-1]: self._way(path) for path in fixed}

    def between(self, src: IntArray, dst: IntArray) -> tuple[IntArray, FloatArray]:
        pairs, where = np.unique(src * self._nodes + dst, return_inverse=True)
        keys = pairs.tolist()
        self._find([key for key in keys if key not in self._known])
        ways = [self._known[key] for key in keys]
        lengths = np.array([len(links) for links, _ in ways], np.int64)
        table = np.full((len(keys), lengths.max(initial=0)), NO_LINK)
        filled = np.arange(table.shape[1]) < lengths[:, None]
        table[filled] = np.fromiter(chain.from_iterable(links for links, _ in ways), np.int64, lengths.sum())
        return table[where], np.array([latency_s for _, latency_s in ways], np.float64)[where]

    def cut_off(self, nodes: Iterable[int], root: int) -> list[int]:
        """Return those of the nodes that a root cannot reach, or that cannot reach it."""
        there, back = self._reached(root, self._out), self._reached(root, self._in)
        return [node for node in nodes if node not in there or node not in back]

    def _reached(self, root: int, neighbours: Sequence[Mapping[int, Edge]]) -> set[int]:
        reached, found = {root}, [root]
        for node in found:  # the list grows while it is read
            for other in neighbours[node]:
                if other not in reached:
                    reached.add(other)
                    found.append(other)
        return reached

    def _find(self, keys: Sequence[int]) -> None:
        """Find the ways of pairs, all those with one end by one search."""
        wanted: dict[int, set[int]] = defaultdict(set)
        for key in keys:
            src, dst = divmod(key, self._nodes)
            if self._symmetric and src > dst:
                src, dst = dst, src
            wanted[dst].add(src)
        for dst, sources in wanted.items():
            costs = self._costs(dst, sources)
            for src in sources:
                path = self._descend(src, dst, costs)
                self._known.setdefault(src * self._nodes + dst, self._way(path))
                if self._symmetric:
                    self._known.setdefault(dst * self._nodes + src, self._way(path[::-1]))

    def _costs(self, dst: int, sources: set[int]) -> dict[int, Cost]:
        """Return what the best way to a node costs, from all nodes no farther than the farthest source (Dijkstra)."""
        entries: dict[int, list[Edge]] = defaultdict(list)
        for source in sources & self._ends_here:  # of all that nothing passes, a search looks at its sources only
            for node, edge in self._out[source].items():
                entries[node].append(edge)
        best: dict[int, Cost] = {dst: (0, 0)}
        queue = [((0, 0), dst)]
        done: dict[int, Cost] = {}
        missing = set(sources)
        while missing:
            cost, node = heapq.heappop(queue)
            if node in done:
                continue
            done[node] = cost
            missing.discard(node)
            for edge in chain(self._passing[node], entries.get(node, ())):
                if edge.src in done:
                    continue
                new = self._add(cost, edge)
                if edge.src not in best or new < best[edge.src]:
                    best[edge.src] = new
                    heapq.heappush(queue, (new, edge.src))
        return done

    def _descend(self, src: int, dst: int, costs: Mapping[int, Cost]) -> list[int]:
        """Return the nodes of the best way, the lowest one wherever several are as good."""
        path = [src]
        while (node := path[-1]) != dst:
            path.append(
                min(
                    other
                    for other, edge in self._out[node].items()
                    if other in costs and self._add(costs[other], edge) == costs[node]
                )
            )
        return path

    def _add(self, cost: Cost, edge: Edge) -> Cost:
        """Return a cost with an edge more; latencies count in whole femtoseconds, so that sums are exact."""
        step = (1, round(edge.latency_s * 1e15))
        if self._routing == "latency":
            step = step[::-1]
        return cost[0] + step[0], cost[1] + step[1]

    def _way(self, path: Sequence[int]) -> Way:
        edges = [self._out[a][b] for a, b in pairwise(path)]
        return tuple(edge.link for edge in edges), math.fsum(edge.latency_s for edge in edges)
