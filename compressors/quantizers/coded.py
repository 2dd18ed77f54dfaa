"""What the quantizers' receivers see: packed codes that stay packed until they are added up."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..decoded import Decoded
from ..wire import packed_bytes, unpack
from .coding import compiled_loops

TRITS = 0
"""In place of the bits of a code: five digits of base 3 in a byte."""


class Quantized(Decoded):
    """Rows of which every entry has a value, decoded row by row into where it is needed."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """R and n."""

    @abstractmethod
    def _put(self, r: int, out: Tensor, sign: int, store: bool) -> None:
        """Add row r times ``sign`` to ``out`` [n], contiguous; with ``store`` write it there."""

    def add_to_(self, out: Tensor) -> Tensor:
        for r in range(self.shape[0]):
            self._put(r, out, 1, store=False)
        return out

    def total(self, like: Tensor) -> Tensor:
        total = torch.empty_like(like, memory_format=torch.contiguous_format)
        for r in range(self.shape[0]):
            self._put(r, total, 1, store=r == 0)
        return total

    def residual_of_(self, p: Tensor) -> Tensor:
        for r, row in enumerate(p):
            self._put(r, row, -1, store=False)
        return p

    def clear_(self, x: Tensor) -> Tensor:
        return x.zero_()

    def dense(self, like: Tensor) -> Tensor:
        rows = like.new_empty(self.shape)
        for r, row in enumerate(rows):
            self._put(r, row, 1, store=True)
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

    def _put(self, r: int, out: Tensor, sign: int, store: bool) -> None:
        table, scales = (self.table * sign).to(out), self.scales[r].to(out)
        loops = compiled_loops(out, self.size)
        if loops and out.dtype in (torch.float32, torch.float64):
            packed, target = self.packed[r].numpy(), out.numpy()
            given = (packed, self.bits, table.numpy(), scales.numpy(), self.bucket, store)
            loops.share(lambda _, a, b: loops.add_codes(*given, a, b, target), 1, self.size)
            return
        row = table[self._codes(r).long()] * scales.repeat_interleave(min(self.bucket, self.size))[: self.size]
        out.copy_(row) if store else out.add_(row)

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

    def _put(self, r: int, out: Tensor, sign: int, store: bool) -> None:
        low, high = (self.low[r] * sign).to(out), (self.high[r] * sign).to(out)
        loops = compiled_loops(out, self.size)
        if loops and out.dtype in (torch.float32, torch.float64) and len(low) == 1:
            given = (self.packed[r].numpy(), low.numpy()[0], high.numpy()[0], store)
            target = out.numpy()
            loops.share(lambda _, a, b: loops.add_signs(*given, a, b, target), 1, self.size)
            return
        row = torch.where(self._bits(r), high, low).reshape(-1)
        out.copy_(row) if store else out.add_(row)

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
