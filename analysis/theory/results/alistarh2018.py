"""Alistarh, Hoefler, Johansson, Khirirat, Konstantinov, Renggli 2018: sparsified gradients with error correction.

The paper's x_t is the iterate without the memory, v_t the one at which gradients are taken; v_t - x_t is the workers'
mean memory. All lemmas are in the form that is derived in the documentation.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ....compressors.base import Codec
from ....compressors.quantizers.signs import ScaledSign
from ....compressors.sparsifiers.topk import TopK
from ..check import Check, Condition, Finding, Floats, Statement, at_most
from ..evidence import Evidence
from .conditions import (
    bounded_below,
    contracts_every_vector,
    feedback_conditions,
    gradients_measured,
    iterates_kept,
    memory_conditions,
    optimum_known,
    smooth,
    strongly_convex,
)
from .sides import Ints, checkpoints, distance2, paired, relative, running_means, start_gap

_PAPER = "Alistarh et al. 2018"
_CONSTANT = "constant gradients, C(x) = (1 - sqrt(1 - delta)) x"
_NOTATION = "with g = sqrt(1 - delta), xi the largest of these runs and alpha_t G_t the workers' mean update"

STEP = Statement(
    name="alistarh.step",
    title="the mean memory grows by no more than an update, and shrinks with what is sent",
    source=f"derived from {_PAPER}, Assumption 1",
    formula=f"||v_t - x_t|| / (g ||v_{{t-1}} - x_{{t-1}}|| + (g + xi) ||alpha_{{t-1}} G_{{t-1}}||) <= 1, {_NOTATION}",
    kind="path",
    grade="derived",
    attained=f"{_CONSTANT}: equality at every step",
)

SUM = Statement(
    name="alistarh.sum",
    title="the mean memory is bounded by a fading sum of the updates",
    source=f"derived from {_PAPER}, Assumption 1",
    formula="||v_t - x_t|| / ((1 + xi/g) sum_{k=1..t} g^k ||alpha_{t-k} G_{t-k}||) <= 1, " + _NOTATION,
    kind="path",
    grade="derived",
    attained=f"{_CONSTANT}: equality at every step",
)

SQUARED = Statement(
    name="alistarh.squared",
    title="the squared mean memory is bounded by a fading sum of squared updates, where most entries are sent",
    source=f"{_PAPER}, the lemma on v_t - x_t, derived",
    formula="||v_t - x_t||^2 / ((1 + xi/g)^2 sum_{k=1..t} (2 g^2)^k ||alpha_{t-k} G_{t-k}||^2) <= 1 "
    "where 2 g^2 < 1, which is K > n/2, " + _NOTATION,
    kind="path",
    grade="derived",
    attained=f"{_CONSTANT}, learning rates that grow by 2 g: equality in the limit",
)

CAUCHY = Statement(
    name="alistarh.cauchy",
    title="the squared mean memory is bounded by a fading sum of squared updates, however few entries are sent",
    source=f"derived, in place of {_PAPER}'s lemma",
    formula="||v_t - x_t||^2 / ((1 + xi/g)^2 g / (1 - g) sum_{k=1..t} g^k ||alpha_{t-k} G_{t-k}||^2) <= 1, "
    + _NOTATION,
    kind="path",
    grade="derived",
    attained=f"{_CONSTANT}: equality in the limit",
)

CONSTANT = Statement(
    name="alistarh.constant",
    title="the mean memory stays bounded",
    source=f"derived from {_PAPER}, Assumption 1",
    formula=f"E||v_t - x_t|| <= alpha M (g + xi) / (1 - g), with E||G_t||^2 <= M^2; {_NOTATION}",
    kind="expectation",
    grade="derived",
    attained=f"{_CONSTANT}: equality in the limit",
)

CONVEX = Statement(
    name="alistarh.convex",
    title="it is rare not to have come near the optimum",
    source=f"{_PAPER}, the theorem for convex objectives, with the constants of the martingale argument behind it",
    formula="P(||v_t - x*||^2 > eps for all t <= T) <= log(e ||x_0 - x*||^2 / eps) / (alpha c T), "
    "with c eps = alpha (M^2 + 2 sqrt(eps) L M C), C = (g + xi) / (1 - g), c the strong convexity",
    kind="frequency",
    grade="indicative",
    attained="",
)

DESCENT = Statement(
    name="alistarh.descent",
    title="gradients become small on average, but for what the memory explains",
    source=f"derived, in place of {_PAPER}'s theorem for non-convex objectives",
    formula="sum_{t<T} alpha_t E||grad f(v_t)||^2 / A_T <= (2 (f(x_0) - f*) + L M^2 sum_{t<T} alpha_t^2 "
    "+ L^2 sum_{t<T} alpha_t E||v_t - x_t||^2) / A_T, with A_T = sum_{t<T} alpha_t",
    kind="expectation",
    grade="derived",
    attained="a slope that ends in a parabola: near a half, which the proof gives away",
)

NONCONVEX = Statement(
    name="alistarh.nonconvex",
    title="gradients become small on average",
    source=f"derived, in place of {_PAPER}'s theorem for non-convex objectives",
    formula="(1/T) sum_{t<T} E||grad f(v_t)||^2 <= 2 (f(x_0) - f*) / (alpha T) + alpha L M^2 "
    "+ alpha^2 L^2 M^2 ((g + xi) / (1 - g))^2",
    kind="expectation",
    grade="derived",
    attained="a slope that ends in a parabola: near a half, which the proof gives away",
)


class Discrepancy(NamedTuple):
    """Assumption 1's xi_t = ||C(mean of p_i) - mean of C(p_i)|| / ||G_t|| along runs; NaN where C cannot be asked."""

    largest: float
    median: float
    percentile_90: float
    percentile_99: float


def discrepancies(evidence: Evidence) -> Floats:
    """Return xi_t of every run and step, [R, S]; infinite where the workers' gradients cancel and choices do not."""
    gap, update = np.sqrt(evidence.stack("gap2")), np.sqrt(evidence.stack("mean2"))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.where(gap == 0, 0.0, gap / update)
    return ratio


def discrepancy(evidence: Evidence) -> Discrepancy:
    """Return the largest xi_t and its quantiles over all runs and steps."""
    xi = discrepancies(evidence)
    if np.isnan(xi).any():
        return Discrepancy(*[float("nan")] * 4)
    # Of the order statistics the upper ones, as an infinite value cannot be interpolated.
    quantiles = (float(np.quantile(xi, level, method="higher")) for level in (0.5, 0.9, 0.99))
    return Discrepancy(float(xi.max()), *quantiles)


class _Assumed(NamedTuple):
    """What the lemmas presuppose, xi, and whether bounds can be computed from it."""

    conditions: tuple[Condition, ...]
    xi: float
    usable: bool


class _Lemma(NamedTuple):
    """What all lemmas use: g, xi, and the norms of memories [R, S+1] and updates [R, S]."""

    g: float
    xi: float
    memory: Floats
    update: Floats


def step(evidence: Evidence) -> Finding:
    """Compare every mean memory with the one before it and the update."""
    return _pathwise(STEP, evidence, _after_a_step, 1)


def total(evidence: Evidence) -> Finding:
    """Compare every mean memory with the fading sum of updates."""
    return _pathwise(SUM, evidence, _fading_sum, 1)


def squared(evidence: Evidence) -> Finding:
    """Compare every mean memory with the fading sum of squared updates, if more than half of the entries are sent."""
    twice = 2 * evidence.error
    most = Condition("2 (1 - delta) below 1, which is more than half of the entries sent", twice < 1, twice, 1.0)
    return _pathwise(SQUARED, evidence, _fading_squares, 2, most)


def cauchy(evidence: Evidence) -> Finding:
    """Compare every mean memory with the fading sum of squared updates in the form that needs no half."""
    return _pathwise(CAUCHY, evidence, _cauchy_schwarz, 2)


def constant(evidence: Evidence) -> Finding:
    """Compare the mean norm of the mean memory with its limit."""
    assumed = _assumption(evidence)
    conditions = (*assumed.conditions, evidence.constant_rate())
    if not assumed.usable:
        return Finding(CONSTANT, evidence.subject, conditions)
    ends, alpha = checkpoints(evidence.steps), float(evidence.lr[0])
    bound = np.full(len(ends), alpha * np.sqrt(_second_moment(evidence)) * _reach(evidence, assumed.xi))
    values = np.sqrt(evidence.stack("mean_memory2"))[:, ends]
    return evidence.finding(CONSTANT, conditions, ends.astype(float), values, bound)


def convex(evidence: Evidence) -> Finding:
    """Compare how often v_t has not come near x* with the bound; near is what the learning rate allows."""
    assumed = _assumption(evidence)
    problem = (smooth(evidence), strongly_convex(evidence), *optimum_known(evidence), iterates_kept(evidence))
    conditions = (*assumed.conditions, evidence.constant_rate(), *problem)
    smoothness, strong = evidence.facts.smoothness, evidence.facts.strong_convexity
    there = all(condition.holds is not False for condition in problem)
    if not (assumed.usable and there) or smoothness is None or strong is None:
        return Finding(CONVEX, evidence.subject, conditions)
    alpha, ends = float(evidence.lr[0]), checkpoints(evidence.steps)
    second, reach = _second_moment(evidence), _reach(evidence, assumed.xi)
    eps = success_region(alpha, strong.value, smoothness.value, second, reach)
    near = distance2(evidence, virtual=False)
    start = float(near[:, 0].mean())
    outside = at_most("the start lies outside of the success region: eps", eps, start)
    never = np.minimum.accumulate(near, axis=1)[:, ends] > eps
    bound = np.minimum((1 + np.log(max(start / eps, 1.0))) / (alpha * strong.value * ends), 1.0)
    return evidence.finding(CONVEX, (*conditions, outside), ends.astype(float), never.astype(np.float64), bound)


def descent(evidence: Evidence) -> Finding:
    """Compare the gradients, weighted by learning rates, with the descent and the memory as measured."""
    measured = gradients_measured(evidence)
    conditions = (*memory_conditions(evidence), smooth(evidence), bounded_below(evidence), measured)
    if evidence.facts.smoothness is None or not measured.holds:
        return Finding(DESCENT, evidence.subject, conditions)
    smoothness, alpha, ends = evidence.facts.smoothness.value, evidence.lr, checkpoints(evidence.steps)
    total, weights = np.cumsum(alpha)[ends - 1], np.cumsum(alpha**2)[ends - 1]
    squares = running_means(alpha * evidence.stack("gradient2")[:, :-1], ends) * ends / total
    held = running_means(alpha * evidence.stack("mean_memory2")[:, :-1], ends) * ends / total * smoothness**2
    bound = held.mean(axis=0) + (2 * start_gap(evidence) + smoothness * _second_moment(evidence) * weights) / total
    return evidence.finding(DESCENT, conditions, ends.astype(float), paired(squares, held), bound)


def nonconvex(evidence: Evidence) -> Finding:
    """Compare the running mean of squared gradients with the bound at a constant learning rate."""
    assumed, measured = _assumption(evidence), gradients_measured(evidence)
    conditions = (*assumed.conditions, evidence.constant_rate(), smooth(evidence), bounded_below(evidence), measured)
    if evidence.facts.smoothness is None or not (measured.holds and assumed.usable):
        return Finding(NONCONVEX, evidence.subject, conditions)
    ends, alpha = checkpoints(evidence.steps), float(evidence.lr[0])
    bound = nonconvex_bound(
        start_gap(evidence),
        alpha,
        evidence.facts.smoothness.value,
        _second_moment(evidence),
        _reach(evidence, assumed.xi),
        ends,
    )
    values = running_means(evidence.stack("gradient2")[:, :-1], ends)
    return evidence.finding(NONCONVEX, conditions, ends.astype(float), values, bound)


def success_region(alpha: float, strong: float, smoothness: float, second: float, reach: float) -> float:
    """Return the eps for which alpha is the theorem's choice: c eps = alpha (M^2 + 2 sqrt(eps) L M C)."""
    half = alpha * smoothness * np.sqrt(second) * reach
    root = (half + np.sqrt(half**2 + strong * alpha * second)) / strong
    return float(root**2)


def nonconvex_bound(gap: float, alpha: float, smoothness: float, second: float, reach: float, ends: Ints) -> Floats:
    """Return the bound of the mean squared gradient for each T of ``ends``, given f(x_0) - f*, M^2 and C."""
    u, steps = alpha * smoothness, ends.astype(np.float64)
    bound: Floats = 2 * gap / (alpha * steps) + u * second + u**2 * second * reach**2
    return bound


def _assumption(evidence: Evidence) -> _Assumed:
    """Return what the lemmas presuppose, and xi."""
    xi = discrepancy(evidence).largest
    can = Condition("C of the workers' mean can be had: a codec that remembers nothing", not np.isnan(xi))
    text = "Assumption 1 with the xi that was met" + (f" = {xi:.4g}" if np.isfinite(xi) else "")
    holds = Condition(text, bool(np.isfinite(xi)))
    conditions = (*feedback_conditions(evidence), _contracts_the_mean(evidence), can, holds)
    return _Assumed(conditions, xi, bool(np.isfinite(xi)) and 0 <= evidence.error < 1)


def _contracts_the_mean(evidence: Evidence) -> Condition:
    """Return the condition that C contracts the mean of what workers compress, which is not itself compressed."""
    of_each = contracts_every_vector(evidence)
    if evidence.workers == 1 or not of_each.holds:
        return of_each
    sure = type(evidence.inner) in (TopK, ScaledSign) or (isinstance(evidence.inner, Codec) and evidence.error == 0)
    return Condition("C contracts the mean of the vectors that workers compress", sure or None)


def _second_moment(evidence: Evidence) -> float:
    """Return the least M^2 with E||G_t||^2 <= M^2 at every step of these runs."""
    return float(evidence.stack("mean2").mean(axis=0).max())


def _reach(evidence: Evidence, xi: float) -> float:
    """Return C = (g + xi) / (1 - g)."""
    g = float(np.sqrt(evidence.error))
    return (g + xi) / (1 - g)


def _pathwise(
    statement: Statement, evidence: Evidence, allowed: Callable[[_Lemma], Floats], power: int, *more: Condition
) -> Finding:
    """Return the finding of a lemma: memories, to some power, over what is allowed."""
    assumed = _assumption(evidence)
    conditions = (*assumed.conditions, *more)
    if not assumed.usable:
        return Finding(statement, evidence.subject, conditions)
    memory, update = np.sqrt(evidence.stack("mean_memory2")), evidence.lr * np.sqrt(evidence.stack("mean2"))
    lemma = _Lemma(float(np.sqrt(evidence.error)), assumed.xi, memory, update)
    values, steps = relative(memory[:, 1:] ** power, allowed(lemma)), np.arange(1.0, evidence.steps + 1)
    return evidence.finding(statement, conditions, steps, values, np.ones(evidence.steps))


def _after_a_step(lemma: _Lemma) -> Floats:
    """Return g ||v_{t-1} - x_{t-1}|| + (g + xi) ||alpha G||."""
    return lemma.g * lemma.memory[:, :-1] + (lemma.g + lemma.xi) * lemma.update


def _fading_sum(lemma: _Lemma) -> Floats:
    """Return (g + xi) sum of g^{k-1} ||alpha G||, which is (1 + xi/g) sum of g^k ||alpha G||, and 0 for g = xi = 0."""
    return (lemma.g + lemma.xi) * _fading(lemma.update, lemma.g)


def _fading_squares(lemma: _Lemma) -> Floats:
    """Return 2 (g + xi)^2 sum of (2 g^2)^{k-1} ||alpha G||^2."""
    return 2 * (lemma.g + lemma.xi) ** 2 * _fading(lemma.update**2, 2 * lemma.g**2)


def _cauchy_schwarz(lemma: _Lemma) -> Floats:
    """Return (g + xi)^2 / (1 - g) sum of g^{k-1} ||alpha G||^2."""
    return (lemma.g + lemma.xi) ** 2 / (1 - lemma.g) * _fading(lemma.update**2, lemma.g)


def _fading(rows: Floats, factor: float) -> Floats:
    """Return s_t = factor s_{t-1} + row_t of [R, S], from s = 0."""
    sums, last = np.empty_like(rows), np.zeros(len(rows))
    for t, column in enumerate(rows.T):
        last = factor * last + column
        sums[:, t] = last
    return sums


CHECKS = (
    Check(STEP, step),
    Check(SUM, total),
    Check(SQUARED, squared),
    Check(CAUCHY, cauchy),
    Check(CONSTANT, constant),
    Check(CONVEX, convex),
    Check(DESCENT, descent),
    Check(NONCONVEX, nonconvex),
)
