"""Compute times of listed models: published figures where there are any, and the roofline's shares of them.

A published step says how long a step takes in all. How the backward pass is spread over the layers is taken from a
published trace of when each gradient was ready, where there is one for the model, and otherwise from the roofline's
estimate; so is everything where nothing was published for the device.
"""

import csv
import math
import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from ...compressors.errors import InputError
from ..step.analytic import BACKWARD, LayerCounts, count_layers, estimated
from ..step.device import Device
from ..step.workload import Layer, Workload
from ..units import Duration
from .base import Model

_FOLDER = files("gradwire.sim.models") / "published"
Times = Literal["auto", "published", "analytic"]

TRACE_SOURCE = (
    "shares of the backward pass: when each gradient was ready on a V100, traces that come with Espresso "
    "(Wang et al., EuroSys 2023)"
)


class PublishedStep(BaseModel):
    """A measured step on one device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    batch: int = Field(gt=0)
    step: Duration | None = None
    forward: Duration | None = None
    backward: Duration | None = None
    source: str

    @model_validator(mode="after")
    def _has_one_form(self) -> "PublishedStep":
        if (self.step is None) == (self.forward is None or self.backward is None):
            raise ValueError("a published step has either step, or forward and backward")
        return self

    def passes_s(self, optimizer_s: float) -> tuple[float, float]:
        """Return the times of the forward and the backward pass.

        A step whose parts are not known is split as the arithmetic is, once what the optimizer takes is off.
        """
        if self.forward is not None and self.backward is not None:
            return self.forward, self.backward
        assert self.step is not None
        both = self.step - optimizer_s
        return both / (1 + BACKWARD), both * BACKWARD / (1 + BACKWARD)


@lru_cache(maxsize=1)
def published_steps() -> dict[str, tuple[PublishedStep, ...]]:
    """Return the published steps by model."""
    text = (_FOLDER / "steps.toml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, tuple[PublishedStep, ...]]).validate_python(tomllib.loads(text))


@lru_cache(maxsize=1)
def backward_traces() -> dict[str, dict[str, float]]:
    """Return, by model and layer, how long its gradients took in the traced backward pass, in seconds."""
    traces: dict[str, dict[str, float]] = {}
    with (_FOLDER / "backward_v100.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            traces.setdefault(row["model"], {})[row["layer"]] = int(row["us"]) * 1e-6
    return traces


def model_workload(model: Model, device: Device, batch: int, times: Times = "auto") -> Workload:
    """Return what a step of a listed model takes on a device.

    Parameters
    ----------
    model : Model
    device : Device
    batch : int
        Samples of one worker's batch. Published times of another batch are scaled in proportion.
    times : {"auto", "published", "analytic"}
        Published figures; the roofline; or the first where there is one.

    Raises
    ------
    InputError
        If nothing was published for this model and device, but it was asked for.
    """
    estimate = estimated(_counted(model, batch), device)
    nearest = nearest_step(model.name, device.name, batch)
    if times == "analytic" or (times == "auto" and nearest is None):
        return estimate
    if nearest is None:
        rows = published_steps().get(model.name, ())
        devices = ", ".join(dict.fromkeys(step.device for step in rows)) or "none"
        raise InputError(
            f"times = 'published': nothing is published for {model.name} on {device.name}; devices with figures: "
            f"{devices}; use 'analytic'"
        )
    return _scaled(model, estimate, nearest, batch)


def nearest_step(model: str, device: str, batch: int) -> PublishedStep | None:
    """Return the published step of a model on a device whose batch comes nearest, if there is any."""
    known = [step for step in published_steps().get(model, ()) if step.device == device]
    return min(known, key=lambda step: abs(math.log(step.batch / batch)), default=None)


@lru_cache(maxsize=64)
def _counted(model: Model, batch: int) -> tuple[LayerCounts, ...]:
    """Count a model's layers, once for all devices."""
    return count_layers(model.module(), lambda copied: model.run(copied, batch))


def _scaled(model: Model, estimate: Workload, step: PublishedStep, batch: int) -> Workload:
    """Spread a published step over the layers."""
    forward_s, backward_s = (seconds * batch / step.batch for seconds in step.passes_s(estimate.optimizer_s))
    trace = backward_traces().get(model.name)
    shares = [layer.backward_s for layer in estimate.layers]
    sources = [f"published: {step.source}"]
    if step.batch != batch:
        sources.append(f"measured at a batch of {step.batch}, scaled in proportion")
    if trace is not None:
        shares = [trace.get(layer.name, 0.0) for layer in estimate.layers]
        sources.append(TRACE_SOURCE)
    whole_forward, whole_backward = estimate.forward_s, math.fsum(shares)
    layers = tuple(
        Layer(
            layer.name,
            layer.parameters,
            layer.elements,
            forward_s * layer.forward_s / whole_forward,
            backward_s * share / whole_backward,
        )
        for layer, share in zip(estimate.layers, shares, strict=True)
    )
    return Workload(layers, estimate.optimizer_s, "; ".join(sources))
