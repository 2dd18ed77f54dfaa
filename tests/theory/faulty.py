"""Schemes that are not what they say they are."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from gradwire.compressors.base import Codec, Passes, Shape, State, Turn
from gradwire.compressors.decoded import Decoded, Dense
from gradwire.compressors.payload import Payload
from gradwire.compressors.spec import parse_scheme


@dataclass(frozen=True)
class Posing(Codec):
    """A codec that says of itself what is true of another one, and multiplies what comes out."""

    acts: Codec = field(default_factory=lambda: parse_scheme("dense"))
    claims: Codec = field(default_factory=lambda: parse_scheme("dense"))
    factor: float = 1.0

    name = "posing"
    title = "one scheme in the name of another"
    paper = ""
    collective = "all-gather"

    @property
    def unbiased(self) -> bool:
        return self.claims.unbiased

    @property
    def selects(self) -> bool:
        return self.claims.selects

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return self.claims.combine

    def error_bound(self, shape: Shape) -> float:
        return self.claims.error_bound(shape)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        raise NotImplementedError

    def passes(self, shape: Shape) -> Passes:
        raise NotImplementedError

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        _, sent, state = self.acts.encode(x, state, turn)
        rows = sent.dense(x.reshape(len(x), -1)) * self.factor
        return Payload((rows,)), Dense(rows), state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        return Dense(payload.fixed(0))


def posing(acts: str, claims: str, factor: float = 1.0) -> Posing:
    return Posing(parse_scheme(acts), parse_scheme(claims), factor)
