"""TernGrad: every entry sent as -1, 0 or 1 times the unit's scaler, at random."""

from dataclasses import dataclass
from math import inf, prod
from typing import Literal

import torch
from torch import Tensor

from ..base import Codec, Outcome, Passes, Protocol, Rounds, Shape, State, Turn, check_range
from ..decoded import Decoded, Scaled
from ..payload import HEADER_BYTES, Payload
from ..requests import AllReduce
from ..wire import packed_bytes
from .coded import TRITS, Coded, level_table
from .coding import bucket_norms, flattened, pack_codes, pack_trits, random_levels, row_sums
from .qsgd import max_norm_omega
from .rounding import rounding_keys
from .shared import mean_of_levels, summed_dtype


@dataclass(frozen=True)
class TernGrad(Codec):
    """Clip, then send s sign(x) with probability |x| / s and else 0, where s is the largest magnitude.

    A worker hands over ``n / 5`` bytes of packed digits, or ``n / 4``, the scaler s of the unit, and a header. The
    paper's layer-wise scalers are those of units that are layers.

    Parameters
    ----------
    clip : float
        Magnitudes above ``clip`` times the unit's standard deviation count as so large, as the paper's experiments
        have it; lower adds bias and lessens variance. 0 clips nothing, and only that is unbiased.
    pack : {"base3", "base4"}
        Digits of base 3, five to a byte, which is 1.6 bits an entry; or of base 4, 2 bits each.

    Notes
    -----
    The standard deviation is taken around the mean, and s after clipping. A unit whose deviation is below 2^-20 of its
    largest magnitude, such as a constant one, is not clipped: all of it would be lost. Differences from the paper: it
    leaves a model's last layer alone, which is for the user to say.

    References
    ----------
    .. [1] Wen, Xu, Yan, Wu, Wang, Chen, Li. *TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep
       Learning*, NeurIPS 2017, https://arxiv.org/abs/1705.07878
    """

    clip: float = 2.5
    pack: Literal["base3", "base4"] = "base3"

    name = "terngrad"
    title = "every entry rounded at random to -1, 0 or 1 times the largest"
    paper = "Wen et al. 2017, arXiv 1705.07878"
    collective = "all-gather"
    examples = ("terngrad(clip=0, pack=base4)",)

    def __post_init__(self) -> None:
        check_range(self, "clip", "at least 0 and finite", 0 <= self.clip < inf)

    @property
    def unbiased(self) -> bool:
        return self.clip == 0

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "gather"

    def error_bound(self, shape: Shape) -> float:
        """Return (sqrt(n) - 1) / 2, the largest ||g||_max ||g||_1 / ||g||^2 - 1, or 1 if clipping can lose more.

        With y what clipping leaves of x, the error is at most omega ||y||^2 + ||x - y||^2, and the latter at most
        ||x||^2 - ||y||^2.
        """
        omega = max_norm_omega(prod(shape), 1)
        return omega if self.clip == 0 else max(1.0, omega)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        digits = -(-prod(shape) // 5) if self.pack == "base3" else packed_bytes(prod(shape), 2)
        return HEADER_BYTES + max(4, itemsize) + digits

    def passes(self, shape: Shape) -> Passes:
        """Return the reads for mean, deviation, maximum and rounding, and the packed write; a read and an addition."""
        return Passes(encode=(4 if self.clip else 2) + 0.05, between=0, decode=2.05)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = flattened(x)
        limits, scalers = scalers_of(flat, self.clip)
        codes = random_levels(flat, scalers, flat.shape[1], 1, rounding_keys(turn), limits)
        packed = pack_trits(codes) if self.pack == "base3" else pack_codes(codes, 2)
        return Payload((scalers, packed)), self._sent(scalers, packed, flat.shape[1]), state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        return self._sent(payload.fixed(0), payload.fixed(1), prod(shape))

    def _sent(self, scalers: Tensor, packed: Tensor, size: int) -> Coded:
        table = level_table(1, scalers.dtype).to(scalers.device)
        return Coded(packed, TRITS if self.pack == "base3" else 2, table, scalers, size, size)


@dataclass(frozen=True)
class SharedTernGrad(Protocol):
    """TernGrad with the largest scaler of all workers, so that the digits can be summed on their way.

    The scalers' maximum is agreed on by an all-reduce; then the digits travel as whole numbers under an all-reduce, in
    8 bits each up to 127 workers and in 32 beyond (16 would do, but backends do not sum them). A worker hands over
    ``n`` bytes and the scaler.

    Parameters
    ----------
    clip : float
        As in ``terngrad``; clipping is each worker's own.

    References
    ----------
    .. [1] Wen, Xu, Yan, Wu, Wang, Chen, Li. *TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep
       Learning*, NeurIPS 2017, https://arxiv.org/abs/1705.07878 ("scaler sharing")
    """

    clip: float = 2.5

    name = "sharedterngrad"
    title = "-1, 0 or 1 times all workers' largest entry, summed as integers"
    paper = "Wen et al. 2017, arXiv 1705.07878"
    collective = "2 all-reduces"
    examples = ("sharedterngrad(clip=0)",)

    def __post_init__(self) -> None:
        check_range(self, "clip", "at least 0 and finite", 0 <= self.clip < inf)

    @property
    def unbiased(self) -> bool:
        return self.clip == 0

    def error_bound(self, shape: Shape) -> float:
        """Return infinity: beside a worker of far larger values, a small input is mostly noise."""
        return inf

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        """Return a byte an entry and the scaler, as up to 127 workers hand over."""
        return prod(shape) + max(4, itemsize)

    def passes(self, shape: Shape) -> Passes:
        """Return the reads for mean, deviation and maximum; one for rounding, and a byte written; a byte read."""
        return Passes(encode=3 if self.clip else 1, between=1.25, decode=1.25)

    def rounds(self, x: Tensor, state: State, turn: Turn) -> Rounds:
        flat = flattened(x)
        dtype = summed_dtype(self, 1, turn)
        limits, own = scalers_of(flat, self.clip)
        scaler = (yield AllReduce(Payload((own,)), op="max")).fixed(0)
        scalers = scaler.expand(len(x), 1).contiguous()
        codes = random_levels(flat, scalers, flat.shape[1], 1, rounding_keys(turn), limits)
        levels = codes.to(torch.int8).sub_(1)
        total = (yield AllReduce(Payload((levels.to(dtype),)))).fixed(0)[0]
        mean = mean_of_levels(total, scaler, turn).to(x.dtype).view(x.shape[1:])
        return Outcome(mean, Scaled(levels, scalers, flat.shape[1]), state)


def scalers_of(x: Tensor, clip: float) -> tuple[Tensor | None, Tensor]:
    """Return what magnitudes of each row ``[W, n]`` are clipped at, and the largest that is left, ``[W, 1]``."""
    largest = bucket_norms(x, x.shape[1])
    if not clip:
        return None, largest
    size = x.shape[1]
    deviation = (row_sums(x, "squares", row_sums(x, "values") / size) / size).sqrt()
    constant = deviation <= largest[:, 0].double() * 2.0**-20
    limits = torch.where(constant, torch.inf, clip * deviation).to(x.dtype)
    return limits, largest.minimum(limits[:, None])
