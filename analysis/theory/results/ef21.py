"""Richtárik, Sokolov, Fatkhullin 2021: EF21, whose estimates follow the gradients, with any contraction.

With alpha the contraction's factor, E||C(v) - v||^2 <= (1 - alpha) ||v||^2: theta = 1 - sqrt(1 - alpha) and
beta = (1 - alpha) / theta. G_t is the mean over workers of ||h_i - grad f_i(x_t)||^2, h_i being the estimate that the
step from x_t uses.
"""

from typing import NamedTuple

import numpy as np

from ....compressors.base import Codec
from ..check import Check, Condition, Finding, Statement, at_most
from ..evidence import Evidence
from .conditions import at_every_iterate, bounded_below, exact_gradients, known, least_known, refused, smooth, steady
from .sides import as_steps, checkpoints, paired, running_means
from .workers import own_smoothness

_PAPER = "Richtárik et al. 2021"

LEMMA = Statement(
    name="ef21.lemma",
    title="the estimates' error shrinks but for what the gradients have moved",
    source=f"{_PAPER}, the lemma of Theorems 1 and 2",
    formula="E G_{t+1} <= (1 - theta) E G_t + beta E[mean over workers of ||g_i(t+1) - g_i(t)||^2]",
    kind="expectation",
    grade="derived",
    attained="gradients that drift at a constant speed, C(x) = (1 - sqrt(1 - alpha)) x",
)
NONCONVEX = Statement(
    name="ef21.nonconvex",
    title="the mean squared gradient falls as 1/T",
    source=f"{_PAPER}, Theorem 1",
    formula="(1/T) sum over t < T of E||grad f(x_t)||^2 <= 2 (f(x_0) - f*) / (gamma T) + E G_0 / (theta T), "
    "gamma <= 1 / (L + L~ sqrt(beta / theta)), L~^2 = mean of L_i^2",
    kind="expectation",
    grade="derived",
    attained="f = L/2 x^2, C(x) = (1 - sqrt(1 - alpha)) x, T = 1, the largest step",
)
PL = Statement(
    name="ef21.pl",
    title="suboptimality and estimates' error fall geometrically together",
    source=f"{_PAPER}, Theorem 2",
    formula="E Psi_T <= (1 - gamma mu)^T E Psi_0, Psi_t = f(x_t) - f* + (gamma / theta) G_t, "
    "gamma <= min{1 / (L + L~ sqrt(2 beta / theta)), theta / (2 mu)}",
    kind="expectation",
    grade="derived",
    attained="f = L/2 x^2, C(x) = (1 - sqrt(1 - alpha)) x, a small step, few steps",
)


class Factors(NamedTuple):
    """How EF21 forgets: G_{t+1} <= (1 - theta) G_t + beta (what the gradients have moved)^2."""

    theta: float
    beta: float


def factors(alpha: float) -> Factors:
    """Return theta and beta of a contraction with 0 < alpha <= 1.

    >>> theta, beta = factors(0.1)
    >>> round(theta, 7), round(beta, 4)
    (0.0513167, 17.5381)
    """
    theta = 1 - (1 - alpha) ** 0.5
    return Factors(theta, (1 - alpha) / theta)


def lemma(evidence: Evidence) -> Finding:
    """Compare the estimates' error with the last one and what the gradients have moved since."""
    conditions = _contraction(evidence)
    if (none := refused(LEMMA, evidence, conditions)) is not None:
        return none
    theta, beta = factors(1 - evidence.error)
    error, moved = evidence.stack("lost2"), evidence.stack("own_turned2")[:, :-1]
    steps = np.arange(1, evidence.steps) if evidence.exact else checkpoints(evidence.steps - 1)
    left, right = error[:, steps], (1 - theta) * error[:, steps - 1] + beta * moved[:, steps - 1]
    slack = evidence.facts.rounding * float(evidence.stack("own2").max())
    return evidence.finding(LEMMA, conditions, steps.astype(float), paired(left, right), right.mean(axis=0), slack)


def nonconvex(evidence: Evidence) -> Finding:
    """Compare the mean squared gradient of the first T iterates with the theorem, for a few T."""
    conditions = (*_contraction(evidence), *_descent(evidence, doubled=1))
    if (none := refused(NONCONVEX, evidence, conditions)) is not None:
        return none
    gamma, theta = float(evidence.lr[0]), factors(1 - evidence.error).theta
    ends = checkpoints(evidence.steps)
    counts, values = as_steps(ends), running_means(evidence.stack("gradient2")[:, :-1], ends)
    start = float(evidence.stack("loss")[:, 0].mean()) - evidence.facts.least.value
    first = float(evidence.stack("lost2")[:, 0].mean())
    return evidence.finding(
        NONCONVEX, conditions, counts, values, 2 * start / (gamma * counts) + first / (theta * counts)
    )


def pl(evidence: Evidence) -> Finding:
    """Compare the Lyapunov function with its geometric bound, for a few T."""
    mu = evidence.facts.strong_convexity
    conditions = (
        *_contraction(evidence),
        *_descent(evidence, doubled=2),
        known("mu, of the Polyak-Łojasiewicz inequality,", mu),
        least_known(evidence),
    )
    if (none := refused(PL, evidence, conditions)) is not None:
        return none
    assert mu is not None
    gamma, theta = float(evidence.lr[0]), factors(1 - evidence.error).theta
    slow = at_most("a learning rate of at most theta / (2 mu)", gamma, theta / (2 * mu.value), mu.how != "sampled")
    conditions = (*conditions, slow)
    if (none := refused(PL, evidence, conditions)) is not None:
        return none
    below = evidence.stack("loss")[:, :-1] - evidence.facts.least.value
    lyapunov = below + gamma / theta * evidence.stack("lost2")
    ends = checkpoints(evidence.steps - 1)
    bound = (1 - gamma * mu.value) ** as_steps(ends) * float(lyapunov[:, 0].mean())
    slack = evidence.facts.rounding * float(np.abs(evidence.stack("loss")[:, 0]).max())
    return evidence.finding(PL, conditions, as_steps(ends), lyapunov[:, ends], bound, slack)


def _contraction(evidence: Evidence) -> tuple[Condition, ...]:
    """Return what all statements presuppose: EF21 around a contraction."""
    alpha, single = 1 - evidence.error, isinstance(evidence.inner, Codec) or evidence.workers == 1
    return (
        Condition("EF21 around the scheme", evidence.memory == "ef21"),
        Condition(f"a contraction: alpha = {alpha:.4g} is above 0", alpha > 0),
        Condition("one round, so that no worker's loss depends on others", single),
        Condition("at least two steps", evidence.steps > 1),
        *evidence.facts.conditions,
    )


def _descent(evidence: Evidence, doubled: int) -> tuple[Condition, ...]:
    """Return what the theorems presuppose besides: exact gradients and a small step."""
    smoothness, own, alpha = evidence.facts.smoothness, own_smoothness(evidence), 1 - evidence.error
    conditions = (
        exact_gradients(evidence),
        at_every_iterate(evidence, "loss", "gradient2"),
        *steady(evidence),
        smooth(evidence),
        bounded_below(evidence),
        known("L_i of the workers' own objectives", own),
    )
    if smoothness is None or own is None or alpha <= 0:
        return conditions
    theta, beta = factors(alpha)
    most = 1 / (smoothness.value + own.value * (doubled * beta / theta) ** 0.5)
    root = "sqrt(beta / theta)" if doubled == 1 else "sqrt(2 beta / theta)"
    sure = "sampled" not in (smoothness.how, own.how)
    small = at_most(f"a learning rate of at most 1 / (L + L~ {root})", float(evidence.lr[0]), most, sure)
    return (*conditions, small)


CHECKS = (Check(LEMMA, lemma), Check(NONCONVEX, nonconvex), Check(PL, pl))
