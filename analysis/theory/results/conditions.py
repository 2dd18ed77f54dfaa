"""What statements presuppose of a scheme, of a problem and of what was recorded."""

import numpy as np

from ....compressors.base import Codec
from ....compressors.feedback import ErrorFeedback
from ....compressors.remember import Remembering
from ..check import Condition, Finding, Statement, at_most
from ..evidence import Constant, Evidence


def feedback_conditions(evidence: Evidence) -> tuple[Condition, ...]:
    """Return what statements about error feedback around a contraction presuppose of scheme and training."""
    delta = 1 - evidence.error
    return (
        *memory_conditions(evidence),
        Condition(f"a contraction: delta = {delta:.4g} is above 0", delta > 0),
        Condition("learning rates above 0: at 0 nothing is sent", bool(np.all(evidence.lr > 0))),
        *_exchange(evidence),
    )


def memory_conditions(evidence: Evidence) -> tuple[Condition, ...]:
    """Return what statements presuppose that need nothing lost, but no contraction: the papers' memory, and training.

    The memory keeps all of the residual, in units of the update; gradients are bounded, which in recorded runs is that
    no squared norm overflowed.
    """
    lossless = evidence.memory == "none" and evidence.error == 0
    return (
        Condition("error feedback around the scheme, or no memory and no error", evidence.memory == "ef" or lossless),
        *_residual(evidence),
        Condition("every gradient's squared norm is finite", bool(np.isfinite(evidence.stack("own2")).all())),
        *evidence.facts.conditions,
    )


def _residual(evidence: Evidence) -> tuple[Condition, ...]:
    """Return, where there is error feedback, that it is the papers'."""
    memory = evidence.scheme.memory if isinstance(evidence.scheme, Remembering) else None
    if not isinstance(memory, ErrorFeedback):
        return ()
    same = memory.units == "update" or bool(np.ptp(evidence.lr) == 0)
    return (
        Condition("nothing of the memory fades: decay = 1", memory.decay == 1),
        Condition("a memory in units of the update, or a constant learning rate", same),
    )


def _exchange(evidence: Evidence) -> tuple[Condition, ...]:
    """Return, where workers keep what others could not send, that they lose no more together than is stated."""
    if isinstance(evidence.inner, Codec) or evidence.workers == 1:
        return ()
    text = "in an exchange of several rounds: the workers' mean loss over their mean input, at every step"
    return (at_most(text, *_losses(evidence)),)


def _losses(evidence: Evidence) -> tuple[float, float]:
    """Return the largest loss met, over runs and workers, relative to what was compressed, and what is stated."""
    lost, given = evidence.stack("lost2").mean(axis=0), evidence.stack("input2").mean(axis=0)
    return float(np.divide(lost, given, out=np.zeros_like(lost), where=given > 0).max()), evidence.error


def contracts_every_vector(evidence: Evidence) -> Condition:
    """Return the condition that every vector that was compressed lost no more than the stated share."""
    text = "every vector that was compressed keeps to the stated contraction: ||C(p) - p||^2 / ||p||^2"
    return at_most(text, float(evidence.stack("worst_ratio").max()), evidence.error)


def smooth(evidence: Evidence) -> Condition:
    """Return the condition that f is smooth, with a known L; if it is not, it says which operations are not."""
    if rough := evidence.facts.rough:
        return Condition(f"a smooth objective: it has {', '.join(rough)}", holds=False)
    return known("a smooth objective, its L", evidence.facts.smoothness)


def bounded_below(evidence: Evidence) -> Condition:
    """Return the condition that f is bounded below, by a number that is known."""
    return Condition("a known lower bound of f", bool(np.isfinite(evidence.facts.least.value)))


def strongly_convex(evidence: Evidence) -> Condition:
    """Return the condition that f is strongly convex, with a known mu."""
    return known("a strongly convex objective, its mu", evidence.facts.strong_convexity)


def convex(evidence: Evidence) -> Condition:
    """Return the condition that f is convex."""
    return Condition("a convex objective", evidence.facts.convex)


def optimum_known(evidence: Evidence) -> tuple[Condition, ...]:
    """Return the conditions that x* and f* are known."""
    known_optimum = Condition("the optimum x* is known", evidence.facts.optimum is not None)
    return (known_optimum, known("the least value f*", evidence.facts.least))


def gradients_measured(evidence: Evidence) -> Condition:
    """Return the condition that grad f(x_t) was measured at every step, and not at evaluations alone."""
    missing = np.isnan(evidence.stack("gradient2")[:, :-1]) & np.isfinite(evidence.stack("own2"))
    return Condition("the gradient of f was measured at every step", not bool(missing.any()))


def iterates_kept(evidence: Evidence) -> Condition:
    """Return the condition that iterates were kept, and that f can be had at others."""
    kept = all(trace.position is not None for trace in evidence.traces)
    return Condition("iterates were kept, and f can be had at others", kept and evidence.facts.value is not None)


def known(what: str, constant: Constant | None) -> Condition:
    """Return the condition that a constant is known: not only met at some points."""
    if constant is None:
        return Condition(f"{what}: there is none, or it is not known", False)
    sure = constant.how != "sampled"
    return Condition(f"{what} = {constant.value:.4g}" + ("" if sure else ", only estimated"), sure or None)


def least_known(evidence: Evidence) -> Condition:
    """Return the condition that f* itself is known, not only a lower bound of f."""
    return Condition("f* is known", evidence.facts.least.how == "exact")


def at_every_iterate(evidence: Evidence, *names: str) -> Condition:
    """Return the condition that quantities of the trace were measured at every iterate."""
    measured = all(not bool(np.isnan(evidence.stack(name)).any()) for name in names)
    return Condition("f and its gradient are measured at every step", measured)


def alone(evidence: Evidence) -> Condition:
    """Return the condition that there is one worker."""
    return Condition("a single worker", evidence.workers == 1)


def memoryless(evidence: Evidence) -> Condition:
    """Return the condition that the scheme remembers nothing."""
    return Condition("no memory around the scheme", evidence.memory == "none")


def exact_gradients(evidence: Evidence) -> Condition:
    """Return the condition that the workers' mean gradient is that of f at every step, to rounding."""
    off, whole = evidence.stack("mean_noise2"), evidence.facts.rounding**2 * evidence.stack("own2")
    if np.isnan(off).any():
        return Condition("gradients without noise, as far as f's is known", holds=False)
    return Condition("gradients without noise", bool(np.all(off <= whole)))


def refused(statement: Statement, evidence: Evidence, conditions: tuple[Condition, ...]) -> Finding | None:
    """Return a finding without sides if a condition does not hold, else None."""
    if any(condition.holds is False for condition in conditions):
        return Finding(statement, evidence.subject, conditions)
    return None


def steady(evidence: Evidence) -> tuple[Condition, ...]:
    """Return the conditions that the learning rate is constant, and above 0."""
    return evidence.constant_rate(), Condition("a learning rate above 0", bool(np.all(evidence.lr > 0)))
