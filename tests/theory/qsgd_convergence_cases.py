"""Where the statements on SGD with unbiased compression of convex objectives are sharp, and what breaks them."""

import torch
from torch import Tensor

from gradwire.analysis.theory.check import Finding
from gradwire.analysis.theory.evidence import Constant, Evidence, Facts
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import Given
from gradwire.analysis.theory.results import qsgd2017_convergence as qsgd
from gradwire.compressors.base import Scheme
from gradwire.compressors.spec import parse_scheme

from .faulty import posing

STEPS = 40
HALF, MOST = (f"randomk(density={k}, scaled=True, seed=own)" for k in (0.5, 0.75))


def ramp(distance: float, d: int) -> Given:
    """A Huber function with slope and curvature 1 of the way along the diagonal; it starts at a distance."""
    along = torch.ones(d, dtype=torch.float64) / d**0.5

    def value(x: Tensor) -> float:
        way = abs(float(along @ x))
        return way**2 / 2 if way <= 1 else way - 0.5

    def gradients(x: Tensor) -> Tensor:
        return ((along @ x).clamp(-1, 1) * along)[None].clone()

    facts = Facts(
        smoothness=Constant(1.0, "exact"),
        strong_convexity=None,
        convex=True,
        least=Constant(0.0, "exact"),
        optimum=torch.zeros(d).numpy(),
        noise=Constant(0.0, "exact"),
    )
    return Given(f"a ramp (d = {d})", distance * along, value, gradients, facts)


def on_ramp(scheme: Scheme, distance: float, d: int, step: float) -> Evidence:
    return Trial(ramp(distance, d), scheme, (step,) * STEPS, tuple(range(30))).run()


def planned(omega: float, distance: float) -> float:
    """Return the theorem's step for gradients of norm 1 and L = 1."""
    return 1 / (1 + omega**0.5 / distance * (STEPS / 2) ** 0.5)


def _convex(scheme: Scheme) -> Finding:
    return qsgd.convex(on_ramp(scheme, 25.0, 4, planned(1 / 3, 25.0)))


def _any_step(scheme: Scheme) -> Finding:
    return qsgd.any_step(on_ramp(scheme, 20.0, 4, 0.5))


SHARP = {
    "qsgd.convex": lambda: _convex(parse_scheme(MOST)),
    "qsgd.convex_any_step": lambda: _any_step(parse_scheme(HALF)),
}
BROKEN = {
    "qsgd.convex": lambda: _convex(posing(MOST, MOST, factor=0.1)),
    "qsgd.convex_any_step": lambda: _any_step(posing("wangni(density=0.5)", HALF, factor=0.5)),
}
