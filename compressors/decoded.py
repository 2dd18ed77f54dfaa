"""Decoded payloads: what rows of payloads mean, without becoming dense where they are not.

A :class:`Decoded` of R rows stands for an ``[R, n]`` matrix. It can add itself to a vector, take itself away from a
residual and clear its support, so nobody has to build R dense rows to sum them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .payload import Ragged

_PIECE = 1 << 20  # values that stay in a cache, and are enough for several threads


class Decoded(ABC):
    """R decoded payloads of a unit of n values."""

    @abstractmethod
    def add_to_(self, out: Tensor) -> Tensor:
        """Add every row, in row order, to ``out`` of shape [n], in place.

        Row order makes the sum the same wherever the rows come from: one process that stacks the workers, or many.
        """

    def total(self, like: Tensor) -> Tensor:
        """Return the sum of all rows, of shape [n], with the dtype and device of ``like`` [n]."""
        return self.add_to_(torch.zeros_like(like))

    @abstractmethod
    def residual_of_(self, p: Tensor) -> Tensor:
        """Return ``p - self`` for ``p`` of shape [R, n], in p's memory unless this object shares it."""

    @abstractmethod
    def clear_(self, x: Tensor) -> Tensor:
        """Set ``x`` of shape [R, n] to zero wherever this object has an entry, be its value zero or not."""

    @abstractmethod
    def dense(self, like: Tensor) -> Tensor:
        """Return the rows as a new tensor of shape [R, n], with the dtype and device of ``like``."""


@dataclass(frozen=True)
class Nothing(Decoded):
    """Rows of which nothing was sent."""

    rows: int
    size: int

    def add_to_(self, out: Tensor) -> Tensor:
        return out

    def residual_of_(self, p: Tensor) -> Tensor:
        return p

    def clear_(self, x: Tensor) -> Tensor:
        return x

    def dense(self, like: Tensor) -> Tensor:
        return like.new_zeros(self.rows, self.size)


@dataclass(frozen=True)
class Dense(Decoded):
    """Every entry of every row: ``values`` of shape [R, n], in any dtype."""

    values: Tensor

    def add_to_(self, out: Tensor) -> Tensor:
        for row in self.values:
            _add(row, out)
        return out

    def total(self, like: Tensor) -> Tensor:
        total = self.values[0].to(like, copy=True)
        for row in self.values[1:]:
            _add(row, total)
        return total

    def residual_of_(self, p: Tensor) -> Tensor:
        if self.values.untyped_storage().data_ptr() == p.untyped_storage().data_ptr():
            return torch.zeros_like(p)  # the rows are p itself
        return p.sub_(self.values)

    def clear_(self, x: Tensor) -> Tensor:
        return x.zero_()

    def dense(self, like: Tensor) -> Tensor:
        return self.values.to(like, copy=True)


def _add(row: Tensor, out: Tensor) -> None:
    """Add values to ``out`` [n]; those of another dtype are widened piece by piece, in the cache."""
    if row.dtype == out.dtype:
        out.add_(row)
        return
    for start in range(0, len(row), _PIECE):
        out[start : start + _PIECE].add_(row[start : start + _PIECE].to(out.dtype))


@dataclass(frozen=True)
class Sparse(Decoded):
    """k entries of each row: ``values`` [R, k] at ``indices`` [R, k] (int64, distinct within a row), of n."""

    values: Tensor
    indices: Tensor
    size: int

    def add_to_(self, out: Tensor) -> Tensor:
        # Row by row: of repeated indices, a GPU adds in no fixed order.
        for indices, values in zip(self.indices, self.values, strict=True):
            out.index_add_(0, indices, values.to(out.dtype))
        return out

    def residual_of_(self, p: Tensor) -> Tensor:
        return p.scatter_add_(1, self.indices, self.values.to(p.dtype).neg())

    def clear_(self, x: Tensor) -> Tensor:
        return x.scatter_(1, self.indices, 0.0)

    def dense(self, like: Tensor) -> Tensor:
        rows = like.new_zeros(self.values.shape[0], self.size)
        return rows.scatter_(1, self.indices, self.values.to(rows.dtype))


@dataclass(frozen=True)
class RaggedSparse(Decoded):
    """Some entries of each row, not equally many: ``values`` at ``indices`` (int64, distinct within a row), of n."""

    values: Ragged
    indices: Ragged
    size: int

    def _rows(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield each row's number, indices and values."""
        for r in range(len(self.values.lengths)):
            yield r, self.indices.row(r), self.values.row(r)

    def add_to_(self, out: Tensor) -> Tensor:
        for _, indices, values in self._rows():
            out.index_add_(0, indices, values.to(out.dtype))
        return out

    def residual_of_(self, p: Tensor) -> Tensor:
        for r, indices, values in self._rows():
            p[r].index_add_(0, indices, values.to(p.dtype), alpha=-1)
        return p

    def clear_(self, x: Tensor) -> Tensor:
        for r, indices, _ in self._rows():
            x[r].index_fill_(0, indices, 0.0)
        return x

    def dense(self, like: Tensor) -> Tensor:
        rows = like.new_zeros(len(self.values.lengths), self.size)
        for r, indices, values in self._rows():
            rows[r].index_copy_(0, indices, values.to(rows.dtype))
        return rows


@dataclass(frozen=True)
class Aligned(Decoded):
    """k entries of each row at the same ``indices`` [k] (int64, distinct), of n: ``values`` [R, k]."""

    values: Tensor
    indices: Tensor
    size: int

    def add_to_(self, out: Tensor) -> Tensor:
        for row in self.values:
            out.index_add_(0, self.indices, row.to(out.dtype))
        return out

    def residual_of_(self, p: Tensor) -> Tensor:
        return p.index_add_(1, self.indices, self.values.to(p.dtype), alpha=-1)

    def clear_(self, x: Tensor) -> Tensor:
        return x.index_fill_(1, self.indices, 0.0)

    def dense(self, like: Tensor) -> Tensor:
        rows = like.new_zeros(self.values.shape[0], self.size)
        return rows.index_copy_(1, self.indices, self.values.to(rows.dtype))


@dataclass(frozen=True)
class Block(Decoded):
    """b entries from ``start`` on, going on at 0 behind the end, the same in each row: ``values`` [R, b], of n."""

    values: Tensor
    start: int
    size: int

    def _pieces(self) -> list[tuple[slice, slice]]:
        """Return (slice of the unit, slice of the block): two where the block wraps around, else one."""
        length = self.values.shape[1]
        head = min(length, self.size - self.start)
        pieces = [(slice(self.start, self.start + head), slice(0, head))]
        return pieces if head == length else [*pieces, (slice(0, length - head), slice(head, length))]

    def add_to_(self, out: Tensor) -> Tensor:
        for unit, block in self._pieces():
            for row in self.values:
                out[unit].add_(row[block])
        return out

    def residual_of_(self, p: Tensor) -> Tensor:
        for unit, block in self._pieces():
            p[:, unit].sub_(self.values[:, block])
        return p

    def clear_(self, x: Tensor) -> Tensor:
        for unit, _ in self._pieces():
            x[:, unit] = 0.0
        return x

    def dense(self, like: Tensor) -> Tensor:
        rows = like.new_zeros(self.values.shape[0], self.size)
        for unit, block in self._pieces():
            rows[:, unit] = self.values[:, block].to(rows.dtype)
        return rows


@dataclass(frozen=True)
class Blocks(Decoded):
    """m blocks of B entries of each row: ``values`` [R, m * B] of the blocks ``numbers`` [R, m], of n entries.

    If the unit's last block is shorter, its values go on behind the unit's end and mean nothing there.
    """

    values: Tensor
    numbers: Tensor
    block: int
    size: int

    @cached_property
    def entries(self) -> Sparse | RaggedSparse:
        """The single entries, without those behind the end."""
        within = torch.arange(self.block, device=self.numbers.device)
        places = (self.numbers[:, :, None] * self.block + within).flatten(1)
        if self.size % self.block == 0:
            return Sparse(self.values, places, self.size)
        real = places < self.size
        values, indices = (
            Ragged.of([row[inside] for row, inside in zip(rows, real, strict=True)]) for rows in (self.values, places)
        )
        return RaggedSparse(values, indices, self.size)

    def add_to_(self, out: Tensor) -> Tensor:
        return self.entries.add_to_(out)

    def residual_of_(self, p: Tensor) -> Tensor:
        return self.entries.residual_of_(p)

    def clear_(self, x: Tensor) -> Tensor:
        return self.entries.clear_(x)

    def dense(self, like: Tensor) -> Tensor:
        return self.entries.dense(like)


@dataclass(frozen=True)
class LowRank(Decoded):
    """Matrices ``left @ right[r].T`` of shape [a, b], flattened: ``left`` [a, r], ``right`` [R, b, r]."""

    left: Tensor
    right: Tensor

    def _row(self, r: int) -> Tensor:
        """Return row r as [n] values; a fused product and sum, or a batch of products, would round differently."""
        return (self.left @ self.right[r].T).reshape(-1)

    def add_to_(self, out: Tensor) -> Tensor:
        for r in range(self.right.shape[0]):
            out.add_(self._row(r))
        return out

    def residual_of_(self, p: Tensor) -> Tensor:
        for r, row in enumerate(p):
            row.sub_(self._row(r))
        return p

    def clear_(self, x: Tensor) -> Tensor:
        return x.zero_()

    def dense(self, like: Tensor) -> Tensor:
        return torch.stack([self._row(r) for r in range(self.right.shape[0])]).to(like)


@dataclass(frozen=True)
class Factors(Decoded):
    """Matrices ``left[r] @ right[r]`` of shape [a, b], flattened, each of a rank of its own, 0 included."""

    left: tuple[Tensor, ...]
    right: tuple[Tensor, ...]

    def _rows(self) -> Iterator[Tensor]:
        for left, right in zip(self.left, self.right, strict=True):
            yield (left @ right).reshape(-1)

    def add_to_(self, out: Tensor) -> Tensor:
        for row in self._rows():
            out.add_(row)
        return out

    def residual_of_(self, p: Tensor) -> Tensor:
        for own, row in zip(p, self._rows(), strict=True):
            own.sub_(row)
        return p

    def clear_(self, x: Tensor) -> Tensor:
        return x.zero_()

    def dense(self, like: Tensor) -> Tensor:
        return torch.stack(list(self._rows())).to(like)


@dataclass(frozen=True)
class Scaled(Decoded):
    """Every entry as a small integer times its bucket's scale: ``levels`` [R, n], ``scales`` [R, ceil(n / bucket)]."""

    levels: Tensor
    scales: Tensor
    bucket: int

    def _row(self, r: int, dtype: torch.dtype) -> Tensor:
        """Return row r as [n] values."""
        size = self.levels.shape[1]
        spread = self.scales[r].to(dtype).repeat_interleave(self.bucket)[:size]
        return spread.mul_(self.levels[r])

    def add_to_(self, out: Tensor) -> Tensor:
        for r in range(self.levels.shape[0]):
            out.add_(self._row(r, out.dtype))
        return out

    def residual_of_(self, p: Tensor) -> Tensor:
        for r, row in enumerate(p):
            row.sub_(self._row(r, p.dtype))
        return p

    def clear_(self, x: Tensor) -> Tensor:
        return x.zero_()

    def dense(self, like: Tensor) -> Tensor:
        return torch.stack([self._row(r, like.dtype) for r in range(self.levels.shape[0])]).to(like.device)
