"""Karimireddy, Rebjock, Stich, Jaggi 2019: error feedback under any contraction.

Of N workers, each with a memory of its own, every statement is the paper's with e_t the mean of the workers' memories,
and means over workers of their squared norms: the proofs carry over by convexity of the squared norm.
"""

import numpy as np

from ..check import Check, Finding, Floats, Statement
from ..evidence import Evidence
from .conditions import (
    bounded_below,
    contracts_every_vector,
    convex,
    feedback_conditions,
    gradients_measured,
    iterates_kept,
    memory_conditions,
    optimum_known,
    refused,
    smooth,
)
from .sides import Ints, at_averages, checkpoints, relative, running_means, start_gap

_PAPER = "Karimireddy et al. 2019"
_SLOPE = "a slope of as many steps as were taken that ends in a parabola, C(x) = (1 - sqrt(1 - delta)) x"

IDENTITY = Statement(
    name="karimireddy.identity",
    title="the iterate without its memory moves by the plain gradient",
    source=f"{_PAPER}, proof of Theorem II",
    formula="||(x_{t+1} - e_{t+1}) - (x_t - e_t) + gamma_t g_t|| = 0, to rounding of the largest of the vectors",
    kind="path",
    grade="derived",
    attained="every run of plain SGD with error feedback",
)

MEMORY = Statement(
    name="karimireddy.memory",
    title="the memory stays bounded",
    source=f"{_PAPER}, Lemma 3",
    formula="E||e_t||^2 <= 4 (1 - delta) gamma^2 sigma^2 / delta^2, with E||g_t||^2 <= sigma^2",
    kind="expectation",
    grade="stated",
    attained="constant gradients, C(x) = (1 - sqrt(1 - delta)) x, small delta",
)

MEMORY_SHARP = Statement(
    name="karimireddy.memory_sharp",
    title="the memory stays bounded, in the sharp form",
    source=f"derived from {_PAPER}, Lemma 3",
    formula="E||e_t||^2 <= gamma^2 sigma^2 q^2 (1 - q^t)^2 / (1 - q)^2 <= (1 - delta) gamma^2 sigma^2 / (1 - q)^2, "
    "with q = sqrt(1 - delta)",
    kind="expectation",
    grade="derived",
    attained="constant gradients, C(x) = (1 - sqrt(1 - delta)) x: equality at every step",
)

PATHWISE = Statement(
    name="karimireddy.pathwise",
    title="the memory grows by no more than a gradient, and shrinks with what is sent",
    source=f"derived, the step of {_PAPER}, Lemma 3, without expectations",
    formula="||e_{t+1}|| / (sqrt(1 - delta) (||e_t|| + gamma_t ||g_t||)) <= 1, norms as root mean squares over workers",
    kind="path",
    grade="derived",
    attained="constant gradients, C(x) = (1 - sqrt(1 - delta)) x: equality at every step",
)

AVERAGE = Statement(
    name="karimireddy.average",
    title="gradients become small, on average over the steps",
    source=f"{_PAPER}, Theorem II, rho = 1, before the least gradient is taken",
    formula="(1/T) sum_{t<T} E||grad f(x_t)||^2 <= 2 (f(x_0) - f*) / (gamma T) + gamma L sigma^2 "
    "+ 4 gamma^2 L^2 sigma^2 (1 - delta) / delta^2",
    kind="expectation",
    grade="derived",
    attained=f"{_SLOPE}: near a half, which is what rho = 1 gives away",
)

LEAST = Statement(
    name="karimireddy.least",
    title="gradients become small at some step",
    source=f"{_PAPER}, Theorem II, rho = 1",
    formula="min_{t<T} E||grad f(x_t)||^2 <= 2 (f(x_0) - f*) / (gamma T) + gamma L sigma^2 "
    "+ 4 gamma^2 L^2 sigma^2 (1 - delta) / delta^2",
    kind="expectation",
    grade="stated",
    attained=f"{_SLOPE}: near a half, which is what rho = 1 gives away",
)

BEST = Statement(
    name="karimireddy.best",
    title="gradients become small, on average over the steps, with the best rho",
    source=f"{_PAPER}, proof of Theorem II, the least bound over rho in (0, 2)",
    formula="(1/T) sum_{t<T} E||grad f(x_t)||^2 <= min over rho of (f(x_0) - f*) / (gamma (1 - rho/2) T) "
    "+ gamma L sigma^2 / (2 - rho) + 4 gamma^2 L^2 sigma^2 (1 - delta) / (rho (2 - rho) delta^2)",
    kind="expectation",
    grade="derived",
    attained=f"{_SLOPE}: four fifths",
)

NONSMOOTH = Statement(
    name="karimireddy.nonsmooth",
    title="the average iterate becomes good, without smoothness",
    source=f"{_PAPER}, Theorem for convex objectives",
    formula="E f(xbar_T) - f* <= ||x_0 - x*||^2 / (2 gamma T) + gamma sigma^2 (1/2 + 2 sqrt(1 - delta) / delta), "
    "with xbar_T the mean of x_0 ... x_{T-1}",
    kind="expectation",
    grade="derived",
    attained="f = sigma |x|, gamma = ||x_0 - x*|| / (sigma T), no compression: equality at every T; little is lost "
    "with C(x) = (1 - sqrt(1 - delta)) x",
)


def identity(evidence: Evidence) -> Finding:
    """Compare the moves of x_t - e_t with the gradients: to rounding, which grows with no step."""
    values = evidence.stack("identity")
    steps = np.arange(1.0, evidence.steps + 1)
    bound = np.full(evidence.steps, evidence.facts.rounding)
    return evidence.finding(IDENTITY, memory_conditions(evidence), steps, values, bound)


def memory(evidence: Evidence) -> Finding:
    """Compare the workers' mean squared memory with the lemma's bound."""
    delta = 1 - evidence.error
    conditions = (*feedback_conditions(evidence), evidence.constant_rate())
    gamma, second = float(evidence.lr[0]), evidence.second_moment().value
    bound = np.full(evidence.steps, 4 * (1 - delta) * gamma**2 * second / delta**2 if delta > 0 else np.nan)
    values = evidence.stack("memory2")[:, 1:]
    return evidence.finding(MEMORY, conditions, np.arange(1.0, evidence.steps + 1), values, bound)


def memory_sharp(evidence: Evidence) -> Finding:
    """Compare the workers' mean squared memory with what the worst case reaches after as many steps."""
    conditions = (*feedback_conditions(evidence), evidence.constant_rate())
    gamma, second = float(evidence.lr[0]), evidence.second_moment().value
    ends = checkpoints(evidence.steps)
    bound = gamma**2 * second * worst_memory(1 - evidence.error, ends) ** 2
    return evidence.finding(MEMORY_SHARP, conditions, ends.astype(float), evidence.stack("memory2")[:, ends], bound)


def pathwise(evidence: Evidence) -> Finding:
    """Compare every memory with the one before it and the gradient that came in, relative to what is allowed."""
    conditions = (*feedback_conditions(evidence), contracts_every_vector(evidence))
    if (none := refused(PATHWISE, evidence, conditions)) is not None:
        return none
    before, after = np.sqrt(evidence.stack("memory2")[:, :-1]), np.sqrt(evidence.stack("memory2")[:, 1:])
    allowed = np.sqrt(np.maximum(evidence.error, 0)) * (before + evidence.lr * np.sqrt(evidence.stack("own2")))
    steps = np.arange(1.0, evidence.steps + 1)
    return evidence.finding(PATHWISE, conditions, steps, relative(after, allowed), np.ones(evidence.steps))


def average(evidence: Evidence) -> Finding:
    """Compare the running mean of squared gradients with the theorem's bound at rho = 1."""
    return _descent(AVERAGE, evidence, least=False, best=False)


def least(evidence: Evidence) -> Finding:
    """Compare the least mean squared gradient so far with the theorem's bound at rho = 1."""
    return _descent(LEAST, evidence, least=True, best=False)


def best(evidence: Evidence) -> Finding:
    """Compare the running mean of squared gradients with the bound at the best rho."""
    return _descent(BEST, evidence, least=False, best=True)


def nonsmooth(evidence: Evidence) -> Finding:
    """Compare f at the average iterate with the theorem's bound."""
    conditions = (
        *feedback_conditions(evidence),
        evidence.constant_rate(),
        convex(evidence),
        *optimum_known(evidence),
        iterates_kept(evidence),
    )
    if (none := refused(NONSMOOTH, evidence, conditions)) is not None:
        return none
    gamma, second, delta = float(evidence.lr[0]), evidence.second_moment().value, 1 - evidence.error
    ends = checkpoints(evidence.steps)
    values = at_averages(evidence, np.ones(evidence.steps), ends) - evidence.facts.least.value
    bound = nonsmooth_bound(_start_distance2(evidence), gamma, second, delta, ends)
    return evidence.finding(NONSMOOTH, conditions, ends.astype(float), values, bound)


def worst_memory(delta: float, ends: Ints) -> Floats:
    """Return the norm that the worst memory reaches after each number of steps, over gamma sigma: q + ... + q^t."""
    if delta <= 0:
        return np.full(len(ends), np.nan)
    q = np.sqrt(1 - delta)
    total: Floats = q * (1 - q**ends) / (1 - q)
    return total


def descent_bound(
    gap: float, gamma: float, smoothness: float, second: float, delta: float, ends: Ints, rho: Floats
) -> Floats:
    """Return the bound of the mean squared gradient over T steps for every rho, [len(rho), K].

    Parameters
    ----------
    gap : float
        f(x_0) - f*.
    gamma, smoothness, second, delta : float
        gamma, L, sigma^2 and delta.
    ends : array, shape [K]
        T.
    rho : array
        In (0, 2).
    """
    if delta <= 0:
        return np.full((len(rho), len(ends)), np.nan)
    u, r = gamma * smoothness, rho[:, None]
    start = gap / (gamma * (1 - r / 2) * ends)
    bound: Floats = start + u * second / (2 - r) + 4 * u**2 * second * (1 - delta) / (r * (2 - r) * delta**2)
    return bound


def nonsmooth_bound(distance2: float, gamma: float, second: float, delta: float, ends: Ints) -> Floats:
    """Return the bound of f(xbar_T) - f* for each T of ``ends``, given ||x_0 - x*||^2 and sigma^2."""
    if delta <= 0:
        return np.full(len(ends), np.nan)
    bound: Floats = distance2 / (2 * gamma * ends) + gamma * second * (0.5 + 2 * np.sqrt(1 - delta) / delta)
    return bound


def _descent(statement: Statement, evidence: Evidence, least: bool, best: bool) -> Finding:
    """Return the finding of the theorem for smooth objectives."""
    measured = gradients_measured(evidence)
    conditions = (
        *feedback_conditions(evidence),
        evidence.constant_rate(),
        smooth(evidence),
        bounded_below(evidence),
        measured,
    )
    if evidence.facts.smoothness is None or not measured.holds:
        return Finding(statement, evidence.subject, conditions)
    ends, squares = checkpoints(evidence.steps), evidence.stack("gradient2")[:, :-1]
    bound = descent_bound(
        start_gap(evidence),
        float(evidence.lr[0]),
        evidence.facts.smoothness.value,
        evidence.second_moment().value,
        1 - evidence.error,
        ends,
        _RHOS if best else np.ones(1),
    ).min(axis=0)
    values = _least_so_far(squares, ends) if least else running_means(squares, ends)
    return evidence.finding(statement, conditions, ends.astype(float), values, bound)


def _least_so_far(squares: Floats, ends: Ints) -> Floats:
    """Return the column of the least mean among the first T, for each T of ``ends``."""
    means = squares.mean(axis=0)
    return squares[:, [int(np.argmin(means[:end])) for end in ends]]


def _start_distance2(evidence: Evidence) -> float:
    """Return the mean over runs of ||x_0 - x*||^2: recorded runs of other seeds may start elsewhere."""
    starts = np.stack([trace.position[0] for trace in evidence.traces if trace.position is not None])
    return float(np.square(starts - evidence.facts.optimum).sum(axis=1).mean())


_RHOS = np.concatenate([np.geomspace(1e-6, 0.1, 100), np.linspace(0.1, 1.9, 181)])
"""Where the bound is evaluated: it holds for each, so that a coarse minimum is a bound too."""

CHECKS = (
    Check(IDENTITY, identity),
    Check(MEMORY, memory),
    Check(MEMORY_SHARP, memory_sharp),
    Check(PATHWISE, pathwise),
    Check(AVERAGE, average),
    Check(LEAST, least),
    Check(BEST, best),
    Check(NONSMOOTH, nonsmooth),
)
