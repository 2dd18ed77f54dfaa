"""Momentum correction against SGD with momentum, the paper's algorithm in float64 loops, and by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam, RMSprop

from gradwire.compressors.base import SchemeError, Turn
from gradwire.compressors.momentum import Momentum
from gradwire.compressors.spec import parse_scheme

RATES = (0.1, 0.1, 0.05, 0.4, 0.2, 0.025)
STEPS = 12


def weights_of_torch(gradients: list[Tensor], rates: list[float], **options: object) -> Tensor:
    """Return what torch's optimizer makes of the average gradients, from weights of zero."""
    weights = torch.zeros(gradients[0].shape[1:], dtype=torch.float64, requires_grad=True)
    optimizer = SGD([weights], lr=1.0, **options)
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        weights.grad = gradient.mean(0)
        optimizer.step()
    return weights.detach()


@pytest.mark.parametrize("units", ["gradient", "update"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_dense_without_masking_is_sgd_with_momentum(nesterov, units, exchange, values):
    scheme = parse_scheme(f"momentum(dense, nesterov={nesterov}, masking=False, units={units})")
    gradients = [values(4, 6, 5, seed=step, dtype=torch.float64) for step in range(STEPS)]
    rates, state, weights = [RATES[step % len(RATES)] for step in range(STEPS)], None, torch.zeros(6, 5).double()
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
        outcome, _ = exchange(scheme, gradient, state, step, rate)
        state, weights = outcome.state, weights - rate * outcome.mean
        assert not state.elements["unsent"].any()
    expected = weights_of_torch(gradients, rates, momentum=0.9, nesterov=nesterov)
    torch.testing.assert_close(weights, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_dense_with_masking_is_plain_sgd(nesterov, exchange, values):
    """Exactly so without Nesterov; with it each gradient has 1 + mu of its weight, and no past."""
    scheme, state = parse_scheme(f"momentum(dense, nesterov={nesterov})"), None
    for step in range(STEPS):
        x = values(4, 30, seed=step)
        outcome, _ = exchange(scheme, x, state, step, RATES[step % len(RATES)])
        state = outcome.state
        plain, _ = exchange("dense", x)
        if nesterov:
            torch.testing.assert_close(outcome.mean, 1.9 * plain.mean, rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(outcome.mean, plain.mean)


def largest(row: np.ndarray, k: int) -> np.ndarray:
    return np.sort(np.argsort(-np.abs(row), kind="stable")[:k])


@pytest.mark.parametrize("masking", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("units", ["gradient", "update"])
def test_around_topk_it_is_the_papers_algorithm(units, nesterov, masking, exchange, values):
    """Lin et al. 2018, section 3; in update units the rate is put into v with the velocity."""
    text = f"momentum(topk(density=0.1), momentum=0.7, nesterov={nesterov}, masking={masking}, units={units})"
    scheme, state = parse_scheme(text), None
    u, v = np.zeros((3, 40)), np.zeros((3, 40))
    for step in range(STEPS):
        rate = RATES[step % len(RATES)]
        weight = rate if units == "update" else 1.0
        x = values(3, 40, seed=step, dtype=torch.float64)
        g = x.numpy()
        if nesterov:
            u = 0.7 * (u + g)
            v = v + weight * (u + g)
        else:
            u = 0.7 * u + g
            v = v + weight * u
        update = np.zeros(40)
        for w in range(3):
            chosen = largest(v[w], 4)
            update[chosen] += v[w, chosen] / 3
            v[w, chosen] = 0
            if masking:
                u[w, chosen] = 0
        outcome, _ = exchange(scheme, x, state, step, rate)
        state = outcome.state
        np.testing.assert_allclose(outcome.mean.numpy() * weight, update, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(state.elements["momentum"].numpy(), u, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(state.elements["unsent"].numpy() * weight, v, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("inner", ["topk(density=0.1)", "randomk(density=0.2)", "qsgd(bits=4)", "graddrop(rate=0.8)"])
def test_without_masking_every_velocity_reaches_the_weights_once(inner, exchange, values):
    """Whatever is sent when: sent and unsent updates add up to those of SGD with momentum, as the rate changes."""
    scheme, state = parse_scheme(f"momentum({inner}, masking=False, units=update)"), None
    gradients = [values(4, 50, seed=step, dtype=torch.float64) for step in range(STEPS)]
    rates = [RATES[step % len(RATES)] for step in range(STEPS)]
    weights = torch.zeros(50, dtype=torch.float64)
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
        outcome, _ = exchange(scheme, gradient, state, step, rate)
        state, weights = outcome.state, weights - rate * outcome.mean
    expected = weights_of_torch(gradients, rates, momentum=0.9)
    unsent = rates[-1] * state.elements["unsent"].mean(0)
    torch.testing.assert_close(weights - unsent, expected, rtol=1e-11, atol=1e-11)
    assert unsent.any()


def test_masking_clears_where_something_was_sent_even_a_zero(exchange):
    """1 + (0.5 - 1.5) = 0 is sent, for ties go to the lowest index, while its momentum is -1."""
    scheme = parse_scheme("momentum(topk(density=0.5), momentum=0.5)")
    first, _ = exchange(scheme, torch.tensor([[1.0, 10.0]]))
    assert first.state.elements["momentum"].tolist() == [[1, 0]]
    second, _ = exchange(scheme, torch.tensor([[-1.5, 0.0]]), first.state, 1)
    assert second.sent.indices.tolist() == [[0]]
    assert second.state.elements["momentum"].tolist() == [[0, 0]]
    unmasked = parse_scheme("momentum(topk(density=0.5), momentum=0.5, masking=False)")
    first, _ = exchange(unmasked, torch.tensor([[1.0, 10.0]]))
    second, _ = exchange(unmasked, torch.tensor([[-1.5, 0.0]]), first.state, 1)
    assert second.state.elements["momentum"].tolist() == [[-1, 5]]


def test_rounding_of_what_is_sent_is_not_lost(exchange, values):
    """A code that casts after it has cleared v loses the rounding error; here v keeps it, and u is cleared."""
    x = values(2, 64)
    outcome, _ = exchange("momentum(dense(dtype=bf16))", x)
    rounding = x - x.to(torch.bfloat16).float()
    assert torch.equal(outcome.state.elements["unsent"], rounding)
    assert rounding.any()
    assert not outcome.state.elements["momentum"].any()


@pytest.mark.parametrize("workers", [1, 4])
def test_clips_each_worker_to_its_share_of_the_norm(workers, exchange, values):
    x = values(workers, 3, 20, dtype=torch.float64)
    x[0] *= 0.01
    outcome, _ = exchange("momentum(dense, clip=2)", x)
    limit = 2 / math.sqrt(workers)
    for row, sent in zip(x.reshape(workers, -1).numpy(), outcome.sent.dense(x[0].reshape(-1)).numpy(), strict=True):
        norm = math.sqrt(sum(value**2 for value in row))
        np.testing.assert_allclose(sent, row * min(1, limit / norm), rtol=1e-14)
    zeros, _ = exchange("momentum(dense, clip=2)", torch.zeros(workers, 5))
    assert not zeros.mean.any()


def test_clipping_comes_before_the_momentum(exchange, values):
    state, u = None, 0.0
    for step in range(4):
        x = values(1, 30, seed=step, dtype=torch.float64)
        outcome, _ = exchange("momentum(dense, masking=False, clip=1)", x, state, step)
        state, u = outcome.state, 0.9 * u + x[0] / x[0].norm()
        torch.testing.assert_close(outcome.mean, u, rtol=1e-12, atol=1e-13)


def test_a_step_at_rate_zero_waits_in_update_units_alone(exchange, values):
    x = values(2, 20)
    for units, sends in (("update", False), ("gradient", True)):
        text = f"momentum(topk(density=0.1), units={units})"
        state = exchange(text, x, None, 0, 0.5)[0].state
        before = {key: value.clone() for key, value in state.elements.items()}
        outcome, log = exchange(text, values(2, 20, seed=1), state, 1, 0.0)
        assert bool(log.collectives) == sends
        same = [torch.equal(before[key], outcome.state.elements[key]) for key in before]
        assert same == [not sends] * 2


def test_parameters_at_rate_zero_send_nothing_in_update_units(exchange, values):
    text, rates = "momentum(topk(density=0.2), units=update)", torch.full((20,), 0.5)
    rates[::2] = 0.0
    state = exchange(text, values(2, 20), None, 0, 0.5)[0].state
    waiting = state.elements["unsent"][:, ::2].clone()
    outcome, _ = exchange(text, values(2, 20, seed=1), state, 1, rates)
    assert not outcome.mean[::2].any()
    assert outcome.mean.any()
    assert torch.equal(outcome.state.elements["unsent"][:, ::2], waiting)


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("text", ["momentum(topk)", "dgc"])
def test_refuses_an_optimizer_with_momentum_or_scaling(text):
    scheme, weights = parse_scheme(text), [torch.nn.Parameter(torch.zeros(2))]
    scheme.check_optimizer(SGD(weights, lr=0.1, weight_decay=1e-4))
    for optimizer in (SGD(weights, lr=0.1, momentum=0.9), Adam(weights), RMSprop(weights)):
        with pytest.raises(SchemeError, match=rf"the optimizer is {type(optimizer).__name__}.*; use SGD without any$"):
            scheme.check_optimizer(optimizer)


@pytest.mark.parametrize(
    "text",
    ["ef(momentum(topk))", "momentum(ef(topk))", "ef(dgc)", "momentum(dgc)", "momentum(momentum(topk))"],
)
def test_refuses_to_be_one_of_two_memories(text):
    with pytest.raises(SchemeError, match=r"already has (a|this) memory$"):
        parse_scheme(text)


def test_refuses_a_scheme_that_can_expand():
    scheme = parse_scheme("momentum(randomk(density=0.4, scaled=True))")
    with pytest.raises(SchemeError, match=r"momentum\(randomk.* can be 1.5 times"):
        scheme.init((10,), 1, torch.zeros(10))


@pytest.mark.parametrize(
    ("options", "allowed"),
    [({"momentum": 1.0}, r"in \[0, 1\)"), ({"momentum": -0.1}, r"in \[0, 1\)"), ({"clip": -1.0}, "at least 0")],
)
def test_parameters_are_checked(options, allowed):
    with pytest.raises(SchemeError, match=f"momentum: {next(iter(options))} = .* must be {allowed}"):
        Momentum(**options)
    with pytest.raises(SchemeError, match=f"momentum: {next(iter(options))} = .* must be {allowed}"):
        parse_scheme("dgc(" + ", ".join(f"{key}={value}" for key, value in options.items()) + ")")


# -------------------------------------------------------------------------------------------------------- conformance


@pytest.mark.parametrize("text", ["momentum(topk(density=0.1))", "momentum(qsgd(bits=5), clip=1)", "dgc(density=0.1)"])
def test_workers_in_groups_do_what_they_do_together(text, exchange, values):
    """The rows of two processes, each with its part of the state."""
    scheme, x = parse_scheme(text), values(4, 12, 10, seed=1)
    state = exchange(scheme, values(4, 12, 10))[0].state
    parts = [type(state).from_dict(state.take(slice(r, r + 2)).state_dict()) for r in (0, 2)]
    parts = [type(state).join([part, part]).take(slice(0, 2)) for part in parts]  # in memory of their own
    together, _ = exchange(scheme, x, state, 1)
    for first, part in zip((0, 2), parts, strict=True):
        turn = Turn(1, 1, "layer.weight", (first, first + 1), 4)
        _, sent, after = scheme.encode(x[first : first + 2], part, turn)
        like = x[0].reshape(-1)
        assert torch.equal(sent.dense(like), together.sent.dense(like)[first : first + 2])
        for key, value in after.elements.items():
            assert torch.equal(value, together.state.elements[key][first : first + 2])


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("inner", ["topk(density=0.5)", "dense"])
def test_regression_parameters_at_rate_zero_keep_their_velocity(inner, nesterov, exchange, values):
    """A step at rate 0 changes nothing of a parameter, whatever becomes of the others; dense would clear all."""
    scheme = parse_scheme(f"momentum({inner}, nesterov={nesterov}, masking={inner != 'dense'}, units=update)")
    first, _ = exchange(scheme, values(2, 8), None, 0, torch.full((8,), 0.5))
    before = {key: value.clone() for key, value in first.state.elements.items()}
    rates = torch.tensor([0.5] * 4 + [0.0] * 4)
    second, _ = exchange(scheme, values(2, 8, seed=1), first.state, 1, rates)
    for key, value in second.state.elements.items():
        assert torch.equal(value[:, 4:], before[key][:, 4:]), key
    assert before["momentum"][:, 4:].any()
    assert not torch.equal(second.state.elements["momentum"][:, :4], before["momentum"][:, :4])


def test_regression_masking_leaves_the_velocity_of_parameters_at_rate_zero(exchange, values):
    """Everything is sent, the others' zeros too, and clears the velocity of what moves alone."""
    scheme = parse_scheme("momentum(dense, units=update)")
    state = scheme.init((4,), 2, torch.zeros(4))
    state.elements["momentum"].fill_(3.0)
    outcome, _ = exchange(scheme, values(2, 4), state, 0, torch.tensor([0.5, 0.5, 0.0, 0.0]))
    assert outcome.state.elements["momentum"].tolist() == [[0, 0, 3, 3]] * 2
