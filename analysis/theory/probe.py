"""Probes: a scheme's operator applied to given vectors, again and again, without any training."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ...compressors.base import Scheme, Turn
from ...compressors.drivers import Item, StackedDriver
from ...compressors.remember import Remembering
from .check import Floats

UNIT = "probe"


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

    @cached_property
    def decoded(self) -> dict[str, Floats]:
        """What one worker's vector becomes, [R, *shape] by name; one row where all draws would be the same."""
        return {name: self._draw(vector) for name, vector in self.vectors.items()}

    def errors(self) -> dict[str, Floats]:
        """Return ||C(x) - x||^2 / ||x||^2 of every draw, [R] by name; 0 for x = 0 that is kept."""
        found = {}
        for name, drawn in self.decoded.items():
            x = self.vectors[name].reshape(1, -1)
            lost, norm = np.square(drawn.reshape(len(drawn), -1) - x).sum(axis=1), float(np.square(x).sum())
            found[name] = lost / norm if norm else lost
        return found

    def _draw(self, vector: Floats) -> Floats:
        """Compress a vector in a new state at ever new steps."""
        x = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64))[None]
        driver, rows = StackedDriver(1), []
        for step in range(self.draws):
            state = self.operator.init(tuple(vector.shape), 1, x)
            turn = Turn(self.seed, step, UNIT, (0,), 1)
            (outcome,), _ = driver.exchange([Item(x, self.operator, state, turn)])
            rows.append(outcome.mean.numpy().copy())
            if step == 1 and np.array_equal(rows[0], rows[1]) and not self.operator.unbiased:
                return np.stack(rows[:1])
        return np.stack(rows)
