"""The laboratory: workers that follow SGD on a problem of which everything is known, through the real exchanges."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ...compressors.base import Scheme, Turn
from ...compressors.drivers import Item, StackedDriver
from ...sim.training.record import Recorder, Trace
from .evidence import Evidence, Facts

UNIT = "model"


class Problem(ABC):
    """An objective, and what N workers know of its gradient.

    All tensors are float64, so that what is measured is the mathematics and not the rounding of gradients.

    Attributes
    ----------
    name : str
        As shown in tables.
    workers : int
    start : Tensor, shape [d]
        x_0.
    """

    name: str
    workers: int
    start: Tensor

    @abstractmethod
    def facts(self) -> Facts:
        """Return what is known of it."""

    @abstractmethod
    def value(self, x: Tensor) -> float:
        """Return f(x)."""

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """Return grad f(x), or a subgradient, of shape [d]."""

    @abstractmethod
    def rows(self, x: Tensor, step: int, seed: int) -> Tensor:
        """Return the workers' stochastic gradients at x, of shape [W, d], drawn from keyed streams."""


def follow(problem: Problem, scheme: Scheme, rates: Sequence[float], seed: int) -> Trace:
    """Take a step of SGD for each learning rate, exchanging gradients under a scheme; the model is one unit.

    Parameters
    ----------
    problem : Problem
    scheme : Scheme
    rates : sequence of float
        gamma_t.
    seed : int
        Of the gradients' noise and of the scheme's draws.
    """
    x, workers = problem.start.double().clone(), problem.workers
    driver, recorder = StackedDriver(workers), Recorder(workers, len(x), vectors=True)
    state = scheme.init(tuple(x.shape), workers, x)
    for step, lr in enumerate(rates):
        recorder.begin(x, problem.value(x), problem.gradient(x), lr)
        rows = problem.rows(x, step, seed)
        turn = Turn(seed, step, UNIT, driver.ranks, workers, lr)
        (outcome,), log = driver.exchange([Item(rows, scheme, state, turn)])
        recorder.exchanged(0, rows, scheme, turn, outcome)
        recorder.end(sum(sum(c.sent_bytes) for c in log.collectives) / workers)
        state, x = outcome.state, x - lr * outcome.mean
    return recorder.finish(x, problem.value(x), problem.gradient(x))


@dataclass(frozen=True, eq=False)
class Trial:
    """What to run in the laboratory: a problem, a scheme, learning rates and seeds."""

    problem: Problem
    scheme: Scheme
    rates: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)

    def run(self) -> Evidence:
        """Follow every seed."""
        traces = tuple(follow(self.problem, self.scheme, self.rates, seed) for seed in self.seeds)
        subject = f"{self.scheme} on {self.problem.name}"
        shape = tuple(self.problem.start.shape)
        return Evidence(subject, self.scheme, (shape,), self.problem.workers, traces, self.problem.facts())
