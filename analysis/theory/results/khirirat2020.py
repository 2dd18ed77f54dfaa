"""Khirirat, Magnússon, Aytekin, Johansson 2020: what a step of sparsified gradient descent gains for sure.

For an L-smooth f, one worker, exact gradients and no memory. A step of gamma = 1 / L gains at least the fraction
alpha(T), beta(T) or omega(T) of ||grad f||^2 / (2 L); any other step phi = 2 gamma L - (gamma L)^2 of that, or, where
entries are drawn, phi = 2 gamma L - (gamma L)^2 / omega in all. The fractions are computed here from the gradients at
the recorded iterates, not from what the scheme has sent.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ....compressors.adaptive import CAT
from ....compressors.base import Scheme, kept
from ....compressors.sparsifiers.topk import TopK
from ....compressors.sparsifiers.waterfill import probabilities
from ..check import Check, Condition, Finding, Floats, Statement, at_most
from ..evidence import Evidence
from .conditions import (
    alone,
    at_every_iterate,
    bounded_below,
    exact_gradients,
    known,
    least_known,
    memoryless,
    refused,
    smooth,
)
from .sides import checkpoints, paired

_PAPER = "Khirirat et al. 2020"
_QUADRATIC = "f = L/2 ||x||^2"

SPARSIFIED = Statement(
    name="khirirat.sparsified",
    title="a step with the T largest entries gains the fraction alpha(T)",
    source=f"{_PAPER}, descent lemma of dynamic sparsification (CAT-S)",
    formula="f(x_{t+1}) <= f(x_t) - phi_t alpha(T_t) ||grad f(x_t)||^2 / (2 L), alpha(T) = share of the T largest "
    "entries in ||grad f||^2, phi_t = 1 at step 1/L",
    kind="path",
    grade="derived",
    attained=_QUADRATIC,
)
QUANTIZED = Statement(
    name="khirirat.quantized",
    title="a step with the T largest entries' signs gains the fraction beta(T)",
    source=f"{_PAPER}, descent lemma of sparsification with quantization (CAT-SQ)",
    formula="f(x_{t+1}) <= f(x_t) - phi_t beta(T_t) ||grad f(x_t)||^2 / (2 L), beta(T) = (sum of the T largest "
    "magnitudes)^2 / (T ||grad f||^2), phi_t = 1 at step 1/L",
    kind="path",
    grade="derived",
    attained=_QUADRATIC,
)
STOCHASTIC = Statement(
    name="khirirat.stochastic",
    title="a step with drawn entries gains the fraction omega(T) in the mean",
    source=f"{_PAPER}, descent lemma of stochastic sparsification (CAT-SS)",
    formula="E f(x_{t+1}) <= E[f(x_t) - (2 gamma L - (gamma L)^2 / omega) ||grad f(x_t)||^2 / (2 L)], "
    "omega = ||grad f||^2 / sum of (grad f)_j^2 / p_j",
    kind="expectation",
    grade="derived",
    attained=_QUADRATIC,
)
PRODUCT = Statement(
    name="khirirat.product",
    title="the suboptimality falls by the product of what the steps gain",
    source=f"{_PAPER}, dynamic sparsification of strongly convex objectives",
    formula="f(x_t) - f* <= (f(x_0) - f*) * product over s < t of (1 - phi_s fraction_s mu / L), "
    "if no step is above 2/L",
    kind="path",
    grade="derived",
    attained=_QUADRATIC,
)
GRADIENTS = Statement(
    name="khirirat.gradients",
    title="the gains add up to no more than there is to gain",
    source=f"{_PAPER}, dynamic sparsification of non-convex objectives",
    formula="sum over s < t of phi_s fraction_s ||grad f(x_s)||^2 <= 2 L (f(x_0) - f*)",
    kind="path",
    grade="derived",
    attained=f"{_QUADRATIC}, after many steps",
)
STEPS_STRONG = Statement(
    name="khirirat.steps_strong",
    title="steps to an accuracy, strongly convex",
    source=f"{_PAPER}, iteration complexity",
    formula="f - f* <= eps after at most (1 / a) (L / mu) log((f(x_0) - f*) / eps) steps of 1/L, "
    "a = the least fraction",
    kind="path",
    grade="derived",
    attained=f"{_QUADRATIC} from equal entries, the largest of d entries sent, eps near the start",
)
STEPS_CONVEX = Statement(
    name="khirirat.steps_convex",
    title="steps to an accuracy, convex",
    source=f"{_PAPER}, iteration complexity",
    formula="f - f* <= eps after at most 2 L R^2 / (a eps) steps of 1/L, a = the least fraction, "
    "R = the largest ||x_t - x*||",
    kind="path",
    grade="derived",
    attained="a sum of Huber functions with equal slopes, one entry a step, to a ninth of the bound",
)
STEPS_NONCONVEX = Statement(
    name="khirirat.steps_nonconvex",
    title="steps to a small gradient",
    source=f"{_PAPER}, iteration complexity",
    formula="||grad f||^2 <= eps after at most 2 L (f(x_0) - f*) / (a eps) steps of 1/L, a = the least fraction",
    kind="path",
    grade="derived",
    attained="a sum of Huber functions with equal slopes, one entry a step, to two fifths of the bound",
)


def fraction(scheme: Scheme, gradient: Floats | NDArray[np.float32]) -> float | None:
    """Return what a step with this gradient gains for sure, as a fraction of ||gradient||^2 / (2 L); None for others.

    Parameters
    ----------
    scheme : Scheme
        ``cat`` with any operator, or ``topk``.
    gradient : array, shape [d]
        In the dtype of the training, which the choice of ``cat`` depends on.
    """
    magnitudes = np.sort(np.abs(gradient.astype(np.float64)))[::-1]
    norm2 = float(np.square(magnitudes).sum())
    if isinstance(scheme, TopK):
        count, operator = kept(scheme.density, len(gradient)), "top"
    elif isinstance(scheme, CAT):
        count, operator = scheme.choose(torch.as_tensor(gradient)), scheme.operator
    else:
        return None
    if norm2 == 0:
        return 1.0
    if operator == "top":
        return float(np.square(magnitudes[:count]).sum()) / norm2
    if operator == "sq":
        return float(magnitudes[:count].sum()) ** 2 / (count * norm2)
    sent = magnitudes[magnitudes > 0]
    p = probabilities(torch.as_tensor(sent.copy())[None], count)[0].numpy()
    return norm2 / float((np.square(sent) / p).sum())


def sparsified(evidence: Evidence) -> Finding:
    """Compare every step's loss with what the T largest entries are sure to gain."""
    return _descent(evidence, SPARSIFIED, "the T largest entries are sent: cat(operator=top) or topk", ("top",))


def quantized(evidence: Evidence) -> Finding:
    """Compare every step's loss with what the T largest entries' signs are sure to gain."""
    return _descent(evidence, QUANTIZED, "the T largest entries' signs are sent: cat(operator=sq)", ("sq",))


def stochastic(evidence: Evidence) -> Finding:
    """Compare the mean loss after a few of the steps with what drawn entries gain in the mean."""
    return _descent(evidence, STOCHASTIC, "entries are drawn: cat(operator=stochastic)", ("stochastic",))


def product(evidence: Evidence) -> Finding:
    """Compare the suboptimality with the product of what the steps are sure to gain."""
    facts = evidence.facts
    conditions = (
        *_conditions(evidence, _LARGEST, ("top", "sq")),
        known("mu, above 0,", facts.strong_convexity),
        least_known(evidence),
        _no_step_back(evidence),
    )
    if (none := refused(PRODUCT, evidence, conditions)) is not None:
        return none
    assert facts.strong_convexity is not None
    condition_number = _smoothness(evidence) / facts.strong_convexity.value
    factors = 1 - _gains(evidence) / condition_number
    right = _below(evidence)[:, :1] * np.cumprod(factors, axis=1)
    values, bound = _tightest(_below(evidence)[:, 1:], right)
    return evidence.finding(PRODUCT, conditions, _counts(evidence), values, bound, slack=_slack(evidence))


def gradients(evidence: Evidence) -> Finding:
    """Compare the sum of all gains with what there is to gain."""
    conditions = _conditions(evidence, _LARGEST, ("top", "sq"))
    if (none := refused(GRADIENTS, evidence, conditions)) is not None:
        return none
    left = np.cumsum(_gains(evidence) * evidence.stack("gradient2")[:, :-1], axis=1)
    there = 2 * _smoothness(evidence) * _below(evidence)[:, :1]
    values, bound = _tightest(left, np.broadcast_to(there, left.shape))
    return evidence.finding(GRADIENTS, conditions, _counts(evidence), values, bound, slack=_slack(evidence))


def steps_strong(evidence: Evidence) -> Finding:
    """Compare the steps that accuracies took with what strong convexity allows."""
    mu = evidence.facts.strong_convexity

    def allowed(eps: Floats) -> Floats:
        assert mu is not None
        result: Floats = np.log(_below(evidence)[:, 0].max() / eps) * _smoothness(evidence) / mu.value
        return result

    return _steps(evidence, STEPS_STRONG, _below, allowed, (known("mu, above 0,", mu), least_known(evidence)))


def steps_convex(evidence: Evidence) -> Finding:
    """Compare the steps that accuracies took with what convexity allows."""
    optimum = evidence.facts.optimum

    def allowed(eps: Floats) -> Floats:
        assert optimum is not None
        kept_whole = [trace.position for trace in evidence.traces if trace.position is not None]
        radius2 = max(float(np.square(x - optimum).sum(axis=1).max()) for x in kept_whole)
        return 2 * _smoothness(evidence) * radius2 / eps

    needs = (
        Condition("convex", evidence.facts.convex),
        least_known(evidence),
        Condition("x* is known", optimum is not None),
    )
    return _steps(evidence, STEPS_CONVEX, _below, allowed, needs)


def steps_nonconvex(evidence: Evidence) -> Finding:
    """Compare the steps that small gradients took with what smoothness alone allows."""

    def allowed(eps: Floats) -> Floats:
        return 2 * _smoothness(evidence) * float(_below(evidence)[:, 0].max()) / eps

    return _steps(evidence, STEPS_NONCONVEX, lambda runs: runs.stack("gradient2"), allowed, ())


# ------------------------------------------------------------------------------------------------------------ the parts


def _operator(scheme: Scheme) -> str:
    """Return which of the paper's operators a scheme is; nothing for others."""
    if isinstance(scheme, TopK):
        return "top"
    return scheme.operator if isinstance(scheme, CAT) else ""


def _conditions(evidence: Evidence, what: str, operators: tuple[str, ...]) -> tuple[Condition, ...]:
    facts = evidence.facts
    kept_whole = all(trace.position is not None for trace in evidence.traces)
    return (
        memoryless(evidence),
        Condition(what, _operator(evidence.scheme) in operators),
        Condition("the model is one unit", len(evidence.shapes) == 1),
        alone(evidence),
        exact_gradients(evidence),
        smooth(evidence),
        bounded_below(evidence),
        Condition("the gradient can be computed at the recorded iterates", facts.gradient is not None and kept_whole),
        at_every_iterate(evidence, "loss", "gradient2"),
        *facts.conditions,
    )


def _no_step_back(evidence: Evidence) -> Condition:
    """Return the condition that no step is above 2/L: phi < 0 times a gradient is not bounded by mu from this side."""
    text, known_l = "learning rates of at most 2/L", evidence.facts.smoothness
    if known_l is None:
        return Condition(text, holds=False)
    return at_most(text, float(evidence.lr.max()), 2 / known_l.value, known_l.how != "sampled")


def _smoothness(evidence: Evidence) -> float:
    assert evidence.facts.smoothness is not None
    return evidence.facts.smoothness.value


def _fractions(evidence: Evidence) -> Floats:
    """Return the fraction at every step of every run, [R, S]."""
    gradient = evidence.facts.gradient
    assert gradient is not None
    narrow = evidence.facts.rounding > 1e-12
    rows = []
    for trace in evidence.traces:
        assert trace.position is not None
        found = [gradient(x) for x in trace.position[:-1]]
        wide = [fraction(evidence.scheme, g) for g in found]
        # A choice weighs the bytes of values, so that it may be another one in float32.
        other = [fraction(evidence.scheme, g.astype(np.float32)) for g in found] if narrow else wide
        rows.append(np.minimum(np.array(wide, dtype=np.float64), np.array(other, dtype=np.float64)))
    return np.stack(rows)


def _gains(evidence: Evidence) -> Floats:
    """Return phi times the fraction, [R, S]; in the mean over draws for the stochastic operator."""
    relative, fractions = evidence.lr * _smoothness(evidence), _fractions(evidence)
    if _operator(evidence.scheme) == "stochastic":
        return 2 * relative - relative**2 / fractions
    return (2 * relative - relative**2) * fractions


def _descent(evidence: Evidence, statement: Statement, what: str, operators: tuple[str, ...]) -> Finding:
    conditions = _conditions(evidence, what, operators)
    if (none := refused(statement, evidence, conditions)) is not None:
        return none
    loss, gradient2 = evidence.stack("loss"), evidence.stack("gradient2")[:, :-1]
    right = loss[:, :-1] - _gains(evidence) * gradient2 / (2 * _smoothness(evidence))
    steps, left = _counts(evidence), loss[:, 1:]
    if statement.kind == "expectation":
        some = checkpoints(evidence.steps) - 1
        steps, left, right = steps[some], left[:, some], right[:, some]
        values, bound = paired(left, right), right.mean(axis=0)
    else:
        values, bound = _tightest(left, right)
    return evidence.finding(statement, conditions, steps, values, bound, slack=_slack(evidence))


def _steps(
    evidence: Evidence,
    statement: Statement,
    measure: Callable[[Evidence], Floats],
    allowed: Callable[[Floats], Floats],
    needs: tuple[Condition, ...],
) -> Finding:
    """Compare when a measure first fell to parts of its start with when it must have, within the run."""
    text = "a constant learning rate of 1/L"
    at_rate = Condition(text, holds=False)
    if evidence.facts.smoothness is not None:
        at_rate = Condition(text, bool(np.allclose(evidence.lr * _smoothness(evidence), 1, rtol=1e-9, atol=0)))
    conditions = (*_conditions(evidence, _LARGEST, ("top", "sq")), at_rate, *needs)
    if (none := refused(statement, evidence, conditions)) is not None:
        return none
    rows = measure(evidence)
    eps = float(rows[:, 0].max()) * _LEVELS
    bound = np.ceil(allowed(eps) / _fractions(evidence).min())
    decided = bound <= evidence.steps
    long_enough = Condition("the run is as long as the least of these numbers of steps", bool(decided.any()))
    conditions = (*conditions, long_enough)
    if (none := refused(statement, evidence, conditions)) is not None:
        return none
    fell = rows[:, None, :] <= eps[decided][:, None]
    took = np.where(fell.any(axis=2), fell.argmax(axis=2), np.inf)
    finding = evidence.finding(statement, conditions, eps[decided], took, bound[decided])
    return replace(finding, axis="accuracy")


def _below(evidence: Evidence) -> Floats:
    """Return the suboptimality, [R, S+1]."""
    return evidence.stack("loss") - evidence.facts.least.value


def _tightest(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Return values and bound of a statement that holds on every run with a right side of its own.

    The bound is the first run's, and every value is moved by what its own bound differs from that.
    """
    return left - right + right[0], right[0]


def _counts(evidence: Evidence) -> Floats:
    return np.arange(1.0, evidence.steps + 1)


def _slack(evidence: Evidence) -> float:
    """Return the rounding of sums of the size of the first loss."""
    return evidence.facts.rounding * float(np.abs(evidence.stack("loss")[:, 0]).max())


_LEVELS = 0.9 ** np.arange(1.0, 61)
"""The accuracies at which steps are counted, as parts of the start's."""
_LARGEST = "the largest entries are sent: cat(operator=top or sq) or topk"

CHECKS = (
    Check(SPARSIFIED, sparsified),
    Check(QUANTIZED, quantized),
    Check(STOCHASTIC, stochastic),
    Check(PRODUCT, product),
    Check(GRADIENTS, gradients),
    Check(STEPS_STRONG, steps_strong),
    Check(STEPS_CONVEX, steps_convex),
    Check(STEPS_NONCONVEX, steps_nonconvex),
)
