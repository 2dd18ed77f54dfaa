"""Where the statements on distributed SGD with unbiased compression are sharp, and what breaks them."""

import torch

from gradwire.analysis.theory.check import Finding
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import NoisyQuadratic, PulledQuadratic
from gradwire.analysis.theory.results import natural2019
from gradwire.compressors.base import Scheme
from gradwire.compressors.spec import parse_scheme

from .faulty import posing

HALF, QUARTER = (f"randomk(density={k}, scaled=True, seed=own)" for k in (0.5, 0.25))
STEP, SMALL_STEP = 0.25, 0.15


def at_optimum(pulls: float = 0.0) -> NoisyQuadratic:
    """Two workers on f = ||x||^2 in 40 dimensions, started at the optimum; sigma = 1."""
    curvature, start = torch.full((40,), 2.0), torch.zeros(40)
    if not pulls:
        return NoisyQuadratic(curvature, 1.0, 2, start)
    apart = torch.ones(2, 40) * torch.tensor([[pulls], [-pulls]]) / 40**0.5
    return PulledQuadratic(curvature, 1.0, apart, start)


def from_optimum(scheme: Scheme, pulls: float = 0.0, steps: int = 60, seeds: int = 30) -> Finding:
    return natural2019.sgd(Trial(at_optimum(pulls), scheme, (STEP,) * steps, tuple(range(seeds))).run())


def there_and_back(back: Scheme, pulls: float = 0.0) -> Finding:
    """Half of the entries on the way there, at a step at which a quarter on the way back would not diverge."""
    trial = Trial(at_optimum(pulls), parse_scheme(HALF), (SMALL_STEP,) * 60, tuple(range(30)), back)
    return natural2019.bidirectional(trial.run())


SHARP = {
    "natural.sgd": lambda: from_optimum(parse_scheme(HALF)),
    "natural.bidirectional": lambda: there_and_back(parse_scheme(HALF)),
}
BROKEN = {
    "natural.sgd": lambda: from_optimum(posing(QUARTER, HALF)),
    "natural.bidirectional": lambda: there_and_back(posing(QUARTER, HALF)),
}
