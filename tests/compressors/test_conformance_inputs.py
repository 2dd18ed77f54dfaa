"""What every listed scheme must keep on hard inputs, across checkpoints, and on any number of threads."""

import io
import math
import pickle

import pytest
import torch

from gradwire.compressors.base import (
    NonFiniteError,
    SchemeError,
    State,
    Turn,
)
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.lowrank.powersgd import PowerSGD
from gradwire.compressors.remember import remember

from .laws import (
    WORKERS,
    assert_same,
    lawful_mean,
    may_send_nothing,
    mean_error,
    plain,
    residual,
    rows_of,
    selects,
    takes_memory,
)

# -------------------------------------------------------------------------------------------------------- hard inputs


def test_zeros_stay_zeros_and_leave_no_trace(case, exchange, values):
    if case.scheme.law == "vote":
        pytest.skip("a vote has no zero to cast")
    state = None
    for step in range(2):
        outcome, _ = exchange(case.scheme, torch.zeros(WORKERS, *case.shape), state, step)
        state = outcome.state
        assert not outcome.mean.any()
        assert not rows_of(outcome).any()
    after, _ = exchange(case.scheme, values(WORKERS, *case.shape), state, 2)
    assert after.mean.isfinite().all()
    assert rows_of(after).any() or may_send_nothing(*case)  # the mean may be zero where values are rounded at random


def test_constants(case, exchange):
    x = torch.full((WORKERS, *case.shape), -0.7)
    outcome, log = exchange(case.scheme, x)
    difference = outcome.mean.reshape(-1).double() - lawful_mean(case.scheme, outcome)
    assert (difference.abs() <= mean_error(case.scheme, x, outcome, log)).all()
    assert (outcome.mean <= 0.7 * 2.0**-20).all()  # nothing changes sign, but for the rounding of a factorisation
    assert (outcome.mean < 0).any() or may_send_nothing(*case)


@pytest.mark.parametrize("power", [100, -100])
def test_huge_and_tiny_values_are_treated_like_ordinary_ones(case, power, exchange, values):
    """Multiplying by 2^100 = 1.3e30 is exact, and so is everything after it unless something overflows or vanishes."""
    homogeneous = case.scheme.homogeneous
    ordinary, scaled = None, None
    for step in range(3):
        x = values(WORKERS, *case.shape, seed=step)
        one, _ = exchange(case.scheme, x, ordinary, step)
        other, _ = exchange(case.scheme, x * 2.0**power, scaled, step)
        ordinary, scaled = one.state, other.state
        assert other.mean.isfinite().all()
        if not homogeneous:
            continue
        scale = 1.0 if case.scheme.law == "vote" else 2.0**-power  # votes have no size
        back, sent = other.mean * scale, rows_of(other) * scale
        if isinstance(plain(case.scheme), PowerSGD):
            # LAPACK picks its steps by size. A backward stable QR of P turns its span by about u times P's condition
            # number, below 100 for these normal matrices, and two more steps go on from there: 2^-24 * 100^2 < 2^-10.
            size = 2.0**-10 * float(x.norm())
            torch.testing.assert_close(back, one.mean, rtol=0, atol=size)
            torch.testing.assert_close(sent, rows_of(one), rtol=0, atol=size)
        else:
            assert torch.equal(back, one.mean)
            assert torch.equal(sent, rows_of(one))


def test_subnormal_values(case, exchange, values):
    """Below 2^-126 the spacing no longer shrinks, so results are coarse; they must still be the average of sent."""
    state, before = None, torch.zeros(WORKERS, math.prod(case.shape))
    for step in range(3):
        x = values(WORKERS, *case.shape, seed=step) * 1e-40
        outcome, log = exchange(case.scheme, x, state, step)
        state = outcome.state
        difference = outcome.mean.reshape(-1).double() - lawful_mean(case.scheme, outcome)
        assert (difference.abs() <= mean_error(case.scheme, x, outcome, log)).all()
        if "residual" in state.elements:
            assert torch.equal(residual(state), before + x.reshape(WORKERS, -1) - rows_of(outcome))
            before = residual(state)
    assert outcome.mean.any() or may_send_nothing(*case) or not selects(case.scheme)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_non_finite_values_are_refused_before_anything_happens(case, bad, exchange, values):
    x = values(WORKERS, *case.shape)
    state = exchange(case.scheme, x)[0].state
    kept = State.from_dict(pickle.loads(pickle.dumps(state.state_dict())))
    x[2].reshape(-1)[-1] = bad
    with pytest.raises(NonFiniteError, match=r"^step 5: the gradient of layer\.weight holds .* on worker 2$"):
        exchange(case.scheme, x, state, step=5)
    assert_same(state, kept)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)], ids=str)
@pytest.mark.parametrize("memory", ["", "ef"])
def test_a_unit_of_no_values_is_refused_in_one_line(sample, memory, shape, exchange):
    if memory and not takes_memory(sample, (1,)):
        pytest.skip("error feedback takes it on no unit")
    text = f"{memory}({sample})" if memory else str(sample)
    with pytest.raises(SchemeError, match=r"^(a unit|unit layer\.weight) of shape \(.*\) has no elements, so .*$"):
        exchange(text, torch.zeros(WORKERS, *shape))


def test_every_worker_with_non_finite_values_is_named(exchange, values):
    x = values(WORKERS, 5)
    x[1, 0], x[3, 4] = math.inf, -math.inf  # whose sum is NaN
    with pytest.raises(NonFiniteError, match=r"on worker 1, 3$"):
        exchange("dense", x)


def test_values_whose_sum_overflows_are_finite_all_the_same(exchange):
    outcome, _ = exchange("topk(density=0.5)", torch.full((2, 4), 1e38))
    assert outcome.mean.tolist() == pytest.approx([1e38, 1e38, 0, 0])


def test_leaves_its_input_alone(case, exchange, values):
    state = None
    for step in range(3):
        x = values(WORKERS, *case.shape, seed=step)
        before = x.clone()
        state = exchange(case.scheme, x, state, step)[0].state
        assert torch.equal(x, before)


def test_what_was_returned_outlives_the_next_step(case, exchange, values):
    first, _ = exchange(case.scheme, values(WORKERS, *case.shape))
    mean, sent = first.mean.clone(), rows_of(first).clone()
    exchange(case.scheme, values(WORKERS, *case.shape, seed=1), first.state, 1)
    assert torch.equal(first.mean, mean)
    assert torch.equal(rows_of(first), sent)


def test_takes_values_in_any_memory_layout(case, exchange, values):
    ordinary, strided = None, None
    for step in range(2):
        x = values(WORKERS, *case.shape, seed=step)
        other = torch.stack([x, x], dim=-1)[..., 0].transpose(0, -1).contiguous().transpose(0, -1)
        one, _ = exchange(case.scheme, x, ordinary, step)
        two, _ = exchange(case.scheme, other, strided, step)
        ordinary, strided = one.state, two.state
        assert torch.equal(one.mean, two.mean)
        assert torch.equal(rows_of(one), rows_of(two))


# ---------------------------------------------------------------------------------------- pickles, checkpoints, threads


def test_survives_pickling(case):
    again = pickle.loads(pickle.dumps(case.scheme))
    assert again == case.scheme
    assert str(again) == str(case.scheme)


def through_file(state: State) -> State:
    """Write a state to a file as a checkpoint does, and read it with the loader that runs no code."""
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    return State.from_dict(torch.load(file, weights_only=True))


def resharded(state: State) -> State:
    """Spread a state over groups of workers and put it together again."""
    return State.join([state.take(slice(0, 1)), state.take(slice(1, 4))])


@pytest.mark.parametrize("interruption", [through_file, resharded])
def test_goes_on_from_a_checkpoint_as_if_never_interrupted(case, interruption, exchange, values):
    straight, stopped = None, None
    for step in range(6):
        x = values(WORKERS, *case.shape, seed=step)
        one, log = exchange(case.scheme, x, straight, step, lr=1 / (step + 1))
        two, other = exchange(case.scheme, x, stopped, step, lr=1 / (step + 1))
        straight, stopped = one.state, two.state
        assert torch.equal(one.mean, two.mean)
        assert log == other
        if step == 2:
            stopped = interruption(stopped)
    assert_same(straight, stopped)


def test_a_group_of_workers_goes_on_with_its_part_of_the_state(codec_case, exchange, values):
    scheme, shape = codec_case
    x = values(WORKERS, *shape, seed=1)
    state = exchange(scheme, values(WORKERS, *shape), step=0)[0].state
    parts = [State.from_dict(pickle.loads(pickle.dumps(state.take(slice(r, r + 2)).state_dict()))) for r in (0, 2)]
    together, _ = exchange(scheme, x, state, step=1)
    apart = []
    for first, part in zip((0, 2), parts, strict=True):
        turn = Turn(1, 1, "layer.weight", (first, first + 1), WORKERS)
        apart.append(scheme.encode(x[first : first + 2], part, turn))
    like = x[0].reshape(-1)
    assert torch.equal(torch.cat([sent.dense(like) for _, sent, _ in apart]), rows_of(together))
    assert_same(State.join([part for _, _, part in apart]), together.state)


@pytest.mark.parametrize("memory", ["", "ef"])
def test_two_threads_give_what_one_gives(sample, memory, exchange, values):
    # The first is long enough to be split between threads; one entry is what no scheme expands.
    accepted = [shape for shape in ((1920, 41), (7,), (1,)) if not memory or takes_memory(sample, shape)]
    if not accepted:
        pytest.skip("error feedback takes it on no unit")
    scheme, shape = remember(ErrorFeedback(), sample) if memory else sample, accepted[0]
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            first, _ = exchange(scheme, values(WORKERS, *shape))
            second, _ = exchange(scheme, values(WORKERS, *shape, seed=1), first.state, 1)
            results.append(second)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0].mean, results[1].mean)
    assert torch.equal(rows_of(results[0]), rows_of(results[1]))
    assert_same(results[0].state, results[1].state)
