"""Dense: every entry, uncompressed, in its own or another dtype; the baseline."""

import math
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from ..base import Codec, NonFiniteError, Passes, Shape, State, Turn
from ..decoded import Decoded
from ..decoded import Dense as DenseRows
from ..payload import Payload

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_RELATIVE_ERROR = {"native": 0.0, "fp32": 2.0**-24, "bf16": 2.0**-8, "fp16": 2.0**-11}


@dataclass(frozen=True)
class Dense(Codec):
    """Send every entry: ``n * itemsize`` bytes, summed by an all-reduce.

    Parameters
    ----------
    dtype : {"native", "fp32", "bf16", "fp16"}
        What travels and is summed: the gradient's own dtype, or one that it is rounded to (to nearest, ties to even).

    Notes
    -----
    A sum of bf16 buffers is rounded to bf16 at every addition, as a ring all-reduce does; here the additions run in
    rank order. So ``mean`` is the average of ``sent`` only up to that rounding, which error feedback does not see, and
    which grows with the number of workers: ones of 512 workers add up to 256, since 256 + 1 rounds to 256.

    In fp16, magnitudes from 65520 on become infinite, and so does a sum of more than that, although each addend is
    finite. Neither is hidden or cut off: both raise. Below 2^-14 fewer bits are kept, below 2^-25 none.
    """

    dtype: Literal["native", "fp32", "bf16", "fp16"] = "native"

    name = "dense"
    title = "every entry, uncompressed"
    paper = "the baseline"
    collective = "all-reduce"
    examples = ("dense(dtype=bf16)",)

    @property
    def unbiased(self) -> bool:
        """Return whether nothing is rounded; rounding to nearest is not unbiased."""
        return self.dtype == "native"

    @property
    def selects(self) -> bool:
        return self.dtype == "native"

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "sum"

    def error_bound(self, shape: Shape) -> float:
        """Return the squared unit roundoff, for values in the dtype's normal range."""
        return _RELATIVE_ERROR[self.dtype] ** 2

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return prod(shape) * (itemsize if self.dtype == "native" else _DTYPES[self.dtype].itemsize)

    def passes(self, shape: Shape) -> Passes:
        """Return nothing for the own dtype (buckets are sent from where they lie), a cast each way for another."""
        return Passes(0, 0, 0) if self.dtype in ("native", "fp32") else Passes(encode=1.5, between=0, decode=1.5)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = x.reshape(len(x), -1)
        values = flat.to(_DTYPES.get(self.dtype, x.dtype))
        return Payload((values,)), DenseRows(values), state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        values = payload.fixed(0)
        if self.dtype == "fp16" and _overflows(values):
            # A value that is too large for fp16 is infinite in the sum, too, which is the same on all workers.
            raise NonFiniteError(f"step {turn.step}: {turn.unit}, or its sum over all workers, exceeds fp16's 65504")
        return DenseRows(values)


def _overflows(values: Tensor) -> bool:
    """Return whether any fp16 is infinite or NaN, which the smallest and the largest tell."""
    return not all(map(math.isfinite, map(float, torch.aminmax(values))))
