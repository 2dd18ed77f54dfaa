"""Wangni, Wang, Liu, Zhang 2018: the sparsest sampling for a given variance."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import brentq

from ....compressors.sparsifiers.waterfill import probabilities
from ..check import Check, Condition, Finding, Floats, Statement
from ..probe import Probe
from .atomo2018 import Solver, budget_of
from .operators import plain, refused

_PAPER = "Wangni et al. 2018"
_RIVALS = 200
_ROUNDS = 100
"""Of the greedy algorithm, which ends by itself long before."""

CONSTRAINT = Statement(
    name="wangni.constraint",
    title="the closed form spends the whole variance that is allowed",
    source=f"{_PAPER}, closed form",
    formula="sum of x_i^2 / p_i = (1 + eps) ||x||^2 for p_i = min(1, lambda |x_i|), eps being that of the scheme",
    kind="path",
    grade="derived",
    attained="",
    relation="equal",
)

CLOSED_FORM = Statement(
    name="wangni.closed_form",
    title="the closed form sends as many entries as the scheme does for the same variance",
    source=f"{_PAPER}, closed form",
    formula="sum of min(1, lambda |x_i|) at the scheme's eps = sum of the scheme's p_i",
    kind="path",
    grade="derived",
    attained="every vector",
    relation="equal",
)

GREEDY = Statement(
    name="wangni.greedy",
    title="the greedy algorithm ends at the scheme's probabilities",
    source=f"{_PAPER}, Algorithm 3",
    formula="sum of x_i^2 / p_i of the greedy algorithm = that of the scheme's p_i, both over ||x||^2",
    kind="path",
    grade="derived",
    attained="every vector",
    relation="equal",
)

OPTIMAL = Statement(
    name="wangni.optimal",
    title="no probabilities of the same variance send fewer entries",
    source=f"{_PAPER}, the problem that is solved",
    formula="sum of p_i <= sum of q_i for every q with 0 < q_i <= 1 and the same sum of x_i^2 / q_i",
    kind="path",
    grade="derived",
    attained="q near p",
)

SPARSITY = Statement(
    name="wangni.sparsity",
    title="approximately sparse vectors need few entries",
    source=f"{_PAPER}, approximately sparse gradients; derived",
    formula="sum of p_i <= (1 + rho) s at eps = rho, with ||x outside S||_1 = rho ||x in S||_1, |S| = s; worst s",
    kind="path",
    grade="derived",
    attained="",
)


def closed_form(magnitudes: Floats, eps: float) -> Floats:
    """Return the probabilities of least sum whose variance is at most eps ||x||^2; 0 where x_i = 0.

    With the k largest certain, lambda = (sum of the others) / (eps ||x||^2 + sum of their squares), for the first k
    for which no other probability is above 1.
    """
    order = np.argsort(-magnitudes, kind="stable")
    descending = magnitudes[order]
    squares = np.square(descending)
    rest, rest2 = np.cumsum(descending[::-1])[::-1], np.cumsum(squares[::-1])[::-1]
    levels = rest / np.maximum(eps * squares.sum() + rest2, np.finfo(np.float64).tiny)
    k = int(np.argmax(levels * descending <= 1 + 1e-12)) if (levels * descending <= 1 + 1e-12).any() else len(rest)
    p = (descending > 0).astype(np.float64)
    if k < len(rest):
        p[k:] = np.minimum(1.0, levels[k] * descending[k:])
    result = np.empty_like(p)
    result[order] = p
    return result


def greedy(magnitudes: Floats, budget: float) -> Floats:
    """Return the probabilities that the paper's Algorithm 3 ends with: those below 1 are scaled until none is cut."""
    own = magnitudes > 0
    budget = min(budget, float(own.sum()))
    p = np.where(own, np.minimum(1.0, budget * magnitudes / (magnitudes.sum() or 1.0)), 0.0)
    for _ in range(_ROUNDS):
        free = own & (p < 1)
        if not free.any():
            break
        factor = (budget - (own.sum() - free.sum())) / p[free].sum()
        p[free] = np.minimum(1.0, factor * p[free])
        if factor <= 1 + 1e-15:
            break
    return p


def approximate_sparsity(magnitudes: Floats, count: int) -> float:
    """Return rho: the sum of all but the ``count`` largest magnitudes, over the sum of these."""
    descending = np.sort(magnitudes)[::-1]
    return float(descending[count:].sum() / descending[:count].sum())


def constraint(probe: Probe) -> Finding:
    """Compare the closed form's variance with the one that it is given."""

    def sides(x: Floats, p: Floats) -> tuple[float, float]:
        return _second(x, closed_form(x, _variance(x, p))), _second(x, p)

    return _of_probabilities(CONSTRAINT, probe, sides)


def closed_form_count(probe: Probe, solve: Solver = probabilities) -> Finding:
    """Compare the closed form's expected number of entries with the scheme's."""

    def sides(x: Floats, p: Floats) -> tuple[float, float]:
        return float(closed_form(x, _variance(x, p)).sum()), float(p.sum())

    return _of_probabilities(CLOSED_FORM, probe, sides, solve)


def greedy_variance(probe: Probe, solve: Solver = probabilities) -> Finding:
    """Compare the greedy algorithm's variance with the scheme's, for as many entries."""

    def sides(x: Floats, p: Floats) -> tuple[float, float]:
        return _second(x, greedy(x, float(p.sum()))), _second(x, p)

    return _of_probabilities(GREEDY, probe, sides, solve)


def optimal(probe: Probe, solve: Solver = probabilities) -> Finding:
    """Compare the scheme's expected number of entries with that of other probabilities of the same variance."""
    draws = np.random.default_rng(probe.seed)

    def sides(x: Floats, p: Floats) -> tuple[float, float]:
        rivals = (_rival(x, p, draws) for _ in range(_RIVALS))
        return float(p.sum()), min(float(q.sum()) for q in rivals)

    return _of_probabilities(OPTIMAL, probe, sides, solve)


def sparsity(probe: Probe) -> Finding:
    """Compare the expected number of entries with (1 + rho) s, for the s where it is nearest."""

    def sides(x: Floats, _: Floats) -> tuple[float, float]:
        pairs = []
        for count in range(1, int(np.count_nonzero(x)) + 1):
            rho = approximate_sparsity(x, count)
            pairs.append((float(closed_form(x, rho).sum()), (1 + rho) * count))
        return max(pairs, key=lambda pair: pair[0] / pair[1])

    return _of_probabilities(SPARSITY, probe, sides)


Sides = Callable[[Floats, Floats], tuple[float, float]]


def _of_probabilities(statement: Statement, probe: Probe, sides: Sides, solve: Solver = probabilities) -> Finding:
    """Return a finding whose sides follow from each vector's magnitudes and the scheme's probabilities."""
    budgets = budget_of(probe)
    sampling = Condition("entries sampled independently, with probabilities of least variance", budgets is not None)
    conditions = (*plain(probe), sampling)
    if refused(conditions) or budgets is None:
        return Finding(statement, probe.subject, conditions, axis="vector")
    values, bound = [], []
    for name, budget in zip(probe.vectors, budgets, strict=True):
        x = np.abs(np.asarray(probe.vectors[name], dtype=np.float64).reshape(-1))
        p = solve(torch.from_numpy(x)[None], budget)[0].numpy()
        left, right = sides(x, p)
        values.append(left)
        bound.append(right)
    steps = np.arange(float(len(bound)))
    return Finding(statement, probe.subject, conditions, steps, np.array([values]), np.array(bound), axis="vector")


def _second(magnitudes: Floats, p: Floats) -> float:
    """Return the sum of x_i^2 / p_i over ||x||^2, 1 + eps."""
    own = magnitudes > 0
    return float((magnitudes[own] ** 2 / p[own]).sum() / np.square(magnitudes).sum())


def _variance(magnitudes: Floats, p: Floats) -> float:
    """Return the sum of x_i^2 (1 / p_i - 1) over ||x||^2, eps, with all its digits where it is small."""
    own = magnitudes > 0
    return float((magnitudes[own] ** 2 * (1 - p[own]) / p[own]).sum() / np.square(magnitudes).sum())


def _rival(magnitudes: Floats, p: Floats, draws: np.random.Generator) -> Floats:
    """Return other probabilities of the same variance, mostly near to given ones."""
    own, allowed = magnitudes > 0, _second(magnitudes, p)
    other = np.where(own, p * np.exp(10.0 ** draws.uniform(-4, 0.5) * draws.standard_normal(len(p))), 0.0)

    def excess(log_scale: float) -> float:
        return _second(magnitudes, np.minimum(1.0, other * np.exp(log_scale))) - allowed

    # With all of them certain the variance is 0, so it is met on the way there; a little more is sent for rounding.
    scale = brentq(excess, -50.0, 50.0, xtol=1e-13) + 1e-12 if excess(-50.0) > 0 else -50.0
    return np.where(own, np.minimum(1.0, other * np.exp(scale)), 0.0)


OPERATOR_CHECKS = (
    Check(CONSTRAINT, constraint),
    Check(CLOSED_FORM, closed_form_count),
    Check(GREEDY, greedy_variance),
    Check(OPTIMAL, optimal),
    Check(SPARSITY, sparsity),
)
