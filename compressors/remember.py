"""Wrapping: a memory around a codec is a codec, a memory around a protocol is a protocol."""

from collections.abc import Hashable
from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer

from .base import (
    Codec,
    Memory,
    Outcome,
    Passes,
    Protocol,
    Rounds,
    Scheme,
    SchemeError,
    Shape,
    State,
    Turn,
    check_elements,
    check_finite,
    text_form,
)
from .decoded import Decoded, Nothing
from .payload import Payload


@dataclass(frozen=True)
class Remembering(Scheme):
    """What all kinds of wrapped schemes share: everything that is said of the inner scheme holds."""

    memory: Memory
    inner: Scheme

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def law(self) -> Literal["mean of sent", "estimate", "vote"]:
        return "estimate" if self.memory.estimates else self.inner.law

    @property
    def granularity(self) -> frozenset[str]:
        return self.inner.granularity

    @property
    def varying(self) -> bool:
        return self.inner.varying

    @property
    def by_workers(self) -> bool:
        return self.inner.by_workers

    @property
    def homogeneous(self) -> bool:
        return self.memory.homogeneous and self.inner.homogeneous

    def for_unit(self, name: str, shape: Shape) -> Scheme:
        return remember(self.memory, self.inner.for_unit(name, shape))

    def at(self, turn: Turn) -> Scheme:
        inner = self.inner.at(turn)
        return self if inner is self.inner else remember(self.memory, inner)

    def ever(self) -> tuple[Scheme, ...]:
        return tuple(self if inner is self.inner else remember(self.memory, inner) for inner in self.inner.ever())

    def stage(self, step: int) -> Hashable:
        return self.inner.stage(step)

    def check_optimizer(self, optimizer: Optimizer) -> None:
        self.memory.check_optimizer(optimizer)
        self.inner.check_optimizer(optimizer)

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        check_elements(shape)
        for inner in self.inner.ever():
            self.memory.check(inner, shape)
        state = self.memory.init(shape, workers, like)
        state.inner = self.inner.init(shape, workers, like)
        return state

    def error_bound(self, shape: Shape) -> float:
        return self.inner.error_bound(shape)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return self.inner.wire_bytes(shape, itemsize)

    def passes(self, shape: Shape) -> Passes:
        own, inner = self.memory.passes(shape), self.inner.passes(shape)
        return Passes(*(a + b for a, b in zip(own, inner, strict=True)))

    def parts(self) -> tuple[Scheme | Memory, ...]:
        return (self.memory, *self.inner.parts())

    def shaped_parts(self, shape: Shape) -> tuple[tuple[Scheme | Memory, Shape], ...]:
        return ((self.memory, shape), *self.inner.shaped_parts(shape))

    def __str__(self) -> str:
        return text_form(self.memory, self.inner)


@dataclass(frozen=True)
class RememberingCodec(Remembering, Codec):
    """A codec with a memory around it."""

    inner: Codec

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return self.inner.combine

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        if self.memory.idle(turn):
            return Payload(), Nothing(len(x), prod(x.shape[1:])), state
        p = self.memory.before(x, state, turn)
        check_finite(p, turn)
        payload, sent, inner = self.inner.encode(p, _inner(state), turn)
        payload = payload.apart_from(p)  # what is sent must outlive the memory's change of p
        state = self.memory.after(p, sent, state, turn)
        state.inner = inner
        return payload, sent, state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        return self.inner.decode(payload, shape, turn)

    def receive(self, mean: Tensor, state: State, turn: Turn) -> tuple[Tensor, State]:
        mean, state.inner = self.inner.receive(mean, _inner(state), turn)
        return self.memory.receive(mean, state, turn)


@dataclass(frozen=True)
class RememberingProtocol(Remembering, Protocol):
    """A protocol with a memory around it."""

    inner: Protocol

    def rounds(self, x: Tensor, state: State, turn: Turn) -> Rounds:
        if self.memory.idle(turn):
            return Outcome(x.new_zeros(x.shape[1:]), Nothing(len(x), prod(x.shape[1:])), state)
        p = self.memory.before(x, state, turn)
        check_finite(p, turn)
        mean, sent, inner = yield from self.inner.rounds(p, _inner(state), turn)
        state = self.memory.after(p, sent, state, turn)
        state.inner = inner
        mean, state = self.memory.receive(mean, state, turn)
        return Outcome(mean, sent, state)


def remember(memory: Memory, inner: Scheme) -> Scheme:
    """Wrap a memory around a scheme.

    Raises
    ------
    SchemeError
        If the scheme already has a memory: what is not sent would be remembered twice.
    """
    if found := [part.name for part in inner.parts() if isinstance(part, Memory)]:
        which = "this memory" if memory.name in found else "a memory"
        raise SchemeError(f"{memory.name}({inner}): {inner} already has {which}")
    if (own := memory.around(inner)) is not None:
        return own
    if isinstance(inner, Codec):
        return RememberingCodec(memory, inner)
    if isinstance(inner, Protocol):
        return RememberingProtocol(memory, inner)
    raise SchemeError(f"{memory.name} goes around schemes of one kind each: write it inside {inner}")


def _inner(state: State) -> State:
    """Return the wrapped scheme's state, which ``init`` has put there."""
    assert state.inner is not None
    return state.inner
