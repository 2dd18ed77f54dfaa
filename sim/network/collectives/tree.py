"""The pipelined double binary tree: two trees, each for half of the data, in which nobody is an inner node twice.

Sanders, Speck and Traeff 2009, "Two-tree algorithms for full bandwidth broadcast, reduction and scan"; the trees are
those of NCCL (src/graph/trees.cc). In steps of alternating colour every worker sends to one and receives from one, so
both directions of its link are always busy and never shared. As in the paper, a reduction is followed by a broadcast;
NCCL lets the two overlap, which takes the same bandwidth and about as many steps.
"""

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..schedule import IntArray
from .moves import Moves, Rounds, bounds, near_even, nothing

MIN_PIECE = 4096
"""Bytes: payloads are cut into fewer pieces rather than into smaller ones."""


def pieces(size: int, limit: int) -> int:
    """Return into how many pieces each tree cuts its half, at most the limit."""
    return max(1, min(limit, size // (2 * MIN_PIECE)))


class Step(NamedTuple):
    """Transfers that run at once: from children to parents, and which of the pieces each carries."""

    child: IntArray
    parent: IntArray
    piece: IntArray


def all_reduce(size: int, workers: int, limit: int) -> Moves:
    """Reduce up both trees, then broadcast down them once both roots are through; piece by piece."""
    if workers == 1:
        return nothing()
    count = pieces(size, limit)
    sizes = near_even(size, 2 * count)
    starts = bounds(sizes)
    rounds = Rounds(workers)
    for child, parent, piece in upwards(workers, count):
        rounds.add(child, parent, starts[piece], sizes[piece], reduces=True)
    gate = np.full(workers, -1)
    roots = _roots(workers)
    gate[roots] = rounds.received[roots[::-1]]
    for child, parent, piece in downwards(workers, count):
        rounds.add(parent, child, starts[piece], sizes[piece], gate=gate[parent])
    return rounds.moves()


def broadcast(size: int, workers: int, root: int, limit: int) -> Moves:
    """Send pieces by turns to the roots of two trees over all other workers, and down them."""
    if workers == 1:
        return nothing()
    count = pieces(size, limit)
    sizes = near_even(size, 2 * count)
    starts = bounds(sizes)
    rounds = Rounds(workers)
    for child, parent, piece in downwards(workers, count, sourced=True):
        rounds.add((root + 1 + parent) % workers, (root + 1 + child) % workers, starts[piece], sizes[piece])
    return rounds.moves()


def upwards(workers: int, count: int, sourced: bool = False) -> list[Step]:
    """Return the reduction's steps; pieces 0, 2, 4, ... of the 2 x count belong to the first tree.

    Sourced: the trees span all workers but the last one, to which both their roots hand on what they have.
    """
    child, parent, first = _edges(workers, sourced)
    edge, number = (grid.ravel() for grid in np.meshgrid(np.arange(len(child)), np.arange(count), indexing="ij"))
    when = first[edge] + 2 * number
    order = np.argsort(when, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(when[order])) + 1)
    piece = 2 * number + (edge >= workers - 1)
    return [Step(child[edge[now]], parent[edge[now]], piece[now]) for now in groups]


def downwards(workers: int, count: int, sourced: bool = False) -> list[Step]:
    """Return the broadcast's steps: the reduction's backwards in time, so that pieces go out in their order again."""
    last = 2 * (count - 1)
    steps = reversed(upwards(workers, count, sourced))
    return [Step(child, parent, last - piece + 2 * (piece % 2)) for child, parent, piece in steps]


def _roots(workers: int) -> list[int]:
    """Return the roots of the two trees."""
    return [0, (1 if workers % 2 else workers - 1) % workers]


@lru_cache(maxsize=64)
def _edges(workers: int, sourced: bool) -> tuple[IntArray, IntArray, IntArray]:
    """Return children, parents, and the steps of their first pieces; the first tree's N - 1 edges come first."""
    members = workers - sourced
    first = _in_order(members)
    if members % 2:
        second = [((child + 1) % members, (parent + 1) % members) for child, parent in first]
    else:
        second = [(members - 1 - child, members - 1 - parent) for child, parent in first]
    if sourced:
        first, second = ([*tree, (root, members)] for tree, root in zip((first, second), _roots(members), strict=True))
    edges = first + second
    colour = _colours(edges)
    step = [0] * len(edges)
    for tree in (range(workers - 1), range(workers - 1, len(edges))):
        ready = [0] * workers
        for e in tree:  # children come before their parents
            child, parent = edges[e]
            step[e] = ready[child] + (ready[child] + colour[e]) % 2
            ready[parent] = max(ready[parent], step[e] + 1)
    children, parents = np.array(edges, np.int64).T
    return children, parents, np.array(step, np.int64)


def _in_order(workers: int) -> list[tuple[int, int]]:
    """Return (child, parent) of the tree in which the odd numbers are the leaves; deepest first."""
    edges: list[tuple[int, int]] = []
    bit = 1
    while bit < workers:
        for child in range(bit, workers, 2 * bit):
            parent = (child ^ bit) | (2 * bit)
            edges.append((child, parent if parent < workers else child ^ bit))
        bit *= 2
    return edges


def _colours(edges: list[tuple[int, int]]) -> list[int]:
    """Colour edges 0 and 1 so that no worker sends twice in a colour, nor receives twice.

    Each edge meets at most one other at its sending and one at its receiving end, so they form paths and even cycles.
    """
    meets: list[list[int]] = [[] for _ in edges]
    for end in (0, 1):
        at: dict[int, list[int]] = {}
        for e, edge in enumerate(edges):
            at.setdefault(edge[end], []).append(e)
        for both in at.values():
            for a, b in pairwise(both):
                meets[a].append(b)
                meets[b].append(a)
    colour = [-1] * len(edges)
    for begin in range(len(edges)):
        if colour[begin] < 0:
            colour[begin], todo = 0, [begin]
            for e in todo:  # the list grows while it is read
                for other in meets[e]:
                    if colour[other] < 0:
                        colour[other] = 1 - colour[e]
                        todo.append(other)
    return colour
