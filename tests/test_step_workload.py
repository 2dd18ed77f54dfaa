"""Workloads: times given by the user, what completes a message, and times estimated from a model."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from gradwire.compressors.partition import partition
from gradwire.sim.step.analytic import analytic_workload
from gradwire.sim.step.device import DEVICES, Device, load_device
from gradwire.sim.step.workload import Layer, Workload, WorkloadTimes, ready_after

SHAPES = {"stem.weight": (4, 3), "stem.bias": (4,), "body.fc.weight": (5, 4), "head": (2, 5)}
TIMES = {
    "layers": [
        {"name": "stem", "forward": "1 ms", "backward": "2 ms"},
        {"name": "body", "forward": "3 ms", "backward": "5 ms"},
        {"name": "out", "parameters": ["head"], "forward": "7 ms", "backward": "11 ms"},
    ],
    "optimizer": "1 us",
}


def counting_device(peak="1 MFLOP/s", memory="1 MB/s", kernel_launch="0 s"):
    return Device(name="toy", peak=peak, efficiency=1, memory=memory, kernel_launch=kernel_launch)


ARITHMETIC = counting_device(memory="1000000 TB/s")
"""Only arithmetic counts: a microsecond an operation."""
MEMORY = counting_device(peak="1000000 PFLOP/s")
"""Only memory traffic counts: a microsecond a byte."""


# ------------------------------------------------------------------------------------------------------ given workloads


def test_times_are_taken_from_text():
    workload = WorkloadTimes.model_validate(TIMES).workload(SHAPES)
    assert workload.layers == (
        Layer("stem", ("stem.weight", "stem.bias"), 16, 1e-3, 2e-3),
        Layer("body", ("body.fc.weight",), 20, 3e-3, 5e-3),
        Layer("out", ("head",), 10, 7e-3, 11e-3),
    )
    assert (workload.forward_s, workload.backward_s, workload.optimizer_s) == (0.011, 0.018, 1e-6)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({**SHAPES, "extra": (1,)}, "no layer of the workload has the parameter extra"),
        ({"stem.weight": (4, 3), "body.fc.weight": (5, 4)}, "layer 'out': the model has no parameter head"),
    ],
)
def test_layers_and_parameters_must_match(shapes, message):
    with pytest.raises(ValueError, match=message):
        WorkloadTimes.model_validate(TIMES).workload(shapes)


def test_a_workload_is_checked():
    with pytest.raises(ValueError, match="more than one layer has the parameter a"):
        Workload((Layer("x", ("a",), 1, 0, 0), Layer("y", ("a", "b"), 2, 0, 0)), 0, "")
    with pytest.raises(ValueError, match="layer 'x', backward, takes -1 s"):
        Workload((Layer("x", ("a",), 1, 0, -1),), 0, "")
    with pytest.raises(ValueError, match="the optimizer takes nan s"):
        Workload((Layer("x", ("a",), 1, 0, 0),), math.nan, "")
    with pytest.raises(ValueError, match="at least one layer"):
        Workload((), 0, "")
    with pytest.raises(ValidationError, match="must be text with a unit"):
        WorkloadTimes.model_validate({**TIMES, "optimizer": 0.5})


def test_a_message_is_complete_with_the_earliest_of_its_layers():
    """Backward order is out, body, stem; the flat vector goes head, body.fc.weight, stem.bias, stem.weight."""
    workload = WorkloadTimes.model_validate(TIMES).workload(SHAPES)
    parameters = list(SHAPES.items())
    assert ready_after(partition(parameters, "layer", "layer"), workload) == (0, 1, 2, 2)
    assert ready_after(partition(parameters, "layer", "model"), workload) == (2,)
    buckets = partition(parameters, "layer", "bucket", bucket_bytes=80, first_bucket_bytes=40)
    assert [len(message) for message in buckets.messages] == [1, 1, 2]
    assert ready_after(buckets, workload) == (0, 1, 2)
    with pytest.raises(ValueError, match="no layer of the workload has the parameter other"):
        ready_after(partition([*parameters, ("other", (3,))]), workload)


# --------------------------------------------------------------------------------------------------- analytic workloads


class Net(nn.Module):
    """Two layers, an activation without parameters between and a scale that belongs to the model itself."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))
        self.second = nn.Linear(8, 6)  # defined before the first, used after it
        self.first = nn.Linear(4, 8, bias=False)
        self.relu = nn.ReLU()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor):
        hidden = self.norm(self.relu(self.first(x)))
        return self.second(hidden) * self.scale


BATCH = torch.ones(3, 4)


def run(module: nn.Module):
    return module(BATCH)


def seconds(workload: Workload):
    return {layer.name: round(layer.forward_s * 1e6, 3) for layer in workload.layers}


def test_layers_come_in_the_order_of_their_use_and_own_their_parameters():
    workload = analytic_workload(Net(), run, ARITHMETIC)
    assert [(layer.name, layer.parameters, layer.elements) for layer in workload.layers] == [
        ("Net", ("scale",), 6),
        ("first", ("first.weight",), 32),
        ("norm", ("norm.weight", "norm.bias"), 16),
        ("second", ("second.weight", "second.bias"), 54),
    ]


def test_arithmetic_is_counted_by_layer():
    """A product of 3 rows with a matrix of m x n takes 2 * 3 * m * n operations; torch counts no others."""
    workload = analytic_workload(Net(), run, ARITHMETIC)
    assert seconds(workload) == {"Net": 0, "first": 2 * 3 * 4 * 8, "norm": 0, "second": 2 * 3 * 8 * 6}
    assert [layer.backward_s for layer in workload.layers] == [2 * layer.forward_s for layer in workload.layers]


def test_memory_traffic_is_counted_by_layer():
    """Operations read inputs and write outputs, 4 bytes a value; an activation counts to the layer before it."""
    workload = analytic_workload(nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 6)), run, MEMORY)
    product = 3 * 4 + 4 * 8 + 3 * 8
    activation = 2 * 3 * 8
    with_bias = 6 + 3 * 8 + 8 * 6 + 3 * 6
    assert seconds(workload) == {"0": 4 * (product + activation), "2": 4 * with_bias}
    elements = 4 * 8 + 8 * 6 + 6
    assert workload.optimizer_s * 1e6 == pytest.approx(5 * 4 * elements)


def test_what_a_layer_does_around_its_parts_is_its_own():
    """The scale belongs to the model, so multiplying by it does too, though the latest layer is another."""
    of_layer = seconds(analytic_workload(Net(), run, MEMORY))
    assert of_layer["Net"] == 4 * (3 * 6 + 6 + 3 * 6)
    assert of_layer["second"] == 4 * (6 + 3 * 8 + 8 * 6 + 3 * 6)


def test_the_roofline_takes_the_slower_and_adds_launches():
    device = counting_device(peak="2 MFLOP/s", memory="1 MB/s", kernel_launch="1 ms")
    assert device.compute_s(flops=4e6, memory_bytes=1e6, kernels=3) == pytest.approx(2.003)
    assert device.compute_s(flops=1e6, memory_bytes=7e6, kernels=0) == pytest.approx(7.0)
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU())
    only_launches = counting_device("1000000 PFLOP/s", "1000000 TB/s", "1 ms")
    assert analytic_workload(model, run, only_launches).forward_s == pytest.approx(2e-3)  # a product and an activation


class Odd(nn.Module):
    """What runs before any layer, a tied layer, a layer that is never called, and a product in between."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor):
        x = x @ torch.ones(4, 4)
        y, _ = self.attention(x, x, x)
        return F.softmax(self.b(self.a(y)) @ y.transpose(-1, -2), -1)


def test_nothing_is_lost_or_counted_twice():
    model = Odd()
    workload = analytic_workload(model, lambda module: module(torch.ones(5, 3, 4)), ARITHMETIC)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(5, 3, 4))
    assert workload.forward_s * 1e6 == pytest.approx(counter.get_total_flops())
    assert [layer.name for layer in workload.layers] == ["attention", "attention.out_proj", "a", "b"]
    names = [name for layer in workload.layers for name in layer.parameters]
    assert names == [name for name, _ in model.named_parameters()]
    of_layer = seconds(workload)
    assert of_layer["attention.out_proj"] == 0
    assert of_layer["a"] == 2 * 15 * 4 * 4
    assert of_layer["b"] == 2 * 15 * 4 * 4 + 2 * 5 * 3 * 3 * 4  # and the product after it


def test_a_bare_vector_is_a_layer():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.x = nn.Parameter(torch.ones(10))

        def forward(self):
            return (self.x**2).sum()

    workload = analytic_workload(Bare(), lambda module: module(), MEMORY)
    (layer,) = workload.layers
    assert (layer.name, layer.parameters, layer.elements) == ("Bare", ("x",), 10)
    assert layer.forward_s * 1e6 == pytest.approx(4 * (20 + 11))


def test_the_model_is_left_as_it_was_and_meta_tensors_do():
    model = Net().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    workload = analytic_workload(model, run, load_device("v100"))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not model.training
    assert not model.first._forward_hooks
    batch = BATCH.to("meta")
    on_meta = analytic_workload(Net().to("meta"), lambda module: module(batch), load_device("v100"))
    assert on_meta == workload
    with pytest.raises(ValueError, match="no parameters"):
        analytic_workload(nn.ReLU(), print, ARITHMETIC)


def test_resnet_50_takes_as_long_as_published():
    """PyTorch, benchmarks/distributed/ddp/README.md: 97 ms a step of 32 images on a V100; no figure that was fitted."""

    def images(module: nn.Module):
        return F.cross_entropy(module(torch.empty(32, 3, 224, 224)), torch.empty(32, dtype=torch.int64))

    with torch.device("meta"):
        workload = analytic_workload(resnet_50(), images, load_device("v100"))
    assert sum(layer.elements for layer in workload.layers) == 25_557_032
    assert workload.forward_s + workload.backward_s + workload.optimizer_s == pytest.approx(97e-3, rel=0.03)


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride: int):
        super().__init__()
        outputs = 4 * width
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        shrink = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if inputs == outputs else shrink

    def forward(self, x: Tensor):
        return F.relu_(self.layers(x) + self.shortcut(x))


def resnet_50():
    blocks: list[nn.Module] = []
    inputs = 64
    for depth, width in zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True):
        for i in range(depth):
            blocks.append(Bottleneck(inputs, width, 2 if i == 0 and width > 64 else 1))
            inputs = 4 * width
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


# -------------------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize("name", list(DEVICES))
def test_every_device_has_a_source_for_every_number(name: str):
    device = load_device(name)
    assert device.name == name
    assert all(len(text) > 10 and text != "given" for text in device.source.model_dump().values())
    assert Device.model_validate(device.model_dump()) == device


def test_an_unknown_device_is_refused_with_the_nearest_names():
    with pytest.raises(ValueError, match="device 'v10' is unknown; did you mean v100"):
        load_device("v10")
