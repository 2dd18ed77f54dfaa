"""Axes: the keys of an experiment that a sweep varies, and the values that each takes."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...compressors.errors import InputError
from ...sim.faults import fault_lines
from ...sim.units import between, spaced

NAMES = {
    "density": "scheme.density",
    "cost": "overhead.factor",
    "bandwidth": "cluster.bandwidth",
    "latency": "cluster.latency",
    "launch": "cluster.launch",
    "workers": "training.workers",
    "seed": "training.seed",
}
"""Short names of the keys that are swept most."""
SCHEME = "scheme."
"""What the keys of the schemes' own parameters begin with."""
MOST_POINTS = 10_000_000
Value = str | int | float | bool


class Range(BaseModel):
    """Evenly spaced values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: Annotated[str | int | float, Field(alias="from", description="the first value")]
    last: Annotated[str | int | float, Field(alias="to", description="the last value")]
    points: Annotated[int, Field(strict=True, ge=2, le=100_000, description="how many values")]
    scale: Annotated[Literal["linear", "log"], Field(description="equal differences, or equal ratios")] = "linear"

    def values(self) -> tuple[Value, ...]:
        """Return the values; whole numbers stay whole, and none comes twice.

        Raises
        ------
        ValueError
            If the ends are not of one kind, or a logarithmic range begins at 0.
        """
        first, last, logarithmic = self.first, self.last, self.scale == "log"
        if isinstance(first, str) and isinstance(last, str):
            return tuple(dict.fromkeys(between(first, last, self.points, logarithmic)))
        if isinstance(first, str) or isinstance(last, str):
            raise ValueError(f"from = {first!r} and to = {last!r}: write both as numbers, or both with units")
        numbers = spaced(first, last, self.points, logarithmic)
        if isinstance(first, int) and isinstance(last, int):
            return tuple(dict.fromkeys(map(round, numbers)))
        return tuple(dict.fromkeys(map(float, numbers)))


@dataclass(frozen=True)
class Axis:
    """A key and its values.

    Attributes
    ----------
    name : str
        Its short name if it has one, otherwise the key.
    key : str
        Dotted, as ``training.batch_size``; ``scheme.density`` is the parameter ``density`` of every scheme that has it.
    values : tuple
        As they would stand in an experiment file.
    """

    name: str
    key: str
    values: tuple[Value, ...]

    @property
    def parameter(self) -> str | None:
        """The schemes' parameter that it varies, if it is one."""
        return self.key.removeprefix(SCHEME) if self.key.startswith(SCHEME) else None


def read_axes(table: object) -> tuple[Axis, ...]:
    """Read the section ``axes`` of a sweep's file.

    Parameters
    ----------
    table : dict
        Keys with lists of values, or with ranges: ``{from = 1, to = 100, points = 5, scale = "log"}``.

    Raises
    ------
    InputError
        One line that names the axis, the value and what is allowed.
    """
    if not isinstance(table, dict) or not table:
        raise InputError("axes: a sweep needs at least one axis, such as bandwidth = ['1 Gbit/s', '10 Gbit/s']")
    axes = [_axis(name, value) for name, value in _flat(table)]
    keys = [axis.key for axis in axes]
    twice = next((axis for axis in axes if keys.count(axis.key) > 1), None)
    if twice is not None:
        raise InputError(f"axes.{twice.name}: {twice.key} has two axes; give one of them")
    points = math.prod(len(axis.values) for axis in axes)
    if points > MOST_POINTS:
        raise InputError(f"axes: {points:,} points; allowed: at most {MOST_POINTS:,}")
    return tuple(axes)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names and values; TOML reads an unquoted ``training.batch_size`` as a table in a table."""
    for name, value in table.items():
        if isinstance(value, dict) and not {"from", "to", "points", "scale"} & value.keys():
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _axis(name: str, value: Any) -> Axis:
    short = {key: name for name, key in NAMES.items()}
    key = NAMES.get(name, name)
    return Axis(short.get(key, key), key, _values(f"axes.{name}", value))


def _values(where: str, value: Any) -> tuple[Value, ...]:
    """Return an axis's values."""
    if isinstance(value, dict):
        try:
            return Range.model_validate(value).values()
        except ValidationError as error:
            raise InputError("\n".join(f"{where}.{line}" for line in fault_lines(error.errors(), Range))) from error
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error
    if not isinstance(value, list):
        raise InputError(f"{where} = {value!r}: write a list of values, or {{from = ..., to = ..., points = ...}}")
    if not value:
        raise InputError(f"{where} = []: an axis needs at least one value")
    if strange := next((v for v in value if not isinstance(v, str | int | float)), None):
        raise InputError(f"{where}: {strange!r} is neither a number nor a text")
    if any(value.count(v) > 1 for v in value):
        raise InputError(f"{where} = {value}: a value comes twice")
    return tuple(value)
