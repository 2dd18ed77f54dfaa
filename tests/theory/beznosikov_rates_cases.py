"""Where the rates of biased gradient descent are sharp, and what breaks them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradwire.analysis.theory.check import Finding
from gradwire.analysis.theory.evidence import Evidence
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import NoisyQuadratic, three_pulls
from gradwire.analysis.theory.results import beznosikov_rates as rates
from gradwire.compressors.base import Scheme, State, Turn
from gradwire.compressors.decoded import Decoded
from gradwire.compressors.payload import Payload
from gradwire.compressors.sparsifiers.topk import TopK
from gradwire.compressors.spec import parse_scheme

from .faulty import posing

UNSCALED, SCALED = "randomk(density=0.2)", "randomk(density=0.5, scaled=True)"
WEAKER, WILDER = "randomk(density=0.1)", "randomk(density=0.2, scaled=True)"


@dataclass(frozen=True)
class SecondLargest(TopK):
    """Top-1 that sends the second largest entry."""

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        largest = x.abs() == x.abs().amax(-1, keepdim=True)
        return super().encode(torch.where(largest, 0.0, x), state, turn)


def bowl(scheme: Scheme, step: float, steps: int = 20, d: int = 100) -> Evidence:
    """One worker on f = ||x||^2, from equal entries; the step in units of 1 / L."""
    problem = NoisyQuadratic(torch.full((d,), 2.0), 0.0, 1, torch.ones(d))
    return Trial(problem, scheme, (step / 2,) * steps, tuple(range(30))).run()


def apart(scheme: Scheme, step: float = 0.05) -> Finding:
    return rates.divergence(Trial(three_pulls(1.5), scheme, (step,) * 60, (0, 1)).run())


CASES: dict[str, tuple[Callable[[], Finding], Callable[[], Finding]]] = {
    "beznosikov.b1_rate": (
        lambda: rates.b1_rate(bowl(parse_scheme(UNSCALED), 1.0)),
        lambda: rates.b1_rate(bowl(posing(WEAKER, UNSCALED), 1.0)),
    ),
    "beznosikov.b2_rate": (
        lambda: rates.b2_rate(bowl(parse_scheme(SCALED), 0.5, 8)),
        lambda: rates.b2_rate(bowl(posing(WILDER, SCALED), 0.5, 8)),
    ),
    "beznosikov.b3_rate": (
        lambda: rates.b3_rate(bowl(parse_scheme(UNSCALED), 1.0)),
        lambda: rates.b3_rate(bowl(posing(WEAKER, UNSCALED), 1.0)),
    ),
    "beznosikov.divergence": (
        lambda: apart(parse_scheme("topk(density=0.3)")),
        lambda: apart(SecondLargest(density=0.3)),
    ),
}
SHARP = {name: sharp for name, (sharp, _) in CASES.items()}
BROKEN = {name: broken for name, (_, broken) in CASES.items()}
