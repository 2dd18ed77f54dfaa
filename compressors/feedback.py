"""Error feedback: what a worker could not send is added to what it sends next."""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from .base import Memory, Passes, Scheme, SchemeError, Shape, State, Turn
from .decoded import Decoded


@dataclass(frozen=True)
class ErrorFeedback(Memory):
    """Add the residual to the gradient, compress the sum p, keep p - C(p) as the next residual.

    Parameters
    ----------
    units : {"update", "gradient"}
        What the residual is measured in when the learning rate changes. ``update``: p = g + (lr' / lr) e, with lr' the
        rate of the last step; for plain SGD this is the papers' form, in which lr g goes into the memory, and with
        any optimizer that multiplies its input by lr in the end it is the same idea; for Adam, which rescales its
        input, it is a heuristic. ``gradient``: p = g + e, as GRACE and many codes do.

    Notes
    -----
    In update units a step at lr = 0 would change no weight, so nothing is sent or cleared: the gradient of that step
    weighs nothing and the residual waits.

    References
    ----------
    .. [1] Stich, Cordonnier, Jaggi. *Sparsified SGD with Memory*, NeurIPS 2018, https://arxiv.org/abs/1809.07599
    .. [2] Karimireddy, Rebjock, Stich, Jaggi. *Error Feedback Fixes SignSGD and other Gradient Compression Schemes*,
       ICML 2019, https://arxiv.org/abs/1901.09847
    """

    units: Literal["update", "gradient"] = "update"

    name = "ef"
    title = "error feedback: the residual is added to the next gradient"
    paper = "Stich et al. 2018, arXiv 1809.07599; Karimireddy et al. 2019, arXiv 1901.09847"
    state = "residual: n values a worker"

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        residual = torch.zeros(workers, prod(shape), dtype=like.dtype, device=like.device)
        return State(elements={"residual": residual}, shared={"lr": 1.0})

    def check(self, inner: Scheme, shape: Shape) -> None:
        """Refuse a scheme whose error can exceed its input: the residual would grow without bound."""
        bound = inner.error_bound(shape)
        if bound > 1:
            raise SchemeError(
                f"{self.name}({inner}): on a unit of shape {shape} the error of {inner} can be {bound:.3g} times "
                f"its input's squared norm; error feedback needs at most 1, or the residual can grow without bound"
            )

    def idle(self, turn: Turn) -> bool:
        """Return whether the step changes no weight."""
        return self.units == "update" and not _any(turn.lr)

    def before(self, x: Tensor, state: State, turn: Turn) -> Tensor:
        """Return p, in the residual's memory unless some parameters stand still."""
        residual = state.elements["residual"].view_as(x)
        if self.units == "gradient":
            return residual.add_(x)
        last = state.shared["lr"]
        if isinstance(turn.lr, Tensor) and not bool(turn.lr.all()):
            moving = turn.lr != 0
            p = torch.where(moving, x + residual * (last / torch.where(moving, turn.lr, 1)), 0)
            return p.to(x.dtype).contiguous()
        if isinstance(turn.lr, Tensor) or isinstance(last, Tensor) or last != turn.lr:
            residual.mul_(last / turn.lr)
        return residual.add_(x)

    def after(self, p: Tensor, sent: Decoded, state: State, turn: Turn) -> State:
        """Keep what was not sent; parameters that stand still keep what they had."""
        rest = sent.residual_of_(p.view(len(p), -1))
        if self.units == "gradient":
            return State(elements={"residual": rest}, shared=state.shared)
        lr = turn.lr
        if isinstance(lr, Tensor) and not bool(lr.all()):
            moving = lr != 0
            rest = torch.where(moving.reshape(1, -1), rest, state.elements["residual"])
            lr = torch.where(moving, lr, state.shared["lr"])
        return State(elements={"residual": rest}, shared={"lr": lr})

    def passes(self, shape: Shape) -> Passes:
        """Return two reads and a write for p, and the same for the new residual."""
        return Passes(encode=6, between=0, decode=0)


def _any(lr: float | Tensor) -> bool:
    """Return whether any parameter moves."""
    return bool(lr.any()) if isinstance(lr, Tensor) else lr != 0
