"""Block top-k: the blocks of largest norm, each with one index."""

from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..base import Passes, Shape, State, Turn, check_range, kept
from ..decoded import Blocks
from ..indices import encode_indices, indices_bytes
from ..payload import SIZE_BYTES, Buffer, Ragged
from .gathered import GatheredSparsifier
from .selection import top_k
from .sparse import Entries, read_positions

_PIECE = 65_536
"""So many entries of a row are widened to float64 at a time."""


@dataclass(frozen=True)
class BlockTopK(GatheredSparsifier):
    """Cut the unit into blocks of B entries and send those of largest 2-norm, each with one index.

    As many blocks are sent as hold ceil(density * n) entries, m = ceil(ceil(density * n) / B), of M = ceil(n / B).
    A worker hands over ``m * (B * itemsize + ceil(log2 M) / 8)`` bytes and a header; if the unit's last block is
    shorter and is sent, zeros fill it up. A unit of fewer than B entries is one block, without filling. Workers choose
    different blocks, so the payloads are gathered.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; lower compresses more. At least one block is kept.
    coding : {"log2", "raw", "bitmap", "rice", "elias", "auto"}
        How the blocks' indices are written; see :data:`gradwire.compressors.indices.Coding`.
    block : int
        B, the entries of a block.

    Notes
    -----
    Of equal norms the lowest blocks are taken.

    References
    ----------
    .. [1] Fei, Ho, Sahu, Canini, Sapio. *Efficient Sparse Collective Communication and its Application to Accelerate
       Distributed Deep Learning*, SIGCOMM 2021, https://doi.org/10.1145/3452296.3472904
    """

    block: int = 256

    name = "blocktopk"
    title = "the blocks of largest norm, with an index each"
    paper = "Fei et al. 2021, SIGCOMM (OmniReduce)"
    examples = ("blocktopk(density=0.25, coding=elias, block=4)",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "block", "at least 1", self.block >= 1)

    def _cut(self, size: int) -> tuple[int, int, int]:
        """Return the entries of a block, the number of blocks, and how many of them are kept."""
        block = min(self.block, size)
        return block, ceil(size / block), ceil(kept(self.density, size) / block)

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - m / M, attained where all norms are equal."""
        _, blocks, m = self._cut(prod(shape))
        return 1 - m / blocks

    def count(self, shape: Shape) -> float:
        """Return the entries of all sent blocks, with what fills up the last one."""
        block, _, m = self._cut(prod(shape))
        return m * block

    def positions_bytes(self, shape: Shape) -> float:
        _, blocks, m = self._cut(prod(shape))
        return SIZE_BYTES * self.varying + indices_bytes(m, blocks, self.coding)

    def passes(self, shape: Shape) -> Passes:
        """Return a pass for the norms, and what the kept entries cost."""
        block, blocks, m = self._cut(prod(shape))
        return Passes(encode=1 + 4 / block + 2 * m / blocks, between=0, decode=3 * m / blocks)

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[Blocks, State]:
        flat = x.reshape(len(x), -1)
        size = flat.shape[1]
        block, blocks, m = self._cut(size)
        filled = pad(flat, (0, blocks * block - size)) if blocks * block > size else flat
        cut = filled.view(len(flat), blocks, block)
        best = top_k(_norms(cut), m)
        values = cut.gather(1, best[:, :, None].expand(-1, -1, block)).flatten(1)
        return Blocks(values, best, block, size), state

    def positions(self, entries: Entries) -> Buffer:
        assert isinstance(entries, Blocks)
        return encode_indices(entries.numbers, ceil(entries.size / entries.block), self.coding)

    def place(self, values: Tensor | Ragged, positions: Buffer | None, shape: Shape, turn: Turn) -> Blocks:
        assert isinstance(values, Tensor)
        assert positions is not None
        block, blocks, m = self._cut(prod(shape))
        best = read_positions(positions, len(values), m, blocks, self.coding)
        return Blocks(values, best, block, prod(shape))


def _norms(cut: Tensor) -> Tensor:
    """Return the norms ``[R, M]`` of blocks ``[R, M, B]``, to scale, so that squares neither overflow nor vanish."""
    if cut.dtype is torch.float64:  # squares of other dtypes fit into it as they are
        peak = cut.abs().amax((1, 2), keepdim=True)
        cut = cut / torch.where(peak > 0, peak, 1)
    step = max(1, _PIECE // cut.shape[2])
    pieces = [cut[:, start : start + step] for start in range(0, cut.shape[1], step)]
    return torch.cat([torch.linalg.vector_norm(piece.double(), dim=2) for piece in pieces], dim=1)
