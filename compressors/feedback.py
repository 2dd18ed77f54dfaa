"""Memories of what was not sent: error feedback and its low-pass form, and EF21's estimates."""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from .base import Memory, Passes, Scheme, SchemeError, Shape, State, Turn, check_range
from .decoded import Decoded

Units = Literal["update", "gradient"]


def check_contracts(memory: Memory, what: str, inner: Scheme, shape: Shape) -> None:
    """Refuse a scheme whose error can exceed its input, and one of which ``sent`` does not add up to the mean.

    Parameters
    ----------
    what : str
        The memory's title in the message.

    Raises
    ------
    SchemeError
        If the law is another, or the error can be larger than the input.
    """
    if inner.law != "mean of sent":
        raise SchemeError(
            f"{memory.name}({inner}): {what} needs the mean of what the workers sent, and {inner} leaves another "
            f"result (law: {inner.law})"
        )
    bound = inner.error_bound(shape)
    if bound > 1:
        raise SchemeError(
            f"{memory.name}({inner}): on a unit of shape {shape} the error of {inner} can be {bound:.3g} times its "
            f"input's squared norm; {what} needs at most 1, or the residual can grow without bound"
        )


class _Residual(Memory):
    """A residual of n values a worker, in units of the update or of the gradient."""

    units: Units
    state = "residual: n values a worker"

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        residual = torch.zeros(workers, prod(shape), dtype=like.dtype, device=like.device)
        return State(elements={"residual": residual}, shared={"lr": 1.0})

    def idle(self, turn: Turn) -> bool:
        """Return whether the step changes no weight."""
        return self.units == "update" and not _any(turn.lr)

    def rescaled(self, x: Tensor, state: State, turn: Turn, decay: float = 1.0) -> Tensor:
        """Return the residual in the units of this step, changed in place; parameters that stand still keep theirs."""
        residual = state.elements["residual"].view_as(x)
        last, lr = state.shared["lr"], turn.lr
        if self.units == "gradient":
            factor: float | Tensor = decay
        elif isinstance(lr, Tensor) and not bool(lr.all()):
            factor = torch.where(lr != 0, decay * (last / torch.where(lr != 0, lr, 1)), 1)
        else:
            factor = decay * (last / lr)
        if isinstance(factor, Tensor) or factor != 1:
            residual.mul_(factor)
        return residual

    def moving(self, turn: Turn) -> Tensor | None:
        """Return a mask of the parameters that this step changes, flat; None if it changes all."""
        if self.units == "gradient" or not isinstance(turn.lr, Tensor) or bool(turn.lr.all()):
            return None
        return (turn.lr != 0).reshape(1, -1)

    def keep(self, rest: Tensor, state: State, turn: Turn) -> State:
        """Return the state with a new residual; parameters that stand still keep what they had."""
        if self.units == "gradient":
            return State(elements={"residual": rest}, shared=state.shared)
        lr, moving = turn.lr, self.moving(turn)
        if moving is not None:
            rest = torch.where(moving, rest, state.elements["residual"])
            lr = torch.where(torch.as_tensor(lr) != 0, lr, state.shared["lr"])
        return State(elements={"residual": rest}, shared={"lr": lr})


@dataclass(frozen=True)
class ErrorFeedback(_Residual):
    """Add the residual to the gradient, compress the sum p, keep p - C(p) as the next residual.

    Parameters
    ----------
    units : {"update", "gradient"}
        What the residual is measured in when the learning rate changes. ``update``: p = g + (lr' / lr) e, with lr' the
        rate of the last step; for plain SGD this is the papers' form, in which lr g goes into the memory, and with
        any optimizer that multiplies its input by lr in the end it is the same idea; for Adam, which rescales its
        input, it is a heuristic. ``gradient``: p = g + e, as GRACE and many codes do.
    decay : float
        What the residual is multiplied by before it is added, in (0, 1]. Below 1, what waits long is forgotten.

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

    units: Units = "update"
    decay: float = 1.0

    name = "ef"
    title = "error feedback: the residual is added to the next gradient"
    paper = "Stich et al. 2018, arXiv 1809.07599; Karimireddy et al. 2019, arXiv 1901.09847"

    def __post_init__(self) -> None:
        check_range(self, "decay", "in (0, 1]", 0 < self.decay <= 1)

    def check(self, inner: Scheme, shape: Shape) -> None:
        """Refuse a scheme whose error can exceed its input: the residual would grow without bound."""
        check_contracts(self, "error feedback", inner, shape)

    def before(self, x: Tensor, state: State, turn: Turn) -> Tensor:
        """Return p, in the residual's memory unless some parameters stand still."""
        residual = self.rescaled(x, state, turn, self.decay)
        moving = self.moving(turn)
        if moving is None:
            return residual.add_(x)
        return torch.where(moving.view(x.shape[1:]), x + residual, 0).to(x.dtype).contiguous()

    def after(self, p: Tensor, sent: Decoded, state: State, turn: Turn) -> State:
        """Keep what was not sent."""
        return self.keep(sent.residual_of_(p.view(len(p), -1)), state, turn)

    def passes(self, shape: Shape) -> Passes:
        """Return two reads and a write for p, and the same for the new residual."""
        return Passes(encode=6, between=0, decode=0)


@dataclass(frozen=True)
class LowPass(_Residual):
    """Compress p = g + m, and let the memory m follow what was not sent slowly: m' = (1 - beta) m + beta (p - C(p)).

    Parameters
    ----------
    beta : float
        In (0, 1]; 1 is error feedback, less makes the workers' memories, and so their choices, more alike.
    units : {"update", "gradient"}
        What the memory is measured in when the learning rate changes, as in :class:`ErrorFeedback`.

    Notes
    -----
    The same as m' = m + beta (g - C(p)). So at a constant rate m / beta is what was put in less what was sent: all of
    it arrives, later than under error feedback, and a residual of size R of error feedback's kind is remembered as
    beta R. At a learning rate of 0 nothing is sent or cleared.

    References
    ----------
    .. [1] Chen, Ni, Lu, et al. *ScaleCom: Scalable Sparsified Gradient Compression for Communication-Efficient
       Distributed Training*, NeurIPS 2020, section 3, https://arxiv.org/abs/2104.11125
    """

    beta: float = 0.1
    units: Units = "update"

    name = "lowpass"
    title = "a low-pass memory: the residual enters it with weight beta"
    paper = "Chen et al. 2020, arXiv 2104.11125"

    def __post_init__(self) -> None:
        check_range(self, "beta", "in (0, 1]", 0 < self.beta <= 1)

    def check(self, inner: Scheme, shape: Shape) -> None:
        """Refuse a scheme whose error can exceed its input."""
        check_contracts(self, "a low-pass memory", inner, shape)

    def before(self, x: Tensor, state: State, turn: Turn) -> Tensor:
        """Return p, in memory of its own."""
        p = x + self.rescaled(x, state, turn)
        moving = self.moving(turn)
        return p.contiguous() if moving is None else torch.where(moving.view(x.shape[1:]), p, 0).contiguous()

    def after(self, p: Tensor, sent: Decoded, state: State, turn: Turn) -> State:
        """Move the memory by ``beta`` towards what was not sent."""
        rest = sent.residual_of_(p.view(len(p), -1)).mul_(self.beta)
        if self.beta < 1:
            rest = rest.add_(state.elements["residual"], alpha=1 - self.beta)
        return self.keep(rest, state, turn)

    def passes(self, shape: Shape) -> Passes:
        """Return two reads and a write for p, and three reads and a write for the new memory."""
        return Passes(encode=7, between=0, decode=0)


@dataclass(frozen=True)
class EF21(Memory):
    """Send the compressed difference to an estimate of the own gradient that sender and receiver both keep.

    Worker i sends c_i = C(g_i - h_i) and adds it to h_i; everyone adds the mean of the c_i to the shared estimate,
    which the optimizer gets. The shared estimate is the mean of the h_i.

    Notes
    -----
    The estimates start at zero, so the first step sends C(g) and the optimizer gets the mean of these, the paper's
    usual start. They estimate gradients, whatever the learning rate; a step at rate 0 refines them. Worker and
    receiver add up the same numbers separately, and so differ by rounding. A checkpoint keeps a unit's estimates
    together, whole: they start anew, all of them, where the partition into units changes.

    References
    ----------
    .. [1] Richtárik, Sokolov, Fatkhullin. *EF21: A New, Simpler, Theoretically Better, and Practically Faster Error
       Feedback*, NeurIPS 2021, Algorithm 2, https://arxiv.org/abs/2106.05203
    """

    name = "ef21"
    title = "EF21: the difference to an estimate of the gradient is sent and added to it"
    paper = "Richtárik et al. 2021, arXiv 2106.05203"
    state = "own estimate: n values a worker; shared estimate: n values"
    estimates = True

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        own = torch.zeros(workers, prod(shape), dtype=like.dtype, device=like.device)
        return State(rows={"own estimate": own}, shared={"estimate": own.new_zeros(shape)})

    def check(self, inner: Scheme, shape: Shape) -> None:
        """Refuse a scheme whose error can exceed its input: the estimates would drift away."""
        check_contracts(self, "EF21", inner, shape)

    def before(self, x: Tensor, state: State, turn: Turn) -> Tensor:
        """Return the difference between gradient and estimate."""
        return (x - state.rows["own estimate"].view_as(x)).contiguous()

    def after(self, p: Tensor, sent: Decoded, state: State, turn: Turn) -> State:
        """Add what was sent to the own estimate: h + c = h - (0 - c)."""
        own = state.rows["own estimate"]
        own.sub_(sent.residual_of_(torch.zeros_like(own)))
        return state

    def receive(self, mean: Tensor, state: State, turn: Turn) -> tuple[Tensor, State]:
        """Add the mean of what was sent to the shared estimate and return that."""
        estimate = torch.as_tensor(state.shared["estimate"]) + mean
        state.shared = {**state.shared, "estimate": estimate}
        return estimate.clone(), state

    def passes(self, shape: Shape) -> Passes:
        """Return two reads and a write for the difference, and the same for either estimate."""
        return Passes(encode=6, between=0, decode=3)


def _any(lr: float | Tensor) -> bool:
    """Return whether any parameter moves."""
    return bool(lr.any()) if isinstance(lr, Tensor) else lr != 0
