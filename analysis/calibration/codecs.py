"""Calibrated codecs: from measured messages to what a unit costs by size and density, and how far off that is."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Literal, NamedTuple

import numpy as np

from ...compressors.errors import InputError
from ...sim.network.critical import FloatArray
from ...sim.step.measured import MeasuredCodec, family
from ...sim.units import format_duration
from ..measurement.records import CodecRecord, median
from .heldout import Errors

Phases = tuple[float, float, float]
"""Seconds of encoding, of work between rounds, and of decoding."""
_KEYS = ("encode_s", "between_s", "decode_s")
_LEAST_SHARE = 1e-3
"""Of a message's time that its units have at least: none of them costs nothing, which logarithms could not bear."""
_Place = tuple[float | None, int]
"""Density and size."""


class Kind(NamedTuple):
    """Which units of which schemes share a table.

    Attributes
    ----------
    scheme : str
        The family.
    dims : {1, 2}
        Vectors or matrices.
    workers : int
    """

    scheme: str
    dims: Literal[1, 2]
    workers: int

    def __str__(self) -> str:
        return f"{self.scheme}, {'vectors' if self.dims == 1 else 'matrices'}"


class CodecFit(NamedTuple):
    """Calibrated codecs, and the errors of held-out predictions by their names."""

    codecs: tuple[MeasuredCodec, ...]
    errors: dict[str, Errors]


def fit_codecs(records: Sequence[CodecRecord]) -> CodecFit:
    """Return what units of each scheme cost.

    Each inner size, and each inner density, is left out in turn and predicted from the others: those are the errors.

    Raises
    ------
    InputError
        If no size of a scheme was measured at all of its densities.
    """
    by_kind: dict[Kind, list[CodecRecord]] = defaultdict(list)
    for record in records:
        scheme, _ = family(record.scheme)
        by_kind[Kind(scheme, 1 if len(record.shape) < 2 else 2, record.workers)].append(record)
    codecs, errors = [], {}
    for kind, group in by_kind.items():
        besides = _message_s(group)
        table = _rectangle(kind, _unit_s(group, besides))
        codecs.append(_codec(kind, table, besides))
        differences = _held_out(kind, table, sum(besides))
        if len(differences):
            errors[str(kind)] = Errors.of(differences)
    return CodecFit(tuple(codecs), errors)


def _message_s(records: Iterable[CodecRecord]) -> Phases:
    """Return what a message takes besides its units, in each phase: what is left of it where it has none.

    A line is laid through messages of different numbers of the same units; the median over all units counts.
    """
    by_unit: dict[tuple[str, tuple[int, ...]], dict[int, Phases]] = defaultdict(dict)
    for record in records:
        by_unit[record.scheme, record.shape][record.units] = _medians(record)
    lefts = []
    for times in by_unit.values():
        if len(times) > 1:
            few, many = min(times), max(times)
            pairs = zip(times[few], times[many], strict=True)
            lefts.append([max(0.0, (many * short - few * long) / (many - few)) for short, long in pairs])
    if not lefts:
        return 0.0, 0.0, 0.0
    # No phase of the smallest message may be explained by this alone.
    least = np.min([_medians(record) for record in records], axis=0)
    encode, between, decode = np.minimum(np.median(lefts, axis=0), least).tolist()
    return encode, between, decode


def _medians(record: CodecRecord) -> Phases:
    encode, between, decode = (median(getattr(record, key)) for key in _KEYS)
    return encode, between, decode


def _unit_s(records: Iterable[CodecRecord], besides: Phases) -> dict[_Place, Phases]:
    """Return what one unit takes, by density and size; several records of a place are averaged by their median."""
    found: dict[_Place, list[list[float]]] = defaultdict(list)
    for record in records:
        _, density = family(record.scheme)
        of_units = zip(_medians(record), besides, strict=True)
        units = [max(_LEAST_SHARE * all_s, all_s - own_s) / record.units for all_s, own_s in of_units]
        found[density, prod(record.shape)].append(units)
    result = {}
    for place, rows in found.items():
        encode, between, decode = np.median(rows, axis=0).tolist()
        result[place] = (encode, between, decode)
    return result


def _rectangle(kind: Kind, found: Mapping[_Place, Phases]) -> dict[_Place, Phases]:
    """Keep the sizes that were measured at all densities."""
    densities = {density for density, _ in found}
    whole = {size for _, size in found if all((density, size) in found for density in densities)}
    if not whole:
        raise InputError(f"codecs: {kind}: no size was measured at all of its {len(densities)} densities")
    return {place: phases for place, phases in found.items() if place[1] in whole}


def _codec(kind: Kind, table: Mapping[_Place, Phases], besides: Phases = (0.0, 0.0, 0.0)) -> MeasuredCodec:
    """Return a table as the simulator reads it."""
    sizes = sorted({size for _, size in table})
    densities = sorted({density for density, _ in table if density is not None})
    rows: list[float | None] = [*densities] or [None]
    tables = {key: [[table[density, size][i] for size in sizes] for density in rows] for i, key in enumerate(_KEYS)}
    encode, between, decode = besides
    message = {"message_encode": format_duration(encode), "message_decode": format_duration(between + decode)}
    return MeasuredCodec.model_validate({**kind._asdict(), "densities": densities, "sizes": sizes, **tables, **message})


def _held_out(kind: Kind, table: Mapping[_Place, Phases], besides_s: float) -> FloatArray:
    """Return relative errors of messages of one unit, each from a table without its size, or without its density."""
    sizes = sorted({size for _, size in table})
    densities = sorted({density for density, _ in table if density is not None})
    errors = []
    for size in sizes[1:-1]:
        left = _codec(kind, {place: phases for place, phases in table.items() if place[1] != size})
        errors += [_error(left, place, phases, besides_s) for place, phases in table.items() if place[1] == size]
    for density in densities[1:-1]:
        left = _codec(kind, {place: phases for place, phases in table.items() if place[0] != density})
        errors += [_error(left, place, phases, besides_s) for place, phases in table.items() if place[0] == density]
    return np.array(errors)


def _error(codec: MeasuredCodec, place: _Place, phases: Phases, besides_s: float) -> float:
    density, size = place
    cost = codec.cost(size, density)
    measured_s = besides_s + sum(phases)
    return (besides_s + cost.encode_s + cost.between_s + cost.decode_s) / measured_s - 1 if measured_s else 0.0
