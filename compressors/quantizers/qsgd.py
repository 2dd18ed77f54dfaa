"""QSGD: every entry rounded at random to one of a few levels of its bucket's norm."""

from dataclasses import dataclass
from math import ceil, log2, prod, sqrt
from typing import Literal

from torch import Tensor

from ..base import Codec, Passes, Shape, State, Turn, check_range
from ..decoded import Decoded
from ..payload import HEADER_BYTES, SIZE_BYTES, Payload, Ragged
from ..wire import packed_bytes
from .coded import Coded, level_table
from .coding import bucket_norms, flattened, pack_codes, random_levels
from .elias import decode_levels, encode_levels
from .rounding import rounding_keys


@dataclass(frozen=True)
class QSGD(Codec):
    """Send, for each bucket of consecutive entries, its norm, and for each entry a sign and a level of 0..s.

    The magnitude |x| s / norm is rounded down or up at random so that its expectation is kept, with
    s = 2**(bits - 1) - 1 levels. A worker hands over ``n * bits / 8`` bytes of packed codes, a norm of 4 bytes (8 for
    float64) a bucket, and a header; with Elias codes, as many bytes as the draws need. Norms differ between workers, so
    the payloads are gathered.

    Parameters
    ----------
    bits : int
        Bits of an entry, sign included, 2 to 8; fewer compress more and add variance.
    bucket : int
        Entries that share a norm; smaller buckets add bytes and lessen variance.
    norm : {"max", "l2"}
        The largest magnitude, or the Euclidean norm as in the paper's analysis.
    code : {"fixed", "elias", "elias_dense"}
        How levels travel: ``bits`` each; or in Elias's recursive code, as section 3 of the paper has it: for each
        entry that is not zero the distance from the one before, its sign and its level; or, dense, level + 1 of
        every entry, and a sign where it is not zero.

    Notes
    -----
    Differences from the paper: the maximum norm is the default, and so are codes of fixed width, as in the paper's own
    experiments (section 5), where its analysis has the 2-norm and Elias codes. The distances run on over the ends of
    buckets. ``wire_bytes`` is then the paper's bound (Theorem 3.2, and Lemma A.6 for the dense code) of each bucket,
    which holds for the 2-norm but for the o(1) in it, and is a guess for the maximum norm.

    References
    ----------
    .. [1] Alistarh, Grubic, Li, Tomioka, Vojnovic. *QSGD: Communication-Efficient SGD via Gradient Quantization and
       Encoding*, NeurIPS 2017, https://arxiv.org/abs/1610.02132
    """

    bits: int = 4
    bucket: int = 512
    norm: Literal["max", "l2"] = "max"
    code: Literal["fixed", "elias", "elias_dense"] = "fixed"

    name = "qsgd"
    title = "every entry rounded at random to a level of its bucket's norm"
    paper = "Alistarh et al. 2017, arXiv 1610.02132"
    collective = "all-gather"
    examples = ("qsgd(bits=3, bucket=7, norm=l2)", "qsgd(bits=2, norm=l2, code=elias)")

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

    @property
    def varying(self) -> bool:
        return self.code != "fixed"

    def error_bound(self, shape: Shape) -> float:
        """Return the variance factor omega of a full bucket of d entries.

        For the 2-norm min(d / s^2, sqrt(d) / s) (the paper's Lemma 3.1). For the maximum norm see
        :func:`max_norm_omega`.
        """
        d, s = min(self.bucket, prod(shape)), self.levels
        if self.norm == "l2":
            return min(d / s**2, sqrt(d) / s)
        return max_norm_omega(d, s)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        norms = ceil(prod(shape) / self.bucket) * max(4, itemsize)
        if self.code == "fixed":
            return HEADER_BYTES + norms + packed_bytes(prod(shape), self.bits)
        full, rest = divmod(prod(shape), self.bucket)
        return HEADER_BYTES + SIZE_BYTES + norms + (full * self._elias_bits(self.bucket) + self._elias_bits(rest)) / 8

    def _elias_bits(self, d: int) -> float:
        """Return the paper's bound of a bucket's expected bits, its norm aside."""
        s = self.levels
        entries = min(d, s * (s + sqrt(d)))
        if self.code == "elias":
            return (3 + 1.5 * log2(2 * (s**2 + d) / (s * (s + sqrt(d))))) * entries
        return (2 + 0.5 * log2(1 + (s**2 + entries) / d)) * d if d else 0.0

    def passes(self, shape: Shape) -> Passes:
        """Return two reads (norm, rounding) and the packed write; a packed read and an addition to decode."""
        packed = self.bits / 32
        return Passes(encode=2 + packed, between=0, decode=2 + packed)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = flattened(x)
        norms = bucket_norms(flat, self.bucket, self.norm)
        codes = random_levels(flat, norms, self.bucket, self.levels, rounding_keys(turn))
        if self.code == "fixed":
            packed = pack_codes(codes, self.bits)
            return Payload((norms, packed)), self._sent(norms, packed, self.bits, flat.shape[1]), state
        written = encode_levels(codes, self.levels, gaps=self.code == "elias")
        return Payload((norms, written)), self._sent(norms, codes, 8, flat.shape[1]), state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        norms, written, size = payload.fixed(0), payload.buffers[1], prod(shape)
        if isinstance(written, Ragged):
            codes = decode_levels(written, self.levels, size, gaps=self.code == "elias")
            return self._sent(norms, codes, 8, size)
        return self._sent(norms, written, self.bits, size)

    def _sent(self, norms: Tensor, packed: Tensor, bits: int, size: int) -> Coded:
        table = level_table(self.levels, norms.dtype).to(norms.device)
        return Coded(packed, bits, table, norms / self.levels, self.bucket, size)


def max_norm_omega(d: int, s: int) -> float:
    """Return the largest variance factor of d entries rounded to s levels of their maximum, from the definition.

    The supremum of m p (1 - p) / (s^2 + m p^2) with m = d - 1 other entries at p / s of the maximum is found where
    p = (sqrt(s^4 + m s^2) - s^2) / m. With s = 1 it is (sqrt(d) - 1) / 2.
    """
    m = d - 1
    p = (sqrt(s**4 + m * s**2) - s**2) / m if m else 0.0
    return m * p * (1 - p) / (s**2 + m * p**2)
