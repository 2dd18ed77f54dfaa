"""Natural compression: every entry rounded at random to a power of two, of which sign and exponent travel."""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from ..base import Codec, Passes, Shape, State, Turn
from ..decoded import Decoded
from ..payload import HEADER_BYTES, Payload
from ..wire import packed_bytes
from .coded import Coded
from .coding import flattened, mantissa_bits, pack_codes, random_exponents
from .rounding import rounding_keys


@dataclass(frozen=True)
class Natural(Codec):
    """Round |x| to a neighbouring power of two so that its expectation is kept; send its sign and exponent.

    9 bits an entry for float32 and 12 for float64, and a header. In binary: the mantissa is cut off, and the exponent
    is one higher with a probability of the mantissa, exactly.

    Notes
    -----
    Below the smallest normal number, 2^-126 in float32, an entry becomes 0 or that number, which keeps the expectation
    but not the variance factor. From the largest power of two on, 2^127, it is rounded down, for the next is infinite.

    References
    ----------
    .. [1] Horvath, Ho, Horvath, Sahu, Canini, Richtarik. *Natural Compression for Distributed Deep Learning*, 2019,
       https://arxiv.org/abs/1905.10988
    """

    name = "natural"
    title = "every entry rounded at random to a power of two"
    paper = "Horvath et al. 2019, arXiv 1905.10988"
    collective = "all-gather"

    @property
    def unbiased(self) -> bool:
        return True

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "gather"

    def error_bound(self, shape: Shape) -> float:
        """Return 1 / 8, attained at 4 / 3 of a power of two (the paper's Theorem 1), in the dtype's normal range."""
        return 1 / 8

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return HEADER_BYTES + (_wide_bytes(prod(shape)) if itemsize == 8 else packed_bytes(prod(shape), 9))

    def passes(self, shape: Shape) -> Passes:
        """Return a read and the packed write; a packed read and an addition to decode."""
        return Passes(encode=1 + 9 / 32, between=0, decode=2 + 9 / 32)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = flattened(x)
        exponent = mantissa_bits(flat.dtype)[1]
        packed = pack_codes(random_exponents(flat, rounding_keys(turn)), exponent + 1)
        if exponent == 11:
            packed = torch.nn.functional.pad(packed, (0, _wide_bytes(flat.shape[1]) - packed.shape[1]))
        return Payload((packed,)), _coded(packed, exponent, flat.shape[1]), state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        packed = payload.fixed(0)
        exponent = 8 if packed.shape[1] == packed_bytes(prod(shape), 9) else 11
        return _coded(packed, exponent, prod(shape))


def _wide_bytes(size: int) -> int:
    """Return the bytes of a float64 payload: for one or two values a byte more, or it could be one of float32."""
    return max(packed_bytes(size, 12), packed_bytes(size, 9) + 1)


def _coded(packed: Tensor, exponent: int, size: int) -> Coded:
    """Return payloads of so many bits of exponent; 0 is zero, and the highest never occurs."""
    dtype = torch.float32 if exponent == 8 else torch.float64
    fields = torch.arange(1, 2**exponent - 1, dtype=torch.float64)
    powers = torch.zeros(2**exponent, dtype=dtype)
    powers[1:-1] = torch.exp2(fields - (2 ** (exponent - 1) - 1)).to(dtype)
    table = torch.cat([powers, -powers]).to(packed.device)
    return Coded(packed, exponent + 1, table, table.new_ones(len(packed), 1), size, size)
