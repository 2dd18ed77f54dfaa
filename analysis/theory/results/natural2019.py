"""Horváth, Ho, Horváth, Sahu, Canini, Richtárik 2019: distributed SGD with any unbiased compression.

Here without compression on the way back (omega_M = 0). With w = omega / N where every worker draws for itself, and
w = omega where all draw the same: alpha = (1 / N + w) sigma^2 + w zeta^2 and beta = 1 + w.
"""

import numpy as np

from ..check import Check, Condition, Finding, Statement
from ..evidence import Constant, Evidence
from .conditions import at_every_iterate, bounded_below, known, memoryless, refused, smooth, steady
from .sides import as_steps, checkpoints, running_means
from .workers import heterogeneity, variance_share

SGD = Statement(
    name="natural.sgd",
    title="the mean squared gradient falls to a floor set by noise and compression",
    source="Horváth et al. 2019, Theorem 9, omega_M = 0",
    formula="(1/T) sum over t < T of E||grad f(x_t)||^2 <= 2 (f(x_0) - f*) / (gamma (2 - beta L gamma) T) "
    "+ alpha L gamma / (2 - beta L gamma), gamma < 2 / (beta L)",
    kind="expectation",
    grade="derived",
    attained="f = L/2 ||x||^2 from its optimum, entries drawn by each worker and scaled, after many steps",
)


def sgd(evidence: Evidence) -> Finding:
    """Compare the mean squared gradient of the first T iterates with the theorem, for a few T."""
    facts = evidence.facts
    sigma2 = noise(evidence)
    conditions = (
        memoryless(evidence),
        Condition("an unbiased scheme", evidence.scheme.unbiased and np.isfinite(evidence.error)),
        at_every_iterate(evidence, "loss", "gradient2"),
        *steady(evidence),
        smooth(evidence),
        bounded_below(evidence),
        known("sigma^2, the workers' noise,", sigma2),
        known("zeta^2, what workers' gradients differ by,", heterogeneity(evidence)),
        *facts.conditions,
    )
    if (none := refused(SGD, evidence, conditions)) is not None:
        return none
    apart = heterogeneity(evidence)
    assert facts.smoothness is not None
    assert sigma2 is not None
    assert apart is not None
    w, gamma, smoothness = variance_share(evidence), float(evidence.lr[0]), facts.smoothness.value
    alpha, beta = (1 / evidence.workers + w) * sigma2.value + w * apart.value, 1 + w
    reach = gamma * beta * smoothness
    sure = facts.smoothness.how != "sampled"
    small = Condition(
        "a learning rate below 2 / (beta L)", reach < 2 and (sure or None), gamma, 2 / (beta * smoothness)
    )
    conditions = (*conditions, small)
    if (none := refused(SGD, evidence, conditions)) is not None:
        return none
    ends = checkpoints(evidence.steps)
    counts, values = as_steps(ends), running_means(evidence.stack("gradient2")[:, :-1], ends)
    start = float(evidence.stack("loss")[:, 0].mean()) - facts.least.value
    bound = 2 * start / (gamma * (2 - reach) * counts) + alpha * smoothness * gamma / (2 - reach)
    return evidence.finding(SGD, conditions, counts, values, bound)


def noise(evidence: Evidence) -> Constant | None:
    """Return sigma^2: as known, else the largest mean over runs that was met, which counts zeta^2 too."""
    if evidence.facts.noise is not None:
        return evidence.facts.noise
    met = evidence.stack("noise2")
    return None if np.isnan(met).any() else Constant(float(met.mean(axis=0).max()), "measured")


CHECKS = (Check(SGD, sgd),)
