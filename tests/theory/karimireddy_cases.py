"""Where the statements of Karimireddy et al. 2019 are sharp, and what breaks them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradwire.analysis.theory import karimireddy2019
from gradwire.analysis.theory.check import Finding
from gradwire.analysis.theory.evidence import Constant, Facts
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import Given, NoisyQuadratic
from gradwire.compressors.base import State, Turn
from gradwire.compressors.decoded import Decoded
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.remember import remember
from gradwire.compressors.spec import parse_scheme

from .toyschemes import Shrink

NOWHERE = Facts(None, None, convex=True, least=Constant(-float("inf"), "exact"))


def constant_gradient() -> Given:
    slope = torch.ones(5, dtype=torch.float64)
    return Given("a slope", torch.zeros(5), lambda x: float(slope @ x), lambda _: slope[None].clone(), NOWHERE)


@dataclass(frozen=True)
class Forgetful(ErrorFeedback):
    """Error feedback that loses what was not sent."""

    def after(self, p: Tensor, sent: Decoded, state: State, turn: Turn) -> State:
        return self.keep(torch.zeros_like(p.view(len(p), -1)), state, turn)


def _memory(delta: float, claimed: float) -> Finding:
    scheme = remember(ErrorFeedback(), Shrink(delta=delta, claimed=claimed))
    return karimireddy2019.memory(Trial(constant_gradient(), scheme, (0.1,) * 2000, (0, 1)).run())


def _identity(memory: ErrorFeedback) -> Finding:
    problem = NoisyQuadratic(torch.linspace(0.1, 1, 10), 1.0, 3, torch.ones(10))
    scheme = remember(memory, parse_scheme("topk(density=0.2)"))
    return karimireddy2019.identity(Trial(problem, scheme, (0.1,) * 20).run())


SHARP = {
    "karimireddy.identity": lambda: _identity(ErrorFeedback()),
    "karimireddy.memory": lambda: _memory(0.01, 0.01),
}
BROKEN = {
    "karimireddy.identity": lambda: _identity(Forgetful()),
    "karimireddy.memory": lambda: _memory(0.005, 0.01),
}
