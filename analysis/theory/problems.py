"""Problems of the laboratory: quadratics with noise, convex tasks, and the special cases that make bounds sharp."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...compressors.keys import Purpose, stream
from ...sim.tasks import Convex
from ...sim.training.gradients import StackedGradients
from .evidence import Constant, Facts
from .lab import Problem


class NoisyQuadratic(Problem):
    """f(x) = 1/2 sum of a_j x_j^2, whose gradients every worker sees with independent normal noise.

    Parameters
    ----------
    eigenvalues : Tensor, shape [d]
        a_j > 0.
    noise : float
        sigma, with E||g_i - grad f||^2 = sigma^2, spread evenly over the entries.
    workers : int
    start : Tensor, shape [d]
    """

    def __init__(self, eigenvalues: Tensor, noise: float, workers: int, start: Tensor) -> None:
        self.eigenvalues, self.noise = eigenvalues.double(), noise
        self.workers, self.start = workers, start.double()
        self.name = f"quadratic (d = {len(start)}, sigma = {noise:g}, {workers} worker{'s' * (workers > 1)})"

    def facts(self) -> Facts:
        largest, least = float(self.eigenvalues.max()), float(self.eigenvalues.min())
        return Facts(
            smoothness=Constant(largest, "exact"),
            strong_convexity=Constant(least, "exact"),
            convex=True,
            least=Constant(0.0, "exact"),
            optimum=np.zeros(len(self.start)),
            noise=Constant(self.noise**2, "exact"),
            value=lambda x: self.value(torch.as_tensor(x)),
            gradient=lambda x: self.gradient(torch.as_tensor(x)).numpy(),
        )

    def value(self, x: Tensor) -> float:
        return float((self.eigenvalues * x.square()).sum()) / 2

    def gradient(self, x: Tensor) -> Tensor:
        result: Tensor = self.eigenvalues * x
        return result

    def rows(self, x: Tensor, step: int, seed: int) -> Tensor:
        exact = self.gradient(x).expand(self.workers, -1)
        if not self.noise:
            return exact.clone()
        draws = np.stack([_generator(seed, step, w).standard_normal(len(x)) for w in range(self.workers)])
        noisy: Tensor = exact + torch.from_numpy(draws) * (self.noise / len(x) ** 0.5)
        return noisy


class PulledQuadratic(NoisyQuadratic):
    """A noisy quadratic whose workers' own objectives differ: f_i(x) = f(x) + u_i^T x, the u_i summing to zero.

    Parameters
    ----------
    eigenvalues, noise, start
        As of :class:`NoisyQuadratic`.
    pulls : Tensor, shape [W, d]
        What is added to each worker's gradient; its mean over workers is taken off.
    """

    def __init__(self, eigenvalues: Tensor, noise: float, pulls: Tensor, start: Tensor) -> None:
        super().__init__(eigenvalues, noise, len(pulls), start)
        self._pulls = pulls.double() - pulls.double().mean(0)
        self._apart = float(self._pulls.square().sum(1).mean())
        self.name = self.name[:-1] + f", zeta = {self._apart**0.5:.4g})"

    def facts(self) -> Facts:
        same = super().facts()
        apart = Constant(self._apart, "exact")
        return replace(same, identical=False, own_smoothness=same.smoothness, heterogeneity=apart)

    def rows(self, x: Tensor, step: int, seed: int) -> Tensor:
        return super().rows(x, step, seed) + self._pulls


class Sampled(Problem):
    """A convex task whose workers draw their examples independently, with replacement, as the theorems presuppose.

    The trainer shuffles instead; apart from that its gradients are the same.

    Parameters
    ----------
    task : Convex
    label : str
        Its name in tables.
    workers, batch_size : int
    """

    def __init__(self, task: Convex, label: str, workers: int, batch_size: int) -> None:
        self._task, self.workers, self._batch_size = task, workers, batch_size
        self._split = task.splits().train.to(dtype=torch.float64)
        self._model = task.model().double().train()
        sample = self._split.take(slice(0, batch_size))
        self._stacked = StackedGradients(task, self._model, tuple(range(workers)), 0, "batched", sample)
        (self._name, self._parameter), *_ = self._model.named_parameters()
        self.start = self._parameter.detach().clone()
        self.name = f"{label} ({workers} workers of {batch_size} examples)"
        self._constants = task.constants()

    def facts(self) -> Facts:
        known = self._constants
        return Facts(
            smoothness=Constant(known.smoothness, "exact"),
            strong_convexity=Constant(known.strong_convexity, "exact"),
            convex=True,
            least=Constant(known.optimum_value, "exact"),
            optimum=known.optimum.numpy(),
            value=lambda x: self.value(torch.as_tensor(x)),
            gradient=lambda x: self.gradient(torch.as_tensor(x)).numpy(),
        )

    def value(self, x: Tensor) -> float:
        with torch.no_grad():
            self._parameter.copy_(x)
            return float(self._task.loss(self._model, self._split.tensors))

    def gradient(self, x: Tensor) -> Tensor:
        return self.look(x)[1]

    def look(self, x: Tensor) -> tuple[float, Tensor]:
        with torch.no_grad():
            self._parameter.copy_(x)
        loss = self._task.loss(self._model, self._split.tensors)
        (gradient,) = torch.autograd.grad(loss, self._parameter)
        return float(loss.detach()), gradient

    def rows(self, x: Tensor, step: int, seed: int) -> Tensor:
        with torch.no_grad():
            self._parameter.copy_(x)
        draws = [_generator(seed, step, w).integers(len(self._split), size=self._batch_size)
                 for w in range(self.workers)]  # fmt: skip
        return self._stacked(self._split.take(torch.from_numpy(np.stack(draws))), step).rows[self._name]


class Given(Problem):
    """A problem given by its functions, each worker's gradient exact.

    Parameters
    ----------
    name : str
    start : Tensor, shape [d]
    value : callable
        x to f(x).
    gradients : callable
        x to the workers' gradients [W, d], whose mean is that of f.
    facts : Facts
    """

    def __init__(
        self,
        name: str,
        start: Tensor,
        value: Callable[[Tensor], float],
        gradients: Callable[[Tensor], Tensor],
        facts: Facts,
    ) -> None:
        self.name, self.start = name, start.double()
        self._value, self._gradients, self._facts = value, gradients, facts
        self.workers = len(gradients(self.start))

    def facts(self) -> Facts:
        return self._facts

    def value(self, x: Tensor) -> float:
        return self._value(x)

    def gradient(self, x: Tensor) -> Tensor:
        return self._gradients(x).mean(0)

    def rows(self, x: Tensor, step: int, seed: int) -> Tensor:
        return self._gradients(x)


def three_pulls(size: float) -> Given:
    """Return the three workers of Beznosikov et al. 2020, whose largest entries lead away from the optimum.

    f_i(x) = <v_i, x>^2 + ||x||^2 / 4 with v_1 = (-3, 2, 2), v_2 = (2, -3, 2) and v_3 = (2, 2, -3).

    Parameters
    ----------
    size : float
        t, for the start at (t, t, t).
    """
    v = torch.full((3, 3), 2.0, dtype=torch.float64).fill_diagonal_(-3.0)
    curvatures = torch.linalg.eigvalsh(2 * v.T @ v / 3) + 0.5
    own = Constant(2 * float(v[0] @ v[0]) + 0.5, "exact")

    def value(x: Tensor) -> float:
        return float((v @ x).square().mean() + x.square().sum() / 4)

    def gradients(x: Tensor) -> Tensor:
        result: Tensor = 2 * (v @ x)[:, None] * v + x / 2
        return result

    facts = Facts(
        smoothness=Constant(float(curvatures[-1]), "exact"),
        strong_convexity=Constant(float(curvatures[0]), "exact"),
        convex=True,
        least=Constant(0.0, "exact"),
        optimum=np.zeros(3),
        noise=Constant(0.0, "exact"),
        value=lambda x: value(torch.as_tensor(x)),
        gradient=lambda x: gradients(torch.as_tensor(x)).mean(0).numpy(),
        identical=False,
        own_smoothness=own,
    )
    return Given("three workers that pull apart", torch.full((3,), size), value, gradients, facts)


def _generator(seed: int, step: int, worker: int) -> np.random.Generator:
    """Return a worker's stream of noise at a step."""
    return np.random.Generator(stream(seed, Purpose.NOISE, step, "problem", worker))
