"""Smooth or not: found in the graph as the definitions of the operations have it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradwire.sim.tasks import make_task
from gradwire.sim.tasks.classification import Classification
from gradwire.sim.training.nature import nature_of
from gradwire.sim.training.smooth import rough_operations

BATCH = torch.linspace(-1, 1, 40).view(8, 5), torch.arange(8) % 3


class Cross(Classification):
    def splits(self):
        raise NotImplementedError

    def model(self):
        raise NotImplementedError


class Head(nn.Module):
    """Scores of a linear layer through a function."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(5, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x), x[:, :3])


def layered(module: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), module, nn.Linear(7, 3))


@pytest.mark.parametrize(
    "module",
    [
        nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Softplus(), nn.LogSigmoid(), nn.ELU(),
        nn.CELU(2.0), nn.Softmax(-1), nn.LayerNorm(7), nn.BatchNorm1d(7), nn.Dropout(0.5), nn.Tanhshrink(),
    ],
    ids=str,
)  # fmt: skip
def test_smooth_modules(module):
    assert rough_operations(Cross(), layered(module), BATCH) == ()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.ReLU(), "relu"), (nn.ReLU(inplace=True), "relu"), (nn.LeakyReLU(), "leaky_relu"), (nn.PReLU(), "prelu"),
        (nn.RReLU(), "rrelu"), (nn.ReLU6(), "hardtanh"), (nn.Hardtanh(), "hardtanh"), (nn.ELU(2.0), "elu"),
        (nn.SELU(), "elu"), (nn.Hardswish(), "hardswish"), (nn.Hardsigmoid(), "hardsigmoid"),
        (nn.Softshrink(), "softshrink"), (nn.Hardshrink(), "hardshrink"), (nn.Threshold(0.1, 0), "threshold"),
    ],
    ids=str,
)  # fmt: skip
def test_modules_with_a_kink_or_a_jump(module, name):
    assert rough_operations(Cross(), layered(module), BATCH) == (name,)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda h, _: h.abs(), ("abs",)),
        (torch.maximum, ("maximum",)),
        (lambda h, _: h.clamp(min=0), ("clamp",)),
        (lambda h, _: h - h.amax(-1, keepdim=True), ("amax",)),
        (lambda h, _: h - h.max(-1, keepdim=True).values, ("max",)),
        (lambda h, _: h.sort(-1).values, ("sort",)),
        (lambda h, _: h / h.norm(), ("linalg_vector_norm",)),
        (lambda h, _: h * (h > 0), ("gt",)),
        (lambda h, _: torch.where(h < 0, 0.1 * h, h).relu(), ("lt", "relu")),
        (lambda h, x: torch.where(x > 0, h, 0), ()),  # the data choose, not what is trained
        (lambda h, x: h * x.abs(), ()),
        (lambda h, _: h - h.logsumexp(-1, keepdim=True), ()),
        (lambda h, _: h * float(h.sum()), None),  # leaves the graph
    ],
)
def test_functions(function, found):
    assert rough_operations(Cross(), Head(function), BATCH) == found


def test_listed_tasks():
    for name, options, rough in (
        ("mnist", {"network": "mlp"}, ("relu",)),
        ("mnist", {"network": "cnn"}, ("relu", "max_pool2d")),
        ("logistic", {}, ()),  # its metric compares, its loss does not
        ("quadratic", {}, ()),
    ):
        task = make_task(name, options)
        nature = nature_of(task, task.model())
        assert nature.rough == rough
        assert nature.alone
        assert nature.nonnegative == (name == "mnist")
        assert (nature.constants is None) == (name == "mnist")


def test_buffers_and_the_model_stay():
    model = layered(nn.BatchNorm1d(7))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    rough_operations(Cross(), model, BATCH)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert model.training
