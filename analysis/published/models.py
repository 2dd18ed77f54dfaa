"""What a published run computes: its tensors as they become ready, and how long a step takes without partners."""

import csv
from collections import defaultdict
from functools import lru_cache
from math import prod
from typing import NamedTuple

from ...compressors.base import Shape
from ...sim.models import load_model, model_workload
from ...sim.models.registry import MODELS
from ...sim.step.device import Device
from ...sim.step.workload import Layer, Workload
from .table import FOLDER, Run

FORWARD = 0.5
"""The forward pass over the backward pass, where only the latter was traced: it has half of the arithmetic."""


class Tensor(NamedTuple):
    """A gradient: name, shape, and which layer's backward pass completes it, counted from the model's last layer."""

    name: str
    shape: Shape
    ready: int

    @property
    def elements(self) -> int:
        """The number of values."""
        return prod(self.shape)


def tensors(model: str, work: Workload) -> tuple[Tensor, ...]:
    """Return a model's tensors, the first to become ready in front."""
    place = {name: i for i, layer in enumerate(reversed(work.layers)) for name in layer.parameters}
    shapes = dict(load_model(model).parameters()) if model in MODELS else _traced(model)[0]
    found = (Tensor(name, shape, place[name]) for name, shape in reversed(shapes.items()))
    return tuple(sorted(found, key=lambda tensor: tensor.ready))


def work_of(run: Run, alone_s: float, device: Device) -> Workload:
    """Return what a step of a run computes.

    Parameters
    ----------
    run : Run
        The measured times of its passes are used if it has them.
    alone_s : float
        Of a whole step on its own, else; it is spread over passes and layers as the model's published trace, or the
        roofline's estimate, has it.
    device : Device
        Prices the optimizer where its time was not measured.
    """
    own = _base(run.model, device)
    if run.forward_ms is not None and run.backward_ms is not None:
        optimizer_s = (run.optimizer_ms or 0.0) / 1e3
        return scaled(own, run.forward_ms / 1e3, run.backward_ms / 1e3, optimizer_s)
    passes_s = alone_s - own.optimizer_s
    backward_s = passes_s * own.backward_s / (own.forward_s + own.backward_s)
    return scaled(own, passes_s - backward_s, backward_s, own.optimizer_s)


def scaled(work: Workload, forward_s: float, backward_s: float, optimizer_s: float) -> Workload:
    """Return a workload whose passes take so long, in the same shares of the layers."""
    forward, backward = forward_s / work.forward_s, backward_s / work.backward_s
    layers = (
        Layer(layer.name, layer.parameters, layer.elements, layer.forward_s * forward, layer.backward_s * backward)
        for layer in work.layers
    )
    return Workload(tuple(layers), optimizer_s, work.source)


@lru_cache(maxsize=32)
def _base(model: str, device: Device) -> Workload:
    """Return a workload with the right shares of the layers, whatever its sum."""
    if model in MODELS:
        return model_workload(load_model(model), device, load_model(model).batch)
    _, times_s = _traced(model)
    layers = tuple(
        Layer(name, (name,), prod(shape), FORWARD * times_s[name], times_s[name])
        for name, shape in _traced(model)[0].items()
    )
    return Workload(layers, 0.0, "backward pass: traced")


@lru_cache(maxsize=1)
def _traces() -> dict[str, list[tuple[str, int, float]]]:
    """Return, by model, each tensor's name, size and share of the backward pass in seconds, in backward order."""
    traces: dict[str, list[tuple[str, int, float]]] = defaultdict(list)
    with (FOLDER / "tensors.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            traces[row["model"]].append((row["tensor"], int(row["elements"]), int(row["backward_us"]) * 1e-6))
    return dict(traces)


def _traced(model: str) -> tuple[dict[str, Shape], dict[str, float]]:
    """Return shapes in the order of the forward pass and times of a model that is not listed."""
    rows = _traces()[model]
    return {name: (size,) for name, size, _ in reversed(rows)}, {name: seconds for name, _, seconds in rows}
