"""Block int8: every entry as a whole number of 127ths of its block's largest."""

from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

from torch import Tensor

from ..base import Codec, Passes, Shape, State, Turn, check_range
from ..decoded import Decoded
from ..payload import HEADER_BYTES, Payload
from .coded import Coded, level_table
from .coding import bucket_norms, flattened, nearest_levels, random_levels
from .qsgd import max_norm_omega
from .rounding import rounding_keys

_TOP = 127


@dataclass(frozen=True)
class Int8(Codec):
    """Send, for each block, its largest magnitude, and each entry in 8 bits, -127 to 127 times a 127th of it.

    A worker hands over ``n`` bytes, a scale of 4 bytes (8 for float64) a block, and a header.

    Parameters
    ----------
    block : int
        Entries that share a scale; smaller blocks add bytes and lessen the error.
    rounding : {"nearest", "stochastic"}
        To the nearest, halves to even, which is biased; or at random so that the expectation is kept, which is
        ``qsgd(bits=8)``.
    """

    block: int = 512
    rounding: Literal["nearest", "stochastic"] = "nearest"

    name = "int8"
    title = "every entry as 8 bits of its block's largest"
    paper = "common practice"
    collective = "all-gather"
    examples = ("int8(block=7)",)

    def __post_init__(self) -> None:
        check_range(self, "block", "at least 1", self.block >= 1)

    @property
    def unbiased(self) -> bool:
        return self.rounding == "stochastic"

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "gather"

    def error_bound(self, shape: Shape) -> float:
        """Return what a largest entry beside others at half a step loses, m / 4 / (127^2 + m / 4); omega at random."""
        d = min(self.block, prod(shape))
        if self.rounding == "stochastic":
            return max_norm_omega(d, _TOP)
        return (d - 1) / (4 * _TOP**2 + d - 1)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return HEADER_BYTES + ceil(prod(shape) / self.block) * max(4, itemsize) + prod(shape)

    def passes(self, shape: Shape) -> Passes:
        """Return two reads (scale, rounding) and the write; a read and an addition to decode."""
        return Passes(encode=2.25, between=0, decode=2.25)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = flattened(x)
        scales = bucket_norms(flat, self.block)
        if self.rounding == "nearest":
            codes = nearest_levels(flat, scales, self.block, _TOP)
        else:
            codes = random_levels(flat, scales, self.block, _TOP, rounding_keys(turn))
        return Payload((scales, codes)), self._sent(scales, codes, flat.shape[1]), state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        return self._sent(payload.fixed(0), payload.fixed(1), prod(shape))

    def _sent(self, scales: Tensor, codes: Tensor, size: int) -> Coded:
        table = level_table(_TOP, scales.dtype).to(scales.device)
        return Coded(codes, 8, table, scales / _TOP, self.block, size)
