"""Random-block: contiguous blocks of entries at random places, the same ones on every worker."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import torch
from torch import Tensor

from ..base import Passes, Shape, State, Turn, check_range, kept
from ..decoded import Aligned, Block
from ..keys import Purpose, below, stream
from ..payload import Buffer, Ragged
from .aligned import AlignedSparsifier
from .subsets import subset


@dataclass(frozen=True)
class RandomBlock(AlignedSparsifier):
    """Send k = ceil(density * n) entries in one or more blocks at random places, going on at 0 behind the end.

    A worker hands over k values in the gradient's dtype, ``k * itemsize`` bytes: the places follow from seed, step and
    unit. Everyone sends the same blocks, so the payloads are summed by an all-reduce. With one block nothing is
    gathered or scattered in memory.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; lower compresses more. At least one entry is kept.
    scaled : bool
        Multiply by n / k, which makes the scheme unbiased and its variance n / k - 1 times the squared norm. Leave it
        off under error feedback, which the scaled form would make diverge.
    blocks : int
        Number of blocks, of equal length to within one entry; k where that is less. They never overlap.

    Notes
    -----
    The start is uniform over all n places and blocks wrap around, so every entry is kept with probability exactly
    k / n. With a start that keeps the block within bounds, entries near the ends would hardly ever be sent.

    Several blocks are laid out by dealing them and the n - k entries between them in random order, each order being
    equally likely, and turning the result around the unit by a uniform shift. Over the shifts alone each entry is kept
    k times of n, whatever the order.

    References
    ----------
    .. [1] Foroutan Eghlidi, Jaggi. *Sparse Communication for Training Deep Networks*, 2020,
       https://arxiv.org/abs/2009.09271
    """

    blocks: int = 1

    name = "randomblock"
    title = "random blocks of neighbouring entries, the same on every worker"
    paper = "Foroutan Eghlidi & Jaggi 2020, arXiv 2009.09271"
    examples = ("randomblock(density=0.5, scaled=True)", "randomblock(density=0.3, blocks=4)")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "blocks", "at least 1", self.blocks >= 1)

    def passes(self, shape: Shape) -> Passes:
        """Return a copy of the blocks, and their addition at the receiver."""
        fraction = self.fraction(shape)
        return Passes(encode=2 * fraction, between=0, decode=3 * fraction)

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[Block | Aligned, State]:
        flat = x.reshape(len(x), -1)
        size = flat.shape[1]
        k = kept(self.density, size)
        if self.blocks == 1:
            head = flat[:, _start(turn, size) :][:, :k]
            values = torch.cat([head, flat[:, : k - head.shape[1]]], dim=1)
        else:
            values = flat[:, self._indices(turn, size, k).to(x.device)]
        if self.scaled:
            values.mul_(size / k)
        return self._placed(values, turn, size), state

    def place(self, values: Tensor | Ragged, positions: Buffer | None, shape: Shape, turn: Turn) -> Block | Aligned:
        assert isinstance(values, Tensor)
        return self._placed(values, turn, prod(shape))

    def _placed(self, values: Tensor, turn: Turn, size: int) -> Block | Aligned:
        if self.blocks == 1:
            return Block(values, _start(turn, size), size)
        return Aligned(values, self._indices(turn, size, values.shape[1]).to(values.device), size)

    def _indices(self, turn: Turn, size: int, k: int) -> Tensor:
        return _deal(turn.seed, turn.step, turn.unit, size, k, min(self.blocks, k))


def _start(turn: Turn, size: int) -> int:
    """Return the only block's first index, from the shared stream."""
    return below(stream(turn.seed, Purpose.SELECTION, turn.step, turn.unit), size)


@lru_cache(maxsize=32)  # encoder and decoder of a step ask for the same draw
def _deal(seed: int, step: int, unit: str, size: int, k: int, blocks: int) -> Tensor:
    """Return the indices of several blocks of k entries in all, from the shared stream."""
    bits = stream(seed, Purpose.SELECTION, step, unit)
    shift = below(bits, size)
    lengths = np.full(blocks, k // blocks)
    lengths[: k % blocks] += 1
    # Of size - k single entries and the blocks, in a row, these are the blocks; each is longer than the one it counts.
    places = subset(bits, size - k + blocks, blocks)
    starts = places + np.cumsum(lengths) - lengths - np.arange(blocks)
    within = np.arange(k) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return torch.from_numpy((np.repeat(starts, lengths) + within + shift) % size)
