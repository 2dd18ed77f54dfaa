"""Random-k: k entries drawn at random, the same ones on every worker."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import torch
from torch import Tensor

from ..base import Passes, Shape, State, Turn, kept
from ..decoded import Aligned
from ..keys import Purpose, stream
from ..payload import Buffer, Ragged
from .aligned import AlignedSparsifier


@dataclass(frozen=True)
class RandomK(AlignedSparsifier):
    """Send k = ceil(density * n) entries drawn without replacement from a stream that all workers share.

    A worker hands over k values in the gradient's dtype, ``k * itemsize`` bytes: the indices follow from seed, step
    and unit. Everyone sends the same entries, so the payloads are summed by an all-reduce.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; lower compresses more. At least one entry is kept.
    scaled : bool
        Multiply by n / k, which makes the scheme unbiased and its variance n / k - 1 times the squared norm. Leave it
        off under error feedback, which the scaled form would make diverge.

    References
    ----------
    .. [1] Stich, Cordonnier, Jaggi. *Sparsified SGD with Memory*, NeurIPS 2018, https://arxiv.org/abs/1809.07599
    """

    name = "randomk"
    title = "k random entries, the same on every worker"
    paper = "Stich et al. 2018, arXiv 1809.07599"
    examples = ("randomk(density=0.25)", "randomk(density=0.5, scaled=True)", "randomk(density=1)")

    def passes(self, shape: Shape) -> Passes:
        """Return what drawing, gathering and scattering the kept entries cost; the others are not touched."""
        fraction = self.fraction(shape)
        return Passes(encode=4 * fraction, between=0, decode=3 * fraction)

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[Aligned, State]:
        flat = x.reshape(len(x), -1)
        size = flat.shape[1]
        k = kept(self.density, size)
        indices = _draw(turn.seed, turn.step, turn.unit, size, k).to(x.device)
        values = flat[:, indices]
        if self.scaled:
            values.mul_(size / k)
        return Aligned(values, indices, size), state

    def place(self, values: Tensor | Ragged, positions: Buffer | None, shape: Shape, turn: Turn) -> Aligned:
        assert isinstance(values, Tensor)
        size = prod(shape)
        indices = _draw(turn.seed, turn.step, turn.unit, size, values.shape[1]).to(values.device)
        return Aligned(values, indices, size)


@lru_cache(maxsize=32)  # encoder and decoder of a step ask for the same draw
def _draw(seed: int, step: int, unit: str, size: int, k: int) -> Tensor:
    """Return k distinct ascending indices below ``size``, from the shared stream."""
    generator = np.random.Generator(stream(seed, Purpose.SELECTION, step, unit))
    return torch.from_numpy(np.sort(generator.choice(size, k, replace=False, shuffle=False)))
