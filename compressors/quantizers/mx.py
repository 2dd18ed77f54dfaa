"""MX: blocks of 8-bit floats under a shared power of two, as in the Open Compute Project's specification."""

from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

import torch
from torch import Tensor

from ..base import Codec, Passes, Shape, State, Turn, check_range, not_finite
from ..decoded import Decoded
from ..payload import HEADER_BYTES, Payload
from .coded import Coded
from .coding import bucket_norms, flattened

_ELEMENTS = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
_LARGEST = {"e4m3": 8, "e5m2": 15}  # the exponent of an element's largest power of two
_LIMIT = {"e4m3": 448.0, "e5m2": 57344.0}  # the largest element
_SMALLEST = {"e4m3": -9, "e5m2": -16}  # the exponent of the smallest
_PIECE = 1 << 15
_BIAS = 127  # of the shared exponent, a byte


@dataclass(frozen=True)
class MX(Codec):
    """Send each entry as an 8-bit float, and for each block the power of two that they are multiples of, in 8 bits.

    ``n + n / block`` bytes and a header. The shared exponent is that of the block's largest magnitude less that of the
    element's largest power of two; elements are rounded to nearest, ties to even, and what is above the largest element
    becomes it.

    Parameters
    ----------
    element : {"e4m3", "e5m2"}
        4 bits of exponent and 3 of mantissa, or 5 and 2.
    block : int
        Entries that share an exponent; the specification has 32.

    Notes
    -----
    float64 values are rounded to float32 first. Blocks whose largest magnitude is below 2^-119 (2^-112 with e5m2) get
    the smallest exponent, 2^-127, and lose more than the bound says.

    References
    ----------
    .. [1] Open Compute Project. *OCP Microscaling Formats (MX) Specification*, version 1.0, 2023,
       https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf
    """

    element: Literal["e4m3", "e5m2"] = "e4m3"
    block: int = 32

    name = "mx"
    title = "every entry as an 8-bit float under its block's power of two"
    paper = "OCP Microscaling Formats 1.0, 2023"
    collective = "all-gather"
    examples = ("mx(element=e5m2, block=7)",)

    def __post_init__(self) -> None:
        check_range(self, "block", "at least 1", self.block >= 1)

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "gather"

    def error_bound(self, shape: Shape) -> float:
        """Return 1 / 64 and what the smallest elements add.

        A relative error of 1 / 8 is that of the largest entry just below the next power of two, and for e5m2 of
        rounding; an entry that is no normal element loses half the smallest at most.
        """
        d = min(self.block, prod(shape))
        return 1 / 64 + (d - 1) * 4.0 ** (_SMALLEST[self.element] - 1 - _LARGEST[self.element])

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return HEADER_BYTES + ceil(prod(shape) / self.block) + prod(shape)

    def passes(self, shape: Shape) -> Passes:
        """Return two reads (largest, rounding) and the write; a read and an addition to decode."""
        return Passes(encode=2.25, between=0, decode=2.25)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = flattened(x).float()
        largest = bucket_norms(flat, self.block)
        finite = largest.isfinite().all(1).tolist()
        if not all(finite):
            raise not_finite(turn, tuple(rank for rank, good in zip(turn.ranks, finite, strict=True) if not good), self)
        shared = torch.frexp(largest).exponent - 1 - _LARGEST[self.element]
        shared = torch.where(largest > 0, shared, -_BIAS).clamp_(min=-_BIAS)
        blocks = max(1, _PIECE // self.block)  # at a time, so that they stay in the cache
        codes = torch.empty(flat.shape, dtype=torch.uint8, device=flat.device)
        for first in range(0, shared.shape[1], blocks):
            part = slice(first * self.block, (first + blocks) * self.block)
            codes[:, part] = self._elements(flat[:, part], shared[:, first : first + blocks])
        payload = Payload(((shared + _BIAS).to(torch.uint8), codes))
        return payload, self.decode(payload, tuple(x.shape[1:]), turn), state

    def _elements(self, x: Tensor, shared: Tensor) -> Tensor:
        """Return whole blocks, the last of which may be shorter, as elements under their shared exponents."""
        spread = shared.repeat_interleave(min(self.block, x.shape[1]), 1)[:, : x.shape[1]]
        limit = _LIMIT[self.element]
        return torch.ldexp(x, -spread).clamp_(-limit, limit).to(_ELEMENTS[self.element]).view(torch.uint8)

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        shared, codes = payload.fixed(0), payload.fixed(1)
        table = torch.arange(256, device=codes.device).to(torch.uint8).view(_ELEMENTS[self.element]).float()
        scales = torch.exp2(shared.double() - _BIAS).float()
        return Coded(codes, 8, table, scales, self.block, prod(shape))
