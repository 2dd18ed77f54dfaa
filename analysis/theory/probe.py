"""Probes: a scheme's operator applied to given vectors, again and again, without any training."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor

from ...compressors.base import Codec, Scheme, Turn
from ...compressors.drivers import Item, StackedDriver
from ...compressors.remember import Remembering
from .check import Condition, Floats

UNIT = "probe"
_TRIED = 32
"""After so many equal results of a vector without structure, nothing is drawn."""


@dataclass(frozen=True)
class Probe:
    """A scheme and the vectors that it is to be tried on.

    Attributes
    ----------
    scheme : Scheme
        A memory around it is left out: the constants are those of the operator inside.
    vectors : mapping of str to array
        float64, of any shape, by what they are called in tables.
    draws : int
        How many independent times each vector is compressed.
    seed : int
    """

    scheme: Scheme
    vectors: Mapping[str, Floats]
    draws: int = 1000
    seed: int = 0

    @property
    def operator(self) -> Scheme:
        """The scheme without its memory."""
        return self.scheme.inner if isinstance(self.scheme, Remembering) else self.scheme

    @property
    def subject(self) -> str:
        """The operator and what it is tried on, as shown in tables."""
        return f"{self.operator} on {len(self.vectors)} vectors"

    @property
    def steady(self) -> Condition:
        """The condition that the operator is the same at every step."""
        return Condition("the same operator at every step", len(self.operator.ever()) == 1)

    @cached_property
    def exact(self) -> bool:
        """Whether nothing is drawn, so that one row of results is all there is."""
        return not any(draws_lots(self.operator, vector.shape, self.seed) for vector in self.vectors.values())

    @cached_property
    def decoded(self) -> dict[str, Floats]:
        """What one worker's vector becomes, [R, *shape] by name; one row where nothing is drawn."""
        draws = 1 if self.exact else self.draws
        found: dict[str, Floats] = {}
        for shape in dict.fromkeys(vector.shape for vector in self.vectors.values()):
            names = [name for name, vector in self.vectors.items() if vector.shape == shape]
            rows = np.stack([np.asarray(self.vectors[name], dtype=np.float64) for name in names])
            results = apply(self.operator, rows, draws, self.seed)
            found |= {name: results[:, i].reshape(draws, *shape) for i, name in enumerate(names)}
        return {name: found[name] for name in self.vectors}

    def flat(self, name: str) -> tuple[Floats, Floats]:
        """Return a vector as [n] and what it becomes as [R, n]."""
        drawn = self.decoded[name]
        return np.asarray(self.vectors[name], dtype=np.float64).reshape(-1), drawn.reshape(len(drawn), -1)

    def errors(self) -> dict[str, Floats]:
        """Return ||C(x) - x||^2 / ||x||^2 of every draw, [R] by name; 0 for x = 0 that is kept."""
        found = {}
        for name in self.vectors:
            x, drawn = self.flat(name)
            lost, norm = np.square(drawn - x).sum(axis=1), float(np.square(x).sum())
            found[name] = lost / norm if norm else lost
        return found


def apply(scheme: Scheme, rows: Floats, draws: int, seed: int) -> Floats:
    """Compress each row as one worker's only values, in a new state at ever new steps.

    Rows that workers encode for themselves are encoded together, each as another worker's; those of other schemes are
    exchanged one by one, by a worker that is alone.

    Parameters
    ----------
    scheme : Scheme
        Without a memory.
    rows : array of float64, shape [W, *shape]
    draws : int
        R.
    seed : int

    Returns
    -------
    array, shape [R, W, n]
    """
    x = torch.from_numpy(np.ascontiguousarray(rows))
    alone = isinstance(scheme, Codec) and scheme.law == "mean of sent"
    results = [_encoded(scheme, x, step, seed) if alone else _exchanged(scheme, x, step, seed) for step in range(draws)]
    return np.stack([result.numpy() for result in results])


def draws_lots(scheme: Scheme, shape: tuple[int, ...], seed: int) -> bool:
    """Return whether a scheme draws at random: whether normal values of a shape become the same again and again."""
    row = np.random.default_rng(seed).standard_normal((1, *shape))
    results = apply(scheme, row, _TRIED, seed)
    return not bool((results == results[0]).all())


def _encoded(scheme: Scheme, x: Tensor, step: int, seed: int) -> Tensor:
    shape, workers = tuple(x.shape[1:]), len(x)
    turn = Turn(seed, step, UNIT, tuple(range(workers)), workers)
    codec = scheme.at(turn)
    assert isinstance(codec, Codec)
    _, sent, _ = codec.encode(x, codec.init(shape, workers, x), turn)
    return sent.dense(x.reshape(workers, -1)).clone()


def _exchanged(scheme: Scheme, x: Tensor, step: int, seed: int) -> Tensor:
    shape, driver = tuple(x.shape[1:]), StackedDriver(1)
    means = []
    for row in x:
        turn = Turn(seed, step, UNIT, (0,), 1)
        (outcome,), _ = driver.exchange([Item(row[None], scheme, scheme.init(shape, 1, row[None]), turn)])
        means.append(outcome.mean.reshape(prod(shape)).clone())
    return torch.stack(means)
