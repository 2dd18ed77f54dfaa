"""The grid of a sweep: an experiment with axes, and the experiment at each of its points."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from ...compressors.errors import InputError
from ...compressors.spec import parse_scheme, with_open, with_parameter
from ...sim.cluster.cluster import unknown_name
from ...sim.experiment import (
    EXPERIMENTS,
    Experiment,
    preset_text,
    read_data,
    set_key,
    set_value,
    validate_experiment,
)
from ...sim.units import unit_of
from ..comparison import is_uncompressed
from .axes import NAMES, Axis, Value, read_axes

_PRESETS = files("gradwire.analysis.sweep") / "presets"
SWEEPS: tuple[str, ...] = tuple(
    sorted(entry.name.removesuffix(".toml") for entry in _PRESETS.iterdir() if entry.name.endswith(".toml"))
)
"""The names of the shipped sweeps."""

AT_ONCE = {
    "cluster.bandwidth": "bandwidth_bps",
    "cluster.latency": "latency_s",
    "cluster.launch": "launch_s",
    "overhead.factor": "factor",
}
"""Keys of which the closed form takes many values at once, and which of its numbers they are."""

Index = tuple[int, ...]
_CLUSTER = {"preset": "ethernet-1g"}
"""What an experiment has where it says nothing of its cluster."""


@dataclass(frozen=True)
class Grid:
    """An experiment with axes.

    Attributes
    ----------
    data : dict
        The experiment as a file holds it, without the axes.
    axes : tuple of Axis
    schemes : tuple of str
        Canonical text forms, before axes change their parameters.
    labels : tuple of str
        The same with the parameters left open that are axes.
    """

    data: dict[str, Any]
    axes: tuple[Axis, ...]
    schemes: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values each axis has."""
        return tuple(len(axis.values) for axis in self.axes)

    def axis(self, name: str) -> Axis | None:
        """Return the axis of a name, if there is one."""
        return next((axis for axis in self.axes if axis.name == name), None)

    def experiment(self, index: Index) -> Experiment:
        """Return the experiment at a point; its schemes are in the order of the labels.

        Raises
        ------
        InputError
            A line for each fault, which says at which point it is.
        """
        values = [axis.values[i] for axis, i in zip(self.axes, index, strict=True)]
        data = copy.deepcopy(self.data)
        schemes = list(self.schemes)
        for axis, value in zip(self.axes, values, strict=True):
            if axis.parameter is not None:
                schemes = [_changed(text, axis, value) for text in schemes]
            else:
                set_value(data, axis.key, value, f"axes.{axis.name}")
        data["schemes"] = schemes
        try:
            return validate_experiment(data)
        except InputError as error:
            point = ", ".join(f"{axis.name} = {value!r}" for axis, value in zip(self.axes, values, strict=True))
            raise InputError("\n".join(f"at {point}: {line}" for line in str(error).splitlines())) from error

    def indices(self, varied: Sequence[int]) -> Iterator[Index]:
        """Yield the points at which only these axes vary, by their positions; the others have their first value."""
        yield from product(*(range(n) if i in varied else range(1) for i, n in enumerate(self.shape)))

    @cached_property
    def first(self) -> Experiment:
        """The experiment at the first value of every axis."""
        return self.experiment((0,) * len(self.axes))

    def coordinate(self, position: int) -> tuple[list[Value], str]:
        """Return an axis's values as numbers in SI units where they are numbers, and the unit; "" for texts."""
        axis = self.axes[position]
        if axis.parameter is not None:
            return _column(list(axis.values), "1")
        found: list[Value] = []
        units = set()
        for index in self.indices([position]):
            value = _looked_up(self.experiment(index), axis.key)
            written = axis.values[index[position]]
            if isinstance(written, str) and isinstance(value, int | float):
                units.add(unit_of(written, value))
            found.append(value if isinstance(value, int | float) else str(written))
        return _column(found, units.pop() or "1" if len(units) == 1 else "1")


def load_grid(
    source: str, overrides: Sequence[str] = (), schemes: Sequence[str] = (), axes: Sequence[str] = ()
) -> Grid:
    """Read a sweep.

    Parameters
    ----------
    source : str
        A TOML file, an experiment with a section ``axes``, or the name of a shipped sweep or experiment.
    overrides : sequence of str
        ``key=value``, as in :func:`gradwire.sim.experiment.load_experiment`.
    schemes : sequence of str
        In place of the file's, if any are given.
    axes : sequence of str
        ``name=value``: axes besides the file's, or in place of those of the same name.

    Raises
    ------
    InputError
        One line for each fault.
    """
    shipped = None
    if source in (*SWEEPS, *EXPERIMENTS) or not (Path(source).suffix or Path(source).exists()):
        shipped = shipped_text(source)
    data = read_data(source, overrides, shipped)
    table = data.pop("axes", {})
    if not isinstance(table, dict):
        raise InputError(f"axes = {table!r}: write a section [axes], such as bandwidth = ['1 Gbit/s', '10 Gbit/s']")
    for axis in axes:
        set_key(table, axis, "--axis", "bandwidth=['1 Gbit/s', '10 Gbit/s']")
    return make_grid({**data, "schemes": list(schemes)} if schemes else data, table)


def make_grid(data: Mapping[str, Any], axes: object) -> Grid:
    """Return the grid that an experiment's data and the section ``axes`` describe; raises as :func:`load_grid` does."""
    read = read_axes(axes)
    data = {"cluster": _CLUSTER, **data}  # a key of the cluster may be an axis where the section is left out
    base = validate_experiment({**data})
    if base.training.record != "none" or any(axis.key == "training.record" for axis in read):
        raise InputError(
            "training.record: a sweep keeps results of trainings and no traces of them; record with gradwire run, once "
            "for each training.seed"
        )
    texts = tuple(str(parse_scheme(text)) for text in data["schemes"])
    for axis in read:
        if "." not in axis.key:
            close = get_close_matches(axis.name, NAMES, n=3, cutoff=0.5)
            hint = (
                f"did you mean {' or '.join(close)}?" if close else f"write section.key, or one of {', '.join(NAMES)}"
            )
            raise InputError(f"axes.{axis.name}: no key of an experiment; {hint}")
        if axis.parameter is not None and not any(_has(text, axis.parameter) for text in texts):
            raise InputError(f"axes.{axis.name}: none of the schemes has a parameter {axis.parameter}")
        if axis.parameter is not None and any(is_uncompressed(text) and _has(text, axis.parameter) for text in texts):
            raise InputError(
                f"axes.{axis.name}: uncompressed schemes have it, by which others are measured; list them in schemes"
            )
        if axis.key.startswith("tune."):
            raise InputError(f"axes.{axis.name}: what is tuned is the same everywhere; sweep training.learning_rate")
    if base.tune.learning_rates and any(axis.key == "training.learning_rate" for axis in read):
        raise InputError("axes: training.learning_rate is tuned by tune.learning_rates; give one of them")
    labels = tuple(with_open(text, [a.parameter for a in read if a.parameter is not None]) for text in texts)
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise InputError(f"schemes: {twice} stands there more than once, but for what is an axis")
    return Grid(dict(data), read, texts, labels)


def shipped_text(name: str) -> str:
    """Return the file of a shipped sweep or experiment, comments included; raises ``InputError`` if there is none."""
    if name in SWEEPS:
        return (_PRESETS / f"{name}.toml").read_text(encoding="utf-8")
    if name not in EXPERIMENTS:
        raise unknown_name("experiment or sweep", name, (*EXPERIMENTS, *SWEEPS))
    return preset_text(name)


def _changed(text: str, axis: Axis, value: Value) -> str:
    """Return a scheme with an axis's parameter set, or as it is if it has no such parameter."""
    assert axis.parameter is not None
    try:
        return with_parameter(text, axis.parameter, value) or text
    except InputError as error:
        raise InputError(f"axes.{axis.name} = {value!r}: {error}") from error


def _has(text: str, parameter: str) -> bool:
    """Return whether anything in a scheme's text has a parameter."""
    return with_open(text, [parameter]) != with_open(text, [])


def _looked_up(experiment: Experiment, key: str) -> object:
    """Return what an experiment holds under a dotted key."""
    value: Any = experiment
    for part in key.split("."):
        extra = getattr(value, "model_extra", None) or {}
        value = extra[part] if part in extra else value[int(part)] if isinstance(value, tuple) else getattr(value, part)
    return value


def _column(values: list[Value], unit: str) -> tuple[list[Value], str]:
    """Return values and their unit if they are numbers, and texts and no unit otherwise."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return values, unit
    return [str(value) for value in values], ""
