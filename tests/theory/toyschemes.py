"""Operators that no one would use: the ones that make bounds sharp, and faulty ones."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from gradwire.compressors.base import Codec, Passes, Shape, State, Turn
from gradwire.compressors.decoded import Decoded, Dense
from gradwire.compressors.payload import Payload


@dataclass(frozen=True)
class Shrink(Codec):
    """C(x) = (1 - sqrt(1 - delta)) x, the contraction that loses the same part of every vector.

    ``claimed`` is the delta that it says it has.
    """

    delta: float = 0.5
    claimed: float = 0.5

    name = "shrink"
    title = "a fixed part of every value"
    paper = ""
    collective = "all-reduce"

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "sum"

    def error_bound(self, shape: Shape) -> float:
        return 1 - self.claimed

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        raise NotImplementedError

    def passes(self, shape: Shape) -> Passes:
        raise NotImplementedError

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        sent = x.reshape(len(x), -1) * (1 - (1 - self.delta) ** 0.5)
        return Payload((sent,)), Dense(sent), state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        return Dense(payload.fixed(0))
