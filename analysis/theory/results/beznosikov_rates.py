"""Beznosikov, Horváth, Richtárik, Safaryan 2020: gradient descent with biased compression, and where it diverges.

For one worker with exact gradients, and f that is L-smooth and fulfils the Polyak-Łojasiewicz inequality with mu. The
classes of operators: B1(a, b): a ||x||^2 <= E||C||^2 <= b <EC, x>. B2(g, b): g ||x||^2 <= <EC, x> and
E||C||^2 <= b <EC, x>. B3(delta): E||C - x||^2 <= (1 - 1/delta) ||x||^2. Their constants follow from what a scheme
states of its error.
"""

from typing import NamedTuple

import numpy as np

from ....compressors.base import Scheme, kept
from ....compressors.sparsifiers.topk import TopK
from ..check import Check, Condition, Finding, Statement, at_most
from ..evidence import Evidence
from .conditions import (
    alone,
    at_every_iterate,
    exact_gradients,
    known,
    least_known,
    memoryless,
    refused,
    smooth,
    steady,
)
from .sides import as_steps, checkpoints

_PAPER = "Beznosikov et al. 2020"

B1_RATE = Statement(
    name="beznosikov.b1_rate",
    title="gradient descent with an operator of class B1",
    source=f"{_PAPER}, compressed gradient descent",
    formula="E f(x_T) - f* <= (1 - (a/b) mu gamma (2 - b L gamma))^T (f(x_0) - f*); 1 - (a/b^2) mu/L at step 1/(b L)",
    kind="expectation",
    grade="derived",
    attained="f = L/2 ||x||^2, random entries, unscaled",
)
B2_RATE = Statement(
    name="beznosikov.b2_rate",
    title="gradient descent with an operator of class B2",
    source=f"{_PAPER}, compressed gradient descent",
    formula="E f(x_T) - f* <= (1 - g mu gamma (2 - b L gamma))^T (f(x_0) - f*); 1 - (g/b) mu/L at step 1/(b L)",
    kind="expectation",
    grade="derived",
    attained="f = L/2 ||x||^2, random entries, scaled",
)
B3_RATE = Statement(
    name="beznosikov.b3_rate",
    title="gradient descent with an operator of class B3",
    source=f"{_PAPER}, compressed gradient descent",
    formula="E f(x_T) - f* <= (1 - mu gamma / delta)^T (f(x_0) - f*), gamma <= 1/L; 1 - (1/delta) mu/L at step 1/L",
    kind="expectation",
    grade="derived",
    attained="f = L/2 ||x||^2, random entries, unscaled, step 1/L",
)
DIVERGENCE = Statement(
    name="beznosikov.divergence",
    title="three workers' largest entries lead away from the optimum",
    source=f"{_PAPER}, the example of divergence without error feedback",
    formula="||x_{t+1}||^2 = (1 + 11 gamma / 6)^2 ||x_t||^2 on f_i(x) = <v_i, x>^2 + ||x||^2 / 4, "
    "v = (-3,2,2), (2,-3,2), (2,2,-3), x_0 = (s,s,s), the largest entry sent without memory",
    kind="path",
    grade="derived",
    attained="every run of it",
    relation="equal",
)


class Classes(NamedTuple):
    """The constants of an operator in the three classes; delta is None where it is no contraction."""

    a: float
    g: float
    b: float
    delta: float | None


def classes(scheme: Scheme, error: float) -> Classes | None:
    """Return the constants of a scheme whose E||C(x) - x||^2 is at most ``error`` times ||x||^2; None if unknown.

    An unbiased operator has a = g = 1 and b = 1 + error. One that sends entries or drops them has <C, x> = ||C||^2, so
    a = g = 1 - error and b = 1. Of any other contraction, with r = sqrt(error): a = (1 - r)^2, g = 1 - r, b = 2.
    """
    if scheme.unbiased:
        return Classes(1.0, 1.0, 1 + error, 1.0 if error == 0 else None) if np.isfinite(error) else None
    if not 0 <= error < 1:
        return None
    if scheme.selects:
        return Classes(1 - error, 1 - error, 1.0, 1 / (1 - error))
    root = error**0.5
    return Classes((1 - root) ** 2, 1 - root, 2.0, 1 / (1 - error))


def b1_rate(evidence: Evidence) -> Finding:
    """Compare the suboptimality after a few numbers of steps with the rate of class B1."""
    found = classes(evidence.scheme, evidence.error)
    return _rate(evidence, B1_RATE, None if found is None else (found.a / found.b, found.b))


def b2_rate(evidence: Evidence) -> Finding:
    """Compare the suboptimality after a few numbers of steps with the rate of class B2."""
    found = classes(evidence.scheme, evidence.error)
    return _rate(evidence, B2_RATE, None if found is None else (found.g, found.b))


def b3_rate(evidence: Evidence) -> Finding:
    """Compare the suboptimality after a few numbers of steps with the rate of class B3."""
    found = classes(evidence.scheme, evidence.error)
    contraction = found is not None and found.delta is not None
    conditions = (Condition("a contraction: delta is finite", contraction), *_conditions(evidence, most=1.0))
    if (none := refused(B3_RATE, evidence, conditions)) is not None:
        return none
    assert found is not None
    assert found.delta is not None
    return _decay(evidence, B3_RATE, conditions, _mu(evidence) * float(evidence.lr[0]) / found.delta)


def divergence(evidence: Evidence) -> Finding:
    """Compare the growth of every step with the example's."""
    conditions = (
        memoryless(evidence),
        Condition("the largest entry is sent: topk with k = 1", _one_entry(evidence)),
        Condition("the example's three objectives, from equal entries", _is_example(evidence)),
        *evidence.facts.conditions,
    )
    if (none := refused(DIVERGENCE, evidence, conditions)) is not None:
        return none
    sizes = np.stack([np.square(t.position).sum(axis=1) for t in evidence.traces if t.position is not None])
    bound = (1 + 11 * evidence.lr / 6) ** 2
    steps = np.arange(1.0, evidence.steps + 1)
    return evidence.finding(DIVERGENCE, conditions, steps, sizes[:, 1:] / sizes[:, :-1], bound)


# ------------------------------------------------------------------------------------------------------------ the parts


def _conditions(evidence: Evidence, most: float) -> tuple[Condition, ...]:
    """Return what all rates presuppose; ``most`` is what the learning rate times L may be."""
    facts = evidence.facts
    small = Condition("a small enough learning rate", holds=False)
    if facts.smoothness is not None:
        sure = facts.smoothness.how != "sampled"
        text = f"a learning rate of at most {most:.4g}/L"
        small = at_most(text, float(evidence.lr[0]), most / facts.smoothness.value, sure)
    return (
        memoryless(evidence),
        alone(evidence),
        exact_gradients(evidence),
        at_every_iterate(evidence, "loss"),
        *steady(evidence),
        smooth(evidence),
        known("mu, of the Polyak-Łojasiewicz inequality,", facts.strong_convexity),
        least_known(evidence),
        small,
        *facts.conditions,
    )


def _rate(evidence: Evidence, statement: Statement, share: tuple[float, float] | None) -> Finding:
    """Return the finding of the rate 1 - share mu gamma (2 - b L gamma)."""
    most = 2 / share[1] if share is not None else 1.0
    constants = Condition("a known error: unbiased, or a contraction", share is not None)
    conditions = (constants, *_conditions(evidence, most))
    if (none := refused(statement, evidence, conditions)) is not None:
        return none
    assert share is not None
    assert evidence.facts.smoothness is not None
    gamma, b = float(evidence.lr[0]), share[1]
    gain = share[0] * _mu(evidence) * gamma * (2 - b * evidence.facts.smoothness.value * gamma)
    return _decay(evidence, statement, conditions, gain)


def _decay(evidence: Evidence, statement: Statement, conditions: tuple[Condition, ...], gain: float) -> Finding:
    ends = checkpoints(evidence.steps)
    below = evidence.stack("loss") - evidence.facts.least.value
    bound = (1 - gain) ** as_steps(ends) * float(below[:, 0].mean())
    slack = evidence.facts.rounding * float(np.abs(evidence.stack("loss")[:, 0]).max())
    return evidence.finding(statement, conditions, as_steps(ends), below[:, ends], bound, slack)


def _mu(evidence: Evidence) -> float:
    assert evidence.facts.strong_convexity is not None
    return evidence.facts.strong_convexity.value


def _one_entry(evidence: Evidence) -> bool:
    scheme = evidence.scheme
    return isinstance(scheme, TopK) and kept(scheme.density, 3) == 1


def _is_example(evidence: Evidence) -> bool:
    """Return whether f, ||grad f||^2 and the mean ||grad f_i||^2 at a start (s, s, s) are the example's."""
    if evidence.workers != 3 or evidence.shapes != ((3,),):
        return False
    for trace in evidence.traces:
        if trace.position is None or np.ptp(trace.position[0]) != 0 or trace.position[0][0] == 0:
            return False
        found = np.array([trace.loss[0], trace.gradient2[0], trace.own2[0]]) / trace.position[0][0] ** 2
        if not np.allclose(found, (7 / 4, 49 / 12, 283 / 4), rtol=1e-6, atol=0):
            return False
    return True


CHECKS = (
    Check(B1_RATE, b1_rate),
    Check(B2_RATE, b2_rate),
    Check(B3_RATE, b3_rate),
    Check(DIVERGENCE, divergence),
)
