"""Where the statements of Khirirat et al. 2020 are sharp, and what breaks them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradwire.analysis.theory.check import Finding
from gradwire.analysis.theory.evidence import Constant, Evidence, Facts
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import Given, NoisyQuadratic
from gradwire.analysis.theory.results import khirirat2020
from gradwire.compressors.adaptive import CAT
from gradwire.compressors.base import Scheme, State, Turn
from gradwire.compressors.decoded import Decoded
from gradwire.compressors.payload import Payload
from gradwire.compressors.sparsifiers.topk import TopK
from gradwire.compressors.spec import parse_scheme

SMOOTHNESS, TILT = 2.0, 1e-3


@dataclass(frozen=True)
class LongCAT(CAT):
    """CAT whose values come out a quarter too large: another step than the declared one."""

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        return super().encode(1.25 * x, state, turn)


@dataclass(frozen=True)
class StuckTopK(TopK):
    """Top-k that sends a tenth of its values."""

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        return super().encode(x / 10, state, turn)


def isotropic(start: Tensor) -> NoisyQuadratic:
    """f = L/2 ||x||^2."""
    return NoisyQuadratic(torch.full((len(start),), SMOOTHNESS), 0.0, 1, start)


def heavy(d: int) -> Tensor:
    return torch.arange(1, d + 1).double() ** -0.7


def hubers(d: int, start: float) -> Given:
    """A sum over d entries of Huber functions, curved within 1 of 0, with a little slope more where it is higher."""

    def value(x: Tensor) -> float:
        huber = torch.where(x.abs() <= 1, x.square() / 2, x.abs() - 0.5)
        return float((huber + TILT * x.square() / 2).sum())

    def gradients(x: Tensor) -> Tensor:
        return (x.clamp(-1, 1) + TILT * x)[None].clone()

    facts = Facts(
        smoothness=Constant(1 + TILT, "exact"),
        strong_convexity=None,
        convex=True,
        least=Constant(0.0, "exact"),
        optimum=torch.zeros(d).numpy(),
        gradient=lambda x: gradients(torch.as_tensor(x))[0].numpy(),
    )
    return Given("Huber functions", torch.full((d,), start), value, gradients, facts)


def _run(scheme: Scheme | str, start: Tensor, steps: int, step: float = 1.0, seeds: int = 2) -> Evidence:
    scheme = parse_scheme(scheme) if isinstance(scheme, str) else scheme
    return Trial(isotropic(start), scheme, (step / SMOOTHNESS,) * steps, tuple(range(seeds))).run()


def _on_hubers(scheme: Scheme, start: float, steps: int) -> Evidence:
    return Trial(hubers(5, start), scheme, (1 / (1 + TILT),) * steps, (0, 1)).run()


def _stochastic(scheme: Scheme) -> Finding:
    """One step from equal entries, where omega(T) = T / d: of 20 with T = 5, the step omega / L."""
    d, count = 20, scheme.choose(torch.ones(20, dtype=torch.float64))
    return khirirat2020.stochastic(_run(scheme, torch.ones(d), 1, step=count / d, seeds=200))


SMALL = {"cost": "packets", "packet": 50, "fixed": 10.0, "per_packet": 50.0}
CASES: dict[str, tuple[Callable[[], Finding], Callable[[], Finding]]] = {
    "khirirat.sparsified": (
        lambda: khirirat2020.sparsified(_run(CAT("top", **SMALL), heavy(40), 8)),
        lambda: khirirat2020.sparsified(_run(LongCAT("top", **SMALL), heavy(40), 8)),
    ),
    "khirirat.quantized": (
        lambda: khirirat2020.quantized(_run(CAT("sq", **SMALL), heavy(40), 30)),
        lambda: khirirat2020.quantized(_run(LongCAT("sq", **SMALL), heavy(40), 30)),
    ),
    "khirirat.stochastic": (
        lambda: _stochastic(CAT("stochastic", **SMALL)),
        lambda: _stochastic(LongCAT("stochastic", **SMALL)),
    ),
    "khirirat.product": (
        lambda: khirirat2020.product(_run(CAT("sq", **SMALL), heavy(40), 30)),
        lambda: khirirat2020.product(_run(LongCAT("sq", **SMALL), heavy(40), 30)),
    ),
    "khirirat.gradients": (
        lambda: khirirat2020.gradients(_run("topk(density=0.05)", heavy(40), 20)),
        lambda: khirirat2020.gradients(_run(StuckTopK(density=0.05), heavy(40), 20)),
    ),
    "khirirat.steps_strong": (
        lambda: khirirat2020.steps_strong(_run("topk(density=0.025)", torch.ones(40), 60)),
        lambda: khirirat2020.steps_strong(_run(StuckTopK(density=0.025), torch.ones(40), 60)),
    ),
    "khirirat.steps_convex": (
        lambda: khirirat2020.steps_convex(_on_hubers(TopK(density=0.2), 6.0, 300)),
        lambda: khirirat2020.steps_convex(_on_hubers(StuckTopK(density=0.2), 6.0, 300)),
    ),
    "khirirat.steps_nonconvex": (
        lambda: khirirat2020.steps_nonconvex(_on_hubers(TopK(density=0.2), 6.0, 300)),
        lambda: khirirat2020.steps_nonconvex(_on_hubers(StuckTopK(density=0.2), 6.0, 300)),
    ),
}
SHARP = {name: sharp for name, (sharp, _) in CASES.items()}
BROKEN = {name: broken for name, (_, broken) in CASES.items()}
