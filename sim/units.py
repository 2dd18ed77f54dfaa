"""Units: text such as "10 Gbit/s", "50 us" or "25 MiB" into SI numbers and back, without losing a bit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*(\S*)\s*")


@dataclass(frozen=True)
class Quantity:
    """A kind of quantity: its name, the units it may be given in, and those it is written in.

    Attributes
    ----------
    name : str
        As messages call it.
    units : mapping of str to Decimal
        Each unit in terms of the base unit, which is the one whose value is 1.
    written : tuple of str
        The units that :meth:`format` chooses from, the preferred first where two texts are equally short.
    """

    name: str
    units: Mapping[str, Decimal]
    written: tuple[str, ...]

    def parse(self, text: str) -> float:
        """Read a number with a unit.

        Parameters
        ----------
        text : str
            Such as ``"1.5 ms"``; the blank may be missing, case matters.

        Returns
        -------
        float
            In the base unit, correctly rounded.

        Raises
        ------
        ValueError
            If the text is no number with one of the units, or the number overflows.
        """
        return _finite(self, text, self.exact(text))

    def exact(self, text: str) -> Decimal:
        """Read a number with a unit as an exact decimal number; raises as :meth:`parse` does."""
        match = _NUMBER.fullmatch(text)
        if match is None:
            raise ValueError(f"{self.name} {text!r} is not a number with a unit; allowed: {', '.join(self.units)}")
        number, unit = match.groups()
        if unit not in self.units:
            problem = f"has the unknown unit {unit!r}" if unit else "has no unit"
            raise ValueError(f"{self.name} {text!r} {problem}; allowed: {', '.join(self.units)}")
        with localcontext(prec=60):
            return Decimal(number) * self.units[unit]

    def format(self, value: float) -> str:
        """Write a number as the shortest text that :meth:`parse` reads as exactly the same number.

        Python writes a float with as few digits as identify it, and no unit's division adds any that round.
        """
        with localcontext(prec=60):
            numbers = ((Decimal(str(value)) / self.units[unit]).normalize() for unit in self.written)
            forms = [f"{n:{form}} {u}" for n, u in zip(numbers, self.written, strict=True) for form in ("f", "e")]
        return min(forms, key=lambda text: (len(text), "e" in text, text.startswith("0.")))


def _finite(quantity: Quantity, text: str, exact: Decimal) -> float:
    """Turn an exact number into a float, unless it is too large to be one."""
    value = float(exact)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{quantity.name} {text!r} is too large")
    return value


def _scaled(prefixes: str, unit: str, factor: int = 1) -> dict[str, Decimal]:
    """Return a unit with decimal prefixes, ``-`` standing for none."""
    powers = {"p": -12, "n": -9, "u": -6, "m": -3, "-": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15}
    return {f"{p}{unit}".removeprefix("-"): Decimal(10) ** powers[p] * factor for p in prefixes.split()}


_BITS = _scaled("- k M G T", "bit/s")
_BYTES_A_SECOND = _scaled("- k M G T", "B/s")
_SECONDS = _scaled("- m u n p", "s")
_BINARY = {unit: Decimal(1024) ** power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1)}
_DECIMAL = {**_scaled("- k", "B"), "KB": Decimal(1000), **_scaled("M G T", "B")}

_BANDWIDTH = Quantity(
    "bandwidth", {**_BITS, **_scaled("- k M G T", "bps"), **_scaled("- k M G T", "B/s", factor=8)}, tuple(_BITS)[::-1]
)
_DURATION = Quantity("duration", {**_SECONDS, "min": Decimal(60)}, tuple(_SECONDS))
_SIZE = Quantity("size", {**_DECIMAL, **_BINARY}, ("B", *_BINARY, "kB", "MB", "GB", "TB"))
_BYTE_RATE = Quantity("memory bandwidth", _BYTES_A_SECOND, tuple(_BYTES_A_SECOND)[::-1])
_FLOP_RATE = Quantity("compute rate", _scaled("- M G T P", "FLOP/s"), ("TFLOP/s", "GFLOP/s", "MFLOP/s", "PFLOP/s"))


_QUANTITIES = (_BANDWIDTH, _DURATION, _SIZE, _BYTE_RATE, _FLOP_RATE)


def unit_of(text: str, value: float) -> str | None:
    """Return the SI unit of a number that a text with a unit was read as; None if it was not read as any.

    >>> unit_of("1.25 GB/s", 1e10), unit_of("1.25 GB/s", 1.25e9), unit_of("50 us", 5e-05), unit_of("ring", 0)
    ('bit/s', 'B/s', 's', None)
    """
    for quantity in _QUANTITIES:
        try:
            read = quantity.parse(text)
        except ValueError:
            continue
        if read == value:
            return next(unit for unit, factor in quantity.units.items() if factor == 1)
    return None


def between(first: str, last: str, points: int, logarithmic: bool) -> list[str]:
    """Return texts of quantities from one to another, evenly spaced, both ends as they are written.

    Those between are rounded to four significant digits.

    Raises
    ------
    ValueError
        If the two are no quantities of one kind, or a logarithmic range has an end at 0.

    Examples
    --------
    >>> between("100 Mbit/s", "10 Gbit/s", 3, logarithmic=True), between("0 s", "1 ms", 3, logarithmic=False)
    (['100 Mbit/s', '1 Gbit/s', '10 Gbit/s'], ['0 s', '500 us', '1 ms'])
    """
    for quantity in (_BYTE_RATE, *_QUANTITIES):  # what both bandwidths and memories may have is read as bytes
        try:
            ends = quantity.parse(first), quantity.parse(last)
        except ValueError:
            continue
        inner = spaced(*ends, points, logarithmic)[1:-1]
        return [first, *(quantity.format(value) for value in inner), last][:points]
    raise ValueError(f"from = {first!r} and to = {last!r} are no two quantities of one kind, such as 1 ms and 5 ms")


def spaced(first: float, last: float, points: int, logarithmic: bool) -> list[float]:
    """Return numbers from one to another, evenly spaced; those between are rounded to four significant digits.

    Raises
    ------
    ValueError
        If a logarithmic range has an end that is not above 0.

    Examples
    --------
    >>> spaced(0.001, 0.1, 3, logarithmic=True), spaced(0.0, 1.0, 3, logarithmic=False)
    ([0.001, 0.01, 0.1], [0.0, 0.5, 1.0])
    """
    if logarithmic and not (first > 0 and last > 0):
        raise ValueError(f"from = {first:g}, to = {last:g}: a logarithmic range needs ends above 0")
    shares = [i / (points - 1) for i in range(1, points - 1)]
    if logarithmic:
        inner = [first * (last / first) ** share for share in shares]
    else:
        inner = [first + (last - first) * share for share in shares]
    return [first, *(float(f"{value:.4g}") for value in inner), last][:points]


def parse_bandwidth(text: str) -> float:
    """Read a bandwidth: bits (``"10 Gbit/s"``, ``"10 Gbps"``) or bytes (``"1.25 GB/s"``) a second.

    Returns
    -------
    float
        In bit/s, above 0.

    Raises
    ------
    ValueError
        If the text is no bandwidth above 0; the message says what is allowed.

    Examples
    --------
    >>> parse_bandwidth("1.25 GB/s") == parse_bandwidth("10 Gbit/s") == 10e9
    True
    """
    return _above_zero(_BANDWIDTH, text)


def parse_duration(text: str) -> float:
    """Read a duration, ``"50 us"``, ``"1.5 ms"``, ``"2 s"``, ``"1 min"``, in seconds, at least 0.

    Raises
    ------
    ValueError
        If the text is no duration of at least 0; the message says what is allowed.
    """
    value = _DURATION.parse(text)
    if value < 0:
        raise ValueError(f"duration {text!r} is negative")
    return value


def parse_size(text: str) -> int:
    """Read a size, ``"25 MiB"`` (binary) or ``"25 MB"`` (decimal), in bytes, above 0.

    Raises
    ------
    ValueError
        If the text is no whole number of bytes above 0; the message says what is allowed.
    """
    if _SIZE.exact(text) <= 0:
        raise ValueError(f"size {text!r} must be above 0")
    return _whole_bytes(text)


def _whole_bytes(text: str) -> int:
    exact = _SIZE.exact(text)
    if exact < 0:
        raise ValueError(f"size {text!r} is negative")
    if exact != int(exact):
        raise ValueError(f"size {text!r} is not a whole number of bytes")
    return int(exact)


def format_bandwidth(bandwidth_bps: float) -> str:
    """Write a bandwidth in bit/s as the shortest text that reads back as the same number.

    >>> format_bandwidth(2.5e9)
    '2.5 Gbit/s'
    """
    return _BANDWIDTH.format(bandwidth_bps)


def format_duration(duration_s: float) -> str:
    """Write a duration in seconds as the shortest text that reads back as the same number.

    >>> format_duration(5e-05)
    '50 us'
    """
    return _DURATION.format(duration_s)


def format_size(size_bytes: int) -> str:
    """Write a size in bytes as the shortest text that reads back as the same number.

    >>> format_size(25 * 2**20)
    '25 MiB'
    """
    return _SIZE.format(size_bytes)


def _above_zero(quantity: Quantity, text: str) -> float:
    value = quantity.parse(text)
    if value <= 0:
        raise ValueError(f"{quantity.name} {text!r} must be above 0")
    return value


def _text(quantity: Quantity, value: object) -> str:
    """Refuse what is not text: a bare number would leave its unit to guess."""
    if not isinstance(value, str):
        units = ", ".join(quantity.units)
        raise ValueError(f"{quantity.name} {value!r} must be text with a unit; allowed: {units}")
    return value


Bandwidth = Annotated[
    float,
    BeforeValidator(lambda value: parse_bandwidth(_text(_BANDWIDTH, value))),
    PlainSerializer(format_bandwidth, return_type=str),
]
"""A field in bit/s, above 0, read from and written as text with a unit."""

Duration = Annotated[
    float,
    BeforeValidator(lambda value: parse_duration(_text(_DURATION, value))),
    PlainSerializer(format_duration, return_type=str),
]
"""A field in seconds, at least 0, read from and written as text with a unit."""

Size = Annotated[
    int,
    BeforeValidator(lambda value: parse_size(_text(_SIZE, value))),
    PlainSerializer(format_size, return_type=str),
]
"""A field in whole bytes, above 0, read from and written as text with a unit."""

SizeOrZero = Annotated[
    int,
    BeforeValidator(lambda value: _whole_bytes(_text(_SIZE, value))),
    PlainSerializer(format_size, return_type=str),
]
"""A field in whole bytes, at least 0, read from and written as text with a unit."""

ByteRate = Annotated[
    float,
    BeforeValidator(lambda value: _above_zero(_BYTE_RATE, _text(_BYTE_RATE, value))),
    PlainSerializer(_BYTE_RATE.format, return_type=str),
]
"""A field in bytes/s, above 0, such as a memory's ``"900 GB/s"``."""

FlopRate = Annotated[
    float,
    BeforeValidator(lambda value: _above_zero(_FLOP_RATE, _text(_FLOP_RATE, value))),
    PlainSerializer(_FLOP_RATE.format, return_type=str),
]
"""A field in FLOP/s, above 0, such as ``"15.7 TFLOP/s"``."""
