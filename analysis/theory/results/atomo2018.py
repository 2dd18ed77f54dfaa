"""Wang, Sievert, Liu, Charles, Papailiopoulos, Wright 2018 (ATOMO): sampling atoms with the least variance."""

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from ....compressors.adaptive import CAT
from ....compressors.lowrank.atomo import Atomo
from ....compressors.quantizers.qsgd import QSGD
from ....compressors.quantizers.terngrad import TernGrad
from ....compressors.sparsifiers.wangni import Wangni
from ....compressors.sparsifiers.waterfill import probabilities
from ..check import Check, Condition, Finding, Floats, Statement
from ..probe import Probe
from .operators import of_vectors, plain, refused
from .qsgd2017 import energies

_PAPER = "Wang et al. 2018"
_RIVALS = 200
"""Other probabilities of the same sum that the chosen ones are compared with, for each vector."""

Solver = Callable[[Tensor, float], Tensor]
"""From magnitudes [R, n] and a budget to probabilities [R, n]."""

INCLUSION = Statement(
    name="atomo.inclusion",
    title="how often each atom is sent",
    source=f"{_PAPER}, Algorithm 1",
    formula="P(C(x)_i != 0) = min(1, c |x_i|), with c such that these add up to s",
    kind="expectation",
    grade="derived",
    attained="every vector",
    relation="equal",
)

SECOND_MOMENT = Statement(
    name="atomo.second_moment",
    title="the second moment of the sampled vector",
    source=f"{_PAPER} for balanced vectors, else derived",
    formula="E||C(x)||^2 = sum of the squares of the m certain entries + (sum of the others)^2 / (s - m)",
    kind="expectation",
    grade="derived",
    attained="every vector",
    relation="equal",
)

OPTIMAL = Statement(
    name="atomo.optimal",
    title="no probabilities of the same sum have less variance",
    source=f"{_PAPER}, Algorithm 1",
    formula="sum of x_i^2 / p_i <= sum of x_i^2 / q_i for every q with 0 < q_i <= 1 and sum s",
    kind="path",
    grade="derived",
    attained="q near p",
)

ONE_LEVEL = Statement(
    name="atomo.one_level",
    title="QSGD of one level and TernGrad are ATOMO at their expected sparsity",
    source=f"{_PAPER}; derived",
    formula="E||C(x)||^2 = ||x||_1 ||x||_q = the least second moment with s = ||x||_1 / ||x||_q, q = 2 or infinity",
    kind="expectation",
    grade="derived",
    attained="every vector",
    relation="equal",
)

SPECTRAL = Statement(
    name="atomo.spectral",
    title="when singular vectors are better atoms than entries",
    source=f"{_PAPER}, as the authors' code compares them; derived",
    formula="E||X^||^2 <= ||X||_1^2 / (s (a + b)), what entries have that take as many values, "
    "if sqrt(a + b) ||X||_* <= ||X||_1",
    kind="expectation",
    grade="derived",
    attained="matrices with sqrt(a + b) ||X||_* = ||X||_1",
)


def water_level(magnitudes: Floats, budget: float) -> Floats:
    """Return p_i = min(1, c m_i) whose sum is the budget, by looking for the root c; 0 where m_i = 0.

    Parameters
    ----------
    magnitudes : array, shape [n]
    budget : float
        Where it is not below the number of entries above 0, these are certain.
    """
    known = magnitudes[magnitudes > 0]
    if budget >= len(known):
        return (magnitudes > 0).astype(np.float64)
    scaled = known / known.max()
    top = budget / float(scaled.min())  # where the smallest entry's share alone is the budget
    level = brentq(lambda c: float(np.minimum(1, c * scaled).sum()) - budget, 0.0, top, xtol=1e-300, rtol=1e-15)
    p: Floats = np.minimum(1, level * magnitudes / known.max())
    return p


def least_second_moment(magnitudes: Floats, budget: float) -> float:
    """Return the least sum of m_i^2 / p_i for probabilities of a sum, from the numbers of certain entries that fit.

    With the m largest certain it is the sum of their squares + (sum of the others)^2 / (s - m), for the first m with
    which no other probability would be above 1.
    """
    descending = np.sort(magnitudes[magnitudes > 0])[::-1]
    for m, next_one in enumerate(descending):
        rest = float(descending[m:].sum())
        if budget <= m:
            break
        if next_one * (budget - m) <= rest:
            return float(np.square(descending[:m]).sum()) + rest**2 / (budget - m)
    return float(np.square(descending).sum())


def s_balanced(magnitudes: Floats, budget: float) -> bool:
    """Return whether no atom is certain beyond its share: max m_i * s <= sum of m_i."""
    return bool(magnitudes.max() * budget <= magnitudes.sum())


def inclusion(probe: Probe) -> Finding:
    """Compare how often each entry is sent with its probability."""
    conditions, budgets = _sampled(probe)
    if refused(conditions) or budgets is None:
        return Finding(INCLUSION, probe.subject, conditions, axis="entry")
    flat = [probe.flat(name) for name in probe.vectors]
    values = np.concatenate([(drawn != 0).astype(np.float64) for _, drawn in flat], axis=1)
    expected = [water_level(np.abs(x), budget) for (x, _), budget in zip(flat, budgets, strict=True)]
    bound = np.concatenate(expected)
    steps, ends = np.arange(float(len(bound))), (np.zeros(len(bound)), np.ones(len(bound)))
    return Finding(INCLUSION, probe.subject, conditions, steps, values, bound, 1e-12, "entry", probe.exact, *ends)


def second_moment(probe: Probe) -> Finding:
    """Compare the second moment with the optimum's closed form, both over ||x||^2."""
    conditions, budgets = _sampled(probe)
    if refused(conditions) or budgets is None:
        return Finding(SECOND_MOMENT, probe.subject, conditions, axis="vector")
    vectors = [probe.flat(name)[0] for name in probe.vectors]
    bound = np.array([_relative(x, least_second_moment(np.abs(x), s)) for x, s in zip(vectors, budgets, strict=True)])
    return of_vectors(SECOND_MOMENT, probe, conditions, energies(probe), bound, _largest_energies(vectors, budgets))


def optimal(probe: Probe, solve: Solver = probabilities) -> Finding:
    """Compare the sum of x_i^2 / p_i with that of other probabilities, some of them near.

    Parameters
    ----------
    probe : Probe
        With a scheme that samples entries.
    solve : callable
        What gives the scheme its probabilities.
    """
    conditions, budgets = _sampled(probe)
    if refused(conditions) or budgets is None:
        return Finding(OPTIMAL, probe.subject, conditions, axis="vector")
    draws = np.random.default_rng(probe.seed)
    values, bound = [], []
    for name, budget in zip(probe.vectors, budgets, strict=True):
        magnitudes = np.abs(probe.flat(name)[0])
        p = solve(torch.from_numpy(magnitudes)[None], budget)[0].numpy()
        own = magnitudes > 0
        values.append(float((magnitudes[own] ** 2 / p[own]).sum()))
        rivals = (_rival(p[own], min(budget, float(own.sum())), draws) for _ in range(_RIVALS))
        bound.append(min(float((magnitudes[own] ** 2 / q).sum()) for q in rivals))
    steps = np.arange(float(len(bound)))
    return Finding(OPTIMAL, probe.subject, conditions, steps, np.array([values]), np.array(bound), axis="vector")


def one_level(probe: Probe) -> Finding:
    """Compare the second moment of a quantizer of one level with ATOMO's least one, both over ||x||^2."""
    operator = probe.operator
    quantizer = (isinstance(operator, QSGD) and operator.levels == 1 and _one_bucket(operator, probe)) or (
        isinstance(operator, TernGrad) and operator.clip == 0
    )
    conditions = (
        *plain(probe),
        Condition("QSGD of one level and one bucket, or TernGrad that does not clip", quantizer),
    )
    if refused(conditions):
        return Finding(ONE_LEVEL, probe.subject, conditions, axis="vector")
    order = 2 if isinstance(operator, QSGD) and operator.norm == "l2" else np.inf
    magnitudes = [np.abs(probe.flat(name)[0]) for name in probe.vectors]
    budgets = [float(m.sum() / (np.linalg.norm(m, order) or 1.0)) for m in magnitudes]
    pairs = list(zip(magnitudes, budgets, strict=True))
    bound = np.array([_relative(m, least_second_moment(m, s)) for m, s in pairs])
    most = np.array([_relative(m, float(np.count_nonzero(m) * np.linalg.norm(m, order) ** 2)) for m in magnitudes])
    return of_vectors(ONE_LEVEL, probe, conditions, energies(probe), bound, most)


def spectral(probe: Probe) -> Finding:
    """Compare the second moment of sampled singular vectors with what entries of as many values would have."""
    operator = probe.operator
    singular = isinstance(operator, Atomo) and operator.basis == "singular"
    matrices = [v.reshape(len(v), -1) if v.ndim > 1 else v.reshape(1, -1) for v in probe.vectors.values()]
    conditions = (
        *plain(probe),
        Condition("ATOMO with singular vectors", singular),
        *_spectral_conditions(probe, matrices),
    )
    if refused(conditions) or not isinstance(operator, Atomo):
        return Finding(SPECTRAL, probe.subject, conditions, axis="matrix")
    budgets = [operator.expected_atoms(tuple(v.shape), 8) for v in probe.vectors.values()]
    bound = np.array(
        [_relative(x, float(np.abs(x).sum() ** 2 / (s * sum(x.shape)))) for x, s in zip(matrices, budgets, strict=True)]
    )
    return of_vectors(SPECTRAL, probe, conditions, energies(probe), bound)


def _spectral_conditions(probe: Probe, matrices: list[Floats]) -> tuple[Condition, ...]:
    """Return that singular vectors are the better atoms, and that neither kind has certain ones."""
    operator = probe.operator
    if not isinstance(operator, Atomo):
        return ()
    better, balanced = True, True
    for x, vector in zip(matrices, probe.vectors.values(), strict=True):
        sigma = np.asarray(np.linalg.svd(x, compute_uv=False), dtype=np.float64)
        entries = np.abs(x).reshape(-1)
        better &= bool(np.sqrt(sum(x.shape)) * sigma.sum() <= entries.sum() * (1 + 1e-12))
        budget = operator.expected_atoms(tuple(vector.shape), 8)
        balanced &= s_balanced(sigma, budget) and s_balanced(entries, budget * sum(x.shape))
    return (
        Condition("sqrt(a + b) times the nuclear norm is at most the sum of the entries' magnitudes", better),
        Condition("s-balanced: no atom is certain, in either basis", balanced),
    )


def budget_of(probe: Probe) -> list[float] | None:
    """Return the expected number of entries that a scheme sends of each vector, None if it does not sample entries."""
    operator, budgets = probe.operator, []
    for vector in probe.vectors.values():
        shape = tuple(vector.shape)
        if isinstance(operator, Atomo) and operator.basis == "elements":
            budgets.append(operator.expected_atoms(shape, 8))
        elif isinstance(operator, Wangni):
            budgets.append(float(operator.count(shape)))
        elif isinstance(operator, CAT) and operator.operator == "stochastic":
            budgets.append(float(operator.choose(torch.from_numpy(vector.reshape(prod(shape))))))
        else:
            return None
    return budgets


def _sampled(probe: Probe) -> tuple[tuple[Condition, ...], list[float] | None]:
    """Return the conditions of statements about sampled entries, and the budgets."""
    budgets = budget_of(probe)
    sampling = "entries sampled independently (atomo with basis=elements, wangni, cat with operator=stochastic)"
    return (*plain(probe), Condition(sampling, budgets is not None)), budgets


def _rival(p: Floats, budget: float, draws: np.random.Generator) -> Floats:
    """Return other probabilities of the same sum, mostly near to given ones, which may be of a smaller sum."""
    reach = 10.0 ** draws.uniform(-4, 0.5)
    return water_level(p * np.exp(reach * draws.standard_normal(len(p))), budget)


def _one_bucket(operator: QSGD, probe: Probe) -> bool:
    return all(vector.size <= operator.bucket for vector in probe.vectors.values())


def _relative(x: Floats, second: float) -> float:
    """Return a second moment over ||x||^2."""
    return second / (float(np.square(x).sum()) or 1.0)


def _largest_energies(vectors: list[Floats], budgets: list[float]) -> Floats:
    """Return the largest ||C(x)||^2 / ||x||^2: that of a draw in which every entry is sent."""
    most = []
    for x, budget in zip(vectors, budgets, strict=True):
        p = water_level(np.abs(x), budget)
        most.append(_relative(x, float(np.square(x[p > 0] / p[p > 0]).sum())))
    return np.array(most)


OPERATOR_CHECKS = (
    Check(INCLUSION, inclusion),
    Check(SECOND_MOMENT, second_moment),
    Check(OPTIMAL, optimal),
    Check(ONE_LEVEL, one_level),
    Check(SPECTRAL, spectral),
)
