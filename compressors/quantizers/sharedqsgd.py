"""Shared QSGD: levels of one norm that all workers agree on, so that whole numbers can be summed on their way."""

from dataclasses import dataclass
from math import inf, prod

import torch
from torch import Tensor

from ..base import Outcome, Passes, Protocol, Rounds, Shape, State, Turn, check_range
from ..decoded import Scaled
from ..payload import Payload
from ..requests import AllReduce
from .coding import bucket_norms, flattened, random_levels
from .rounding import rounding_keys
from .shared import mean_of_levels, summed_dtype


@dataclass(frozen=True)
class SharedQSGD(Protocol):
    """Agree on the largest magnitude of all workers, round to s levels of it at random, and sum the levels.

    Two all-reduces: a maximum of one value, and a sum of levels in 8 bits each where N s is at most 127, in 32 where
    it is not (16 would do, but backends do not sum them). With s = 2**(bits - 1) - 1, N workers fit into 8 bits up to
    N = 127 // s, which is 18 with 4 bits.

    Parameters
    ----------
    bits : int
        2 to 8: of an entry's level, sign included; fewer allow more workers and add variance.

    References
    ----------
    .. [1] Alistarh, Grubic, Li, Tomioka, Vojnovic. *QSGD*, NeurIPS 2017, https://arxiv.org/abs/1610.02132
    .. [2] Xin, Canini, Richtarik, Horvath. *Global-QSGD: Practical Floatless Quantization for Distributed Learning with
       Theoretical Guarantees*, 2023, https://arxiv.org/abs/2305.18627 (the shared norm; it divides by N before the
       sum, which costs log2 N bits, where here the sum has room)
    """

    bits: int = 4

    name = "sharedqsgd"
    title = "levels of all workers' largest entry, summed as integers"
    paper = "Xin et al. 2023, arXiv 2305.18627"
    collective = "2 all-reduces"

    def __post_init__(self) -> None:
        check_range(self, "bits", "2 to 8", 2 <= self.bits <= 8)

    @property
    def unbiased(self) -> bool:
        return True

    @property
    def levels(self) -> int:
        """s, the number of levels above zero."""
        return int(2 ** (self.bits - 1)) - 1

    def error_bound(self, shape: Shape) -> float:
        """Return infinity: beside a worker of far larger values, a small input is mostly noise."""
        return inf

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        """Return a byte an entry and the norm, as up to 127 // s workers hand over."""
        return prod(shape) + max(4, itemsize)

    def passes(self, shape: Shape) -> Passes:
        """Return a read for the norm; one for rounding, and a byte written; a byte read and the mean written."""
        return Passes(encode=1, between=1.25, decode=1.25)

    def rounds(self, x: Tensor, state: State, turn: Turn) -> Rounds:
        flat = flattened(x)
        dtype, size = summed_dtype(self, self.levels, turn), flat.shape[1]
        norm = (yield AllReduce(Payload((bucket_norms(flat, size),)), op="max")).fixed(0)
        norms = norm.expand(len(x), 1).contiguous()
        codes = random_levels(flat, norms, size, self.levels, rounding_keys(turn))
        levels = codes.to(torch.int16).sub_(self.levels).to(torch.int8)
        total = (yield AllReduce(Payload((levels.to(dtype),)))).fixed(0)[0]
        mean = mean_of_levels(total, norm / self.levels, turn).to(x.dtype).view(x.shape[1:])
        return Outcome(mean, Scaled(levels, norms / self.levels, size), state)
