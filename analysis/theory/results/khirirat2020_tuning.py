"""Khirirat, Magnússon, Aytekin, Johansson 2020 (CAT): how many entries are sent, and what of the norm they keep."""

from collections.abc import Callable
from dataclasses import replace
from math import ceil, floor, log2, prod

import numpy as np
import torch
from torch import Tensor

from ....compressors.adaptive import CAT
from ....compressors.sparsifiers.selection import top_k
from ....compressors.sparsifiers.topk import TopK
from ..check import Check, Condition, Finding, Floats, Statement
from ..probe import Probe
from .atomo2018 import least_second_moment
from .operators import of_vectors, plain, refused
from .qsgd2017 import energies

_PAPER = "Khirirat et al. 2020"
_ITEM_BITS = 64
"""Of a value: vectors of probes are float64."""

Selector = Callable[[Tensor, int], Tensor]
"""From values [1, n] and T to the indices [1, T] of the largest."""

ONE_ENTRY = Statement(
    name="cat.one_entry",
    title="without overhead one entry is always the best choice",
    source=f"{_PAPER}; derived",
    formula="alpha(T*) / T* = alpha(1): T* = 1, or as good, where the cost is in proportion to T",
    kind="path",
    grade="derived",
    attained="every vector",
    relation="equal",
)

PACKETS = Statement(
    name="cat.packets",
    title="packets are filled",
    source=f"{_PAPER}; derived",
    formula="T* is a multiple of tau_max = floor(packet / bytes of an entry), or n",
    kind="path",
    grade="derived",
    attained="every vector",
    relation="equal",
)

BEST = Statement(
    name="cat.best",
    title="no number of entries is better than the choice",
    source=f"{_PAPER}, definition of T*",
    formula="max over T of gain(T) / cost(T) <= r gain(T*) / cost(T*); gain is alpha, beta or omega; r = 1, or, "
    "where packets of x entries are filled with whole ones, x / floor(x)",
    kind="path",
    grade="derived",
    attained="every vector, where costs are not those of packets",
)

KEPT = Statement(
    name="cat.kept",
    title="what is sent keeps the part of the norm that the choice counts on",
    source=f"{_PAPER}, lemmas on descent",
    formula="||x||^2 - ||C(x) - x||^2 = gain(T*) ||x||^2 (top, sq); E||C(x)||^2 = ||x||^2 / omega(T*) (stochastic)",
    kind="expectation",
    grade="derived",
    attained="every vector",
    relation="equal",
)

CONCAVE = Statement(
    name="cat.concave",
    title="the kept part of the T largest entries is concave in T and at least T / n",
    source=f"{_PAPER}; derived",
    formula="alpha(T+1) - 2 alpha(T) + alpha(T-1) <= 0 and T / n - alpha(T) <= 0, the largest of all raised by 1",
    kind="path",
    grade="derived",
    attained="flat vectors",
)


def gains(operator: str, vector: Floats) -> Floats:
    """Return alpha, beta or omega of T = 1 to n, by their definitions, one T after the other.

    Parameters
    ----------
    operator : {"top", "sq", "stochastic"}
    vector : array, shape [n]
    """
    magnitudes = np.sort(np.abs(vector))[::-1]
    norm2, found = float(np.square(magnitudes).sum()), []
    for count in range(1, len(magnitudes) + 1):
        if operator == "top":
            found.append(float(np.square(magnitudes[:count]).sum()) / norm2)
        elif operator == "sq":
            found.append(float(magnitudes[:count].sum()) ** 2 / (count * norm2))
        else:
            found.append(norm2 / least_second_moment(magnitudes, count))
    return np.array(found)


def costs(scheme: CAT, size: int) -> Floats:
    """Return the cost of T = 1 to n entries of float64, by the paper's formulas."""
    bits, counts = max(1, ceil(log2(size))), np.arange(1.0, size + 1)
    entries = _ITEM_BITS + counts * (bits + 1) if scheme.operator == "sq" else counts * (bits + _ITEM_BITS)
    if scheme.cost == "payload":
        return entries / 8
    packets = entries / 8 / scheme.packet
    return scheme.fixed + scheme.per_packet * (np.ceil(packets) if scheme.cost == "packets" else packets)


def capacity(scheme: CAT, size: int) -> float:
    """Return how many entries of float64 and their positions fit into a packet, in fractions of an entry."""
    return 8 * scheme.packet / (max(1, ceil(log2(size))) + _ITEM_BITS)


def one_entry(probe: Probe) -> Finding:
    """Compare what the choice keeps for each entry with what the largest alone keeps."""
    operator = probe.operator
    free = isinstance(operator, CAT) and (
        operator.cost == "payload" or (operator.cost == "affine" and operator.fixed == 0)
    )
    top = isinstance(operator, CAT) and operator.operator == "top"
    conditions = (*_conditions(probe), Condition("operator=top", top), Condition("no cost of a message itself", free))
    if refused(conditions) or not isinstance(operator, CAT):
        return Finding(ONE_ENTRY, probe.subject, conditions, axis="vector")
    alphas = [gains("top", vector.reshape(-1)) for vector in probe.vectors.values()]
    values = [float(own[int(count) - 1] / count) for own, count in zip(alphas, _choices(operator, probe), strict=True)]
    return _path(ONE_ENTRY, probe, conditions, values, np.array([own[0] for own in alphas]))


def packets(probe: Probe) -> Finding:
    """Compare the numbers of entries with the nearest that fill packets."""
    operator = probe.operator
    charged = isinstance(operator, CAT) and operator.cost == "packets"
    top = isinstance(operator, CAT) and operator.operator == "top"
    conditions = (*_conditions(probe), Condition("operator=top", top), Condition("cost=packets", charged))
    if refused(conditions) or not isinstance(operator, CAT):
        return Finding(PACKETS, probe.subject, conditions, axis="vector")
    chosen = _choices(operator, probe)
    sizes = [vector.size for vector in probe.vectors.values()]
    units = [max(1, floor(capacity(operator, size))) for size in sizes]
    pairs = zip(chosen, sizes, units, strict=True)
    bound = [float(size) if count == size else max(1.0, round(count / unit)) * unit for count, size, unit in pairs]
    return _path(PACKETS, probe, conditions, chosen, np.array(bound))


def best(probe: Probe) -> Finding:
    """Compare the choice's gain for its cost with that of every other number of entries."""
    operator, conditions = probe.operator, _conditions(probe)
    if refused(conditions) or not isinstance(operator, CAT):
        return Finding(BEST, probe.subject, conditions, axis="vector")
    values, bound = [], []
    for count, vector in zip(_choices(operator, probe), probe.vectors.values(), strict=True):
        ratios = gains(operator.operator, vector.reshape(-1)) / costs(operator, vector.size)
        values.append(float(ratios.max()))
        fit = capacity(operator, vector.size)
        split = operator.operator == "top" and operator.cost == "packets" and fit >= 1
        bound.append(float(ratios[int(count) - 1]) * (fit / floor(fit) if split else 1.0))
    return _path(BEST, probe, conditions, values, np.array(bound))


def kept(probe: Probe) -> Finding:
    """Compare what is lost, or the second moment, with what follows from the number of entries."""
    operator, conditions = probe.operator, _conditions(probe)
    if refused(conditions) or not isinstance(operator, CAT):
        return Finding(KEPT, probe.subject, conditions, axis="vector")
    bound, most = [], []
    for count, vector in zip(_choices(operator, probe), probe.vectors.values(), strict=True):
        gain = float(gains(operator.operator, vector.reshape(-1))[int(count) - 1])
        bound.append(1 / gain if operator.unbiased else gain)
        most.append(float(vector.size) ** 2 if operator.unbiased else 1.0)
    drawn = energies(probe) if operator.unbiased else {name: 1 - lost for name, lost in probe.errors().items()}
    finding = of_vectors(KEPT, probe, conditions, drawn, np.array(bound), np.array(most))
    return replace(finding, slack=1e-12)


def concave(probe: Probe, select: Selector = top_k) -> Finding:
    """Compare the second differences of the kept part, and how far it is below T / n, with 0.

    Parameters
    ----------
    probe : Probe
    select : callable
        What the scheme selects with.
    """
    operator = probe.operator
    largest = isinstance(operator, TopK) or (isinstance(operator, CAT) and operator.operator == "top")
    conditions = (*plain(probe), Condition("topk, or cat with operator=top", largest))
    if refused(conditions):
        return Finding(CONCAVE, probe.subject, conditions, axis="vector")
    values = []
    for vector in probe.vectors.values():
        row, size = vector.reshape(-1), prod(vector.shape)
        x = torch.from_numpy(row)[None]
        chosen = [select(x, count)[0].numpy() for count in range(1, size + 1)]
        alpha = np.array([0.0, *(float(np.square(row[own]).sum()) for own in chosen)]) / float(np.square(row).sum())
        short = np.arange(size + 1) / size - alpha
        values.append(1 + max(float(short.max()), float(np.diff(alpha, 2).max(initial=0.0))))
    return _path(CONCAVE, probe, conditions, values, np.ones(len(values)))


def _conditions(probe: Probe) -> tuple[Condition, ...]:
    operator = probe.operator
    known = isinstance(operator, CAT) and operator.cost != "cluster"
    return (*plain(probe), Condition("cat, with a cost that is given", known))


def _choices(scheme: CAT, probe: Probe) -> list[float]:
    """Return T for each vector."""
    rows = (np.ascontiguousarray(vector.reshape(-1), dtype=np.float64) for vector in probe.vectors.values())
    return [float(scheme.choose(torch.from_numpy(row))) for row in rows]


def _path(
    statement: Statement, probe: Probe, conditions: tuple[Condition, ...], values: list[float], bound: Floats
) -> Finding:
    """Return a finding without chance, with a column for each vector."""
    steps = np.arange(float(len(bound)))
    return Finding(statement, probe.subject, conditions, steps, np.array([values]), bound, axis="vector")


OPERATOR_CHECKS = (
    Check(ONE_ENTRY, one_entry),
    Check(PACKETS, packets),
    Check(BEST, best),
    Check(KEPT, kept),
    Check(CONCAVE, concave),
)
