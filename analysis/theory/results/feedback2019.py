"""Stich, Karimireddy 2019: error feedback without bounded gradients, in a form that is derived in the documentation.

Of N workers with the same expected gradient, each with a memory of its own, e_t stands for the mean of their memories.
"""

from typing import NamedTuple

import numpy as np

from ..check import Check, Condition, Finding, Floats, Statement, at_most
from ..evidence import Evidence
from .conditions import bounded_below, feedback_conditions, gradients_measured, smooth
from .sides import Ints, checkpoints, paired, running_means, start_gap

_PAPER = "Stich and Karimireddy 2019"

MEMORY = Statement(
    name="feedback.memory",
    title="the memory is bounded by the gradients met and the noise",
    source=f"derived in the manner of {_PAPER}",
    formula="(1/T) sum_{t=1..T} E||e_t||^2 <= 4 (1 - delta) gamma^2 / delta^2 (1/T) sum_{t<T} E||grad f(x_t)||^2 "
    "+ 2 (1 - delta) gamma^2 sigma^2 / delta, with E||g_i - grad f||^2 <= sigma^2",
    kind="expectation",
    grade="derived",
    attained="constant gradients, C(x) = (1 - sqrt(1 - delta)) x, small delta",
)

GRADIENT = Statement(
    name="feedback.gradient",
    title="gradients become small on average, whatever their size; delta enters linearly",
    source=f"derived in the manner of {_PAPER}",
    formula="(1/T) sum_{t<T} E||grad f(x_t)||^2 <= 4 (f(x_0) - f*) / (gamma T) + 2 L gamma sigma_N^2 "
    "+ 4 L^2 gamma^2 sigma^2 (1 - delta) / delta, if gamma <= min(1 / (4 L), delta / (4 L sqrt(1 - delta))), "
    "with E||mean of g_i - grad f||^2 <= sigma_N^2",
    kind="expectation",
    grade="derived",
    attained="a slope that ends in a parabola, C(x) = (1 - sqrt(1 - delta)) x: near a quarter, which the proof gives "
    "away",
)


class Noise(NamedTuple):
    """sigma^2 of a worker's gradient, and sigma_N^2 of the workers' mean."""

    own: float
    mean: float


def noise(evidence: Evidence) -> Noise:
    """Return the least bounds of the mean squared noise over these runs, at every step of them."""
    own, mean = (float(evidence.stack(name).mean(axis=0).max()) for name in ("noise2", "mean_noise2"))
    return Noise(own, mean)


def memory(evidence: Evidence) -> Finding:
    """Compare the mean squared memory with what the gradients and the noise let in."""
    conditions, measured = _conditions(evidence)
    delta, gamma = 1 - evidence.error, float(evidence.lr[0])
    if not measured or delta <= 0:
        return Finding(MEMORY, evidence.subject, conditions)
    ends = checkpoints(evidence.steps)
    share = 4 * (1 - delta) * gamma**2 / delta**2
    held = running_means(evidence.stack("memory2")[:, 1:], ends)
    let_in = share * running_means(evidence.stack("gradient2")[:, :-1], ends)
    bound = let_in.mean(axis=0) + 2 * (1 - delta) * gamma**2 * noise(evidence).own / delta
    return evidence.finding(MEMORY, conditions, ends.astype(float), paired(held, let_in), bound)


def gradient(evidence: Evidence) -> Finding:
    """Compare the running mean of squared gradients with the derived bound."""
    conditions, measured = _conditions(evidence)
    delta, gamma, smoothness = 1 - evidence.error, float(evidence.lr[0]), evidence.facts.smoothness
    conditions = (*conditions, smooth(evidence), bounded_below(evidence))
    if not measured or delta <= 0 or smoothness is None:
        return Finding(GRADIENT, evidence.subject, conditions)
    largest = largest_step(smoothness.value, delta)
    conditions = (*conditions, at_most("the learning rate", gamma, largest))
    ends = checkpoints(evidence.steps)
    bound = gradient_bound(start_gap(evidence), gamma, smoothness.value, noise(evidence), delta, ends)
    values = running_means(evidence.stack("gradient2")[:, :-1], ends)
    return evidence.finding(GRADIENT, conditions, ends.astype(float), values, bound)


def largest_step(smoothness: float, delta: float) -> float:
    """Return the largest learning rate that the bound of gradients allows."""
    q = np.sqrt(1 - delta)
    return float(min(1.0, delta / q if q > 0 else np.inf) / (4 * smoothness))


def gradient_bound(gap: float, gamma: float, smoothness: float, noises: Noise, delta: float, ends: Ints) -> Floats:
    """Return the bound of the mean squared gradient for each T of ``ends``, given f(x_0) - f*."""
    u, steps = gamma * smoothness, ends.astype(np.float64)
    bound: Floats = 4 * gap / (gamma * steps) + 2 * u * noises.mean + 4 * u**2 * noises.own * (1 - delta) / delta
    return bound


def _conditions(evidence: Evidence) -> tuple[tuple[Condition, ...], bool]:
    """Return what both statements presuppose, and whether gradients were measured."""
    measured, alike = gradients_measured(evidence), evidence.workers == 1 or evidence.facts.identical
    conditions = (
        *feedback_conditions(evidence),
        evidence.constant_rate(),
        Condition("all workers' gradients have the same expectation", alike),
        measured,
    )
    return conditions, bool(measured.holds)


CHECKS = (Check(MEMORY, memory), Check(GRADIENT, gradient))
