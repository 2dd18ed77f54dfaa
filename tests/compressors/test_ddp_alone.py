"""The hook for DistributedDataParallel in a group of one process: what needs no other worker to be seen."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradwire.compressors import ddp_hook
from gradwire.compressors.ddp import DDPHook
from gradwire.compressors.optimizers import OneBitAdam


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def model_of(**options: Any) -> DistributedDataParallel:
    torch.manual_seed(0)
    return DistributedDataParallel(nn.Linear(4, 3), **options)


def scaler_of(scale: float) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(device="cpu", init_scale=scale, growth_interval=10**6)


Make = Callable[..., DDPHook]


@pytest.fixture
def made() -> Iterator[Make]:
    """``ddp_hook``, registered; its threads end with the test."""
    hooks: list[DDPHook] = []

    def make(text: str, model: DistributedDataParallel, optimizer: torch.optim.Optimizer, **options: Any) -> DDPHook:
        hooks.append(ddp_hook(text, model, optimizer, **options))
        model.register_comm_hook(None, hooks[-1])
        return hooks[-1]

    yield make
    for hook in hooks:
        hook.close()


def means(made: Make, text: str, scales: list[float] | None, unit: str = "layer") -> list[Tensor]:
    """Return the exchanged gradients of some steps, without the loss scale, which is given for each step."""
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
    scaler = None if scales is None else scaler_of(scales[0])
    made(text, model, optimizer, unit=unit, scaler=scaler)
    found = []
    for step in range(4):
        optimizer.zero_grad()
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        loss = model(x).square().sum()
        if scaler is not None and scales is not None:
            scaler.update(scales[step]) if step else None
            loss = scaler.scale(loss)
        loss.backward()
        scale = 1.0 if scales is None else scales[step]
        found.append(torch.cat([p.grad.reshape(-1) / scale for p in model.parameters()]))
    return found


@pytest.mark.parametrize(
    "text",
    [
        "ef(topk(density=0.3))",
        "ef(topk(density=0.3), units=gradient)",
        "ef21(topk(density=0.3))",
        "momentum(topk(density=0.3))",
        "momentum(topk(density=0.3), clip=0.5)",
        "dgc(density=0.3)",
        "signum",
        "threshold(value=1)",
    ],
)
@pytest.mark.parametrize("unit", ["layer", "model"])
def test_regression_a_loss_scale_that_changes_changes_nothing(text, unit, made):
    """Scales are powers of two, so that not a bit differs."""
    if text == "signum":  # what comes back has no scale to be freed of but the scaler's
        assert means(made, text, None, unit)[0].abs().max() == 1
    plain, scaled = means(made, text, None, unit), means(made, text, [2.0**8, 2.0**4, 2.0**12, 2.0**12], unit)
    for one, other in zip(plain, scaled, strict=True):
        assert one.abs().max() > 0
        assert torch.equal(one, other)


def test_a_gradient_that_overflows_under_the_scale_still_reaches_the_scaler(made):
    model = model_of()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), scaler_of(2.0**100)
    hook = made("ef(topk(density=0.3))", model, optimizer, scaler=scaler, on_nonfinite="pass")
    before = model.module.weight.detach().clone()
    scaler.scale(model(torch.full((2, 4), 1e30)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**99
    assert hook.skipped == 1
    assert torch.equal(model.module.weight, before)


def test_regression_a_step_that_is_undone_does_not_bring_the_freeze_closer(made):
    """Step 1 of four overflows and goes to the scaler; the optimizer has counted three steps at the end, and the hook."""
    model = model_of()
    optimizer, scaler = OneBitAdam(model.parameters(), freeze_step=3), scaler_of(2.0**60)
    hook = made("onebitadam(freeze_step=3)", model, optimizer, scaler=scaler, on_nonfinite="pass")
    for step in range(4):
        optimizer.zero_grad()
        x = torch.full((2, 4), 1e30 if step == 1 else 1.0)
        scaler.scale(model(x).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert hook.step == optimizer.state[model.module.weight]["step"]
    assert hook.step == 3


def test_a_step_of_zeros_counts_as_the_optimizer_counts_it(made):
    model = model_of()
    optimizer = OneBitAdam(model.parameters(), freeze_step=3)
    hook = made("onebitadam(freeze_step=3)", model, optimizer, on_nonfinite="skip")
    model(torch.full((2, 4), torch.inf)).sum().backward()
    optimizer.step()
    assert hook.step == optimizer.state[model.module.weight]["step"] == 1


def test_regression_1_bit_adams_momentum_survives_the_change_of_buckets(made):
    """After the first step each parameter is a bucket, of its own shape; the momentum goes on all the same."""
    found = []
    for unit in ("bucket", "layer"):
        model = model_of(bucket_cap_mb=1e-6)
        optimizer = OneBitAdam(model.parameters(), freeze_step=3)
        hook = made("onebitadam(freeze_step=3)", model, optimizer, unit=unit)
        for step in range(3):
            optimizer.zero_grad()
            model(torch.randn(5, 4, generator=torch.Generator().manual_seed(step))).square().sum().backward()
            optimizer.step()
        parts = {
            tuple(entry["parameters"]): entry["state"]["shared"]["momentum"] for entry in hook.state_dict()["states"]
        }
        found.append(parts)
    buckets, layers = found
    assert buckets.keys() == layers.keys() == {("weight",), ("bias",)}
    for key, momentum in layers.items():
        assert torch.equal(buckets[key], momentum)
