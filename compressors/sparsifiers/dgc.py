"""Deep gradient compression: DGC's selection from what its momentum memory holds back."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer

from ..base import Codec, Memory, Passes, Scheme, Shape, State, Turn
from ..decoded import Decoded
from ..indices import Coding
from ..momentum import Momentum
from ..payload import Payload
from ..remember import RememberingCodec
from .dgcsample import DGCSample


@dataclass(frozen=True)
class DGC(Codec):
    """The whole of deep gradient compression: ``momentum(dgcsample(...), ...)`` under one name.

    It takes the place of the optimizer's momentum and of error feedback, and refuses either beside it.

    Parameters
    ----------
    density, warmup_steps, coding
        As of :class:`~gradwire.compressors.sparsifiers.dgcsample.DGCSample`.
    momentum, nesterov, masking, clip, units
        As of :class:`~gradwire.compressors.momentum.Momentum`.

    References
    ----------
    .. [1] Lin, Han, Mao, Wang, Dally. *Deep Gradient Compression: Reducing the Communication Bandwidth for Distributed
       Training*, ICLR 2018, https://arxiv.org/abs/1712.01887
    """

    density: float = 0.001
    momentum: float = 0.9
    nesterov: bool = False
    masking: bool = True
    clip: float = 0.0
    warmup_steps: int = 0
    units: Literal["gradient", "update"] = "gradient"
    coding: Coding = "log2"

    name = "dgc"
    title = "about k entries of accumulated momentum, with their positions"
    paper = DGCSample.paper
    collective = DGCSample.collective
    state = Momentum.state
    examples = ("dgc(density=0.1, nesterov=True, masking=False, warmup_steps=3)",)

    def __post_init__(self) -> None:
        assert self.whole  # building them checks the parameters

    @cached_property
    def whole(self) -> RememberingCodec:
        """The selection with its memory around it."""
        memory = Momentum(self.momentum, self.nesterov, self.masking, self.clip, self.units)
        return RememberingCodec(memory, DGCSample(self.density, self.warmup_steps, self.coding))

    def parts(self) -> tuple[Scheme | Memory, ...]:
        """Return the whole, for cost models that know it by its name, and its two stages."""
        return (self, *self.whole.parts())

    def stage(self, step: int) -> Hashable:
        return self.whole.stage(step)

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def varying(self) -> bool:
        return self.whole.varying

    @property
    def homogeneous(self) -> bool:
        return self.whole.homogeneous

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return self.whole.combine

    def check_optimizer(self, optimizer: Optimizer) -> None:
        self.whole.check_optimizer(optimizer)

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        return self.whole.init(shape, workers, like)

    def error_bound(self, shape: Shape) -> float:
        """Return the bound of the selection."""
        return self.whole.error_bound(shape)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return self.whole.wire_bytes(shape, itemsize)

    def passes(self, shape: Shape) -> Passes:
        return self.whole.passes(shape)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        return self.whole.encode(x, state, turn)

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        return self.whole.decode(payload, shape, turn)
