"""PowerSGD: a low-rank factorisation of each matrix by one power iteration a step, in two all-reduces."""

from collections.abc import Hashable
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from ..base import Outcome, Passes, Protocol, Rounds, Shape, State, Turn, check_range
from ..decoded import Dense, LowRank
from ..keys import Purpose, stream
from ..payload import Payload
from ..requests import AllReduce
from ..threads import one_thread


@dataclass(frozen=True)
class PowerSGD(Protocol):
    """Send P = M Q, sum and orthonormalise it, then send Q = M^T P and sum that; the mean is P Q^T.

    A unit of shape (a, ...) is seen as a matrix of a x b. A worker hands over ``rank * (a + b)`` values in two
    all-reduces. A unit for which that is no saving, and a vector, travels dense in one. Q is kept for the next step.

    Parameters
    ----------
    rank : int
        Columns of the factors; lower compresses more. A matrix of fewer rows or columns than that travels dense.
    min_rate : float
        A matrix travels dense unless it has more than ``min_rate`` times as many entries as its factors, at least 1.
    start_step : int
        All units travel dense before this step, while gradients change fast; error feedback has nothing to keep then.

    Notes
    -----
    Ranks change in the course of a training with ``phases(powersgd(rank=8), powersgd(rank=2), at=1000)``.

    Differences from the paper: ``sent`` is what each worker contributes to the mean, P Q_w^T, so that error feedback
    keeps what the worker itself could not send (the authors' later code does so too), where Algorithm 1 subtracts the
    mean; the sums of all workers' memories agree, and so do all means. P is orthonormalised by a QR decomposition,
    which gives no NaN for a zero or rank-deficient matrix. The defaults factorise whatever gets smaller, from the first
    step on; torch's hook has a minimum rate of 2 and starts at step 1000.

    References
    ----------
    .. [1] Vogels, Karimireddy, Jaggi. *PowerSGD: Practical Low-Rank Gradient Compression for Distributed
       Optimization*, NeurIPS 2019, https://arxiv.org/abs/1905.13727
    """

    rank: int = 4
    min_rate: float = 1.0
    start_step: int = 0

    name = "powersgd"
    title = "rank-r factors of each matrix"
    paper = "Vogels et al. 2019, arXiv 1905.13727"
    collective = "2 all-reduces"
    state = "Q: rank * b values a unit, shared"
    examples = ("powersgd(rank=2)",)

    def __post_init__(self) -> None:
        check_range(self, "rank", "at least 1", self.rank >= 1)
        check_range(self, "min_rate", "at least 1", self.min_rate >= 1)
        check_range(self, "start_step", "at least 0", self.start_step >= 0)

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def varying(self) -> bool:
        """Return whether the bytes depend on the step."""
        return self.start_step > 0

    @property
    def by_workers(self) -> bool:
        """Return False: each worker hands over the same factors, whatever N."""
        return False

    @property
    def granularity(self) -> frozenset[str]:
        """Return layers only: a bucket or a model has no shape to factorise."""
        return frozenset({"layer"})

    def _factorises(self, shape: Shape) -> bool:
        a, b = shape[0], prod(shape[1:])
        return len(shape) > 1 and self.rank <= min(a, b) and self.min_rate * self.rank * (a + b) < a * b

    def error_bound(self, shape: Shape) -> float:
        """Return 1: P P^T is a projection, so nothing is added; a matrix orthogonal to Q loses everything."""
        return 1.0 if self._factorises(shape) else 0.0

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        values = self.rank * (shape[0] + prod(shape[1:])) if self._factorises(shape) else prod(shape)
        return values * itemsize

    def passes(self, shape: Shape) -> Passes:
        """Return one read of the matrix for each factor, and the outer product added at the end.

        The orthonormalisation of P is not in it: it touches little memory and takes time all the same.
        """
        return Passes(encode=1, between=1, decode=2) if self._factorises(shape) else Passes(0, 0, 0)

    def stage(self, step: int) -> Hashable:
        return step < self.start_step

    def rounds(self, x: Tensor, state: State, turn: Turn) -> Rounds:
        workers, *shape = x.shape
        if turn.step < self.start_step or not self._factorises(tuple(shape)):
            flat = x.reshape(workers, -1)
            total = (yield AllReduce(Payload((flat,)))).fixed(0)[0]
            return Outcome((total / turn.size).view(shape), Dense(flat), state)
        matrices = x.reshape(workers, shape[0], -1).contiguous()  # products of strided matrices round differently
        start = state.shared.get("q")
        q = start if isinstance(start, Tensor) else self._first_q(matrices, turn)
        # Factors lie in memory column by column: that way round, products of a matrix and few vectors are 5 times as
        # fast. Matrix by matrix, for a batch of them could be rounded differently.
        left = x.new_empty(workers, self.rank, matrices.shape[1])
        with one_thread():  # is hardly slower, for few vectors leave a second thread little to do
            for matrix, out in zip(matrices, left, strict=True):
                torch.mm(q, matrix.T, out=out)
        summed = yield AllReduce(Payload((left.view(workers, -1),)))
        # The scale of P does not matter to its span, so the sum serves as well as the mean.
        right = x.new_empty(workers, self.rank, matrices.shape[2])
        with one_thread():
            p = torch.linalg.qr(summed.fixed(0).view(self.rank, -1).T).Q
            for matrix, out in zip(matrices, right, strict=True):
                torch.mm(p.T, matrix, out=out)
        summed = yield AllReduce(Payload((right.view(workers, -1),)))
        q = summed.fixed(0).view(self.rank, -1) / turn.size
        # Nor does Q's, which is kept near 1: with the gradients' own scale, the next P could overflow or vanish.
        kept = q / q.abs().amax().clamp_min(torch.finfo(q.dtype).tiny)
        return Outcome((p @ q).view(shape), LowRank(p, right.transpose(1, 2)), State(shared={"q": kept}))

    def _first_q(self, matrices: Tensor, turn: Turn) -> Tensor:
        """Return the transpose of the same normal draws on every worker."""
        generator = np.random.Generator(stream(turn.seed, Purpose.START, 0, turn.unit))
        return torch.from_numpy(generator.standard_normal((matrices.shape[2], self.rank)).T.copy()).to(matrices)
