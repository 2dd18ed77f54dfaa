"""The laboratory: workers that follow SGD on a problem of which everything is known, through the real exchanges."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ...compressors.base import Codec, Scheme, SchemeError, Turn
from ...compressors.drivers import Item, StackedDriver
from ...compressors.keys import Purpose, stream
from ...sim.training.record import Recorder, Trace, memory_kind
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

    def look(self, x: Tensor) -> tuple[float, Tensor]:
        """Return f(x) and grad f(x), together where that is cheaper."""
        return self.value(x), self.gradient(x)

    @abstractmethod
    def rows(self, x: Tensor, step: int, seed: int) -> Tensor:
        """Return the workers' stochastic gradients at x, of shape [W, d], drawn from keyed streams."""


def follow(problem: Problem, scheme: Scheme, rates: Sequence[float], seed: int, back: Codec | None = None) -> Trace:
    """Take a step of SGD for each learning rate, exchanging gradients under a scheme; the model is one unit.

    Parameters
    ----------
    problem : Problem
    scheme : Scheme
    rates : sequence of float
        gamma_t.
    seed : int
        Of the gradients' noise and of the schemes' draws.
    back : Codec or None
        What a master compresses the mean with before all workers apply what it becomes; of bytes, only those on the way
        to the master are taken down.
    """
    x, workers = problem.start.double().clone(), problem.workers
    driver, recorder = StackedDriver(workers), Recorder(workers, len(x), vectors=True)
    state = scheme.init(tuple(x.shape), workers, x)
    for step, lr in enumerate(rates):
        recorder.begin(x, *problem.look(x), lr)
        rows = problem.rows(x, step, seed)
        turn = Turn(seed, step, UNIT, driver.ranks, workers, lr)
        (outcome,), log = driver.exchange([Item(rows, scheme, state, turn)])
        if back is not None:
            outcome = outcome._replace(mean=_returned(back, outcome.mean, turn))
        recorder.exchanged(0, rows, scheme, turn, outcome)
        recorder.end(sum(sum(c.sent_bytes) for c in log.collectives) / workers)
        state, x = outcome.state, x - lr * outcome.mean
    return recorder.finish(x, *problem.look(x))


def _returned(back: Codec, mean: Tensor, turn: Turn) -> Tensor:
    """Return what a master makes of the mean; it draws from streams of its own, and is alone."""
    seed = int(stream(turn.seed, Purpose.SERVER, turn.step, turn.unit).random_raw())
    alone = replace(turn, seed=seed, ranks=(0,), size=1)
    _, sent, _ = back.encode(mean[None], back.init(tuple(mean.shape), 1, mean[None]), alone)
    return sent.dense(mean[None])[0]


@dataclass(frozen=True, eq=False)
class Trial:
    """What to run in the laboratory: a problem, a scheme, learning rates, seeds, and a scheme for the way back."""

    problem: Problem
    scheme: Scheme
    rates: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    back: Scheme | None = None

    def run(self) -> Evidence:
        """Follow every seed.

        Raises
        ------
        SchemeError
            If the scheme for the way back has several rounds or remembers something.
        """
        back = None if self.back is None else _plain(self.back)
        traces = tuple(follow(self.problem, self.scheme, self.rates, seed, back) for seed in self.seeds)
        ways = f"{self.scheme}" if back is None else f"{self.scheme} and {back} on the way back"
        subject, shape = f"{ways} on {self.problem.name}", tuple(self.problem.start.shape)
        return Evidence(subject, self.scheme, (shape,), self.problem.workers, traces, self.problem.facts(), back)


def _plain(back: Scheme) -> Codec:
    """Return a scheme that can be asked for what it makes of a mean, at every step anew."""
    remembers = any(memory_kind(phase) != "none" or phase.state != "none" for phase in back.ever())
    if remembers or not isinstance(back, Codec):
        raise SchemeError(f"back = {back}: it must be a scheme of one round that remembers nothing")
    return back
