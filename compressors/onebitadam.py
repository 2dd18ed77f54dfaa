"""1-bit Adam: after a start in full, each worker's momentum travels as signs and a scale, to chunk owners and back."""

from collections.abc import Hashable
from dataclasses import dataclass
from math import inf, prod
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.optim import Optimizer

from .base import Outcome, Passes, Protocol, Rounds, SchemeError, Shape, State, Turn, check_range
from .decoded import Dense
from .optimizers import OneBitAdam
from .payload import HEADER_BYTES, Payload
from .quantizers.coded import Signs
from .quantizers.coding import pack_signs, row_sums
from .requests import AllReduce, AllToAll, Gather
from .wire import packed_bytes


@dataclass(frozen=True)
class OneBitAdamScheme(Protocol):
    """Send gradients in full for ``freeze_step`` steps, then momenta as one sign each and a scale.

    Then worker w forms m_w = beta1 m + (1 - beta1) g_w from the last averaged momentum m, adds its memory, and sends
    signs and the scale to the owners of N chunks (an all-to-all). An owner averages, adds its own memory and sends
    signs and a scale of its chunk to all (an all-gather). What comes back is the new m. It goes into the optimizer
    :class:`OneBitAdam`, whose variance no longer changes then, and into no other.

    Parameters
    ----------
    freeze_step : int
        The steps in full, at least 1; long enough for the variance to settle, in the paper 15 to 20 % of all.
    beta1 : float
        The momentum's decay, in [0, 1); the optimizer's.
    scale : {"rms", "mean"}
        The magnitude that all entries of a worker's unit, or an owner's chunk, are given: their root mean square, which
        keeps the norm (the paper's), or their mean magnitude, of least error.

    Notes
    -----
    Both memories are in the units of the momentum, whatever the learning rate. Chunks are whole bytes of signs; padding
    has no part in a scale, as it has in DeepSpeed. A zero is sent as +. ``wire_bytes`` is what a worker hands over to
    the owners after the freeze, with one scale; N - 1 more scales, and the way back, which is an N-th, are not in it.

    References
    ----------
    .. [1] Tang et al. *1-bit Adam: Communication Efficient Large-Scale Training with Adam's Convergence Speed*, ICML
       2021, https://arxiv.org/abs/2102.02888
    """

    freeze_step: int = 1000
    beta1: float = 0.9
    scale: Literal["rms", "mean"] = "rms"

    name = "onebitadam"
    title = "gradients at first, then signs of the momenta and a scale; both ways"
    paper = "Tang et al. 2021, arXiv 2102.02888"
    collective = "all-reduce; then all-to-all, all-gather"
    state = "momentum: n values, shared; residuals: n values a worker, n / N of its own chunk"
    examples = ("onebitadam(freeze_step=1)",)

    def __post_init__(self) -> None:
        check_range(self, "freeze_step", "at least 1", self.freeze_step >= 1)
        check_range(self, "beta1", "in [0, 1)", 0 <= self.beta1 < 1)

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def varying(self) -> bool:
        """Return True: it depends on the step and on the number of workers."""
        return True

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Raise :class:`SchemeError` unless it is :class:`OneBitAdam` with the same freeze step and first beta."""
        groups = optimizer.param_groups if isinstance(optimizer, OneBitAdam) else [{}]
        for group in groups:
            if group.get("freeze_step") != self.freeze_step or group["betas"][0] != self.beta1:
                raise SchemeError(
                    f"{self}: the optimizer must be OneBitAdam with freeze_step = {self.freeze_step} and betas[0] = "
                    f"{self.beta1}, for after the freeze it is given momenta; it is {type(optimizer).__name__} with "
                    f"freeze_step = {group.get('freeze_step')} and betas = {group.get('betas')}"
                )

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        size = prod(shape)
        return State(elements={"error": like.new_zeros(workers, size)}, shared={"momentum": like.new_zeros(size)})

    def error_bound(self, shape: Shape) -> float:
        """Return infinity: what comes out is a momentum, be the input ever so small."""
        return inf

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return HEADER_BYTES + packed_bytes(prod(shape), 1) + itemsize

    def passes(self, shape: Shape) -> Passes:
        """Return the momentum (3), error feedback (6) and signs; what owners do, and all read, falls between."""
        return Passes(encode=10, between=6, decode=0)

    def stage(self, step: int) -> Hashable:
        return step < self.freeze_step

    def rounds(self, x: Tensor, state: State, turn: Turn) -> Rounds:
        flat = x.reshape(len(x), -1)
        momentum = state.shared["momentum"]
        assert isinstance(momentum, Tensor)
        if turn.step < self.freeze_step:
            mean = (yield AllReduce(Payload((flat,)))).fixed(0)[0] / turn.size
            state.shared["momentum"] = self.beta1 * momentum + (1 - self.beta1) * mean
            return Outcome(mean.view(x.shape[1:]), Dense(flat), state)
        size, length = flat.shape[1], 8 * -(-flat.shape[1] // (8 * turn.size))
        corrected = (self.beta1 * momentum + (1 - self.beta1) * flat).add_(state.elements["error"])
        signs, scales, sent = self._signs(corrected, torch.full((len(x),), size))
        everyones = pad(signs, (0, length * turn.size // 8 - signs.shape[1]))
        reply = yield AllToAll(Payload((everyones, scales[:, None].repeat(1, turn.size))))
        total = _total(reply, length, turn.size)
        # How many of a chunk's places are the unit's; of the last chunks there may be none.
        real = (size - length * torch.tensor(turn.ranks)).clamp(0, length)
        outside = torch.arange(length)[None] >= real[:, None]
        own = (total / turn.size + state.rows.get("owned", torch.zeros_like(total))).masked_fill_(
            outside.to(x.device), 0
        )
        signs, scales, served = self._signs(own, real)
        reply = yield Gather(Payload((signs, scales[:, None])))
        mean = _signs_of(reply.fixed(0), reply.fixed(1), length).dense(flat[0]).reshape(-1)[:size]
        owned = own.sub_(served).masked_fill_(outside.to(x.device), 0)
        rest = corrected.sub_(sent)
        for row, rank in enumerate(turn.ranks):  # what the owner's memory gave or took
            part = slice(length * rank, length * rank + int(real[row]))
            sent[row, part] += turn.size * mean[part] - total[row, : int(real[row])]
        state = State({"error": rest}, {"owned": owned}, {"momentum": mean})
        return Outcome(mean.view(x.shape[1:]).clone(), Dense(sent), state)

    def _signs(self, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return packed signs, scales [R], and the values that they stand for; ``counts`` [R] entries are not padding.

        Norms are of values up to 1, whose squares can neither overflow nor all vanish.
        """
        peak = x.abs().amax(1, keepdim=True)
        shares = x / torch.where(peak > 0, peak, 1)
        means = row_sums(shares, "squares" if self.scale == "rms" else "magnitudes") / counts.clamp(min=1).to(x.device)
        scales = peak[:, 0] * (means.sqrt() if self.scale == "rms" else means).to(x)
        signs = pack_signs(x)
        return signs, scales, _signs_of(signs, scales[:, None], x.shape[1]).dense(x[0])


def _signs_of(signs: Tensor, scales: Tensor, count: int) -> Signs:
    """Return rows of ``count`` values of the scales' magnitudes, which are [R, 1]."""
    return Signs(signs, -scales, scales, count)


def _total(reply: Payload, length: int, size: int) -> Tensor:
    """Return the sum of what N workers sent for each local worker's chunk, added in rank order."""
    signs, scales = reply.fixed(0).view(-1, size, length // 8), reply.fixed(1)
    total = scales.new_zeros(len(scales), length)
    for row, own, scale in zip(total, signs, scales, strict=True):
        _signs_of(own.contiguous(), scale[:, None], length).add_to_(row)
    return total
