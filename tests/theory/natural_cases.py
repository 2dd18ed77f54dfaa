"""Where the statement on distributed SGD with unbiased compression is sharp, and what breaks it."""

import torch

from gradwire.analysis.theory.check import Finding
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import NoisyQuadratic, PulledQuadratic
from gradwire.analysis.theory.results import natural2019
from gradwire.compressors.base import Scheme
from gradwire.compressors.spec import parse_scheme

from .faulty import posing

HALF, QUARTER = (f"randomk(density={k}, scaled=True, seed=own)" for k in (0.5, 0.25))
STEP = 0.25


def from_optimum(scheme: Scheme, pulls: float = 0.0, steps: int = 60, seeds: int = 30) -> Finding:
    """Two workers on f = ||x||^2 in 40 dimensions, started at the optimum; sigma = 1."""
    curvature, start = torch.full((40,), 2.0), torch.zeros(40)
    problem = NoisyQuadratic(curvature, 1.0, 2, start)
    if pulls:
        apart = torch.ones(2, 40) * torch.tensor([[pulls], [-pulls]]) / 40**0.5
        problem = PulledQuadratic(curvature, 1.0, apart, start)
    return natural2019.sgd(Trial(problem, scheme, (STEP,) * steps, tuple(range(seeds))).run())


SHARP = {"natural.sgd": lambda: from_optimum(parse_scheme(HALF))}
BROKEN = {"natural.sgd": lambda: from_optimum(posing(QUARTER, HALF))}
