"""Random-k: k entries drawn at random, the same ones on every worker or each worker's own."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Literal

import torch
from torch import Tensor

from ..base import Passes, Shape, State, Turn, kept
from ..decoded import Aligned, Sparse
from ..keys import SHARED, Purpose, stream
from ..payload import Buffer, Ragged
from .aligned import AlignedSparsifier
from .subsets import subset


@dataclass(frozen=True)
class RandomK(AlignedSparsifier):
    """Send k = ceil(density * n) entries drawn without replacement, from a stream that all workers share by default.

    A worker hands over k values in the gradient's dtype, ``k * itemsize`` bytes: the indices follow from seed, step
    and unit. With a shared seed everyone sends the same entries, so the payloads are summed by an all-reduce. With
    seeds of their own, which follow from the worker's rank too, workers send different entries, and the payloads are
    gathered, with a header; still no index travels.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; lower compresses more. At least one entry is kept.
    scaled : bool
        Multiply by n / k, which makes the scheme unbiased and its variance n / k - 1 times the squared norm. Leave it
        off under error feedback, which the scaled form would make diverge.
    seed : {"shared", "own"}
        Whether all workers draw the same entries.

    References
    ----------
    .. [1] Stich, Cordonnier, Jaggi. *Sparsified SGD with Memory*, NeurIPS 2018, https://arxiv.org/abs/1809.07599
    """

    seed: Literal["shared", "own"] = "shared"

    name = "randomk"
    title = "k random entries, the same on every worker or each one's own"
    paper = "Stich et al. 2018, arXiv 1809.07599"
    examples = ("randomk(density=0.25, seed=own)", "randomk(density=0.5, scaled=True)")

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "sum" if self.seed == "shared" else "gather"

    def passes(self, shape: Shape) -> Passes:
        """Return what drawing, gathering and scattering the kept entries cost; the others are not touched."""
        fraction = self.fraction(shape)
        return Passes(encode=4 * fraction, between=0, decode=(3 if self.seed == "shared" else 4) * fraction)

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[Aligned | Sparse, State]:
        flat = x.reshape(len(x), -1)
        size = flat.shape[1]
        k = kept(self.density, size)
        indices = self._indices(turn, turn.ranks, size, k).to(x.device)
        values = flat.index_select(1, indices) if self.seed == "shared" else flat.gather(1, indices)
        if self.scaled:
            values.mul_(size / k)
        return self._placed(values, indices, size), state

    def place(self, values: Tensor | Ragged, positions: Buffer | None, shape: Shape, turn: Turn) -> Aligned | Sparse:
        assert isinstance(values, Tensor)
        ranks = range(len(values))  # of seeds of their own, since all workers' rows arrive
        size = prod(shape)
        return self._placed(values, self._indices(turn, ranks, size, values.shape[1]).to(values.device), size)

    def _indices(self, turn: Turn, ranks: Iterable[int], size: int, k: int) -> Tensor:
        """Return the drawn indices: [k] for all workers, or [R, k]."""
        if self.seed == "shared":
            return _draw(turn.seed, turn.step, turn.unit, SHARED, size, k)
        return torch.stack([_draw(turn.seed, turn.step, turn.unit, rank, size, k) for rank in ranks])

    def _placed(self, values: Tensor, indices: Tensor, size: int) -> Aligned | Sparse:
        return Aligned(values, indices, size) if self.seed == "shared" else Sparse(values, indices, size)


@lru_cache(maxsize=32)  # encoder and decoder of a step ask for the same draw
def _draw(seed: int, step: int, unit: str, worker: int, size: int, k: int) -> Tensor:
    """Return k distinct ascending indices below ``size``, from a worker's stream or the shared one."""
    return torch.from_numpy(subset(stream(seed, Purpose.SELECTION, step, unit, worker), size, k))
