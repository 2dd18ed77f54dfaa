"""Analytic workloads: a model's compute times from counted arithmetic and memory traffic, by the roofline."""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from .device import Device
from .workload import Layer, Workload

BACKWARD = 2
"""The backward pass does twice the work of the forward pass: gradients of the inputs and of the parameters."""

OPTIMIZER_PASSES = 5
"""SGD with momentum reads gradient, velocity and parameter, and writes velocity and parameter."""

_FREE = {torch.ops.aten._unsafe_view.default, torch.ops.aten.empty.memory_format}  # noqa: SLF001


class Counts(NamedTuple):
    """What some operations cost: floating-point operations, bytes read and written, kernels launched."""

    flops: int
    memory_bytes: int
    kernels: int

    def plus(self, other: "Counts") -> "Counts":
        """Return the sum."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: "Counts") -> "Counts":
        """Return the difference."""
        return Counts(*(a - b for a, b in zip(self, other, strict=True)))


class LayerCounts(NamedTuple):
    """A module that owns parameters: their names and sizes, and what its forward pass costs."""

    name: str
    parameters: dict[str, int]
    counts: Counts


def count_layers(module: nn.Module, run_forward: Callable[[nn.Module], object]) -> tuple[LayerCounts, ...]:
    """Count what a model's forward pass costs, layer by layer; the same on every device.

    A layer is a module that owns parameters itself. It is charged all that runs in it, operation by operation as torch
    runs them (nothing fused), and a kernel launch for each. What runs outside of any layer, such as an activation,
    counts to the latest layer before it, and to the first layer if there is none before.

    Parameters
    ----------
    module : nn.Module
        Left unchanged: a copy of it runs, in training mode.
    run_forward : callable
        Runs the module it is given on one worker's batch, which exists already, and computes the loss. If module and
        batch are on torch's ``meta`` device, nothing is computed, and the largest models take no time or memory.

    Returns
    -------
    tuple of LayerCounts
        In the order of their first use. Layers that are never called themselves, because the module around them uses
        their parameters, cost nothing and follow the module around them.

    Raises
    ------
    ValueError
        If the module has no parameters.
    """
    meter = _Meter(copy.deepcopy(module).train())
    if not meter.parameters:
        raise ValueError("the model has no parameters to train")
    counts = meter.run(run_forward)
    root = type(module).__name__
    return tuple(LayerCounts(name or root, meter.parameters[name], counts[name]) for name in meter.order())


def analytic_workload(module: nn.Module, run_forward: Callable[[nn.Module], object], device: Device) -> Workload:
    """Estimate a model's compute times on a device: the roofline of what :func:`count_layers` counts."""
    return estimated(count_layers(module, run_forward), device)


def estimated(layers: Sequence[LayerCounts], device: Device) -> Workload:
    """Return the roofline estimate of counted layers on a device."""
    elements = sum(sum(layer.parameters.values()) for layer in layers)
    optimizer_s = device.compute_s(0, OPTIMIZER_PASSES * elements * 4, 1)
    source = f"analytic: counted arithmetic and memory traffic on {device.name}"
    return Workload(tuple(_layer(*layer, device) for layer in layers), optimizer_s, source)


def _layer(name: str, parameters: dict[str, int], counts: Counts, device: Device) -> Layer:
    forward_s = device.compute_s(*counts)
    return Layer(name, tuple(parameters), sum(parameters.values()), forward_s, BACKWARD * forward_s)


class _Meter:
    """Attributes what runs to the layers of a module, by hooks around every module's forward."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.parameters = _owned(module)
        self.places = {name: place for place, (name, _) in enumerate(module.named_modules())}
        self.first_call: dict[str, int] = {}
        self.running: list[str] = []
        self.latest: str | None = None
        self.charged: dict[str | None, Counts] = defaultdict(lambda: Counts(0, 0, 0))
        self.settled = Counts(0, 0, 0)
        self.flops = FlopCounterMode(display=False)
        self.traffic = _Traffic()

    def run(self, run_forward: Callable[[nn.Module], object]) -> dict[str | None, Counts]:
        """Run one forward pass; return what it costs in each layer."""
        for name, module in self.module.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self._enter(name))
            module.register_forward_hook(lambda *_: self._leave())
        with torch.no_grad(), self.traffic, self.flops:
            run_forward(self.module)
        self._settle()
        first = self.order()[0]
        self.charged[first] = self.charged[first].plus(self.charged.pop(None, Counts(0, 0, 0)))
        return self.charged

    def order(self) -> list[str]:
        """Return the layers in the order of their first call."""
        return sorted(self.parameters, key=lambda name: (self._called(name), self.places[name]))

    def _called(self, name: str) -> int:
        """Return when a module was first called, or else the nearest module around it."""
        while name and name not in self.first_call:
            name = name.rpartition(".")[0]
        return self.first_call.get(name, -1)

    def _enter(self, name: str) -> None:
        self._settle()
        self.first_call.setdefault(name, len(self.first_call))
        self.running.append(name)
        if name in self.parameters:
            self.latest = name

    def _leave(self) -> None:
        self._settle()
        self.running.pop()

    def _settle(self) -> None:
        """Charge what ran since the last call to the layer that is running, or to the latest one."""
        total = Counts(self.flops.get_total_flops(), self.traffic.memory_bytes, self.traffic.kernels)
        inside = self.running[-1] if self.running else None
        layer = inside if inside in self.parameters else self.latest
        self.charged[layer] = self.charged[layer].plus(total.minus(self.settled))
        self.settled = total


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that operations read and write, and the kernels they launch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.memory_bytes = 0
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not (func.is_view or func in _FREE):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.memory_bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            self.kernels += 1
        return result


def _owned(module: nn.Module) -> dict[str, dict[str, int]]:
    """Return, for each module that owns parameters, their full names and numbers of values; shared ones once."""
    layers: dict[str, dict[str, int]] = {}
    for full_name, parameter in module.named_parameters():
        layers.setdefault(full_name.rpartition(".")[0], {})[full_name] = math.prod(parameter.shape)
    return layers
