"""Cases: what a scheme is tried on in the laboratory, and at which learning rates, so that theorems apply to it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

import numpy as np
import torch

from ...compressors.base import Scheme, Shape
from ...compressors.errors import InputError
from ...compressors.policy import Layered
from ...compressors.spec import parse_scheme
from ...sim.tasks import Convex, make_task
from ...sim.training.record import memory_kind
from .assumptions import Assumption, assumptions
from .check import SEEDS, Finding, Floats
from .constants import standard_vectors
from .evidence import Evidence
from .lab import Problem, Trial
from .probe import Probe
from .problems import NoisyQuadratic, PulledQuadratic, Sampled, three_pulls
from .rates import Rate, RateError, measured_rate, prediction
from .registry import OPERATOR_CHECKS, RUN_CHECKS
from .results.ef21 import factors
from .results.workers import drawn_apart

_DIMENSION = 20
_MATRIX = (10, 10)


def _eigenvalues() -> torch.Tensor:
    """Return those of a quadratic with L = 1 and mu = 0.1."""
    return torch.logspace(0, -1, _DIMENSION, dtype=torch.float64)


def _quadratic(noise: float, workers: int) -> Problem:
    """Return a quadratic, started one unit from its optimum in every direction."""
    return NoisyQuadratic(_eigenvalues(), noise, workers, torch.ones(_DIMENSION))


def _pulled() -> Problem:
    """Return a quadratic whose four workers pull it in different directions, without noise."""
    pulls = torch.linspace(-1, 1, 4 * _DIMENSION, dtype=torch.float64).reshape(_DIMENSION, 4).T
    return PulledQuadratic(_eigenvalues(), 0.0, pulls, torch.ones(_DIMENSION))


def _logistic() -> Problem:
    """Return the packaged logistic regression, regularised so much that its condition number is moderate."""
    task = make_task("logistic", {"regularisation": 0.1})
    assert isinstance(task, Convex)
    return Sampled(task, "logistic regression", workers=4, batch_size=8)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "quadratic": lambda: _quadratic(noise=1.0, workers=4),
    "one worker": lambda: _quadratic(noise=0.0, workers=1),
    "round": lambda: NoisyQuadratic(torch.ones(_DIMENSION), 1.0, 4, torch.ones(_DIMENSION)),
    "pulled": _pulled,
    "three pulls": lambda: three_pulls(1.0),
    "logistic": _logistic,
}
"""What the laboratory tries schemes on."""


def _smoothness(problem: Problem) -> float:
    known = problem.facts().smoothness
    assert known is not None
    return known.value


def _strong_convexity(problem: Problem) -> float:
    known = problem.facts().strong_convexity
    assert known is not None
    return known.value


def _delta(scheme: Scheme, problem: Problem) -> float:
    """Return the part that a contraction keeps, or 1 / (1 + omega) of another scheme."""
    error = scheme.error_bound(tuple(problem.start.shape))
    return 1 - error if error < 1 else 1 / (1 + error)


def constant(scheme: Scheme, problem: Problem, steps: int) -> tuple[float, ...]:
    """Return the constant rate that bounds on error feedback without bounded gradients ask for."""
    most, delta = 1 / (4 * _smoothness(problem)), _delta(scheme, problem)
    return (min(most, delta * most / (1 - delta) ** 0.5) if delta < 1 else most,) * steps


def small(scheme: Scheme, problem: Problem, steps: int) -> tuple[float, ...]:
    """Return a fiftieth of the rate of :func:`constant`, at which theorems say something of small neighbourhoods."""
    return tuple(rate / 50 for rate in constant(scheme, problem, steps))


def decreasing(scheme: Scheme, problem: Problem, steps: int) -> tuple[float, ...]:
    """Return Stich's rates 8 / (mu (a + t)), with a = 7 / delta."""
    mu, delta = _strong_convexity(problem), _delta(scheme, problem)
    return tuple(8 / (mu * (7 / delta + step)) for step in range(steps))


def inverse(scheme: Scheme, problem: Problem, steps: int) -> tuple[float, ...]:
    """Return gradient descent's constant rate 1 / L, or 1 / ((1 + omega) L) if the scheme is unbiased."""
    gain = 1 + scheme.error_bound(tuple(problem.start.shape)) if scheme.unbiased else 1.0
    return (1 / (gain * _smoothness(problem)),) * steps


def averaged(scheme: Scheme, problem: Problem, steps: int) -> tuple[float, ...]:
    """Return the rate 1 / (L + 1/c) that bounds on averages of convex objectives choose for a number of steps.

    The variance is estimated from the start, where gradients are largest, and rounded up.
    """
    x, facts = problem.start.double(), problem.facts()
    assert facts.optimum is not None
    rows = torch.stack([problem.rows(x, 0, seed) for seed in range(SEEDS)])
    second, exact = float(rows.square().sum(2).mean()), float(problem.gradient(x).square().sum())
    omega = scheme.error_bound(tuple(x.shape))
    share = omega / problem.workers if drawn_apart(scheme) else omega
    variance = 2 * (share * second + (second - exact) / problem.workers)
    radius2 = float((x - torch.as_tensor(facts.optimum)).square().sum())
    return (1 / (_smoothness(problem) + (variance * steps / (2 * radius2)) ** 0.5),) * steps


def estimated(scheme: Scheme, problem: Problem, steps: int) -> tuple[float, ...]:
    """Return the largest constant rate that both of EF21's theorems allow."""
    facts = problem.facts()
    own = facts.smoothness if facts.identical else facts.own_smoothness
    assert own is not None
    theta, beta = factors(_delta(scheme, problem))
    most = 1 / (_smoothness(problem) + own.value * (2 * beta / theta) ** 0.5)
    return (min(most, theta / (2 * _strong_convexity(problem))),) * steps


Rates = Callable[[Scheme, Problem, int], tuple[float, ...]]
RATES: dict[str, Rates] = {
    rates.__name__: rates for rates in (constant, small, decreasing, inverse, averaged, estimated)
}
"""Rules for learning rates, by name: a scheme, a problem and the number of steps, to rates."""


class Result(NamedTuple):
    """What came out of a case: checks, fitted rates, and what was met of that which proofs take for bounded."""

    findings: list[Finding]
    rates: list[Rate]
    assumptions: list[Assumption]


def result_of(evidence: Evidence) -> Result:
    """Make all checks on runs; fit the rates that theory promises for them."""
    findings = [check.examine(evidence) for check in RUN_CHECKS]
    return Result(findings, promised_rates(evidence), assumptions(evidence))


def promised_rates(evidence: Evidence) -> list[Rate]:
    """Return fits against steps and bits where theory promises a rate that can be fitted, else nothing."""
    if prediction(evidence) is None:
        return []
    try:
        return [measured_rate(evidence, "steps"), measured_rate(evidence, "bits")]
    except RateError:
        return []


@dataclass(frozen=True)
class RunCase:
    """Runs of a scheme on a problem, for all checks on runs; all is said by name, so that a process can be sent it."""

    scheme: str
    problem: str
    rates: str
    steps: int
    seeds: int = SEEDS
    back: str = ""

    def result(self) -> Result:
        """Run it and make the checks."""
        return result_of(self.evidence())

    def evidence(self) -> Evidence:
        """Run it; two seeds tell whether anything is drawn, and the others are needed only then."""
        problem, scheme = PROBLEMS[self.problem](), parse_scheme(self.scheme)
        rates, back = RATES[self.rates](scheme, problem, self.steps), parse_scheme(self.back) if self.back else None
        first = Trial(problem, scheme, rates, (0, 1), back).run()
        if first.exact:
            return first
        rest = Trial(problem, scheme, rates, tuple(range(2, self.seeds)), back).run()
        return replace(first, traces=first.traces + rest.traces)


def _matrices(size: int) -> dict[str, Floats]:
    """Return square matrices of so many entries that have few singular values and no zero."""
    side = int(size**0.5)
    signs = np.where(np.arange(side) % 3 < 1, -1.0, 1.0)
    outer = np.outer(signs, np.linspace(1, 2, side))
    return {
        "all ones": np.ones((side, side)),
        "of rank one": outer,
        "of rank two": outer + np.outer(signs[::-1], signs),
    }


def _lonely(size: int) -> dict[str, Floats]:
    """Return vectors of one entry, and of one that is far larger than all others."""
    one = np.zeros(size)
    one[size // 3] = -1.0
    return {"one entry": one, "one that outweighs all others": one + 1e-4}


VECTORS: dict[str, Callable[[int], dict[str, Floats]]] = {
    "standard": standard_vectors,
    "matrices": _matrices,
    "lonely": _lonely,
}
"""What operators are tried on, of a size."""


@dataclass(frozen=True)
class ProbeCase:
    """A scheme's operator on vectors of :data:`VECTORS`, in a given shape, for all checks on operators."""

    scheme: str
    shape: Shape = (100,)
    vectors: str = "standard"
    draws: int = 500

    def result(self) -> Result:
        """Draw and make the checks."""
        probe = self.probe()
        return Result([check.examine(probe) for check in OPERATOR_CHECKS], [], [])

    def probe(self) -> Probe:
        """Return the scheme and its vectors."""
        vectors = {name: vector.reshape(self.shape) for name, vector in VECTORS[self.vectors](prod(self.shape)).items()}
        return Probe(parse_scheme(self.scheme), vectors, self.draws)


Case = RunCase | ProbeCase

_TRIED: dict[str, tuple[tuple[str, str, int], ...]] = {
    "ef": (
        ("quadratic", "constant", 60),
        ("round", "decreasing", 200),
        ("logistic", "constant", 40),
        ("logistic", "decreasing", 40),
    ),
    "ef21": (("pulled", "estimated", 100), ("one worker", "estimated", 100)),
    "none": (("one worker", "inverse", 100), ("three pulls", "inverse", 100)),
    "unbiased": (("one worker", "inverse", 40), ("quadratic", "averaged", 40), ("logistic", "averaged", 40)),
    "other": (),
}
"""Problems, rules for learning rates and numbers of steps for each kind of scheme."""


def cases_of(scheme: str) -> list[Case]:
    """Return what to try a scheme on: problems and learning rates that theorems about its kind speak of.

    A scheme that compresses matrices alone is tried on matrices, and not in training, where the model is a vector.

    Raises
    ------
    InputError
        If it is a policy, which has no operator of its own.
    """
    parsed = parse_scheme(scheme)
    if isinstance(parsed, Layered):
        raise InputError(f"scheme {scheme!r}: layers gives units schemes of their own; check one of these at a time")
    operator = Probe(parsed, {}).operator
    if operator.error_bound(_MATRIX) > 0 and operator.error_bound((prod(_MATRIX),)) == 0:
        return [ProbeCase(scheme, _MATRIX)]
    kind = "unbiased" if parsed.unbiased else memory_kind(parsed)
    return [ProbeCase(scheme), *(RunCase(scheme, *tried) for tried in _TRIED[kind])]
