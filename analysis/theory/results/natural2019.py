"""Horváth, Ho, Horváth, Sahu, Canini, Richtárik 2019: distributed SGD with any unbiased compression.

With w = omega / N where every worker draws for itself, and w = omega where all draw the same, omega_M on the way back:
alpha = (1 + omega_M) ((1 / N + w) sigma^2 + w zeta^2) and beta = (1 + omega_M) (1 + w).
"""

import numpy as np

from ....compressors.base import Scheme
from ..check import Check, Condition, Finding, Statement
from ..evidence import Constant, Evidence
from .conditions import at_every_iterate, bounded_below, known, memoryless, refused, smooth, steady
from .sides import as_steps, checkpoints, running_means, start_gap
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

BIDIRECTIONAL = Statement(
    name="natural.bidirectional",
    title="the mean squared gradient falls to a floor, the mean being compressed on its way back, too",
    source="Horváth et al. 2019, Theorem 9",
    formula=f"{SGD.formula}, with alpha = (1 + omega_M) ((1/N + w) sigma^2 + w zeta^2), beta = (1 + omega_M) (1 + w)",
    kind="expectation",
    grade="derived",
    attained="f = L/2 ||x||^2 from its optimum, entries drawn and scaled on both ways, after many steps",
)


def sgd(evidence: Evidence) -> Finding:
    """Compare the mean squared gradient of the first T iterates with the theorem, for a few T."""
    return _finding(SGD, evidence, (), evidence.facts.conditions)


def bidirectional(evidence: Evidence) -> Finding:
    """Compare the same with the theorem where the mean is compressed on its way back, too."""
    ways = (
        Condition("something compressed on the way back", evidence.back is not None),
        Condition("an unbiased scheme on the way back", _unbiased(evidence.back, evidence.back_error)),
    )
    return _finding(BIDIRECTIONAL, evidence, ways, evidence.both_ways)


def _finding(
    statement: Statement, evidence: Evidence, ways: tuple[Condition, ...], training: tuple[Condition, ...]
) -> Finding:
    """Compare the mean squared gradient of the first T iterates with the theorem, omega_M being the way back's."""
    smoothness, sigma2, apart = evidence.facts.smoothness, noise(evidence), heterogeneity(evidence)
    conditions = (
        *ways,
        memoryless(evidence),
        Condition("an unbiased scheme", _unbiased(evidence.scheme, evidence.error)),
        at_every_iterate(evidence, "loss", "gradient2"),
        *steady(evidence),
        smooth(evidence),
        bounded_below(evidence),
        known("sigma^2, the workers' noise,", sigma2),
        known("zeta^2, what workers' gradients differ by,", apart),
        *training,
    )
    if (none := refused(statement, evidence, conditions)) is not None:
        return none
    assert smoothness is not None
    assert sigma2 is not None
    assert apart is not None
    w, back, gamma = variance_share(evidence), evidence.back_error, float(evidence.lr[0])
    alpha, beta = (1 + back) * ((1 / evidence.workers + w) * sigma2.value + w * apart.value), (1 + back) * (1 + w)
    reach, sure = gamma * beta * smoothness.value, smoothness.how != "sampled"
    most = 2 / (beta * smoothness.value)
    conditions = (
        *conditions,
        Condition("a learning rate below 2 / (beta L)", reach < 2 and (sure or None), gamma, most),
    )
    if (none := refused(statement, evidence, conditions)) is not None:
        return none
    ends = checkpoints(evidence.steps)
    counts, values = as_steps(ends), running_means(evidence.stack("gradient2")[:, :-1], ends)
    bound = 2 * start_gap(evidence) / (gamma * (2 - reach) * counts) + alpha * smoothness.value * gamma / (2 - reach)
    return evidence.finding(statement, conditions, counts, values, bound)


def _unbiased(scheme: Scheme | None, omega: float) -> bool:
    """Return whether a scheme is unbiased, with a variance that it states."""
    return scheme is not None and scheme.unbiased and bool(np.isfinite(omega))


def noise(evidence: Evidence) -> Constant | None:
    """Return sigma^2: as known, else the largest mean over runs that was met, which counts zeta^2 too."""
    if evidence.facts.noise is not None:
        return evidence.facts.noise
    met = evidence.stack("noise2")
    return None if np.isnan(met).any() else Constant(float(met.mean(axis=0).max()), "measured")


CHECKS = (Check(SGD, sgd), Check(BIDIRECTIONAL, bidirectional))
