"""Alistarh, Grubic, Li, Tomioka, Vojnovic 2017: SGD with unbiased compression on smooth convex objectives.

The variance of what N workers' compressed gradients average to is at most s^2 = w B + sigma^2 / N, where B bounds the
mean over workers of E||g_i||^2, w = omega / N where every worker draws for itself, and w = omega where all draw the
same. A constant step gamma < 1 / L is written as 1 / (L + 1 / c).
"""

import numpy as np

from ..check import Check, Condition, Finding, Floats, Statement, at_most
from ..evidence import Evidence
from .conditions import at_every_iterate, known, least_known, memoryless, refused, smooth, steady
from .natural2019 import noise
from .sides import Ints, as_steps, checkpoints, running_means
from .workers import variance_share

_PAPER = "Alistarh et al. 2017"

CONVEX = Statement(
    name="qsgd.convex",
    title="mean suboptimality, with the step chosen for the number of steps",
    source=f"{_PAPER}, Theorems 2.1 and 3.4",
    formula="mean over 1 <= t <= T of E f(x_t) - f* <= R sqrt(2 s^2 / T) + L R^2 / T with the step 1 / (L + 1 / c), "
    "c = (R / s) sqrt(2 / T), R = ||x_0 - x*||, s^2 at least w B + sigma^2 / N",
    kind="expectation",
    grade="derived",
    attained="a Huber function along one direction that is reached within T steps, little noise, to a half",
)
ANY_STEP = Statement(
    name="qsgd.convex_any_step",
    title="mean suboptimality with any constant step below 1/L",
    source=f"{_PAPER}, Theorem 2.1 before its step is chosen",
    formula="mean over 1 <= t <= T of E f(x_t) - f* <= R^2 / (2 gamma T) + c (w B + sigma^2 / N) / 2, "
    "1 / gamma = L + 1 / c, R = ||x_0 - x*||",
    kind="expectation",
    grade="derived",
    attained="a Huber function along one direction that is reached in the last step, many steps",
)


def convex(evidence: Evidence) -> Finding:
    """Compare the mean suboptimality of all steps with the theorem whose step this run's is.

    The step tells the s^2 that it was chosen for; the theorem applies if the variance is at most that.
    """
    conditions = _conditions(evidence)
    if (none := refused(CONVEX, evidence, conditions)) is not None:
        return none
    smoothness, gamma, steps = _smoothness(evidence), float(evidence.lr[0]), evidence.steps
    radius2, spare = _radius2(evidence), max(1 / gamma - smoothness, 0.0)
    chosen_for = radius2 * spare**2 * 2 / steps
    enough = at_most("a step that is the theorem's for at least this variance", _variance(evidence), chosen_for)
    conditions = (*conditions, enough)
    if (none := refused(CONVEX, evidence, conditions)) is not None:
        return none
    bound = np.array([(2 * chosen_for * radius2 / steps) ** 0.5 + smoothness * radius2 / steps])
    return evidence.finding(CONVEX, conditions, np.array([float(steps)]), _means(evidence, np.array([steps])), bound)


def any_step(evidence: Evidence) -> Finding:
    """Compare the mean suboptimality of the first T steps with the bound for any step, for a few T."""
    conditions = _conditions(evidence)
    if (none := refused(ANY_STEP, evidence, conditions)) is not None:
        return none
    smoothness, gamma, variance = _smoothness(evidence), float(evidence.lr[0]), _variance(evidence)
    spare = 1 / gamma - smoothness
    below = Condition(
        "a learning rate below 1/L, or 1/L and no variance", spare > 0 or variance == 0, gamma, 1 / smoothness
    )
    conditions = (*conditions, below)
    if (none := refused(ANY_STEP, evidence, conditions)) is not None:
        return none
    ends = checkpoints(evidence.steps)
    floor = variance / (2 * spare) if variance else 0.0
    values = _means(evidence, ends)
    bound = _radius2(evidence) / (2 * gamma * as_steps(ends)) + floor
    return evidence.finding(ANY_STEP, conditions, as_steps(ends), values, bound)


def _conditions(evidence: Evidence) -> tuple[Condition, ...]:
    facts = evidence.facts
    at_most_1_over_l = Condition("a learning rate of at most 1/L", holds=False)
    if facts.smoothness is not None:
        sure = facts.smoothness.how != "sampled"
        at_most_1_over_l = at_most(at_most_1_over_l.text, float(evidence.lr[0]), 1 / facts.smoothness.value, sure)
    return (
        memoryless(evidence),
        Condition("an unbiased scheme", evidence.scheme.unbiased and bool(np.isfinite(evidence.error))),
        Condition("convex", facts.convex),
        smooth(evidence),
        least_known(evidence),
        Condition("x* is known", facts.optimum is not None),
        Condition("the iterates are kept", all(trace.position is not None for trace in evidence.traces)),
        known("sigma^2, the workers' noise,", noise(evidence)),
        at_every_iterate(evidence, "loss"),
        *steady(evidence),
        at_most_1_over_l,
        *facts.conditions,
    )


def _smoothness(evidence: Evidence) -> float:
    assert evidence.facts.smoothness is not None
    return evidence.facts.smoothness.value


def _variance(evidence: Evidence) -> float:
    """Return w B + sigma^2 / N, which bounds the variance of what is applied."""
    sigma2 = noise(evidence)
    assert sigma2 is not None
    return variance_share(evidence) * evidence.second_moment().value + sigma2.value / evidence.workers


def _radius2(evidence: Evidence) -> float:
    """Return the largest ||x_0 - x*||^2 of the runs."""
    optimum = evidence.facts.optimum
    starts = [trace.position[0] for trace in evidence.traces if trace.position is not None]
    return max(float(np.square(x - optimum).sum()) for x in starts)


def _means(evidence: Evidence, ends: Ints) -> Floats:
    """Return the mean suboptimality of x_1, ..., x_T for each T of ``ends``, [R, K]."""
    return running_means(evidence.stack("loss")[:, 1:] - evidence.facts.least.value, ends)


CHECKS = (Check(CONVEX, convex), Check(ANY_STEP, any_step))
