"""NUQSGD: every entry rounded at random to a power-of-two fraction of its bucket's norm."""

from dataclasses import dataclass
from math import ceil, prod, sqrt
from typing import Literal

import torch
from torch import Tensor

from ..base import Codec, Passes, Shape, State, Turn, check_range
from ..decoded import Decoded
from ..payload import HEADER_BYTES, Payload
from ..wire import packed_bytes
from .coded import Coded
from .coding import bucket_norms, flattened, pack_codes, power_levels
from .rounding import rounding_keys


@dataclass(frozen=True)
class NUQSGD(Codec):
    """As ``qsgd``, with the levels 0, 2^-s, ..., 1/4, 1/2, 1 times the norm, which lie closest where entries are small.

    With s = 2**(bits - 1) - 2. A worker hands over ``n * bits / 8`` bytes of packed codes, a norm a bucket, and a
    header. The same operator is known as natural dithering.

    Parameters
    ----------
    bits : int
        Bits of an entry, sign included, 2 to 8; fewer compress more and add variance.
    bucket : int
        Entries that share a norm.
    norm : {"l2", "max"}
        The Euclidean norm, as in the paper, or the largest magnitude.

    References
    ----------
    .. [1] Ramezani-Kebrya, Faghri, Markov, Aksenov, Alistarh, Roy. *NUQSGD: Provably Communication-efficient
       Data-parallel SGD via Nonuniform Quantization*, JMLR 22(114), 2021, https://arxiv.org/abs/1908.06077
    .. [2] Horvath, Ho, Horvath, Sahu, Canini, Richtarik. *Natural Compression for Distributed Deep Learning*, 2019,
       https://arxiv.org/abs/1905.10988 (natural dithering)
    """

    bits: int = 4
    bucket: int = 512
    norm: Literal["l2", "max"] = "l2"

    name = "nuqsgd"
    title = "every entry rounded at random to a power-of-two fraction of its bucket's norm"
    paper = "Ramezani-Kebrya et al. 2021, arXiv 1908.06077"
    collective = "all-gather"
    examples = ("nuqsgd(bits=3, bucket=7, norm=max)",)

    def __post_init__(self) -> None:
        check_range(self, "bits", "2 to 8", 2 <= self.bits <= 8)
        check_range(self, "bucket", "at least 1", self.bucket >= 1)

    @property
    def unbiased(self) -> bool:
        return True

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "gather"

    @property
    def levels(self) -> int:
        """The number of levels above zero, s + 1."""
        return int(2 ** (self.bits - 1)) - 1

    def error_bound(self, shape: Shape) -> float:
        """Return the variance factor of d entries, 1 / 8 + 2 a^2 / 9 with a = sqrt(d) / 2^s, or a - 1 where a > 9 / 4.

        Derived from the definition, for either norm: of entries above 2^-s of the norm the variance is at most an
        eighth of the square, of the others r (2^-s - r); with q the squares of these,
        (1 - q) / 8 + a sqrt(q) - q is largest where sqrt(q) = 4 a / 9, or at 1. It lies below the paper's Theorem 4.
        """
        a = sqrt(min(self.bucket, prod(shape))) / 2.0 ** (self.levels - 1)
        return 1 / 8 + 2 * a**2 / 9 if a < 9 / 4 else a - 1

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        norms = ceil(prod(shape) / self.bucket) * max(4, itemsize)
        return HEADER_BYTES + norms + packed_bytes(prod(shape), self.bits)

    def passes(self, shape: Shape) -> Passes:
        """Return two reads (norm, rounding) and the packed write; a packed read and an addition to decode."""
        packed = self.bits / 32
        return Passes(encode=2 + packed, between=0, decode=2 + packed)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = flattened(x)
        norms = bucket_norms(flat, self.bucket, self.norm)
        codes = power_levels(flat, norms, self.bucket, self.levels, rounding_keys(turn))
        packed = pack_codes(codes, self.bits)
        return Payload((norms, packed)), self._sent(norms, packed, flat.shape[1]), state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        return self._sent(payload.fixed(0), payload.fixed(1), prod(shape))

    def _sent(self, norms: Tensor, packed: Tensor, size: int) -> Coded:
        powers = torch.exp2(torch.arange(1 - self.levels, 1, dtype=torch.float64)).to(norms)
        table = torch.cat([-powers.flip(0), powers.new_zeros(1), powers])
        return Coded(packed, self.bits, table, norms, self.bucket, size)
