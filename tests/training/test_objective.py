"""The whole objective: against one pass over all examples, however it is cut, and in evaluation mode."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradwire.sim.tasks import make_task
from gradwire.sim.tasks.base import Split, Splits
from gradwire.sim.tasks.classification import Classification
from gradwire.sim.training import objective
from gradwire.sim.training.objective import Objective, flat

LOGISTIC = make_task("logistic", {})


@dataclass(frozen=True)
class Noisy(Classification):
    """A network with dropout and batch normalisation."""

    def splits(self) -> Splits:
        return Splits(*(Split((s.tensors[0], (s.tensors[1] > 0).long())) for s in LOGISTIC.splits()))

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(31, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 2))


def at_once(task, model: nn.Module, split: Split) -> tuple[float, Tensor]:
    """Return value and gradient from one pass, in the reverse order of the parameters' definition."""
    loss = task.loss(model, split.tensors)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return loss.item(), torch.cat([g.reshape(-1) for g in reversed(gradients)])


@pytest.mark.parametrize("chunk", [1, 100, 454, 455, 1000])
@pytest.mark.parametrize("name", ["logistic", "network"])
def test_chunks_make_no_difference(name, chunk, monkeypatch):
    monkeypatch.setattr(objective, "_CHUNK", chunk)
    task = {"logistic": LOGISTIC, "network": Noisy()}[name]
    torch.manual_seed(1)
    model, twin = task.model().double(), task.model()
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    split = task.splits().train.to(dtype=torch.float64)
    whole = Objective(task, twin.double(), split, seed=0)
    whole.follow(model)
    found = whole.measure()
    value, gradient = at_once(task, model.eval(), split)
    assert found.loss == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-10, atol=1e-13)
    if name == "logistic":
        rows = torch.stack([at_once(task, model, Split(split.take(slice(i, i + 1))))[1] for i in range(len(split))])
        noise = (rows - rows.mean(0)).square().sum(1).mean()
        assert found.local.example_noise2 == pytest.approx(float(noise), rel=1e-10)
    assert whole.twin.training


def test_a_spread_that_is_small_beside_the_gradient_is_not_lost(monkeypatch):
    """Examples that differ in the tenth digit of their gradients."""
    monkeypatch.setattr(objective, "_CHUNK", 7)
    task = make_task("quadratic", {"dimension": 4, "examples": 40, "noise": 1e-7, "smoothness": 1e3})
    split = task.splits().train.to(dtype=torch.float64)
    found = Objective(task, task.model(), split, seed=0).measure()
    assert float(found.gradient.norm()) > 100
    assert found.local.example_noise2 == pytest.approx(1e-14, rel=1e-3)


def test_a_convex_task_is_measured_in_float64_at_float32_iterates():
    model = LOGISTIC.model()
    nn.init.normal_(model.weights, generator=torch.Generator().manual_seed(0))
    whole = Objective(LOGISTIC, LOGISTIC.model(), LOGISTIC.splits().train, seed=0)
    whole.follow(model)
    rows = np.prod(np.broadcast_arrays(*[t.numpy().reshape(455, -1) for t in LOGISTIC.splits().train.tensors]), axis=0)
    x = model.weights.detach().numpy().astype(np.float64)
    value = np.logaddexp(0, -rows.astype(np.float64) @ x).mean() + LOGISTIC.regularisation / 2 * x @ x
    assert whole.measure().loss == pytest.approx(value, rel=1e-13)
    assert model.weights.dtype == torch.float32


def test_flat_order_is_the_partitions():
    tensors = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([3.0])}
    assert flat(tensors).tolist() == [3.0, 1.0, 2.0]
    rows = {name: torch.stack([t, 10 * t]) for name, t in tensors.items()}
    assert flat(rows, 2).tolist() == [[3.0, 1.0, 2.0], [30.0, 10.0, 20.0]]
