"""Measured codecs: what encoding and decoding took on a machine, by size and density of a unit.

Between what was measured costs are interpolated, linearly in the logarithms of size, density and seconds. Beyond the
sizes they grow in proportion, or stay as they are for smaller ones, and are marked as extrapolated; so are densities
outside of those that were measured, which cost what the nearest one does.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from ...compressors.base import Shape
from ...compressors.spec import read_parameter, with_open
from ..units import Duration

_LEAST_S = 1e-9
"""What a time of 0 counts as in logarithms."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Table = tuple[tuple[Seconds, ...], ...]
_TABLES = ("encode_s", "between_s", "decode_s")


class UnitCost(NamedTuple):
    """What a unit costs, in seconds; ``extrapolated``: it is outside of what was measured."""

    encode_s: float
    between_s: float
    decode_s: float
    extrapolated: bool


class MeasuredCodec(BaseModel):
    """What a scheme costs on a worker, at some sizes and densities; see :func:`family` for its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Annotated[str, Field(description="text form, its density left open: ef(topk(density))")]
    dims: Annotated[Literal[1, 2], Field(description="1: units were vectors, 2: matrices")] = 1
    workers: Annotated[PositiveInt, Field(description="whose payloads were decoded, and who computed at the same time")]
    densities: Annotated[
        tuple[float, ...], Field(description="rising; none if the scheme has no density, or several")
    ] = ()
    sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1, description="values of a unit, rising")]
    encode_s: Annotated[Table, Field(description="of one unit: a row for each density, in it a number for each size")]
    between_s: Annotated[Table, Field(description="likewise, of all work between rounds")]
    decode_s: Annotated[Table, Field(description="likewise, of the payloads of all workers together")]
    message_encode: Annotated[Duration, Field(description="what encoding a message takes besides its units")] = 0.0
    message_decode: Annotated[Duration, Field(description="what decoding it takes besides")] = 0.0

    @field_validator("densities", "sizes")
    @classmethod
    def _rises(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in pairwise(values)):
            raise ValueError(f"{', '.join(map(str, values))}; allowed: rising numbers")
        return values

    @model_validator(mode="after")
    def _has_its_shape(self) -> "MeasuredCodec":
        rows = max(1, len(self.densities))
        for name in _TABLES:
            table = getattr(self, name)
            if len(table) != rows or any(len(row) != len(self.sizes) for row in table):
                raise ValueError(
                    f"{name} of {self.scheme}: allowed: {rows} rows (densities) of {len(self.sizes)} numbers (sizes)"
                )
        return self

    def cost(self, elements: int, density: float | None) -> UnitCost:
        """Return what a unit of so many values costs at a density."""
        lowest, highest = self.sizes[0], self.sizes[-1]
        size = min(max(elements, lowest), highest)
        beyond = elements / highest if elements > highest else 1.0
        outside = not lowest <= elements <= highest
        if self.densities and density is not None:
            outside = outside or not self.densities[0] <= density <= self.densities[-1]
        encode, between, decode = (beyond * self._at(getattr(self, name), size, density) for name in _TABLES)
        return UnitCost(encode, between, decode, outside)

    def _at(self, table: Table, size: int, density: float | None) -> float:
        """Interpolate a table; densities beyond its ends are its ends."""
        if not any(map(any, table)):
            return 0.0
        logs = np.log(np.maximum(table, _LEAST_S))
        by_density = [float(np.interp(math.log(size), np.log(self.sizes), row)) for row in logs]
        if not self.densities or density is None:
            return math.exp(by_density[0])
        return math.exp(float(np.interp(math.log(density), np.log(self.densities), by_density)))


def family(scheme: str) -> tuple[str, float | None]:
    """Return a scheme's text form with its density left open, and that density.

    Schemes without one, and those with several that differ, are families of their own.

    >>> family("ef(topk(density=0.05) | qsgd(bits=4))")
    ('ef(topk(density) | qsgd(bits=4))', 0.05)
    >>> family("qsgd(bits=4)")
    ('qsgd(bits=4)', None)
    """
    values = set(read_parameter(scheme, "density"))
    if len(values) != 1:
        return with_open(scheme, ()), None
    return with_open(scheme, ["density"]), float(values.pop())


def find_codec(codecs: tuple[MeasuredCodec, ...], scheme: str, shape: Shape) -> tuple[MeasuredCodec, UnitCost] | None:
    """Return what was measured of a scheme, and what a unit of a shape costs by that; None if nothing was.

    Where only units of the other kind, vectors or matrices, were measured, these stand for it, as extrapolated.
    """
    if not codecs:
        return None
    name, density = family(scheme)
    dims = 1 if len(shape) < 2 else 2
    own = sorted((codec for codec in codecs if codec.scheme == name), key=lambda codec: codec.dims != dims)
    if not own:
        return None
    cost = own[0].cost(math.prod(shape), density)
    return own[0], cost._replace(extrapolated=cost.extrapolated or own[0].dims != dims)
