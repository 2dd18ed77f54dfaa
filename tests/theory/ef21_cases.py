"""Where the statements on EF21 are sharp, and what breaks them."""

import torch
from torch import Tensor

from gradwire.analysis.theory.check import Finding
from gradwire.analysis.theory.evidence import Constant, Evidence, Facts
from gradwire.analysis.theory.lab import Problem, Trial
from gradwire.analysis.theory.problems import NoisyQuadratic
from gradwire.analysis.theory.results import ef21
from gradwire.compressors.feedback import EF21
from gradwire.compressors.remember import remember

from .toyschemes import Shrink

ALPHA = 1 - 0.25**2  # C(x) = 3 x / 4


class Drift(Problem):
    """Two workers whose gradients move on by the same vector at every step, wherever they are."""

    name, workers = "gradients that drift", 2
    start = torch.zeros(6, dtype=torch.float64)

    def facts(self) -> Facts:
        return Facts(None, None, convex=False, least=Constant(-float("inf"), "exact"))

    def value(self, x: Tensor) -> float:
        return float("nan")

    def gradient(self, x: Tensor) -> Tensor:
        return torch.full_like(x, float("nan"))

    def rows(self, x: Tensor, step: int, seed: int) -> Tensor:
        return torch.ones(2, 6, dtype=torch.float64) * (step + 1)


def shrinking(delta: float, claimed: float, step: float, steps: int) -> Evidence:
    """EF21 around C(x) = (1 - sqrt(1 - delta)) x on f = x^2, L = mu = 2."""
    scheme = remember(EF21(), Shrink(delta=delta, claimed=claimed))
    problem = NoisyQuadratic(torch.full((3,), 2.0), 0.0, 2, torch.ones(3))
    return Trial(problem, scheme, (step,) * steps, (0, 1)).run()


def largest(alpha: float, smoothness: float = 2.0) -> float:
    theta, beta = ef21.factors(alpha)
    return 1 / (smoothness * (1 + (beta / theta) ** 0.5))


def _drifting(delta: float) -> Finding:
    scheme = remember(EF21(), Shrink(delta=delta, claimed=0.1))
    return ef21.lemma(Trial(Drift(), scheme, (0.1,) * 400, (0, 1)).run())


SHARP = {
    "ef21.lemma": lambda: _drifting(0.1),
    "ef21.nonconvex": lambda: ef21.nonconvex(shrinking(ALPHA, ALPHA, largest(ALPHA), 20)),
    "ef21.pl": lambda: ef21.pl(shrinking(ALPHA, ALPHA, 0.01, 20)),
}
BROKEN = {
    "ef21.lemma": lambda: _drifting(0.08),
    "ef21.nonconvex": lambda: ef21.nonconvex(shrinking(0.1, ALPHA, largest(ALPHA), 20)),
    "ef21.pl": lambda: ef21.pl(shrinking(0.1, ALPHA, 0.01, 20)),
}
