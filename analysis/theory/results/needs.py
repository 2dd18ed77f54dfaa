"""What many statements presuppose, as conditions on evidence; and the steps and pairs that they are checked on."""

import numpy as np

from ....compressors.base import Codec, Scheme
from ....compressors.quantizers.dense import Dense
from ..check import Condition, Finding, Floats, Statement
from ..evidence import Constant, Evidence


def rounding(evidence: Evidence) -> float:
    """Return the relative difference that arithmetic is granted: 1e-12, or 1e-6 of a run in float32.

    A run whose iterates are all float32 numbers, or were not kept, counts as one in float32.
    """
    kept = [trace.position for trace in evidence.traces if trace.position is not None]
    wide = any(bool((x != x.astype(np.float32)).any()) for x in kept)
    return 1e-12 if wide else 1e-6


def refused(statement: Statement, evidence: Evidence, conditions: tuple[Condition, ...]) -> Finding | None:
    """Return a finding without sides if a condition does not hold, else None."""
    if any(condition.holds is False for condition in conditions):
        return Finding(statement, evidence.subject, conditions)
    return None


def known(what: str, constant: Constant | None) -> Condition:
    """Return the condition that a constant is known: surely, or by samples only."""
    if constant is None:
        return Condition(f"{what} is not known", holds=False)
    if constant.how == "sampled":
        return Condition(f"{what} is known from samples only", holds=None)
    return Condition(f"{what} is known", holds=True)


def least_known(evidence: Evidence) -> Condition:
    """Return the condition that f* itself is known, not only a lower bound of f."""
    return Condition("f* is known", evidence.facts.least.how == "exact")


def at_every_iterate(evidence: Evidence, *names: str) -> Condition:
    """Return the condition that quantities of the trace were measured at every iterate."""
    measured = all(not bool(np.isnan(evidence.stack(name)).any()) for name in names)
    return Condition("f and its gradient are measured at every step", measured)


def steady(evidence: Evidence) -> tuple[Condition, ...]:
    """Return the conditions that the learning rate is constant, and above 0."""
    return evidence.constant_rate(), Condition("a learning rate above 0", bool(np.all(evidence.lr > 0)))


def alone(evidence: Evidence) -> Condition:
    """Return the condition that there is one worker."""
    return Condition("a single worker", evidence.workers == 1)


def memoryless(evidence: Evidence) -> Condition:
    """Return the condition that the scheme remembers nothing."""
    return Condition("no memory around the scheme", evidence.memory == "none")


def exact_gradients(evidence: Evidence) -> Condition:
    """Return the condition that the workers' mean gradient is that of f at every step, to rounding."""
    off, whole = evidence.stack("mean_noise2"), rounding(evidence) ** 2 * evidence.stack("own2")
    if np.isnan(off).any():
        return Condition("gradients without noise, as far as f's is known", holds=False)
    return Condition("gradients without noise", bool(np.all(off <= whole)))


def own_smoothness(evidence: Evidence) -> Constant | None:
    """Return the root of the mean of L_i^2: L itself where all workers have the same objective."""
    facts = evidence.facts
    return facts.smoothness if facts.identical else facts.own_smoothness


def heterogeneity(evidence: Evidence) -> Constant | None:
    """Return zeta^2: zero where all workers have the same objective."""
    return Constant(0.0, "exact") if evidence.facts.identical else evidence.facts.heterogeneity


def drawn_apart(scheme: Scheme) -> bool:
    """Return whether every worker draws for itself, at all stages of a schedule; where payloads are summed, none does.

    Protocols of several rounds count as drawing together.
    """
    parts = [part for stage in scheme.ever() for part in stage.parts() if not isinstance(part, Dense)]
    return all(isinstance(part, Codec) and part.combine == "gather" for part in parts)


def variance_share(evidence: Evidence) -> float:
    """Return w, with E||mean of C(x_i) - mean of x_i||^2 <= w * mean of ||x_i||^2 for an unbiased C.

    It is omega / N where every worker draws for itself, else omega, by convexity.
    """
    omega = evidence.error
    return omega / evidence.workers if drawn_apart(evidence.inner) else omega


def checkpoints(steps: int, count: int = 6) -> Floats:
    """Return about ``count`` numbers of steps from 1 to ``steps``, in geometric progression."""
    return np.unique(np.rint(np.geomspace(1, steps, count)))


def running_mean(values: Floats) -> Floats:
    """Return the means of the first 1, 2, ... columns, of the same shape."""
    means: Floats = np.cumsum(values, axis=-1) / np.arange(1, values.shape[-1] + 1)
    return means


def paired(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Return values and bound for E left <= E right where both vary from run to run.

    The bound is the mean of the right sides, and each run's left side is moved by what its right side differs from
    that, so that the values' spread is that of the difference.

    Parameters
    ----------
    left, right : array, shape [R, K]
    """
    bound: Floats = right.mean(axis=0)
    return left - right + bound, bound
