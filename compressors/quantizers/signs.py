"""The sign family: a bit an entry, and what the two values of the bit stand for."""

from dataclasses import dataclass
from math import inf, prod
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..base import Codec, Passes, SchemeError, Shape, State, Turn, check_range
from ..decoded import Decoded
from ..payload import HEADER_BYTES, Payload
from ..wire import packed_bytes
from .coded import Signs
from .coding import flattened, pack_signs, row_sums


class _SignCodec(Codec):
    """What all of them share: packed bits are gathered, and zero counts as positive."""

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "gather"


@dataclass(frozen=True)
class ScaledSign(_SignCodec):
    """Send the signs and the mean magnitude of the unit, which with error feedback is EF-signSGD.

    ``n / 8`` bytes of signs, one scale and a header. A zero counts as positive.

    References
    ----------
    .. [1] Karimireddy, Rebjock, Stich, Jaggi. *Error Feedback Fixes SignSGD and other Gradient Compression Schemes*,
       ICML 2019, https://arxiv.org/abs/1901.09847
    """

    name = "scaledsign"
    title = "every entry's sign, and the unit's mean magnitude"
    paper = "Karimireddy et al. 2019, arXiv 1901.09847"
    collective = "all-gather"

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - 1 / n, the least ||x||_1^2 / (n ||x||_2^2) being that of a lone entry."""
        return 1 - 1 / prod(shape)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return HEADER_BYTES + max(4, itemsize) + packed_bytes(prod(shape), 1)

    def passes(self, shape: Shape) -> Passes:
        """Return a read for magnitudes and signs and the packed write; a packed read and an addition to decode."""
        return Passes(encode=1 + 1 / 32, between=0, decode=2 + 1 / 32)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = flattened(x)
        scale = (row_sums(flat, "magnitudes") / flat.shape[1]).to(flat.dtype)[:, None]
        packed = pack_signs(flat)
        return Payload((scale, packed)), Signs(packed, -scale, scale, flat.shape[1]), state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        scale = payload.fixed(0)
        return Signs(payload.fixed(1), -scale, scale, prod(shape))


@dataclass(frozen=True)
class OneBit(_SignCodec):
    """Send the signs, and for each column the mean of its negative and that of its other entries.

    A unit of shape (a, ...) is seen as a matrix of a rows; a vector is one column. ``n / 8`` bytes of signs, two values
    a column, and a header. 1-bit SGD always has error feedback around it.

    Parameters
    ----------
    means : {"column", "unit"}
        Of each column, as in the paper, or one pair for the whole unit.

    References
    ----------
    .. [1] Seide, Fu, Droppo, Li, Yu. *1-Bit Stochastic Gradient Descent and its Application to Data-Parallel
       Distributed Training of Speech DNNs*, Interspeech 2014, https://doi.org/10.21437/Interspeech.2014-274
    """

    means: Literal["column", "unit"] = "column"

    name = "onebit"
    title = "every entry's sign, and the columns' means of either sign"
    paper = "Seide et al. 2014, Interspeech"
    collective = "all-gather"
    examples = ("onebit(means=unit)",)

    def _columns(self, shape: Shape) -> int:
        return prod(shape[1:]) if self.means == "column" else 1

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - 1 / a for columns of a entries, as of a lone entry among zeros."""
        return 1 - self._columns(shape) / prod(shape)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return HEADER_BYTES + 2 * self._columns(shape) * max(4, itemsize) + packed_bytes(prod(shape), 1)

    def passes(self, shape: Shape) -> Passes:
        """Return a read for means and signs and the packed write; a packed read and an addition to decode."""
        return Passes(encode=1 + 1 / 32, between=0, decode=2 + 1 / 32)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = flattened(x)
        low, high = _means(flat.view(len(x), -1, self._columns(tuple(x.shape[1:]))))
        packed = pack_signs(flat)
        return Payload((low, high, packed)), Signs(packed, low, high, flat.shape[1]), state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        return Signs(payload.fixed(2), payload.fixed(0), payload.fixed(1), prod(shape))


def _means(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means of the negative and of the other entries of each column of ``[W, rows, columns]``."""
    workers, rows, columns = x.shape
    means = []
    for chosen in (x < 0, x >= 0):
        values = torch.where(chosen, x, 0)
        if columns == 1:
            total = row_sums(values.view(workers, rows), "values")[:, None]
        else:
            total = values.sum(1, dtype=torch.float64)
        means.append((total / chosen.sum(1).clamp_(min=1)).to(x.dtype))
    return means[0], means[1]


class _Vote(_SignCodec):
    """Signs of no scale, of which the majority decides."""

    @property
    def law(self) -> Literal["mean of sent", "estimate", "vote"]:
        return "vote"

    def error_bound(self, shape: Shape) -> float:
        """Return infinity: what is decoded is of size 1, however small the input."""
        return inf

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return HEADER_BYTES + packed_bytes(prod(shape), 1)

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        packed = payload.fixed(0)
        one = torch.ones(len(packed), 1, device=packed.device)
        return Signs(packed, -one, one, prod(shape))

    def receive(self, mean: Tensor, state: State, turn: Turn) -> tuple[Tensor, State]:
        """Return the sign of the votes' sum; a tie of an even number of workers is 0 and moves nothing."""
        return mean.sign(), state


@dataclass(frozen=True)
class SignSGD(_Vote):
    """Send the signs; the update is the sign that most workers sent, 1, -1, or 0 in a tie.

    ``n / 8`` bytes and a header. A zero counts as positive, so a parameter whose gradient is always zero moves all the
    same. Every entry moves by the learning rate, which has to be chosen for that.

    Notes
    -----
    The paper's server sends the majority back in a bit; here all votes are gathered, and everyone counts them.

    References
    ----------
    .. [1] Bernstein, Wang, Azizzadenesheli, Anandkumar. *signSGD: Compressed Optimisation for Non-Convex Problems*,
       ICML 2018, https://arxiv.org/abs/1802.04434
    .. [2] Bernstein, Zhao, Azizzadenesheli, Anandkumar. *signSGD with Majority Vote is Communication Efficient and
       Fault Tolerant*, ICLR 2019, https://arxiv.org/abs/1810.05291
    """

    name = "signsgd"
    title = "every entry's sign; the majority decides"
    paper = "Bernstein et al. 2018, arXiv 1802.04434"
    collective = "all-gather"

    def passes(self, shape: Shape) -> Passes:
        """Return a read and the packed write; a packed read and an addition to decode."""
        return Passes(encode=1 + 1 / 32, between=0, decode=2 + 1 / 32)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        payload = Payload((pack_signs(flattened(x)),))
        return payload, self.decode(payload, tuple(x.shape[1:]), turn), state


@dataclass(frozen=True)
class Signum(_Vote):
    """As ``signsgd``, of each worker's momentum m = beta m + (1 - beta) g instead of its gradient.

    Parameters
    ----------
    momentum : float
        beta, in [0, 1); 0 is ``signsgd``. The optimizer must have none of its own.

    References
    ----------
    .. [1] Bernstein, Wang, Azizzadenesheli, Anandkumar. *signSGD: Compressed Optimisation for Non-Convex Problems*,
       ICML 2018, https://arxiv.org/abs/1802.04434
    """

    momentum: float = 0.9

    name = "signum"
    title = "the sign of every entry's momentum; the majority decides"
    paper = "Bernstein et al. 2018, arXiv 1802.04434"
    collective = "all-gather"
    state = "momentum: n values a worker"

    def __post_init__(self) -> None:
        check_range(self, "momentum", "in [0, 1)", 0 <= self.momentum < 1)

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Refuse an optimizer with momentum, of which there would be two."""
        for group in optimizer.param_groups:
            if group.get("momentum", 0) or group.get("betas", (0,))[0]:
                raise SchemeError(
                    f"{self}: {type(optimizer).__name__} has momentum of its own; "
                    f"take one without, such as SGD with momentum = 0"
                )

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        momentum = torch.zeros(workers, prod(shape), dtype=like.dtype, device=like.device)
        return State(elements={"momentum": momentum})

    def passes(self, shape: Shape) -> Passes:
        """Return two reads and a write for the momentum, and the packed write; as ``signsgd`` to decode."""
        return Passes(encode=3 + 1 / 32, between=0, decode=2 + 1 / 32)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        momentum = state.elements["momentum"].mul_(self.momentum).add_(x.reshape(len(x), -1), alpha=1 - self.momentum)
        payload = Payload((pack_signs(momentum),))
        return payload, self.decode(payload, tuple(x.shape[1:]), turn), state
