"""Compression overhead: the time that encoding, work between rounds and decoding take on a worker.

A scheme that was measured costs what was measured. For each part of another the cost is a published figure, scaled by
memory bandwidth to another device, or else a roofline estimate from the passes that the part makes over its unit; or
the user gives one cost for all schemes. Every charge says which.
"""

import math
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.resources import files
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from ...compressors.base import Codec, Memory, Scheme
from ...compressors.spec import parse_scheme
from ...compressors.wirelog import MessageLog, StepLog, Work
from ..units import Duration
from .device import DEVICES, Device
from .measured import MeasuredCodec, UnitCost, find_codec

Phase = Literal["encode", "between", "decode", "receive"]
Origin = Literal["measured", "extrapolated", "published", "scaled", "roofline", "given"]
Parse = Callable[[str], Scheme]
_ORIGINS: dict[Origin, str] = {
    "given": "given",
    "measured": "measured",
    "extrapolated": "extrapolated beyond what was measured",
    "published": "published figure",
    "scaled": "published figure of another device, scaled by memory bandwidth",
    "roofline": "roofline estimate",
}

ESTIMATES: frozenset[Origin] = frozenset({"extrapolated", "scaled", "roofline"})
"""Origins of costs that nobody has measured on the device."""


class Overhead(BaseModel):
    """How compression is charged.

    Attributes
    ----------
    factor : float, at least 0
        Multiplies every charge: the axis of sweeps over compression cost. 0 makes compression free.
    estimate_factor : float, at least 0
        Multiplies those charges besides that nobody has measured on this device: the roofline's, figures of another
        device, and what is extrapolated.
    encode_fixed, encode_per_element : float, s, optional
        Of each unit and of each of its values. If one of these four is given, they replace the table for all schemes,
        those that leave the gradient untouched excepted; what is not given is then 0.
    decode_fixed, decode_per_element : float, s, optional
        Of each unit and of each of its values, for every payload of a gather that a worker decodes.
    codecs : tuple of MeasuredCodec
        What schemes cost where that was measured; they come before the table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: Annotated[
        float, Field(strict=True, ge=0, allow_inf_nan=False, description="multiplies every compression cost")
    ] = 1.0
    estimate_factor: Annotated[
        float,
        Field(strict=True, ge=0, allow_inf_nan=False, description="multiplies those besides that nobody has measured"),
    ] = 1.0
    encode_fixed: Annotated[Duration | None, Field(description="of encoding a unit, instead of the table")] = None
    encode_per_element: Annotated[Duration | None, Field(description="of encoding each of its values")] = None
    decode_fixed: Annotated[Duration | None, Field(description="of decoding a payload")] = None
    decode_per_element: Annotated[Duration | None, Field(description="of decoding each of its unit's values")] = None
    codecs: Annotated[
        tuple[MeasuredCodec, ...], Field(description="what schemes cost where that was measured, as in a profile")
    ] = ()

    @property
    def given(self) -> bool:
        """Whether the user gives the costs."""
        fields = (self.encode_fixed, self.encode_per_element, self.decode_fixed, self.decode_per_element)
        return any(field is not None for field in fields)


class Charge(NamedTuple):
    """What one part of a scheme costs in one phase of a step.

    Attributes
    ----------
    part : str
        The name of the scheme or memory; ``"all"`` for a cost that the user gives.
    phase : {"encode", "between", "decode", "receive"}
        Before the first round; before each further round; after the last, for one received payload; after the last,
        once.
    seconds : float
        For all units of the work.
    origin : {"measured", "extrapolated", "published", "scaled", "roofline", "given"}
    """

    part: str
    phase: Phase
    seconds: float
    origin: Origin


class Published(BaseModel):
    """A published cost of a unit of n values: t n log2(n) and a kernel launch, or t up to m values and linear above."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_log2_n: Duration | None = None
    up_to: tuple[PositiveInt, Duration] | None = None

    @model_validator(mode="after")
    def _has_one_form(self) -> "Published":
        if (self.n_log2_n is None) == (self.up_to is None):
            raise ValueError("a cost has exactly one of the forms n_log2_n and up_to")
        return self

    def seconds(self, elements: int) -> float:
        """Return the time for one unit on the device that it was measured on, kernel launch aside."""
        if self.n_log2_n is not None:
            return self.n_log2_n * elements * math.log2(elements)
        assert self.up_to is not None
        most, time = self.up_to
        return time * max(1.0, elements / most)


class Row(BaseModel):
    """The published costs of one part, where they come from, and on which device they were measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    source: str
    encode: Published | None = None
    decode: Published | None = None
    includes: tuple[str, ...] = ()


def _read_table() -> dict[str, Row]:
    text = (files("gradwire.sim.step") / "presets" / "overheads.toml").read_text(encoding="utf-8")
    return {name: Row.model_validate(row) for name, row in tomllib.loads(text).items()}


TABLE: dict[str, Row] = _read_table()
"""Published costs by the name of the part."""


def cost_of(
    work: Work, overhead: Overhead, device: Device, parse: Parse = parse_scheme, workers: int | None = None
) -> tuple[Charge, ...]:
    """Return what a piece of logged work costs, item by item; of the two factors only that of estimates is applied.

    Parameters
    ----------
    work : Work
        Units of one shape that one scheme encoded and decoded.
    overhead : Overhead
    device : Device
    parse : callable
        Turns the scheme's text form into the scheme.
    workers : int, optional
        N: what was measured with others is extrapolated.

    Returns
    -------
    tuple of Charge
        Only those above 0.
    """
    scheme = parse(work.scheme)
    if overhead.given:
        charges = _given(work, overhead) if any(scheme.passes(work.shape)) else []
    elif found := find_codec(overhead.codecs, work.scheme, work.shape):
        codec, cost = found
        others = workers not in (None, codec.workers)
        cost = cost._replace(extrapolated=cost.extrapolated or others)
        charges = _measured(work, codec, cost, decodes_all(scheme))
    else:
        stages = scheme.shaped_parts(work.shape)
        included = {name for part, _ in stages if part.name in TABLE for name in TABLE[part.name].includes}
        charges = [
            charge
            for part, shape in stages
            if part.name not in included
            for charge in _part(part, replace(work, shape=shape), device)
        ]
    if overhead.estimate_factor != 1:
        charges = [
            _times(charge, overhead.estimate_factor) if charge.origin in ESTIMATES else charge for charge in charges
        ]
    return tuple(charge for charge in charges if charge.seconds > 0)


def cost_source(logs: Iterable[StepLog], overhead: Overhead, device: Device, parse: Parse = parse_scheme) -> str:
    """Say where the costs of the work in some steps come from."""
    works = {(work, _workers(message)) for log in logs for message in log for work in message.work}
    charges = (charge for work, workers in works for charge in cost_of(work, overhead, device, parse, workers))
    origins = {charge.origin for charge in charges}
    return " and ".join(_ORIGINS[origin] for origin in _ORIGINS if origin in origins) or "none"


def _workers(message: MessageLog) -> int | None:
    """Return N, if the message was sent."""
    return len(message.collectives[0].sent_bytes) if message.collectives else None


def decodes_all(scheme: Scheme) -> bool:
    """Return whether ``decode`` is charged for the payload of every worker, and not once.

    Codecs whose payloads are gathered are charged so. What a protocol's last round brings holds a unit once, however
    many workers it comes from: a sum, or the chunks or regions that each of them owns.
    """
    return isinstance(scheme, Codec) and scheme.combine == "gather"


def _times(charge: Charge, factor: float) -> Charge:
    return charge._replace(seconds=charge.seconds * factor)


def _given(work: Work, overhead: Overhead) -> list[Charge]:
    """Charge what the user says."""
    elements = math.prod(work.shape)
    encode = (overhead.encode_fixed or 0) + (overhead.encode_per_element or 0) * elements
    decode = (overhead.decode_fixed or 0) + (overhead.decode_per_element or 0) * elements
    return [
        Charge("all", "encode", work.units * encode, "given"),
        Charge("all", "decode", work.units * decode, "given"),
    ]


def _measured(work: Work, codec: MeasuredCodec, cost: UnitCost, each: bool) -> list[Charge]:
    """Charge what was measured; ``each``: decoding is charged for each worker's payload."""
    origin: Origin = "extrapolated" if cost.extrapolated else "measured"
    decode_s = cost.decode_s / codec.workers if each else cost.decode_s
    phases: tuple[tuple[Phase, float], ...] = (
        ("encode", cost.encode_s),
        ("between", cost.between_s),
        ("decode", decode_s),
    )
    return [Charge(codec.scheme, phase, work.units * seconds, origin) for phase, seconds in phases]


def message_cost(works: Iterable[Work], overhead: Overhead) -> tuple[float, float]:
    """Return what encoding and decoding a message take besides its units, in seconds, where that was measured."""
    if overhead.given:
        return 0.0, 0.0
    found = [found[0] for work in works if (found := find_codec(overhead.codecs, work.scheme, work.shape))]
    encode_s = max((codec.message_encode for codec in found), default=0.0)
    return encode_s, max((codec.message_decode for codec in found), default=0.0)


def _part(part: Scheme | Memory, work: Work, device: Device) -> list[Charge]:
    """Charge one part; what a memory does with what was received happens once, not for each payload."""
    passes = part.passes(work.shape)
    row = TABLE.get(part.name)
    elements = math.prod(work.shape)
    last: Phase = "receive" if isinstance(part, Memory) else "decode"
    phases: list[tuple[Phase, float, Published | None]] = [
        ("encode", passes.encode, row.encode if row else None),
        ("between", passes.between, None),
        (last, passes.decode, row.decode if row else None),
    ]
    charges = []
    for phase, count, published in phases:
        if count and row and published:
            seconds, origin = _published(published, row, elements, device)
        else:
            seconds, origin = _roofline(count, elements * work.itemsize, device)
        charges.append(Charge(part.name, phase, work.units * seconds, origin))
    return charges


def _published(cost: Published, row: Row, elements: int, device: Device) -> tuple[float, Origin]:
    """Return a published time of a unit, on another device in proportion to the memories' bandwidths.

    The figures are those of float32 values, and stand for others too.
    """
    ratio = DEVICES[row.device].memory / device.memory
    launch_s = device.kernel_launch if cost.n_log2_n is not None else 0.0
    return cost.seconds(elements) * ratio + launch_s, "published" if device.name == row.device else "scaled"


def _roofline(passes: float, unit_bytes: int, device: Device) -> tuple[float, Origin]:
    """Estimate a unit's time from the passes of a fused kernel over its values."""
    return device.compute_s(0, passes * unit_bytes, 1 if passes else 0), "roofline"
