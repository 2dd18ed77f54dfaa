"""Stich, Cordonnier, Jaggi 2018: sparsified SGD with memory on strongly convex objectives, at rates 8 / (mu (a + t)).

A k-contraction of d entries is a contraction with delta = k / d, and the proofs use nothing else of it. Of N workers,
each with a memory of its own, m_t is the mean of their memories, and G^2 bounds the mean over workers of E||g_i||^2.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from ..check import ROUNDING, Check, Condition, Finding, Floats, Statement, at_most
from ..evidence import Evidence
from .conditions import (
    feedback_conditions,
    iterates_kept,
    memory_conditions,
    optimum_known,
    smooth,
    strongly_convex,
)
from .sides import Ints, at_averages, checkpoints, distance2, paired, running_means, suboptimality

_PAPER = "Stich et al. 2018"

STEP = Statement(
    name="stich.step",
    title="a step brings the iterate without its memory nearer to the optimum",
    source=f"{_PAPER}, Lemma 3.1",
    formula="E||y_{t+1} - x*||^2 <= (1 - eta_t mu/2) E||y_t - x*||^2 + eta_t^2 G^2 - eta_t E(f(x_t) - f*) "
    "+ eta_t (mu + 2 L) E||m_t||^2, with y_t = x_t - m_t",
    kind="expectation",
    grade="derived",
    attained="a quadratic with noise, started at its optimum, small steps, no compression",
)

MEMORY = Statement(
    name="stich.memory",
    title="the memory shrinks with the learning rate",
    source=f"{_PAPER}, Lemma 3.2",
    formula="E||m_t||^2 <= eta_t^2 4 alpha / (alpha - 4) G^2 / delta^2, "
    "if (alpha + 1) / delta + rho / (rho + 1) <= a, rho = 4 alpha / ((alpha - 4) (alpha + 1)^2), alpha > 4",
    kind="expectation",
    grade="stated",
    attained="constant gradients, C(x) = (1 - sqrt(1 - delta)) x, small delta, a far above 1 / delta",
)

AVERAGING = Statement(
    name="stich.averaging",
    title="suboptimality becomes small, on weighted average over the steps",
    source=f"{_PAPER}, Lemma 3.3, with Lemma 3.1 and the memory as measured",
    formula="(1/S_T) sum_{t<T} (a+t)^2 E(f(x_t) - f*) <= mu a^3 E||x_0 - x*||^2 / (8 S_T) "
    "+ 4 T (T + 2a) G^2 / (mu S_T) + 64 T B / (mu^2 S_T), B = (mu + 2 L) max_t E||m_t||^2 / eta_t^2",
    kind="expectation",
    grade="derived",
    attained="|x| with a little of x^2, whose iterates jump from one side to the other: near a half",
)

THEOREM = Statement(
    name="stich.theorem",
    title="the weighted average of the iterates becomes good at the rate 1 / T",
    source=f"{_PAPER}, Theorem 2.4",
    formula="E f(xbar_T) - f* <= 4 T (T + 2a) G^2 / (mu S_T) + mu a^3 ||x_0 - x*||^2 / (8 S_T) "
    "+ 64 T (1 + 2 L/mu) / (mu S_T) 4 alpha / (alpha - 4) G^2 / delta^2, with xbar_T of weights (a+t)^2",
    kind="expectation",
    grade="stated",
    attained="two workers that pull ||x||^2 / 2 apart, top-1 of two entries, a = 300: loose, at most 0.18 of the "
    "bound, but without the memory f stays where it is, and the bound falls below it",
)


class Rates(NamedTuple):
    """What makes learning rates 8 / (mu (a + t)); both NaN if they are of another form."""

    shift: float
    mu: float

    @property
    def found(self) -> bool:
        """Whether the rates are of this form."""
        return self.mu > 0


def recognise(rates: Floats) -> Rates:
    """Return a and mu of learning rates 8 / (mu (a + t)), t = 0, 1, ...; at least three of them."""
    if len(rates) < 3 or not np.all(rates > 0):
        return Rates(float("nan"), float("nan"))
    inverse = 1 / rates
    slope = float(inverse[-1] - inverse[0]) / (len(rates) - 1)
    fits = slope > 0 and np.allclose(inverse, inverse[0] + slope * np.arange(len(rates)), rtol=ROUNDING, atol=0)
    return Rates(float(inverse[0]) / slope, 8 * slope) if fits else Rates(float("nan"), float("nan"))


def least_shift(alpha: Floats, delta: float) -> Floats:
    """Return the least a that the theorem allows with alpha > 4."""
    rho = 4 * alpha / ((alpha - 4) * (alpha + 1) ** 2)
    shift: Floats = (alpha + 1) / delta + rho / (rho + 1)
    return shift


def best_alpha(shift: float, delta: float) -> float:
    """Return the largest alpha > 4 that the theorem allows with a = ``shift``, where bounds are least; NaN if none."""
    if not (delta > 0 and np.isfinite(shift) and shift * delta - 1 > _FOUR):
        return float("nan")
    grid = np.linspace(_FOUR, shift * delta - 1, 10_001)
    fits = np.flatnonzero(least_shift(grid, delta) <= shift)
    if not len(fits):
        return float("nan")
    last = int(fits[-1])
    if last == len(grid) - 1:
        return float(grid[last])
    root = brentq(lambda alpha: float(least_shift(np.array(alpha), delta)) - shift, grid[last], grid[last + 1])
    return min(float(root), float(grid[last + 1]))


def weight_sum(shift: float, ends: Ints) -> Floats:
    """Return S_T, the sum of (a + t)^2 over t < T."""
    t, a = ends.astype(np.float64), shift
    total: Floats = t / 6 * (2 * t**2 + 6 * a * t - 3 * t + 6 * a**2 - 6 * a + 1)
    return total


def averaged_bound(rates: Rates, start2: float, first: float, second: float, ends: Ints) -> Floats:
    """Return Lemma 3.3's bound of the weighted mean of e_t.

    It holds for any a_t, e_t >= 0 with a_{t+1} <= (1 - mu eta_t / 2) a_t + eta_t^2 A + eta_t^3 B - eta_t e_t.

    Parameters
    ----------
    rates : Rates
    start2 : float
        a_0.
    first, second : float
        A and B.
    ends : array, shape [K]
        T.
    """
    total, (a, mu) = weight_sum(rates.shift, ends), rates
    start, noise, memory = mu * a**3 / 8 * start2, 4 * ends * (ends + 2 * a) / mu * first, 64 * ends / mu**2 * second
    bound: Floats = (start + noise + memory) / total
    return bound


def step(evidence: Evidence) -> Finding:
    """Compare what a step changes with the noise that it lets in; both from the same runs."""
    conditions = (*memory_conditions(evidence), *_problem(evidence))
    smoothness, mu = evidence.facts.smoothness, evidence.facts.strong_convexity
    if smoothness is None or mu is None or not _measurable(evidence):
        return Finding(STEP, evidence.subject, conditions)
    eta, at = evidence.lr, checkpoints(evidence.steps) - 1
    near, held = distance2(evidence, virtual=True), evidence.stack("memory2")[:, :-1]
    allowed = (1 - eta * mu.value / 2) * near[:, :-1] - eta * suboptimality(evidence)[:, :-1]
    allowed = allowed + eta * (mu.value + 2 * smoothness.value) * held
    values, bound = paired(near[:, 1:], allowed), allowed.mean(axis=0) + eta**2 * evidence.second_moment().value
    return evidence.finding(STEP, conditions, at.astype(float), values[:, at], bound[at])


def memory(evidence: Evidence) -> Finding:
    """Compare the workers' mean squared memory with the learning rate of the step before which it is held."""
    rates, delta = recognise(evidence.lr), 1 - evidence.error
    conditions = (*feedback_conditions(evidence), _form(rates), _wide(rates, delta))
    if not rates.found:
        return Finding(MEMORY, evidence.subject, conditions)
    ends = checkpoints(evidence.steps - 1)
    values = evidence.stack("memory2")[:, ends]
    bound = evidence.lr[ends] ** 2 * memory_factor(rates, delta) * evidence.second_moment().value
    return evidence.finding(MEMORY, conditions, ends.astype(float), values, bound)


def memory_factor(rates: Rates, delta: float) -> float:
    """Return 4 alpha / (alpha - 4) / delta^2 at the best alpha, NaN if there is none."""
    alpha = best_alpha(rates.shift, delta)
    return 4 * alpha / (alpha - 4) / delta**2 if alpha > 4 else float("nan")


def averaging(evidence: Evidence) -> Finding:
    """Compare the weighted mean of the suboptimalities with the averaging lemma."""
    rates = recognise(evidence.lr)
    conditions = (
        *memory_conditions(evidence),
        *_problem(evidence),
        _form(rates),
        _slow(rates, evidence),
    )
    smoothness = evidence.facts.smoothness
    if smoothness is None or not rates.found or not _measurable(evidence):
        return Finding(AVERAGING, evidence.subject, conditions)
    ends, weights = checkpoints(evidence.steps), _weights(rates, evidence.steps)
    held = float((evidence.stack("memory2")[:, :-1].mean(axis=0) / evidence.lr**2).max())
    start2 = float(distance2(evidence, virtual=False)[:, 0].mean())
    second = (rates.mu + 2 * smoothness.value) * held
    bound = averaged_bound(rates, start2, evidence.second_moment().value, second, ends)
    sums = running_means(weights * suboptimality(evidence)[:, :-1], ends) * ends
    return evidence.finding(AVERAGING, conditions, ends.astype(float), sums / weight_sum(rates.shift, ends), bound)


def theorem(evidence: Evidence) -> Finding:
    """Compare f at the weighted average of the iterates with the theorem's bound."""
    rates, delta = recognise(evidence.lr), 1 - evidence.error
    kept = iterates_kept(evidence)
    form = (_form(rates), _slow(rates, evidence), _wide(rates, delta))
    conditions = (*feedback_conditions(evidence), *_problem(evidence), *form, kept)
    smoothness = evidence.facts.smoothness
    if smoothness is None or not (rates.found and kept.holds and _measurable(evidence)):
        return Finding(THEOREM, evidence.subject, conditions)
    ends, second = checkpoints(evidence.steps), evidence.second_moment().value
    start2 = float(distance2(evidence, virtual=False)[:, 0].mean())
    held = (rates.mu + 2 * smoothness.value) * memory_factor(rates, delta) * second
    bound = averaged_bound(rates, start2, second, held, ends)
    values = at_averages(evidence, _weights(rates, evidence.steps), ends) - evidence.facts.least.value
    return evidence.finding(THEOREM, conditions, ends.astype(float), values, bound)


_FOUR = 4 + 1e-9
"""Where the search for alpha > 4 begins."""


def _problem(evidence: Evidence) -> tuple[Condition, ...]:
    """Return what is presupposed of the problem, and known of it."""
    return (
        smooth(evidence),
        strongly_convex(evidence),
        *optimum_known(evidence),
        Condition("iterates and memories were kept", _kept(evidence)),
    )


def _measurable(evidence: Evidence) -> bool:
    """Return whether distances from the optimum can be had."""
    return evidence.facts.optimum is not None and _kept(evidence)


def _kept(evidence: Evidence) -> bool:
    """Return whether iterates and memories were kept."""
    return all(trace.position is not None and trace.memory is not None for trace in evidence.traces)


def _form(rates: Rates) -> Condition:
    """Return the condition that learning rates are of the paper's form."""
    told = f": a = {rates.shift:.6g}, mu = {rates.mu:.6g}" if rates.found else ""
    return Condition(f"learning rates 8 / (mu (a + t)) with a > 1{told}", rates.found and rates.shift > 1)


def _slow(rates: Rates, evidence: Evidence) -> Condition:
    """Return the condition that the learning rates' mu is one of f: no larger than its strong convexity."""
    known = evidence.facts.strong_convexity
    if known is None or not rates.found:
        return Condition("the learning rates' mu is at most the objective's", False)
    return at_most("the learning rates' mu is at most the objective's", rates.mu, known.value)


def _wide(rates: Rates, delta: float) -> Condition:
    """Return the condition that a is large enough for some alpha > 4."""
    if delta <= 0 or not rates.found:
        return Condition("a is large enough for the contraction: at least about 5 / delta", False)
    needed = float(least_shift(np.geomspace(_FOUR, 40, 2000), delta).min())
    text, there_is = "the a that the contraction needs, with the best alpha > 4", best_alpha(rates.shift, delta) > 0
    return Condition(text, there_is, needed, rates.shift)


def _weights(rates: Rates, steps: int) -> Floats:
    """Return (a + t)^2."""
    weights: Floats = (rates.shift + np.arange(float(steps))) ** 2
    return weights


CHECKS = (Check(STEP, step), Check(MEMORY, memory), Check(AVERAGING, averaging), Check(THEOREM, theorem))
