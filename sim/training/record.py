"""What convergence theory speaks of, measured at every step of a training: errors, memories, gradients, iterates.

All norms are over the whole model, squared, in float64, whatever the partition into units. The memory is in units of
the update, as in the papers: with e_i what error feedback holds at worker i before step t, x_t - mean of e_i is the
iterate that the same gradients would have reached uncompressed.
"""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...compressors.base import Codec, Memory, Outcome, Scheme, State, Turn
from ...compressors.feedback import EF21, ErrorFeedback
from ...compressors.remember import Remembering
from ...compressors.twosided import TwoSided

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trace:
    """What was measured; S is the number of steps, d the number of trained values, W that of workers.

    Squared norms end in 2. A value that is not defined for the scheme, or was not measured at a step, is NaN. Arrays
    have shape [S], where not said otherwise, with entry t for the step from x_t to x_{t+1}.

    Attributes
    ----------
    lr : the learning rate gamma_t.
    loss, gradient2 : [S+1]
        f(x_t) and ||grad f(x_t)||^2 of the whole objective.
    curvature, curvature_error : [S+1]
        The largest absolute eigenvalue of the Hessian at x_t, and within what distance of it there surely is one.
    secant : [S+1]
        ||grad f(x_t) - grad f(x_s)|| / ||x_t - x_s||, x_s being the last iterate before whose gradient is known.
    example_noise2 : [S+1]
        Mean over training examples j of ||grad f_j(x_t) - grad f(x_t)||^2.
    own2, mean2 : mean over workers of ||g_i||^2, and ||mean of g_i||^2, of the stochastic gradients at x_t.
    noise2, mean_noise2 : mean over workers of ||g_i - grad f(x_t)||^2, and the same of the workers' mean.
    spread2 : mean over workers of ||g_i - mean||^2.
    within2 : an estimate of a worker's noise2 from its own batch alone: mean over workers of
        (m m' / B^2) ||a_i - a'_i||^2, a_i and a'_i being the gradients of the two parts of its batch, of m + m' = B.
    applied2 : the squared norm of what the optimizer got.
    input2, lost2 : mean over workers of ||p_i||^2 and ||p_i - C(p_i)||^2, p_i being what is compressed, in units of the
        gradient. Under EF21, lost2 is the mean of ||h_i - g_i||^2, h_i being the estimate after the exchange.
    worst_ratio : the largest ||p_i - C(p_i)||^2 / ||p_i||^2 of a unit and worker.
    memory2, mean_memory2 : [S+1]
        Mean over workers of ||e_i||^2, and ||mean of e_i||^2, before the step.
    gap2 : ||C(mean of p_i) - mean of C(p_i)||^2.
    identity : ||(x_{t+1} - e_{t+1}) - (x_t - e_t) + gamma_t mean of g_i|| over the largest norm of the three, e being
        the workers' mean memory.
    moved2, turned2 : ||x_{t+1} - x_t||^2 and ||grad f(x_{t+1}) - grad f(x_t)||^2.
    own_turned2 : mean over workers of ||g_i(t+1) - g_i(t)||^2; NaN at the last step.
    sent_bytes : mean over workers of the bytes handed over.
    position, memory : [S+1, d], or None
        x_t and the workers' mean memory, where they are kept.
    """

    lr: Floats
    loss: Floats
    gradient2: Floats
    curvature: Floats
    curvature_error: Floats
    secant: Floats
    example_noise2: Floats
    own2: Floats
    mean2: Floats
    noise2: Floats
    mean_noise2: Floats
    spread2: Floats
    within2: Floats
    applied2: Floats
    input2: Floats
    lost2: Floats
    worst_ratio: Floats
    memory2: Floats
    mean_memory2: Floats
    gap2: Floats
    identity: Floats
    moved2: Floats
    turned2: Floats
    own_turned2: Floats
    sent_bytes: Floats
    position: Floats | None = None
    memory: Floats | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the arrays as nested lists by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: None if value is None else value.tolist() for name, value in values.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Trace":
        """Rebuild a trace from :meth:`to_dict`'s result."""
        arrays: dict[str, Any] = {k: None if v is None else np.asarray(v, dtype=np.float64) for k, v in data.items()}
        return cls(**arrays)


class Local(NamedTuple):
    """What may be known of the objective at an iterate besides its value and gradient, as in :class:`Trace`."""

    curvature: float = float("nan")
    curvature_error: float = float("nan")
    example_noise2: float = float("nan")


VECTORS = ("position", "memory")
AT_ITERATES = ("loss", "gradient2", *Local._fields, "secant", "memory2", "mean_memory2")
"""The quantities of shape [S+1]."""
AT_STEPS = tuple(f.name for f in fields(Trace) if f.name not in (*AT_ITERATES, *VECTORS))
"""Those of shape [S]."""


_NOTHING = Local()


class Recorder:
    """Takes down a training step by step: ``begin``, ``exchanged`` for each unit, ``end``; at last ``finish``.

    Parameters
    ----------
    workers, parameters : int
        W and d.
    vectors : bool
        Whether iterates and memories are kept whole, 16 d bytes a step.
    """

    def __init__(self, workers: int, parameters: int, vectors: bool) -> None:
        self._workers, self._size, self._vectors = workers, parameters, vectors
        self._rows: dict[str, list[float]] = {name: [] for name in (*AT_ITERATES, *AT_STEPS)}
        self._positions: list[Tensor] = []
        self._memories: list[Tensor] = []
        self._last_position = self._last_gradient = self._last_memory = self._last_own = None  # type: Tensor | None
        self._known: tuple[Tensor, Tensor] | None = None
        self._under_way = False
        self._memory = torch.zeros(parameters, dtype=torch.float64)
        self._memory2 = 0.0

    def begin(self, position: Tensor, loss: float, gradient: Tensor | None, lr: float, local: Local = _NOTHING) -> None:
        """Begin a step at x_t.

        Parameters
        ----------
        position : Tensor, shape [d]
        loss : float
            f(x_t), or NaN.
        gradient : Tensor, shape [d], or None
            grad f(x_t), if it is known.
        lr : float
        local : Local
        """
        self._iterate(position, loss, gradient, local)
        self._lr, self._under_way = lr, True
        self._own = torch.zeros(self._workers, self._size, dtype=torch.float64)
        self._sums = {name: torch.zeros(self._workers, dtype=torch.float64) for name in ("input2", "lost2", "memory2")}
        self._worst = self._gap2 = self._applied2 = 0.0
        self._next_memory = torch.zeros(self._size, dtype=torch.float64)

    def exchanged(self, start: int, g: Tensor, scheme: Scheme, turn: Turn, outcome: Outcome) -> None:
        """Take down one unit's exchange.

        Parameters
        ----------
        start : int
            Where the unit begins in the vector of all parameters.
        g : Tensor, shape [W, *unit shape]
            The workers' gradients.
        scheme : Scheme
        turn : Turn
        outcome : Outcome
            After the exchange.
        """
        rows = g.reshape(len(g), -1).double().cpu()
        part = slice(start, start + rows.shape[1])
        self._own[:, part] = rows
        sent = outcome.sent.dense(g.reshape(len(g), -1)).double().cpu()
        memory = memory_rows(scheme, outcome.state, self._lr)
        self._next_memory[part] = memory.mean(0) if isinstance(memory, Tensor) else memory
        p = _compressed(scheme, rows, sent, outcome.state, turn)
        input2, lost2 = _squares(p), _squares(p - sent)
        self._sums["input2"] += input2
        self._sums["lost2"] += lost2
        self._sums["memory2"] += _squares(memory) if isinstance(memory, Tensor) else memory
        ratios = torch.where(input2 > 0, lost2 / input2.clamp(min=torch.finfo(torch.float64).tiny), 0.0 * input2)
        self._worst = float(np.maximum(self._worst, float(ratios.max())))  # NaN stays NaN
        self._gap2 += _gap2(scheme, p.to(g.dtype), sent, turn, g)
        self._applied2 += float(outcome.mean.double().square().sum())

    def end(self, sent_bytes: float, within2: float = float("nan")) -> None:
        """End the step, after all units."""
        self._under_way = False
        own, mean = self._own, self._own.mean(0)
        full, nan = self._last_gradient, float("nan")
        values = {
            "lr": self._lr,
            "own2": float(_squares(own).mean()),
            "mean2": float(mean.square().sum()),
            "noise2": nan if full is None else float(_squares(own - full).mean()),
            "mean_noise2": nan if full is None else float((mean - full).square().sum()),
            "spread2": float(_squares(own - mean).mean()),
            "within2": within2,
            "applied2": self._applied2,
            "input2": float(self._sums["input2"].mean()),
            "lost2": float(self._sums["lost2"].mean()),
            "worst_ratio": self._worst,
            "gap2": self._gap2,
            "sent_bytes": sent_bytes,
        }
        for name, value in values.items():
            self._rows[name].append(value)
        if self._last_own is not None:
            self._rows["own_turned2"].append(float(_squares(own - self._last_own).mean()))
        self._last_own, self._last_mean = own, mean
        self._last_memory, self._memory = self._memory, self._next_memory
        self._memory2 = float(self._sums["memory2"].mean())

    def finish(self, position: Tensor, loss: float, gradient: Tensor | None, local: Local = _NOTHING) -> Trace:
        """Return the trace, given the last iterate as in :meth:`begin`; of a step that did not end, the start alone."""
        if not self._under_way:
            self._iterate(position, loss, gradient, local)
        if self._rows["lr"]:
            self._rows["own_turned2"].append(float("nan"))
        arrays: dict[str, Any] = {name: np.array(values, dtype=np.float64) for name, values in self._rows.items()}
        if self._vectors:
            arrays |= {"position": _stacked(self._positions), "memory": _stacked(self._memories)}
        return Trace(**arrays)

    def _iterate(self, position: Tensor, loss: float, gradient: Tensor | None, local: Local) -> None:
        """Take down an iterate, and what lies between it and the last."""
        x = position.detach().reshape(-1).double().cpu().clone()
        full = None if gradient is None else gradient.detach().reshape(-1).double().cpu().clone()
        nan = float("nan")
        if self._last_position is not None:
            assert self._last_memory is not None
            step = x - self._last_position
            uncompressed = self._lr * self._last_mean
            change = step - (self._memory - self._last_memory)
            scale = max(float(v.norm()) for v in (x, self._memory, uncompressed))
            self._rows["identity"].append(float((change + uncompressed).norm()) / scale if scale else 0.0)
            self._rows["moved2"].append(float(step.square().sum()))
            known = full is not None and self._last_gradient is not None
            self._rows["turned2"].append(float((full - self._last_gradient).square().sum()) if known else nan)  # type: ignore[operator]
        self._last_position, self._last_gradient = x, full
        for name, value in (("loss", loss), ("secant", self._secant(x, full)), *local._asdict().items()):
            self._rows[name].append(value)
        self._rows["gradient2"].append(nan if full is None else float(full.square().sum()))
        self._rows["memory2"].append(self._memory2)
        self._rows["mean_memory2"].append(float(self._memory.square().sum()))
        if self._vectors:
            self._positions.append(x)
            self._memories.append(self._memory)

    def _secant(self, x: Tensor, full: Tensor | None) -> float:
        """Return how far the gradient turned over how far the iterate moved since both were known."""
        if full is None:
            return float("nan")
        before, self._known = self._known, (x, full)
        moved = 0.0 if before is None else float((x - before[0]).norm())
        return float((full - before[1]).norm()) / moved if before is not None and moved else float("nan")


def memory_kind(scheme: Scheme) -> str:
    """Return ``ef``, ``ef21``, ``none``, or ``other`` for a memory whose theory is not followed here."""
    if not any(isinstance(part, Memory) for part in scheme.parts()):
        return "none"
    if not isinstance(scheme, Remembering):
        return "other"
    if isinstance(scheme.memory, ErrorFeedback) and not isinstance(scheme.memory, TwoSided):
        return "ef"
    return "ef21" if isinstance(scheme.memory, EF21) else "other"


def memory_rows(scheme: Scheme, state: State, lr: float) -> Tensor | float:
    """Return what error feedback holds, ``[W, n]``, in units of the update; 0 without one, NaN if it is another memory.

    A memory in units of the gradient counts at the learning rate ``lr`` of the step.
    """
    kind = memory_kind(scheme)
    if kind == "ef":
        rate = lr if _feedback(scheme).units == "gradient" else state.shared["lr"]
        in_float64 = torch.as_tensor(rate, dtype=torch.float64).reshape(1, -1).cpu()
        residual: Tensor = state.elements["residual"].cpu() * in_float64
        return residual
    return float("nan") if kind == "other" else 0.0


def _feedback(scheme: Scheme) -> ErrorFeedback:
    """Return the memory of a scheme of the kind ``ef``."""
    assert isinstance(scheme, Remembering)
    assert isinstance(scheme.memory, ErrorFeedback)
    return scheme.memory


def _compressed(scheme: Scheme, rows: Tensor, sent: Tensor, state: State, turn: Turn) -> Tensor:
    """Return what was compressed, ``[W, n]``, in units of the gradient: what was sent and what was not."""
    kind = memory_kind(scheme)
    if kind == "ef21":
        return rows - state.rows["own estimate"].double().cpu() + sent
    if kind == "ef":
        if _feedback(scheme).idle(turn):
            return torch.zeros_like(sent)
        return sent + state.elements["residual"].cpu()
    return rows if kind == "none" else torch.full_like(rows, float("nan"))


def _gap2(scheme: Scheme, p: Tensor, sent: Tensor, turn: Turn, like: Tensor) -> float:
    """Return ||C(mean of p_i) - mean of C(p_i)||^2, NaN for schemes that cannot be asked for C of another vector."""
    at = scheme.at(turn)
    inner = at.inner if isinstance(at, Remembering) else at
    if not isinstance(inner, Codec) or inner.state != "none" or memory_kind(scheme) == "other" or p.isnan().any():
        return float("nan")
    shape = tuple(like.shape[1:])
    if inner.unbiased and inner.error_bound(shape) > 0:
        return float("nan")  # no result about unbiased schemes asks for it, and it costs another encoding
    mean = p.mean(0, dtype=torch.float64).to(like).reshape(1, *shape)
    alone = Turn(turn.seed, turn.step, turn.unit, turn.ranks[:1], turn.size, turn.lr)
    _, own, _ = inner.encode(mean, inner.init(shape, 1, mean), alone)
    return float((own.dense(mean.reshape(1, -1)).double().cpu()[0] - sent.mean(0)).square().sum())


def _squares(rows: Tensor) -> Tensor:
    """Return each row's squared norm, without a matrix of squares."""
    result: Tensor = torch.linalg.vector_norm(rows, dim=1).square()
    return result


def _stacked(vectors: list[Tensor]) -> Floats:
    """Return vectors as one array [S+1, d]."""
    array: Floats = torch.stack(vectors).numpy()
    return array
