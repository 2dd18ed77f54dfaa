"""The workload: the layers of a model in forward order, and how long each takes on a worker.

Where the times come from is another matter: :func:`gradwire.sim.step.analytic.analytic_workload` estimates them,
:class:`WorkloadTimes` takes them from the user.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pydantic import BaseModel, ConfigDict

from ...compressors.base import Shape
from ...compressors.errors import InputError
from ...compressors.partition import Partition
from ..units import Duration


@dataclass(frozen=True)
class Layer:
    """A module that owns parameters, with the time of one step's batch on one worker.

    Attributes
    ----------
    name : str
    parameters : tuple of str
        The names of the parameters whose gradients its backward pass completes.
    elements : int
        How many values these parameters have.
    forward_s, backward_s : float
    """

    name: str
    parameters: tuple[str, ...]
    elements: int
    forward_s: float
    backward_s: float


@dataclass(frozen=True)
class Workload:
    """What a worker computes in one step, compression aside.

    Attributes
    ----------
    layers : tuple of Layer
        In forward order; the backward pass goes through them from the last to the first.
    optimizer_s : float
        Of the optimizer's update of all parameters.
    source : str
        Where the times come from.

    Raises
    ------
    InputError
        If there is no layer, a time is negative or not finite, or two layers have the same parameter.
    """

    layers: tuple[Layer, ...]
    optimizer_s: float
    source: str

    def __post_init__(self) -> None:
        if not self.layers:
            raise InputError("a workload needs at least one layer")
        for what, seconds in self._times():
            if not (math.isfinite(seconds) and seconds >= 0):
                raise InputError(f"{what} takes {seconds} s; a time must be finite and at least 0")
        names = [name for layer in self.layers for name in layer.parameters]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise InputError(f"more than one layer has the parameter {', '.join(twice)}")

    def to_json(self) -> str:
        """Write the workload as JSON text, exactly."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Workload":
        """Read what :meth:`to_json` wrote."""
        data = json.loads(text)
        layers = tuple(Layer(**{**layer, "parameters": tuple(layer["parameters"])}) for layer in data["layers"])
        return cls(layers, data["optimizer_s"], data["source"])

    def _times(self) -> list[tuple[str, float]]:
        times = [("the optimizer", self.optimizer_s)]
        for layer in self.layers:
            times += [(f"layer {layer.name!r}, forward,", layer.forward_s)]
            times += [(f"layer {layer.name!r}, backward,", layer.backward_s)]
        return times

    @property
    def forward_s(self) -> float:
        """The time of the whole forward pass."""
        return math.fsum(layer.forward_s for layer in self.layers)

    @property
    def backward_s(self) -> float:
        """The time of the whole backward pass."""
        return math.fsum(layer.backward_s for layer in self.layers)


class LayerTimes(BaseModel):
    """A layer's times as the user gives them.

    Attributes
    ----------
    name : str
    forward, backward : float, s
    parameters : tuple of str, optional
        By default those of the module called ``name``: all whose names start with ``name.``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    forward: Duration
    backward: Duration
    parameters: tuple[str, ...] | None = None

    def names(self, known: Mapping[str, Shape]) -> tuple[str, ...]:
        """Return the names of this layer's parameters, given all that there are."""
        if self.parameters is not None:
            return self.parameters
        return tuple(name for name in known if name.startswith(f"{self.name}."))


class WorkloadTimes(BaseModel):
    """A workload as the user gives it, in text with units: measured or published times.

    Examples
    --------
    >>> times = WorkloadTimes.model_validate({
    ...     "layers": [{"name": "fc1", "forward": "1 ms", "backward": "2 ms"},
    ...                {"name": "fc2", "forward": "0.5 ms", "backward": "1 ms"}],
    ...     "optimizer": "200 us", "source": "measured"})
    >>> workload = times.workload({"fc1.weight": (64, 32), "fc1.bias": (64,), "fc2.weight": (10, 64)})
    >>> workload.layers[0].parameters, workload.backward_s
    (('fc1.weight', 'fc1.bias'), 0.003)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[LayerTimes, ...]
    optimizer: Duration = 0.0
    source: str = "given"

    def workload(self, shapes: Mapping[str, Shape]) -> Workload:
        """Return the workload of a model with these parameters.

        Parameters
        ----------
        shapes : mapping of str to shape
            All the model's parameters.

        Raises
        ------
        InputError
            If a layer names a parameter that the model does not have, or a parameter is in no layer or in several.
        """
        layers = tuple(self._layer(layer, shapes) for layer in self.layers)
        missing = shapes.keys() - {name for layer in layers for name in layer.parameters}
        if missing:
            raise InputError(f"no layer of the workload has the parameter {', '.join(sorted(missing))}")
        return Workload(layers, self.optimizer, self.source)

    @staticmethod
    def _layer(times: LayerTimes, shapes: Mapping[str, Shape]) -> Layer:
        names = times.names(shapes)
        unknown = [name for name in names if name not in shapes]
        if unknown:
            raise InputError(f"layer {times.name!r}: the model has no parameter {', '.join(unknown)}")
        elements = sum(math.prod(shapes[name]) for name in names)
        return Layer(times.name, names, elements, times.forward, times.backward)


def ready_after(partition: Partition, workload: Workload) -> tuple[int, ...]:
    """Return, for each message, which layer's backward pass completes it.

    Returns
    -------
    tuple of int
        Positions in the order of the backward pass: 0 is the model's last layer.

    Raises
    ------
    InputError
        If no layer of the workload has one of the partition's parameters.
    """
    place = {name: i for i, layer in enumerate(reversed(workload.layers)) for name in layer.parameters}
    missing = [parameter.name for parameter in partition.parameters if parameter.name not in place]
    if missing:
        raise InputError(f"no layer of the workload has the parameter {', '.join(missing)}")
    return tuple(
        max(place[parameter.name] for unit in message for parameter in unit.parameters)
        for message in partition.messages
    )
