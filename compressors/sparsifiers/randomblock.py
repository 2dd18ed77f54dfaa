"""Random-block: one contiguous block of entries at a random place, the same one on every worker."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..base import Passes, Shape, State, Turn, kept
from ..decoded import Block
from ..keys import Purpose, below, stream
from ..payload import Buffer, Ragged
from .aligned import AlignedSparsifier


@dataclass(frozen=True)
class RandomBlock(AlignedSparsifier):
    """Send b = ceil(density * n) neighbouring entries from a random start on, going on at 0 behind the end.

    A worker hands over b values in the gradient's dtype, ``b * itemsize`` bytes: the start follows from seed, step and
    unit. Everyone sends the same block, so the payloads are summed by an all-reduce, and nothing is gathered or
    scattered in memory.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; lower compresses more. At least one entry is kept.
    scaled : bool
        Multiply by n / b, which makes the scheme unbiased and its variance n / b - 1 times the squared norm. Leave it
        off under error feedback, which the scaled form would make diverge.

    Notes
    -----
    The start is uniform over all n places and the block wraps around, so every entry is kept with probability exactly
    b / n. With a start that keeps the block within bounds, entries near the ends would hardly ever be sent.

    References
    ----------
    .. [1] Foroutan Eghlidi, Jaggi. *Sparse Communication for Training Deep Networks*, 2020,
       https://arxiv.org/abs/2009.09271
    """

    name = "randomblock"
    title = "a random block of neighbouring entries, the same on every worker"
    paper = "Foroutan Eghlidi & Jaggi 2020, arXiv 2009.09271"
    examples = ("randomblock(density=0.25)", "randomblock(density=0.5, scaled=True)", "randomblock(density=1)")

    def passes(self, shape: Shape) -> Passes:
        """Return a copy of the block, and its addition at the receiver."""
        fraction = self.fraction(shape)
        return Passes(encode=2 * fraction, between=0, decode=3 * fraction)

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[Block, State]:
        flat = x.reshape(len(x), -1)
        size = flat.shape[1]
        length = kept(self.density, size)
        start = _start(turn, size)
        head = flat[:, start : start + length]
        values = torch.cat([head, flat[:, : length - head.shape[1]]], dim=1)
        if self.scaled:
            values.mul_(size / length)
        return Block(values, start, size), state

    def place(self, values: Tensor | Ragged, positions: Buffer | None, shape: Shape, turn: Turn) -> Block:
        assert isinstance(values, Tensor)
        size = prod(shape)
        return Block(values, _start(turn, size), size)


def _start(turn: Turn, size: int) -> int:
    """Return the block's first index, from the shared stream."""
    return below(stream(turn.seed, Purpose.SELECTION, turn.step, turn.unit), size)
