"""The landscape: the constants of a problem that bounds ask for, each with how it is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...sim.training.nature import Nature
from ...sim.training.record import Trace
from .check import Floats
from .evidence import Constant, How


class Row(NamedTuple):
    """A constant as tables show it; NaN where it is not known."""

    symbol: str
    value: float
    how: How | None
    meaning: str


class Estimate(NamedTuple):
    """A mean over measurements and its standard error, which takes them as independent."""

    value: float
    error: float


@dataclass(frozen=True, eq=False)
class Landscape:
    """The constants of a problem, as its recorded runs and its definition tell them.

    Attributes
    ----------
    smoothness : Constant or None
        L. Of a convex task, exact. Else the larger of the largest curvature, which is that of a sample, and the largest
        change of the gradient over that of the iterate that were met, which is a lower bound. None: the loss is not
        smooth, or nothing was measured.
    rough : tuple of str, or None
        The operations for which it is not smooth; None if its graph could not be had.
    strong_convexity : Constant or None
        mu.
    convex : bool
    least : Constant
        f*, or where ``sampled`` a lower bound: 0 of a cross-entropy, else minus infinity.
    optimum : array, shape [d], or None
    distance2 : Constant or None
        ||x_0 - x*||^2, the largest of the runs.
    optimum_noise : Constant or None
        E||g_i - grad f||^2 at x*, for a batch of independent examples.
    noise : Constant or None
        The same along the run, the largest of all steps: of a convex task the expectation, else what was met.
    second_moment : Constant
        The largest of all steps of the mean over runs and workers of ||g_i||^2.
    spread : Constant
        The largest of all steps of the mean over runs of spread2. Where all workers draw from the same examples it is
        their batches' noise, less the part that they share: (1 - 1/N) sigma^2 in expectation.
    heterogeneity : Estimate or None
        Of zeta^2, the mean over workers of ||grad f_i - grad f||^2: spread2 - (1 - 1/N) within2, over all steps at
        which both are known. Unbiased where each worker draws its examples independently; about 0 where all have the
        same.
    """

    smoothness: Constant | None
    rough: tuple[str, ...] | None
    strong_convexity: Constant | None
    convex: bool
    least: Constant
    optimum: Floats | None
    distance2: Constant | None
    optimum_noise: Constant | None
    noise: Constant | None
    second_moment: Constant
    spread: Constant
    heterogeneity: Estimate | None

    def rows(self) -> tuple[Row, ...]:
        """Return the constants as the rows of a table."""
        apart = self.heterogeneity
        off = "" if apart is None or np.isnan(apart.error) else f", with a standard error of {apart.error:.2g}"
        return (
            _row("L", self.smoothness, "smoothness of the loss"),
            _row("mu", self.strong_convexity, "strong convexity"),
            _row("f*", self.least, "least value of the loss, or a lower bound"),
            _row("||x_0 - x*||^2", self.distance2, "squared distance of the start from the optimum"),
            _row("sigma*^2", self.optimum_noise, "noise of a worker's gradient at the optimum"),
            _row("sigma^2", self.noise, "noise of a worker's gradient along the run, at most"),
            _row("G^2", self.second_moment, "mean squared norm of workers' gradients, at most"),
            _row("spread", self.spread, "mean squared distance of workers' gradients from their mean, at most"),
            _row(
                "zeta^2",
                None if apart is None else Constant(apart.value, "sampled"),
                f"heterogeneity of the workers{off}",
            ),
        )


def landscape_of(traces: Sequence[Trace], nature: Nature, workers: int, batch_size: int) -> Landscape:
    """Return the constants of a problem.

    Parameters
    ----------
    traces : sequence of Trace
        Runs of one scheme that differ in their seeds alone, of the same length.
    nature : Nature
    workers : int
        N.
    batch_size : int
        Examples of a worker and step.
    """
    known = nature.constants
    optimum = None if known is None else known.optimum.numpy()
    starts = [trace.position[0] for trace in traces if trace.position is not None]
    away = None if optimum is None or not starts else max(float(np.square(x - optimum).sum()) for x in starts)
    return Landscape(
        smoothness=_smoothness(traces, nature),
        rough=nature.rough,
        strong_convexity=None if known is None else Constant(known.strong_convexity, "exact"),
        convex=known is not None,
        least=_least(nature),
        optimum=optimum,
        distance2=None if away is None else Constant(away, "exact"),
        optimum_noise=None if known is None else Constant(known.gradient_noise / batch_size, "exact"),
        noise=_noise(traces, batch_size),
        second_moment=Constant(_largest_mean(traces, "own2"), "measured"),
        spread=Constant(_largest_mean(traces, "spread2"), "measured"),
        heterogeneity=heterogeneity(traces, workers),
    )


def heterogeneity(traces: Sequence[Trace], workers: int) -> Estimate | None:
    """Return an estimate of zeta^2, as :class:`Landscape` says; None if the noise within batches was never measured."""
    found = np.concatenate([trace.spread2 - (1 - 1 / workers) * trace.within2 for trace in traces])
    found = found[np.isfinite(found)]
    if not len(found):
        return None
    error = float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else float("nan")
    return Estimate(float(found.mean()), error)


def _smoothness(traces: Sequence[Trace], nature: Nature) -> Constant | None:
    if nature.constants is not None:
        return Constant(nature.constants.smoothness, "exact")
    if nature.rough:
        return None
    met = np.concatenate([values for trace in traces for values in (trace.curvature, trace.secant)])
    met = met[np.isfinite(met)]
    return Constant(float(met.max()), "sampled") if len(met) else None


def _least(nature: Nature) -> Constant:
    if nature.constants is not None:
        return Constant(nature.constants.optimum_value, "exact")
    return Constant(0.0 if nature.nonnegative else -float("inf"), "sampled")


def _noise(traces: Sequence[Trace], batch_size: int) -> Constant | None:
    """Return the largest noise along the runs.

    A batch of B independent examples has 1/B of the noise of one. Where that of the examples is not known, what is
    left is the noise that was met where the whole gradient was measured.
    """
    examples = np.concatenate([trace.example_noise2 for trace in traces])
    if np.isfinite(examples).any():
        return Constant(float(np.nanmax(examples)) / batch_size, "measured")
    met = np.stack([trace.noise2 for trace in traces]).mean(axis=0)
    met = met[np.isfinite(met)]
    return Constant(float(met.max()), "sampled") if len(met) else None


def _largest_mean(traces: Sequence[Trace], name: str) -> float:
    return float(np.stack([getattr(trace, name) for trace in traces]).mean(axis=0).max(initial=0.0))


def _row(symbol: str, constant: Constant | None, meaning: str) -> Row:
    return Row(symbol, float("nan"), None, meaning) if constant is None else Row(symbol, *constant, meaning)
