"""Chunk-wise top-k: the largest entries of each chunk of neighbouring entries."""

from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor

from ..base import Passes, Shape, State, Turn, check_range, kept
from ..decoded import Sparse
from ..payload import Buffer, Ragged
from ..wire import index_bits, pack, packed_bytes, unpack
from .gathered import GatheredSparsifier
from .selection import top_k
from .sparse import Entries


@dataclass(frozen=True)
class ChunkTopK(GatheredSparsifier):
    """Cut the unit into chunks and send the ceil(density * length) entries of largest magnitude of each.

    An index says only where in its chunk an entry is, since each chunk has a known number of them: ceil(log2 chunk)
    bits. A worker hands over ``k * (itemsize + ceil(log2 chunk) / 8)`` bytes and a header, k being what all chunks
    keep. Workers choose different entries, so the payloads are gathered.

    Parameters
    ----------
    density : float
        Kept fraction of a chunk, in (0, 1]; lower compresses more. At least one entry of each is kept.
    coding : {"log2", "raw", "bitmap", "rice", "elias", "auto"}
        How indices are written: under ``log2`` within the chunk; under the others as for the whole unit, see
        :data:`gradwire.compressors.indices.Coding`.
    chunk : int
        Entries of a chunk; the last one may be shorter.

    Notes
    -----
    Ties are broken by the lowest index. Every part of the unit is heard, at the price of entries that a selection over
    the whole unit would prefer; selecting within short chunks is also faster on a GPU.

    References
    ----------
    .. [1] Chen et al. *ScaleCom: Scalable Sparsified Gradient Compression for Communication-Efficient Distributed
       Training*, NeurIPS 2020, https://arxiv.org/abs/2104.11125
    """

    chunk: int = 4096

    name = "chunktopk"
    title = "the entries of largest magnitude of each chunk, with their indices in there"
    paper = "Chen et al. 2020 (chunk-wise top-k), arXiv 2104.11125"
    examples = ("chunktopk(density=0.3, chunk=7)",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "chunk", "at least 1", self.chunk >= 1)

    def _counts(self, size: int) -> tuple[int, int, int]:
        """Return the number of whole chunks, what each keeps, and what a shorter last one keeps."""
        whole, rest = divmod(size, self.chunk)
        return whole, kept(self.density, self.chunk), kept(self.density, rest) if rest else 0

    def count(self, shape: Shape) -> float:
        whole, each, last = self._counts(prod(shape))
        return whole * each + last

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - k / n of the chunk that keeps the smallest fraction."""
        whole, each, last = self._counts(prod(shape))
        rest = prod(shape) % self.chunk
        return 1 - min(each / self.chunk if whole else 1, last / rest if rest else 1)

    def positions_bytes(self, shape: Shape) -> float:
        if self.coding != "log2":
            return super().positions_bytes(shape)
        return packed_bytes(int(self.count(shape)), self._bits(prod(shape)))

    def passes(self, shape: Shape) -> Passes:
        """Return 4 passes to select, as for top-k, and what the kept entries cost."""
        fraction = self.count(shape) / prod(shape)
        return Passes(encode=4 + 3 * fraction, between=0, decode=3 * fraction)

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[Sparse, State]:
        flat = x.reshape(len(x), -1)
        rows, size = flat.shape
        whole, each, last = self._counts(size)
        cut = whole * self.chunk
        parts = []
        if whole:
            parts.append(top_k(flat[:, :cut].reshape(-1, self.chunk), each).view(rows, -1))
        if last:
            parts.append(top_k(flat[:, cut:], last))
        indices = torch.cat(parts, dim=1) + self._starts(size).to(x.device)
        return Sparse(flat.gather(1, indices), indices, size), state

    def positions(self, entries: Entries) -> Buffer:
        if self.coding != "log2":
            return super().positions(entries)
        assert isinstance(entries, Sparse)
        within = entries.indices - self._starts(entries.size).to(entries.indices.device)
        return pack(within, self._bits(entries.size))

    def place(self, values: Tensor | Ragged, positions: Buffer | None, shape: Shape, turn: Turn) -> Entries:
        if self.coding != "log2":
            return super().place(values, positions, shape, turn)
        assert isinstance(values, Tensor)
        assert isinstance(positions, Tensor)
        size = prod(shape)
        within = unpack(positions, self._bits(size), values.shape[1])
        return Sparse(values, within + self._starts(size).to(values.device), size)

    def _bits(self, size: int) -> int:
        """Return the bits of an index within a chunk."""
        return index_bits(min(self.chunk, size))

    def _starts(self, size: int) -> Tensor:
        """Return, for each entry that is kept, where its chunk starts."""
        whole, each, last = self._counts(size)
        counts = torch.tensor([each] * whole + [last] * (last > 0))
        return (torch.arange(ceil(size / self.chunk)) * self.chunk).repeat_interleave(counts)
