"""Curvature: against Hessians that are written out, whole."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from gradwire.sim.tasks import make_task
from gradwire.sim.tasks.base import Split, Splits, Task
from gradwire.sim.training.curvature import EXAMPLES, TOLERANCE, largest_curvature, sample

GENERATOR = torch.Generator().manual_seed(3)


@dataclass(frozen=True)
class Squares(Task):
    """The mean squared distance of a model's outputs from targets."""

    metric = "loss"
    higher_is_better = False

    def splits(self) -> Splits:
        raise NotImplementedError

    def model(self) -> nn.Module:
        raise NotImplementedError

    def loss(self, model, batch: tuple[Tensor, ...]) -> Tensor:
        inputs, targets = batch
        return (model(inputs) - targets).square().mean()


def whole_hessian(task: Task, model: nn.Module, batch: tuple[Tensor, ...]) -> np.ndarray:
    """Return the Hessian [d, d] row by row, over all parameters end to end."""
    names, shapes = zip(*[(name, p.shape) for name, p in model.named_parameters()], strict=True)
    sizes = [shape.numel() for shape in shapes]

    def loss(vector: Tensor) -> Tensor:
        parts = {name: part.view(shape) for name, part, shape in zip(names, vector.split(sizes), shapes, strict=True)}
        return task.loss(lambda *inputs: functional_call(model, parts, inputs), batch)

    return hessian(loss, torch.cat([p.detach().reshape(-1) for p in model.parameters()])).numpy()


def network() -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    batch = tuple(torch.randn(12, n, dtype=torch.float64, generator=GENERATOR) for n in (4, 2))
    return model, batch


@pytest.mark.parametrize("seed", range(4))
def test_a_small_network(seed):
    model, batch = network()
    values = np.linalg.eigvalsh(whole_hessian(Squares(), model, batch))
    found = largest_curvature(Squares(), model, batch, seed)
    assert found.value == pytest.approx(np.abs(values).max(), rel=TOLERANCE)
    assert np.abs(np.abs(values) - found.value).min() <= found.error + 1e-12


def test_negative_curvature_counts_by_its_size():
    class Saddle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64))

        def forward(self, scale: Tensor) -> Tensor:
            return scale * ((self.x * self.x) @ torch.tensor([1.0, -3.0, 0.5], dtype=torch.float64))

    class Mean(Squares):
        def loss(self, model, batch):
            return model(*batch).mean()

    batch = (torch.ones(2, dtype=torch.float64),)
    assert largest_curvature(Mean(), Saddle(), batch, 0).value == pytest.approx(6.0, rel=TOLERANCE)


def test_logistic_regression_by_its_formula():
    """At w = 0 the Hessian is X^T X / (4 n) + regularisation, whose largest eigenvalue is the task's L."""
    task = make_task("logistic", {})
    model, split = task.model().double(), task.splits().train.to(dtype=torch.float64)
    found = largest_curvature(task, model, split.tensors, 0)
    assert found.value == pytest.approx(task.constants().smoothness, rel=1e-4)
    assert found.value <= task.constants().smoothness + found.error


def test_a_quadratic_has_its_own_at_every_point():
    task = make_task("quadratic", {"dimension": 30, "smoothness": 4.0})
    model, split = task.model().double(), task.splits().train.to(dtype=torch.float64)
    assert largest_curvature(task, model, split.take(slice(0, 10)), 1).value == pytest.approx(4.0, rel=TOLERANCE)


@pytest.mark.parametrize("size", [1, 2])
def test_few_parameters(size):
    model = nn.Linear(size, 1, bias=False).double()
    batch = torch.eye(size, dtype=torch.float64) * 3, torch.zeros(size, 1, dtype=torch.float64)
    assert largest_curvature(Squares(), model, batch, 0).value == pytest.approx(2 * 9 / size)


def test_what_is_linear_has_none_and_what_is_not_finite_is_not_known():
    class Linear(Squares):
        def loss(self, model, batch):
            return model(batch[0]).mean()

    model, batch = nn.Linear(4, 2).double(), (torch.ones(3, 4, dtype=torch.float64),)
    assert largest_curvature(Linear(), model, batch, 0) == (0.0, 0.0)
    with torch.no_grad():
        model.weight.fill_(float("inf"))
    assert np.isnan(largest_curvature(Squares(), model, (batch[0], torch.ones(3, 2)), 0)).all()


def test_gradients_that_wait_stay():
    model, batch = network()
    model[0].weight.grad = torch.full_like(model[0].weight, 7.0)
    largest_curvature(Squares(), model, batch, 0)
    assert bool((model[0].weight.grad == 7).all())
    assert model[2].weight.grad is None


def test_the_sample_is_the_same_at_every_step_and_has_no_example_twice():
    split = Split((torch.arange(1000.0),))
    (first,), (again,), (other,) = sample(split, 0), sample(split, 0), sample(split, 1)
    assert torch.equal(first, again)
    assert len(first.unique()) == EXAMPLES
    assert not torch.equal(first, other)
    assert len(sample(Split((torch.arange(5.0),)), 0)[0]) == 5
