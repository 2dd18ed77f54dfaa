"""Momentum correction: what DGC remembers, velocities that wait until they are sent."""

from dataclasses import dataclass
from math import inf, prod, sqrt
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from .base import Memory, Passes, Scheme, SchemeError, Shape, State, Turn, check_range
from .decoded import Decoded
from .feedback import ErrorFeedback, check_contracts


@dataclass(frozen=True)
class Momentum(Memory):
    """Accumulate momentum u = mu u + g into v += u, compress v, and take away from v what was sent.

    So each velocity reaches the weights once, whenever it is sent: this is error feedback on u in place of g. It takes
    the place of the optimizer's own momentum.

    Parameters
    ----------
    momentum : float
        mu, in [0, 1).
    nesterov : bool
        Nesterov's form, u = mu (u + g) and v += u + g.
    masking : bool
        Also set u to zero where something was sent, so that no stale momentum follows it.
    clip : float
        Before anything else, scale a worker's gradient of the unit down to a 2-norm of clip / sqrt(N); 0 for not at
        all.
    units : {"gradient", "update"}
        What v is measured in when the learning rate changes. ``gradient`` is the paper's: v is multiplied by the rate
        of the step at which it is sent. ``update``: by that of the step at which it was put in, v being scaled by the
        last rate over the new one; u stays as it is, as in SGD with momentum. There, a step at rate 0 sends and changes
        nothing, its gradient included, and single parameters at rate 0 send nothing.

    Notes
    -----
    If everything is sent, this is SGD with momentum without masking, and SGD without momentum with it. A decay of the
    weights by the optimizer comes after the exchange and has no momentum here.

    Differences from the paper: it clips by the norm of a worker's whole gradient, here it is that of a unit, the same
    where the unit is the model. What is sent is subtracted from v, where the paper sets v to zero; both are the same
    for schemes that send entries as they are, and others lose no rounding error so.

    References
    ----------
    .. [1] Lin, Han, Mao, Wang, Dally. *Deep Gradient Compression: Reducing the Communication Bandwidth for Distributed
       Training*, ICLR 2018, section 3, https://arxiv.org/abs/1712.01887
    """

    momentum: float = 0.9
    nesterov: bool = False
    masking: bool = True
    clip: float = 0.0
    units: Literal["gradient", "update"] = "gradient"

    name = "momentum"
    title = "momentum correction: velocities add up until they are sent"
    paper = "Lin et al. 2018, arXiv 1712.01887"
    state = "momentum and what was not sent: 2 n values a worker"

    def __post_init__(self) -> None:
        check_range(self, "momentum", "in [0, 1)", 0 <= self.momentum < 1)
        check_range(self, "clip", "at least 0", 0 <= self.clip < inf)

    @property
    def homogeneous(self) -> bool:
        return not self.clip

    @property
    def _feedback(self) -> ErrorFeedback:
        """The memory of v, which is error feedback's for u."""
        return ErrorFeedback(self.units)

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        zeros = torch.zeros(workers, prod(shape), dtype=like.dtype, device=like.device)
        return State(elements={"momentum": zeros, "unsent": zeros.clone()}, shared={"lr": 1.0})

    def check(self, inner: Scheme, shape: Shape) -> None:
        """Refuse a scheme whose error can exceed its input, so that v would grow, and one whose mean is no mean."""
        check_contracts(self, "momentum correction", inner, shape)

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Refuse whatever is not plain SGD, which would apply momentum twice or rescale it."""
        if isinstance(optimizer, SGD) and not any(group["momentum"] for group in optimizer.param_groups):
            return
        kind = f"{type(optimizer).__name__}{' with momentum' if isinstance(optimizer, SGD) else ''}"
        raise SchemeError(
            f"{self.name}: the optimizer is {kind}: momentum correction has the momentum itself; use SGD without any"
        )

    def idle(self, turn: Turn) -> bool:
        return self._feedback.idle(turn)

    def before(self, x: Tensor, state: State, turn: Turn) -> Tensor:
        """Return v of the shape of ``x``; u and v change in the state's memory."""
        gradient = self._clipped(x, turn.size)
        velocity = state.elements["momentum"].view_as(x)
        moving = self._feedback.moving(turn)
        before = None if moving is None else velocity.clone()
        if self.nesterov:
            velocity.add_(gradient).mul_(self.momentum)
        else:
            velocity.mul_(self.momentum).add_(gradient)
        if moving is not None and before is not None:
            velocity.copy_(torch.where(moving.view(x.shape[1:]), velocity, before))
        given = velocity + gradient if self.nesterov else velocity
        return self._feedback.before(given, _unsent(state), turn)

    def after(self, p: Tensor, sent: Decoded, state: State, turn: Turn) -> State:
        """Keep in v what was not sent, and in u, with masking, only what has no part in what was sent."""
        velocity = state.elements["momentum"]
        if self.masking:
            moving = self._feedback.moving(turn)
            if moving is None:
                velocity = sent.clear_(velocity)
            else:
                velocity = torch.where(moving, sent.clear_(velocity.clone()), velocity)
        rest = self._feedback.after(p, sent, _unsent(state), turn)
        return State(elements={"momentum": velocity, "unsent": rest.elements["residual"]}, shared=rest.shared)

    def passes(self, shape: Shape) -> Passes:
        """Return two reads and a write for each of u and v, and the same to clear both; a read more to clip."""
        clear = 6 if self.masking else 3
        return Passes(encode=6 + clear + bool(self.clip), between=0, decode=0)

    def _clipped(self, x: Tensor, workers: int) -> Tensor:
        """Return the gradients, scaled down where their norm exceeds the limit."""
        if not self.clip:
            return x
        limit = self.clip / sqrt(workers)
        scales = [min(1.0, limit / norm) if norm else 1.0 for norm in map(_norm, x)]
        return x * x.new_tensor(scales).view(-1, *[1] * (x.dim() - 1))


def _unsent(state: State) -> State:
    """Return v as error feedback's state."""
    return State(elements={"residual": state.elements["unsent"]}, shared=state.shared)


def _norm(row: Tensor) -> float:
    """Return the 2-norm in float64; numpy's sum does not depend on the number of threads."""
    values = row.detach().double().cpu().numpy()
    return float(np.sqrt(np.sum(np.square(values))))
