"""Where the statements of Stich et al. 2018 are sharp, and what breaks them."""

import torch

from gradwire.analysis.theory.check import Finding
from gradwire.analysis.theory.problems import NoisyQuadratic, PulledQuadratic
from gradwire.analysis.theory.results import stich2018 as theory
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.remember import remember
from gradwire.compressors.sparsifiers.topk import TopK

from .feedback_instances import Forgetful, Loud, constant_gradient, jumping, run, shrinking


def rates(shift: float, mu: float, steps: int) -> tuple[float, ...]:
    return tuple(8 / (mu * (shift + t)) for t in range(steps))


def _step(factor: float) -> Finding:
    problem = NoisyQuadratic(torch.ones(20), 1.0, 1, torch.zeros(20))
    return theory.step(run(problem, Loud(factor=factor), rates(1e4, 1.0, 3), seeds=60))


def _memory(delta: float) -> Finding:
    return theory.memory(run(constant_gradient(), shrinking(delta, claimed=0.05), rates(1e4, 1.0, 400)))


def _averaging(factor: float) -> Finding:
    shift, mu = 1000.0, 0.1
    problem = jumping(4 / (mu * shift), mu)
    return theory.averaging(run(problem, Loud(factor=factor), rates(shift, mu, 600)))


def theorem(memory: ErrorFeedback) -> Finding:
    """Two workers whose gradients are (x_1 +- 1.5, x_2), from (0, 1): the first entry is the largest, and cancels."""
    pulls = torch.tensor([[1.5, 0.0], [-1.5, 0.0]])
    problem = PulledQuadratic(torch.ones(2), 0.0, pulls, torch.tensor([0.0, 1.0]))
    return theory.theorem(run(problem, remember(memory, TopK(0.5)), rates(300.0, 1.0, 300)))


SHARP = {
    "stich.step": lambda: _step(1.0),
    "stich.memory": lambda: _memory(0.05),
    "stich.averaging": lambda: _averaging(1.0),
    "stich.theorem": lambda: theorem(ErrorFeedback()),
}
BROKEN = {
    "stich.step": lambda: _step(2.0),
    "stich.memory": lambda: _memory(0.025),
    "stich.averaging": lambda: _averaging(3.0),
    "stich.theorem": lambda: theorem(Forgetful()),
}
