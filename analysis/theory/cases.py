"""Cases: what a scheme is tried on in the laboratory, and at which learning rates, so that theorems apply to it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...compressors.base import Scheme
from ...compressors.spec import parse_scheme
from ...sim.tasks import Convex, make_task
from ...sim.training.record import memory_kind
from .check import SEEDS, Finding
from .evidence import Evidence, Facts
from .lab import Problem, Trial
from .probe import Probe
from .problems import NoisyQuadratic, Sampled
from .registry import OPERATOR_CHECKS, RUN_CHECKS

_DIMENSION = 20
_STEPS = 120


def _quadratic(noise: float, workers: int) -> Problem:
    """Return a quadratic of condition number 10, started one unit from its optimum in every direction."""
    eigenvalues = torch.logspace(0, -1, _DIMENSION, dtype=torch.float64)
    return NoisyQuadratic(eigenvalues, noise, workers, torch.ones(_DIMENSION))


def _logistic() -> Problem:
    """Return the packaged logistic regression, regularised so much that its condition number is moderate."""
    task = make_task("logistic", {"regularisation": 0.1})
    assert isinstance(task, Convex)
    return Sampled(task, "logistic regression", workers=4, batch_size=8)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "quadratic": lambda: _quadratic(noise=1.0, workers=4),
    "exact quadratic": lambda: _quadratic(noise=0.0, workers=1),
    "logistic": _logistic,
}
"""What the laboratory tries schemes on."""


def constant(delta: float, facts: Facts, steps: int) -> tuple[float, ...]:
    """Return the constant rate that bounds on error feedback without bounded gradients ask for."""
    assert facts.smoothness is not None
    most = 1 / (4 * facts.smoothness.value)
    return (min(most, delta * most / (1 - delta) ** 0.5) if delta < 1 else most,) * steps


def decreasing(delta: float, facts: Facts, steps: int) -> tuple[float, ...]:
    """Return Stich's rates 8 / (mu (a + t)), with a = 7 / delta."""
    assert facts.strong_convexity is not None
    return tuple(8 / (facts.strong_convexity.value * (7 / delta + step)) for step in range(steps))


def inverse(delta: float, facts: Facts, steps: int) -> tuple[float, ...]:
    """Return the constant rate 1 / L of gradient descent."""
    assert facts.smoothness is not None
    return (1 / facts.smoothness.value,) * steps


RATES: dict[str, Callable[[float, Facts, int], tuple[float, ...]]] = {
    "constant": constant,
    "decreasing": decreasing,
    "inverse": inverse,
}
"""Rules for learning rates: the contraction delta, what is known of the problem, and the number of steps, to rates."""


@dataclass(frozen=True)
class RunCase:
    """Runs of a scheme on a problem, for all checks on runs; fields are names, so that a process can be sent one."""

    scheme: str
    problem: str
    rates: str
    steps: int = _STEPS
    seeds: int = SEEDS

    def findings(self) -> list[Finding]:
        """Run it and make the checks."""
        evidence = self.evidence()
        return [check.examine(evidence) for check in RUN_CHECKS]

    def evidence(self) -> Evidence:
        """Run it."""
        problem, scheme = PROBLEMS[self.problem](), parse_scheme(self.scheme)
        shape = tuple(problem.start.shape)
        error = scheme.error_bound(shape)
        delta = 1 - error if error < 1 else 1 / (1 + error)
        rates = RATES[self.rates](delta, problem.facts(), self.steps)
        return Trial(problem, scheme, rates, tuple(range(self.seeds))).run()


@dataclass(frozen=True)
class ProbeCase:
    """A scheme's operator on the standard vectors, for all checks on operators."""

    scheme: str
    size: int = 100
    draws: int = 1000

    def findings(self) -> list[Finding]:
        """Draw and make the checks."""
        probe = self.probe()
        return [check.examine(probe) for check in OPERATOR_CHECKS]

    def probe(self) -> Probe:
        """Return the scheme and its vectors."""
        return Probe(parse_scheme(self.scheme), standard_vectors(self.size), self.draws)


Case = RunCase | ProbeCase


def cases_of(scheme: str) -> list[Case]:
    """Return what to try a scheme on: the regimes of those theorems that are about its kind."""
    parsed = parse_scheme(scheme)
    kinds: dict[str, tuple[tuple[str, str], ...]] = {
        "ef": (
            ("quadratic", "constant"),
            ("logistic", "constant"),
            ("quadratic", "decreasing"),
            ("logistic", "decreasing"),
        ),
        "none": (("exact quadratic", "inverse"), ("quadratic", "constant"), ("logistic", "constant")),
    }
    runs = [RunCase(scheme, problem, rates) for problem, rates in kinds.get(_kind(parsed), ())]
    return [ProbeCase(scheme), *runs]


def _kind(scheme: Scheme) -> str:
    return memory_kind(scheme)
