"""The hook for DistributedDataParallel in a group of one process: what needs no other worker to be seen."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradwire.compressors import ddp_hook
from gradwire.compressors.base import SchemeError, Turn
from gradwire.compressors.ddp import DDPHook, HookError
from gradwire.compressors.drivers import Item, StackedDriver
from gradwire.compressors.optimizers import OneBitAdam
from gradwire.compressors.spec import parse_scheme


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
    """Step 1 of four overflows and goes to the scaler; at the end three steps are counted."""
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


# ------------------------------------------------------------------------------------------------- mistakes of users


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seed": -1}, "seed = -1 is not allowed: it must be a whole number from 0 to 2**64 - 1"),
        ({"seed": 2**64}, f"seed = {2**64} is not allowed: it must be a whole number from 0 to 2**64 - 1"),
        ({"seed": 1.5}, "seed = 1.5 is not allowed: it must be a whole number from 0 to 2**64 - 1"),
        ({"seed": "7"}, "seed = '7' is not allowed: it must be a whole number from 0 to 2**64 - 1"),
        ({"seed": True}, "seed = True is not allowed: it must be a whole number from 0 to 2**64 - 1"),
        ({"scheme": 7}, "scheme = 7 is not allowed: it must be a text or a Scheme"),
        ({"scheme": None}, "scheme = None is not allowed: it must be a text or a Scheme"),
        ({"optimizer": None}, "optimizer = None is not allowed: it must be a torch.optim.Optimizer"),
        ({"scaler": 1024.0}, "scaler = 1024.0 is not allowed: it must be a GradScaler or None"),
        ({"unit": ["layer"]}, "unit = ['layer'] is not allowed: it must be one of layer, bucket, model"),
    ],
)
def test_mistakes_are_told_in_one_line(options, told):
    model = model_of()
    given = {"scheme": "dense", "optimizer": torch.optim.SGD(model.parameters(), lr=0.1), **options}
    with pytest.raises(HookError) as raised:
        ddp_hook(given.pop("scheme"), model, given.pop("optimizer"), **given)
    assert str(raised.value) == f"ddp_hook: {told}"


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_seeds_reach_to_64_bits(seed, made):
    model = model_of()
    made("randomk(density=0.5)", model, torch.optim.SGD(model.parameters(), lr=0.1), seed=seed)
    model(torch.ones(2, 4)).sum().backward()
    assert model.module.weight.grad.any()


@pytest.mark.parametrize("missing", ["scheme", "step", "states"])
def test_a_checkpoint_that_lacks_something_is_refused(missing, made):
    model = model_of()
    hook = made("ef(topk)", model, torch.optim.SGD(model.parameters(), lr=0.1))
    data = hook.state_dict()
    del data[missing]
    with pytest.raises(HookError, match=f"^ddp_hook: this is no checkpoint of a hook: it has no '{missing}'$"):
        hook.load_state_dict(data)
    with pytest.raises(HookError, match="it has no 'scheme'$"):
        hook.load_state_dict([])


@pytest.mark.parametrize("scheme", ["dgc", "dgcsample", "sampledtopk"])
@pytest.mark.parametrize("density", ["5e-324", "1e-301"])
def test_regression_a_density_whose_sample_has_no_size_is_refused(scheme, density):
    with pytest.raises(SchemeError, match=f"density = {density} is out of range: density must be from 1e-300 to 1$"):
        parse_scheme(f"{scheme}(density={density})")
    least = parse_scheme(f"{scheme}(density=1e-300)")
    x = torch.arange(1.0, 31.0)[None]
    item = Item(x, least, least.init((30,), 1, x[0]), Turn(0, 0, "u", (0,), 1))
    (outcome,), _ = StackedDriver(1).exchange([item])
    assert outcome.mean.nonzero().tolist() == [[29]]
