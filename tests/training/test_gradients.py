"""Stacked gradients: batched and looped computations agree with each other and with one worker at a time."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from gradwire.sim.tasks.base import Splits, Task
from gradwire.sim.training.dropout import KeyedDropout, dropout_key, key_dropout
from gradwire.sim.training.gradients import GradientError, StackedGradients

WORKERS, BATCH, FEATURES, CLASSES = 3, 8, 6, 4
RANKS = tuple(range(WORKERS))


@dataclass(frozen=True)
class Toy(Task):
    """Random numbers, only here for its loss."""

    metric = "accuracy"
    higher_is_better = True

    def splits(self) -> Splits:
        raise AssertionError("not needed")

    def model(self) -> nn.Module:
        raise AssertionError("not needed")

    def loss(self, model, batch: tuple[Tensor, ...]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])


def batches() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(WORKERS, BATCH, FEATURES, generator=generator, dtype=torch.float64)
    return x, torch.randint(CLASSES, (WORKERS, BATCH), generator=generator)


def build(make, mode, ranks=RANKS):
    torch.manual_seed(0)
    model = make().double().train()
    data = batches()
    return model, StackedGradients(Toy(), model, ranks, 7, mode, tuple(t[0] for t in data)), data


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 10), nn.Tanh(), nn.Linear(10, CLASSES))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, CLASSES))


def dropped() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 10), nn.Dropout(0.5), nn.Linear(10, CLASSES), nn.Dropout(0.25))


class Recurrent(nn.Module):
    """A GRU, which vmap cannot batch."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(2, 5, batch_first=True)
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cell(x.view(-1, 3, 2))[0][:, -1])


@pytest.mark.parametrize("make", [plain, normalised, dropped])
def test_batched_and_looped_agree(make):
    results = {}
    for mode in ("batched", "looped"):
        model, gradients, data = build(make, mode)
        assert gradients.mode == mode
        losses, rows = gradients(data, step=3)
        results[mode] = (losses, rows, {name: b.clone() for name, b in model.named_buffers() if "key" not in name})
    batched, looped = results["batched"], results["looped"]
    torch.testing.assert_close(batched[0], looped[0], rtol=1e-12, atol=1e-14)
    assert batched[1].keys() == looped[1].keys()
    for name in batched[1]:
        torch.testing.assert_close(batched[1][name], looped[1][name], rtol=1e-10, atol=1e-13)
    for name in batched[2]:
        torch.testing.assert_close(batched[2][name], looped[2][name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mode", ["batched", "looped"])
def test_each_row_is_that_workers_own_gradient(mode):
    model, gradients, data = build(plain, mode)
    rows = gradients(data, step=0).rows
    for worker in range(WORKERS):
        loss = F.cross_entropy(model(data[0][worker]), data[1][worker])
        expected = torch.autograd.grad(loss, list(model.parameters()))
        for (name, _), gradient in zip(model.named_parameters(), expected, strict=True):
            torch.testing.assert_close(rows[name][worker], gradient, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("mode", ["batched", "looped"])
def test_normalisation_uses_the_own_batch_and_statistics_follow_rank_0(mode):
    model, gradients, data = build(normalised, mode)
    reference, _, _ = build(normalised, "looped")
    rows = gradients(data, step=0).rows
    for worker in range(WORKERS):
        torch.manual_seed(0)
        alone = normalised().double().train()
        F.cross_entropy(alone(data[0][worker]), data[1][worker]).backward()
        torch.testing.assert_close(rows["0.weight"][worker], alone[0].weight.grad, rtol=1e-9, atol=1e-12)
    reference(data[0][0])
    torch.testing.assert_close(model[1].running_mean, reference[1].running_mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(model[1].running_var, reference[1].running_var, rtol=1e-12, atol=1e-14)
    assert int(model[1].num_batches_tracked) == 1


def test_chunks_change_nothing(monkeypatch):
    whole = build(normalised, "batched")[1](batches(), step=0)
    monkeypatch.setattr("gradwire.sim.training.gradients.MEMORY_BYTES", 1)
    model, gradients, data = build(normalised, "batched")
    parts = gradients(data, step=0)
    assert gradients._chunk == 1
    for name in whole.rows:
        torch.testing.assert_close(parts.rows[name], whole.rows[name], rtol=1e-11, atol=1e-14)
    assert int(model[1].num_batches_tracked) == 1


def test_auto_loops_what_cannot_be_batched_and_says_why():
    model, gradients, data = build(Recurrent, "auto")
    assert gradients.mode == "looped"
    assert gradients.reason
    rows = gradients(data, step=0).rows
    loss = F.cross_entropy(model(data[0][2]), data[1][2])
    expected = torch.autograd.grad(loss, model.out.weight)[0]
    torch.testing.assert_close(rows["out.weight"][2], expected, rtol=1e-11, atol=1e-14)
    with pytest.raises(GradientError, match="'batched'.*use 'looped' or 'auto'"):
        build(Recurrent, "batched")


def test_probing_leaves_no_trace():
    model, _, _ = build(normalised, "auto")
    assert int(model[1].num_batches_tracked) == 0
    assert all(parameter.grad is None for parameter in model.parameters())


class FunctionalDropout(nn.Module):
    """Draws from torch's global generator, which the loop seeds for each worker."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.line(x), 0.5, self.training)


def test_draws_from_the_global_generator_are_keyed_and_leave_it_alone():
    first = build(FunctionalDropout, "auto")[1](batches(), step=5)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    gradients = build(FunctionalDropout, "auto")[1]
    torch.set_rng_state(before)
    again = gradients(batches(), step=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.losses, again.losses)
    assert not torch.equal(first.losses, gradients(batches(), step=6).losses)


def test_dropout_masks_depend_on_seed_step_module_and_worker_alone():
    keys = {
        dropout_key(*key) for key in [(0, 0, "a", 0), (1, 0, "a", 0), (0, 1, "a", 0), (0, 0, "b", 0), (0, 0, "a", 1)]
    }
    assert len(keys) == 5
    assert all(-(2**63) <= key < 2**63 for key in keys)
    _, gradients, data = build(dropped, "batched")
    alone = build(dropped, "batched", ranks=(2,))[1]
    one = alone(tuple(t[2:] for t in data), step=3)
    torch.testing.assert_close(gradients(data, step=3).losses[2:], one.losses, rtol=1e-12, atol=0)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_probability_and_keeps_the_mean(probability):
    layer = KeyedDropout(probability, None).train()
    layer.key.fill_(dropout_key(0, 0, "", 0))
    size = 200_000
    y = layer(torch.ones(size, dtype=torch.float64))
    kept = (y != 0).double().mean().item()
    deviation = (probability * (1 - probability) / size) ** 0.5
    assert abs(kept - (1 - probability)) < 5 * deviation
    assert torch.allclose(y[y != 0], torch.tensor(1 / (1 - probability), dtype=torch.float64))
    layer.key.fill_(dropout_key(0, 1, "", 0))
    other = layer(torch.ones(size)) != 0
    agreement = (other == (y != 0)).double().mean().item()
    chance = probability**2 + (1 - probability) ** 2
    assert abs(agreement - chance) < 5 * (chance * (1 - chance) / size) ** 0.5 + 1e-3


def test_channel_dropout_drops_whole_channels():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Dropout2d(0.5))
    assert key_dropout(model) == ["1"]
    model[1].train().key.fill_(3)
    y = model[1](torch.ones(16, 8, 4, 4))
    per_channel = y.flatten(2)
    assert torch.equal(per_channel.amin(2), per_channel.amax(2))
    assert 0 < (per_channel[..., 0] == 0).double().mean() < 1


def test_dropout_is_off_in_evaluation_mode():
    layer = KeyedDropout(0.5, None).eval()
    x = torch.randn(5)
    assert layer(x) is x
    assert torch.equal(KeyedDropout(1.0, None).train()(x), torch.zeros(5))


def test_frozen_parameters_get_no_gradient():
    def frozen() -> nn.Module:
        model = plain()
        model[0].requires_grad_(False)
        return model

    for mode in ("batched", "looped"):
        _, gradients, data = build(frozen, mode)
        assert set(gradients(data, step=0).rows) == {"2.weight", "2.bias"}
