"""What the quantizers' receivers see: packed codes that stay packed until they are added up."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..decoded import Decoded
from ..wire import packed_bytes, unpack
from .coding import compiled_loops

TRITS = 0
"""In place of the bits of a code: five digits of base 3 in a byte."""


Adder = Callable[[int, int, int, Any, bool], object]
"""Adds a row's values from one place to another to an array, or stores them there: (row, start, stop, array, store)."""


class Quantized(Decoded):
    """Rows of which every entry has a value, decoded where they are added, part by part."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """R and n."""

    @abstractmethod
    def _row(self, r: int, like: Tensor) -> Tensor:
        """Return row r as [n] values, with the dtype of ``like``."""

    @abstractmethod
    def _adder(self, loops: ModuleType, sign: int, like: Tensor) -> Adder | None:
        """Return the compiled loop that adds rows times ``sign``, if there is one."""

    def _compiled(self, sign: int, like: Tensor) -> tuple[ModuleType, Adder] | None:
        loops = compiled_loops(like, prod(self.shape)) if like.dtype in (torch.float32, torch.float64) else None
        adder = self._adder(loops, sign, like) if loops else None
        return (loops, adder) if loops and adder else None

    def _sum(self, out: Tensor, store: bool) -> Tensor:
        """Add all rows to ``out``, or the others to the first."""
        rows, size = self.shape
        compiled = self._compiled(1, out)
        if compiled is None:
            for r in range(rows):
                row = self._row(r, out)
                out.copy_(row) if store and r == 0 else out.add_(row)
            return out
        loops, add = compiled
        target = out.numpy()

        def work(_: int, start: int, stop: int) -> None:
            for r in range(rows):  # of one part after the other, so that its sum stays in the cache
                add(r, start, stop, target, store and r == 0)

        loops.share(work, 1, size)
        return out

    def add_to_(self, out: Tensor) -> Tensor:
        return self._sum(out, store=False)

    def total(self, like: Tensor) -> Tensor:
        return self._sum(torch.empty_like(like, memory_format=torch.contiguous_format), store=True)

    def residual_of_(self, p: Tensor) -> Tensor:
        compiled = self._compiled(-1, p)
        if compiled is None:
            for r, row in enumerate(p):
                row.sub_(self._row(r, p))
            return p
        loops, add = compiled
        targets = p.numpy()
        loops.share(lambda r, start, stop: add(r, start, stop, targets[r], False), *self.shape)
        return p

    def clear_(self, x: Tensor) -> Tensor:
        return x.zero_()

    def dense(self, like: Tensor) -> Tensor:
        compiled = self._compiled(1, like)
        if compiled is None:
            return torch.stack([self._row(r, like) for r in range(self.shape[0])])
        loops, add = compiled
        rows = like.new_empty(self.shape)
        targets = rows.numpy()
        loops.share(lambda r, start, stop: add(r, start, stop, targets[r], True), *self.shape)
        return rows


@dataclass(frozen=True)
class Coded(Quantized):
    """Every entry as a code that stands for a value of a table, times its bucket's scale.

    Attributes
    ----------
    packed : Tensor of uint8, shape [R, bytes]
    bits : int
        Of a code, up to 16, or :data:`TRITS`.
    table : Tensor, shape [codes]
        The value of each code.
    scales : Tensor, shape [R, ceil(size / bucket)]
    bucket, size : int
        Entries that share a scale; n.
    """

    packed: Tensor
    bits: int
    table: Tensor
    scales: Tensor
    bucket: int
    size: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.packed), self.size

    def _adder(self, loops: ModuleType, sign: int, like: Tensor) -> Adder:
        table, scales, packed = (self.table * sign).to(like).numpy(), self.scales.to(like).numpy(), self.packed.numpy()
        bits, bucket = self.bits, self.bucket
        return lambda r, start, stop, target, store: loops.add_codes(
            packed[r], bits, table, scales[r], bucket, store, start, stop, target
        )

    def _row(self, r: int, like: Tensor) -> Tensor:
        scales = self.scales[r].to(like).repeat_interleave(min(self.bucket, self.size))[: self.size]
        return scales.mul_(self.table.to(like)[self._codes(r).long()])

    def _codes(self, r: int) -> Tensor:
        if self.bits == TRITS:
            powers = self.packed.new_tensor([1, 3, 9, 27, 81])
            return (self.packed[r][:, None] // powers % 3).reshape(-1)[: self.size]
        length = packed_bytes(self.size, self.bits)  # of a row that may be filled up
        return unpack(self.packed[r : r + 1, :length], self.bits, self.size)[0]


@dataclass(frozen=True)
class Signs(Quantized):
    """Every entry as one of two values of its row, or of its row's column.

    Attributes
    ----------
    packed : Tensor of uint8, shape [R, ceil(size / 8)]
    low, high : Tensor, shape [R, columns]
        What a cleared and a set bit stand for; entry i lies in column i % columns.
    size : int
        n.
    """

    packed: Tensor
    low: Tensor
    high: Tensor
    size: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.packed), self.size

    def _adder(self, loops: ModuleType, sign: int, like: Tensor) -> Adder | None:
        if self.low.shape[1] > 1:
            return None
        low, high = ((value[:, 0] * sign).to(like).numpy() for value in (self.low, self.high))
        packed = self.packed.numpy()
        return lambda r, start, stop, target, store: loops.add_signs(
            packed[r], low[r], high[r], store, start, stop, target
        )

    def _row(self, r: int, like: Tensor) -> Tensor:
        return torch.where(self._bits(r), self.high[r].to(like), self.low[r].to(like)).reshape(-1)

    def _bits(self, r: int) -> Tensor:
        """Return the bits as a matrix of so many columns."""
        packed = self.packed[r]
        if packed.device.type == "cpu":
            bits = torch.from_numpy(np.unpackbits(packed.numpy(), count=self.size, bitorder="little"))
        else:
            bits = unpack(packed[None], 1, self.size, torch.uint8)[0]
        return bits.view(-1, self.low.shape[1]).bool()


def level_table(top: int, dtype: torch.dtype) -> Tensor:
    """Return the values of codes 0 to 2 top: -top to top."""
    return torch.arange(-top, top + 1, dtype=dtype)
