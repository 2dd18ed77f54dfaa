"""Problems on which bounds of error feedback are sharp, and memories and operators with a fault."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from gradwire.analysis.theory.evidence import Constant, Evidence, Facts
from gradwire.analysis.theory.lab import Problem, Trial
from gradwire.analysis.theory.problems import Given
from gradwire.compressors.base import Scheme, State, Turn
from gradwire.compressors.decoded import Decoded, Dense
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.payload import Payload
from gradwire.compressors.remember import remember

from .toyschemes import Shrink

NOWHERE = Facts(None, None, convex=True, least=Constant(-float("inf"), "exact"))


def constant_gradient() -> Given:
    """A plane, which has no least value; ||g||^2 = 5."""
    slope = torch.ones(5, dtype=torch.float64)
    return Given("a slope", torch.zeros(5), lambda x: float(slope @ x), lambda _: slope[None].clone(), NOWHERE)


def absolute_value(slope: float, start: float) -> Given:
    """f(x) = slope |x|, of which the gradient at 0 is taken to be 0."""
    facts = Facts(
        smoothness=None,
        strong_convexity=None,
        convex=True,
        least=Constant(0.0, "exact"),
        optimum=np.zeros(1),
        value=lambda x: slope * abs(float(x[0])),
    )
    return Given(
        "|x|",
        torch.tensor([start]),
        lambda x: slope * abs(float(x)),
        lambda x: slope * torch.sign(x)[None],
        facts,
    )


def slope_into_parabola(length: float) -> Given:
    """f(x) = |x| - 1/2 outside [-1, 1] and x^2 / 2 inside, so L = 1, from x = 1 + length."""

    def value(x: Tensor) -> float:
        return float(torch.where(x.abs() > 1, x.abs() - 0.5, x.square() / 2))

    facts = Facts(
        smoothness=Constant(1.0, "exact"),
        strong_convexity=None,
        convex=True,
        least=Constant(0.0, "exact"),
        optimum=np.zeros(1),
        value=lambda x: value(torch.as_tensor(x[0])),
    )
    return Given("a slope", torch.tensor([1 + length]), lambda x: value(x[0]), lambda x: x.clamp(-1, 1)[None], facts)


def jumping(start: float, curvature: float) -> Given:
    """f(x) = |x| + curvature x^2 / 2, rounded off within 1e-6 of 0, so that L = 1e6 + curvature."""
    near = 1e-6

    def value(x: float) -> float:
        edge = abs(x) - near / 2 if abs(x) > near else x**2 / (2 * near)
        return edge + curvature * x**2 / 2

    facts = Facts(
        smoothness=Constant(1 / near + curvature, "exact"),
        strong_convexity=Constant(curvature, "exact"),
        convex=True,
        least=Constant(0.0, "exact"),
        optimum=np.zeros(1),
        value=lambda x: value(float(x[0])),
    )
    return Given(
        "|x| and a little of x^2",
        torch.tensor([start]),
        lambda x: value(float(x)),
        lambda x: ((x / near).clamp(-1, 1) + curvature * x)[None],
        facts,
    )


def shrinking(delta: float, memory: ErrorFeedback | None = None, claimed: float | None = None) -> Scheme:
    """Error feedback, or another memory, around C(x) = (1 - sqrt(1 - delta)) x."""
    return remember(memory or ErrorFeedback(), Shrink(delta, delta if claimed is None else claimed))


def run(problem: Problem, scheme: Scheme, rates: tuple[float, ...], seeds: int = 2) -> Evidence:
    """Follow a problem; where nothing is drawn, two seeds show it."""
    return Trial(problem, scheme, rates, tuple(range(seeds))).run()


@dataclass(frozen=True)
class Forgetful(ErrorFeedback):
    """Error feedback that loses what was not sent."""

    def after(self, p: Tensor, sent: Decoded, state: State, turn: Turn) -> State:
        return self.keep(torch.zeros_like(p.view(len(p), -1)), state, turn)


@dataclass(frozen=True)
class Twofold(ErrorFeedback):
    """Error feedback that adds what was not sent twice."""

    def before(self, x: Tensor, state: State, turn: Turn) -> Tensor:
        return x + 2 * self.rescaled(x, state, turn)


@cache
def on_a_slope(memory: ErrorFeedback) -> Evidence:
    """200 steps of 0.05 on the slope, where nothing is forgotten; 683 without the memory."""
    return run(slope_into_parabola(10), shrinking(0.5, memory), (0.05,) * 480)


@dataclass(frozen=True)
class Loud(Shrink):
    """C(x) = factor x, which says that it loses nothing: a step size other than declared."""

    factor: float = 1.0
    claimed: float = 1.0

    def encode(self, x: Tensor, state: State, turn: Turn):
        sent = x.reshape(len(x), -1) * self.factor
        return Payload((sent,)), Dense(sent), state
