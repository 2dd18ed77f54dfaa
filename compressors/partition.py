"""Partition: which parameters form a unit that a scheme sees, and which units a message that a collective carries.

The flat gradient vector lists the parameters in reverse order of their definition, which is about the order in which
the backward pass finishes them and the order in which DistributedDataParallel lays out its buckets. Every unit and
every message is then a contiguous slice of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from .base import SchemeError, Shape

Granularity = Literal["layer", "bucket", "model"]
ORDER: tuple[Granularity, ...] = ("layer", "bucket", "model")

BUCKET_BYTES = 25 * 2**20
"""DistributedDataParallel's default ``bucket_cap_mb``."""
FIRST_BUCKET_BYTES = 2**20
"""The limit of its first bucket, small so that communication can start early."""


@dataclass(frozen=True)
class Parameter:
    """A parameter's name, shape and place in the flat vector."""

    name: str
    shape: Shape
    start: int

    @property
    def elements(self) -> int:
        """The number of values."""
        return prod(self.shape)

    @property
    def stop(self) -> int:
        """One past its last value in the flat vector."""
        return self.start + self.elements


@dataclass(frozen=True)
class Unit:
    """What a scheme sees as one tensor: a parameter in its own shape, or several parameters as one vector."""

    parameters: tuple[Parameter, ...]

    @property
    def name(self) -> str:
        """The names of its parameters, which key its random draws and its state."""
        return "+".join(parameter.name for parameter in self.parameters)

    @property
    def shape(self) -> Shape:
        """A lone parameter's shape (``(1,)`` for a scalar), else ``(n,)``."""
        if len(self.parameters) == 1:
            return self.parameters[0].shape or (1,)
        return (self.stop - self.start,)

    @property
    def start(self) -> int:
        """Its first value in the flat vector."""
        return self.parameters[0].start

    @property
    def stop(self) -> int:
        """One past its last value in the flat vector."""
        return self.parameters[-1].stop


Message = tuple[Unit, ...]


@dataclass(frozen=True)
class Partition:
    """All parameters in flat order, and the messages, in the order in which the backward pass completes them."""

    parameters: tuple[Parameter, ...]
    messages: tuple[Message, ...]

    @property
    def elements(self) -> int:
        """The length of the flat vector."""
        return self.parameters[-1].stop


def partition(
    parameters: Sequence[tuple[str, Shape]],
    unit: Granularity = "layer",
    message: Granularity = "bucket",
    bucket_bytes: int = BUCKET_BYTES,
    first_bucket_bytes: int = FIRST_BUCKET_BYTES,
    itemsize: int = 4,
) -> Partition:
    """Cut a model's parameters into units and messages.

    Parameters
    ----------
    parameters : sequence of (name, shape)
        In the order of their definition.
    unit, message : {"layer", "bucket", "model"}
        A unit must not be larger than a message.
    bucket_bytes, first_bucket_bytes : int
        A bucket is closed as soon as it holds at least this much, as in DistributedDataParallel after its first step.
    itemsize : int
        Bytes of a gradient value.

    Raises
    ------
    SchemeError
        If there are no parameters, one of them is empty, or a unit would span messages.
    """
    if not parameters:
        raise SchemeError("the model has no parameters to train")
    if ORDER.index(unit) > ORDER.index(message):
        raise SchemeError(f"unit = {unit!r} is larger than message = {message!r}: a unit must lie within a message")
    if empty := [name for name, shape in parameters if prod(shape) == 0]:
        raise SchemeError(f"parameter {empty[0]} has no elements, so there is nothing to exchange")
    flat: list[Parameter] = []
    start = 0
    for name, shape in reversed(parameters):
        flat.append(Parameter(name, tuple(shape), start))
        start = flat[-1].stop
    buckets = _buckets(flat, bucket_bytes, first_bucket_bytes, itemsize)
    groups: dict[Granularity, list[tuple[Parameter, ...]]]
    groups = {"layer": [(parameter,) for parameter in flat], "bucket": buckets, "model": [tuple(flat)]}
    return Partition(tuple(flat), tuple(_units(group, unit, buckets) for group in groups[message]))


def _units(group: tuple[Parameter, ...], unit: Granularity, buckets: list[tuple[Parameter, ...]]) -> Message:
    """Cut one message's parameters into its units."""
    if unit == "layer":
        return tuple(Unit((parameter,)) for parameter in group)
    if unit == "bucket":
        return tuple(Unit(bucket) for bucket in buckets if bucket[0] in group)
    return (Unit(group),)


def _buckets(
    flat: Sequence[Parameter], bucket_bytes: int, first_bucket_bytes: int, itemsize: int
) -> list[tuple[Parameter, ...]]:
    """Fill buckets in order, closing each once it reaches its limit."""
    buckets: list[tuple[Parameter, ...]] = []
    filling: list[Parameter] = []
    for parameter in flat:
        filling.append(parameter)
        limit = bucket_bytes if buckets else first_bucket_bytes
        if (parameter.stop - filling[0].start) * itemsize >= limit:
            buckets.append(tuple(filling))
            filling = []
    return [*buckets, tuple(filling)] if filling else buckets
