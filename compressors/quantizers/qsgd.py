"""QSGD: every entry rounded at random to one of a few levels of its bucket's norm."""

from dataclasses import dataclass
from math import ceil, prod, sqrt
from typing import Literal

import torch
from torch import Tensor

from ..base import Codec, Passes, Shape, State, Turn, check_range
from ..decoded import Decoded, Scaled
from ..keys import Purpose, stream, uniform
from ..payload import HEADER_BYTES, Payload
from ..wire import pack, packed_bytes, unpack


@dataclass(frozen=True)
class QSGD(Codec):
    """Send, for each bucket of consecutive entries, its norm, and for each entry a sign and a level of 0..s.

    The magnitude |x| s / norm is rounded down or up at random so that its expectation is kept, with
    s = 2**(bits - 1) - 1 levels. A worker hands over ``n * bits / 8`` bytes of packed codes, a norm of 4 bytes (8 for
    float64) a bucket, and a header. Norms differ between workers, so the payloads are gathered.

    Parameters
    ----------
    bits : int
        Bits of an entry, sign included, 2 to 8; fewer compress more and add variance.
    bucket : int
        Entries that share a norm; smaller buckets add bytes and lessen variance.
    norm : {"max", "l2"}
        The largest magnitude, or the Euclidean norm as in the paper's analysis.

    Notes
    -----
    Differences from the paper: the maximum norm is the default, as in the paper's own experiments (section 5); codes
    have a fixed width, where the paper analyses Elias coding.

    References
    ----------
    .. [1] Alistarh, Grubic, Li, Tomioka, Vojnovic. *QSGD: Communication-Efficient SGD via Gradient Quantization and
       Encoding*, NeurIPS 2017, https://arxiv.org/abs/1610.02132
    """

    bits: int = 4
    bucket: int = 512
    norm: Literal["max", "l2"] = "max"

    name = "qsgd"
    title = "every entry rounded at random to a level of its bucket's norm"
    paper = "Alistarh et al. 2017, arXiv 1610.02132"
    collective = "all-gather"
    examples = ("qsgd(bits=2, bucket=128)", "qsgd(bits=8)", "qsgd(bits=3, bucket=7, norm=l2)")

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
        """s, the number of levels above zero."""
        return int(2 ** (self.bits - 1)) - 1

    def error_bound(self, shape: Shape) -> float:
        """Return the variance factor omega of a full bucket of d entries.

        For the 2-norm min(d / s^2, sqrt(d) / s) (the paper's Lemma 3.1). For the maximum norm the supremum of
        m p (1 - p) / (s^2 + m p^2) with m = d - 1 other entries at p / s of the maximum, which is found where
        p = (sqrt(s^4 + m s^2) - s^2) / m, derived from the definition.
        """
        d, s = min(self.bucket, prod(shape)), self.levels
        if self.norm == "l2":
            return min(d / s**2, sqrt(d) / s)
        m = d - 1
        p = (sqrt(s**4 + m * s**2) - s**2) / m if m else 0.0
        return m * p * (1 - p) / (s**2 + m * p**2)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        norms = ceil(prod(shape) / self.bucket) * max(4, itemsize)
        return HEADER_BYTES + norms + packed_bytes(prod(shape), self.bits)

    def passes(self, shape: Shape) -> Passes:
        """Return two reads (norm, rounding) and the packed write; a packed read and an addition to decode."""
        packed = self.bits / 32
        return Passes(encode=2 + packed, between=0, decode=2 + packed)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = x.reshape(len(x), -1)
        streams = [stream(turn.seed, Purpose.ROUNDING, turn.step, turn.unit, rank) for rank in turn.ranks]
        draws = uniform(streams, flat.shape[1], x)
        full = flat.shape[1] // self.bucket * self.bucket
        pieces = [self._round(*(t[:, part] for t in (flat, draws))) for part in (slice(full), slice(full, None))]
        levels, norms = (torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))
        scales = norms.to(torch.promote_types(norms.dtype, torch.float32))
        payload = Payload((scales, pack(levels + self.levels, self.bits)))
        return payload, Scaled(levels, scales / self.levels, min(self.bucket, flat.shape[1])), state

    def _round(self, x: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Round whole buckets, or one bucket that is shorter; return signed levels and the buckets' norms."""
        rows, size = x.shape
        if not size:
            return x.to(torch.int8), x
        buckets = x.view(rows, -1, min(size, self.bucket))
        magnitude = buckets.abs()
        norms = magnitude.amax(2)
        if self.norm == "l2":  # of values up to 1, whose squares can neither overflow nor all vanish
            norms = torch.linalg.vector_norm(magnitude / _divisor(norms), dim=2).mul_(norms)
        position = magnitude.div_(_divisor(norms)).mul_(self.levels)
        level = position.floor().clamp_(max=self.levels)
        level += draws.view(buckets.shape) < position.sub_(level)
        signed = level.clamp_(max=self.levels).copysign_(buckets)
        return signed.to(torch.int8).view(rows, size), norms

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        scales, packed = payload.fixed(0), payload.fixed(1)
        levels = unpack(packed, self.bits, prod(shape), torch.int16) - self.levels
        return Scaled(levels.to(torch.int8), scales / self.levels, min(self.bucket, prod(shape)))


def _divisor(norms: Tensor) -> Tensor:
    """Return what to divide buckets by: their norms, and 1 where all is zero."""
    return torch.where(norms > 0, norms, 1)[:, :, None]
