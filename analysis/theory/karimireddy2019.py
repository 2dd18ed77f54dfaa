"""Karimireddy, Rebjock, Stich, Jaggi 2019: error feedback under any contraction.

Of N workers, each with a memory of its own, every statement is the paper's with e_t the mean of the workers' memories,
and means over workers of their squared norms: the proofs carry over by convexity of the squared norm.
"""

import numpy as np

from .check import Check, Condition, Finding, Statement
from .evidence import Evidence

_PAPER = "Karimireddy et al. 2019"

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


def feedback_conditions(evidence: Evidence) -> tuple[Condition, ...]:
    """Return what all statements about error feedback presuppose."""
    delta = 1 - evidence.error
    return (
        Condition("error feedback around the scheme, or no memory and no error", evidence.memory == "ef" or delta == 1),
        Condition(f"a contraction: delta = {delta:.4g} is above 0", delta > 0),
        *evidence.facts.conditions,
    )


def identity(evidence: Evidence) -> Finding:
    """Compare the moves of x_t - e_t with the gradients: to rounding, which grows with no step."""
    conditions = (
        Condition(
            "error feedback around the scheme, or no memory and nothing lost",
            evidence.memory == "ef" or (evidence.memory == "none" and not evidence.stack("lost2").any()),
        ),
        *evidence.facts.conditions,
    )
    values = evidence.stack("identity")
    steps = np.arange(1.0, evidence.steps + 1)
    return evidence.finding(IDENTITY, conditions, steps, values, np.full(evidence.steps, evidence.facts.rounding))


def memory(evidence: Evidence) -> Finding:
    """Compare the workers' mean squared memory with the lemma's bound."""
    delta = 1 - evidence.error
    conditions = (*feedback_conditions(evidence), evidence.constant_rate())
    gamma, second = float(evidence.lr[0]), evidence.second_moment().value
    bound = np.full(evidence.steps, 4 * (1 - delta) * gamma**2 * second / delta**2 if delta > 0 else np.nan)
    values = evidence.stack("memory2")[:, 1:]
    return evidence.finding(MEMORY, conditions, np.arange(1.0, evidence.steps + 1), values, bound)


CHECKS = (Check(IDENTITY, identity), Check(MEMORY, memory))
