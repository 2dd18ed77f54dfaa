"""What every listed scheme with error feedback must keep when the learning rate changes."""

import math

import pytest
import torch
from torch import Tensor

from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.remember import remember

from .laws import FLOATS, WORKERS, assert_same, plain, residual, rows_of, selects

# ------------------------------------------------------------------------------------------------------ learning rate

POWERS = (1.0, 0.5, 0.125, 2.0, 0.25)
"""A schedule that multiplies without rounding, so that equal things are equal bit for bit."""


def test_memory_in_update_units_is_that_of_the_papers(remembered, exchange, values):
    """The papers put lr g into the memory: q = m + lr g, the weights move by C(q), m = q - C(q)."""
    if not remembered.scheme.homogeneous:
        pytest.skip("C(lr p) is not lr C(p), so the two are different algorithms")
    memory = torch.zeros(WORKERS, math.prod(remembered.shape))
    inner, outer = None, None
    for step, lr in enumerate(POWERS):
        x = values(WORKERS, *remembered.shape, seed=step)
        q = (memory + lr * x.reshape(WORKERS, -1)).view_as(x)
        expected, _ = exchange(plain(remembered.scheme), q, inner, step)
        memory = q.reshape(WORKERS, -1) - rows_of(expected)
        outcome, _ = exchange(remembered.scheme, x, outer, step, lr)
        inner, outer = expected.state, outcome.state
        assert torch.equal(lr * outcome.mean, expected.mean)
        assert torch.equal(lr * residual(outer), memory)


def test_memory_in_gradient_units_ignores_the_rate(remembered, exchange, values):
    scheme = remember(ErrorFeedback(units="gradient"), plain(remembered.scheme))
    with_rate, without = None, None
    for step, lr in enumerate((0.3, 0.0, 7.0, torch.rand(remembered.shape))):
        x = values(WORKERS, *remembered.shape, seed=step)
        one, log = exchange(scheme, x, with_rate, step, lr)
        two, _ = exchange(remembered.scheme, x, without, step, 1.0)
        with_rate, without = one.state, two.state
        assert log.collectives
        assert torch.equal(one.mean, two.mean)
        assert torch.equal(residual(with_rate), residual(without))


@pytest.mark.parametrize("zero", [0.0, torch.zeros(())], ids=["number", "tensor"])
def test_a_step_at_rate_zero_sends_and_changes_nothing(remembered, zero, exchange, values):
    shape = remembered.shape
    zero = zero.expand(shape) if isinstance(zero, Tensor) else zero
    straight = exchange(remembered.scheme, values(WORKERS, *shape), None, 0, 0.5)[0].state
    paused = exchange(remembered.scheme, values(WORKERS, *shape), None, 0, 0.5)[0].state
    idle, log = exchange(remembered.scheme, values(WORKERS, *shape, seed=9), paused, 1, zero)
    assert log.collectives == ()
    assert not idle.mean.any()
    assert not rows_of(idle).any()
    assert idle.mean.shape == shape
    assert_same(idle.state, straight)
    x = values(WORKERS, *shape, seed=2)
    one, _ = exchange(remembered.scheme, x, straight, 2, 0.2)
    two, _ = exchange(remembered.scheme, x, idle.state, 2, 0.2)
    assert torch.equal(one.mean, two.mean)
    assert_same(one.state, two.state)


def test_a_rate_for_each_entry_equals_the_same_rate_for_all(remembered, exchange, values):
    one_state, each_state = None, None
    for step, lr in enumerate((0.1, 0.03, 0.7)):
        x = values(WORKERS, *remembered.shape, seed=step, dtype=torch.float64)
        rates = torch.full(remembered.shape, lr, dtype=torch.float64)
        one, _ = exchange(remembered.scheme, x, one_state, step, lr)
        each, _ = exchange(remembered.scheme, x, each_state, step, rates)
        one_state, each_state = one.state, each.state
        assert torch.equal(each.mean, one.mean)
        assert torch.equal(residual(each_state), residual(one_state))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_parameters_that_stand_still_keep_their_residual(remembered, dtype, exchange, values):
    """Some entries have rate 0 for two steps: they wait, while the others go on and see none of their gradient."""
    shape = remembered.shape
    frozen = torch.zeros(shape, dtype=torch.bool)
    frozen.view(-1)[::2] = True
    slow = torch.where(frozen, 0.25, 0.5)
    state = exchange(remembered.scheme, values(WORKERS, *shape, dtype=dtype), None, 0, slow)[0].state
    for step, rate in enumerate((0.5, 2.0), start=1):
        before = residual(state)
        x = values(WORKERS, *shape, seed=step, dtype=dtype)
        outcome, _ = exchange(remembered.scheme, x, state, step, torch.where(frozen, 0.0, rate).double())
        state, after, sent = outcome.state, residual(outcome.state), rows_of(outcome)
        assert outcome.mean.dtype == after.dtype == dtype
        still = frozen.view(-1)
        assert torch.equal(after[:, still], before[:, still])
        local = (x.reshape(WORKERS, -1) + before * (0.5 / rate))[:, ~still]  # both times the last rate was 0.5
        assert torch.equal(after[:, ~still], local - sent[:, ~still])
        if selects(remembered.scheme):
            assert not sent[:, still].any()
    before = residual(state)
    x = values(WORKERS, *shape, seed=7, dtype=dtype)
    outcome, _ = exchange(remembered.scheme, x, state, 3, torch.full(shape, 1.0))
    carried = before * torch.where(frozen, 0.25, 2.0).view(-1)
    assert torch.equal(residual(outcome.state), x.reshape(WORKERS, -1) + carried - rows_of(outcome))
