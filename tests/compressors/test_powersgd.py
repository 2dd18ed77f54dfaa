"""PowerSGD against Algorithm 1 written anew in numpy."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradwire.compressors.base import SchemeError, State, Turn
from gradwire.compressors.drivers import Item, StackedDriver
from gradwire.compressors.keys import Purpose, stream
from gradwire.compressors.lowrank.powersgd import PowerSGD
from gradwire.compressors.requests import AllReduce
from gradwire.compressors.spec import parse_scheme


def gram_schmidt(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormalise columns one after the other, as in the paper's appendix."""
    columns = columns.copy()
    for i in range(columns.shape[1]):
        columns[:, i] /= np.linalg.norm(columns[:, i])
        for j in range(i + 1, columns.shape[1]):
            columns[:, j] -= columns[:, i] * (columns[:, i] @ columns[:, j])
    return columns


def first_q(b: int, rank: int) -> NDArray[np.float64]:
    return np.random.Generator(stream(1, Purpose.START, 0, "layer.weight")).standard_normal((b, rank))


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_powersgd_follows_algorithm_1_with_warm_start_and_error_feedback(rank, exchange, values):
    """Vogels et al. 2019: each worker's memory loses the decompressed *mean*; means and the sum of memories agree."""
    workers, a, b = 4, 12, 18
    q, memory, state = first_q(b, rank), np.zeros((workers, a, b)), None
    for step in range(12):
        x = values(workers, a, b, seed=step, dtype=torch.float64)
        before = 0.0 if state is None else state.elements["residual"].clone().view_as(x).numpy()
        delta = x.numpy() + memory
        p = gram_schmidt((delta @ q).mean(0))
        q = (delta.transpose(0, 2, 1) @ p).mean(0)
        memory = delta - p @ q.T
        outcome, _ = exchange(f"ef(powersgd(rank={rank}))", x, state, step)
        state = outcome.state
        # 12 power iterations: u = 1e-16 grows by condition numbers, seldom above 100 a step, but each projection
        # forgets most of it; values are below 100. 1e-9 leaves room and no mistake is that small.
        np.testing.assert_allclose(outcome.mean.numpy(), p @ q.T, rtol=0, atol=1e-9)
        ours = state.elements["residual"].numpy().sum(0).reshape(a, b)
        np.testing.assert_allclose(ours, memory.sum(0), rtol=0, atol=1e-9)
        # What a worker contributes is its projection on the span of P, and P P^T does not depend on P's basis.
        own = (p @ p.T @ (x.numpy() + before)).reshape(workers, -1)
        np.testing.assert_allclose(outcome.sent.dense(x[0].reshape(-1)).numpy(), own, rtol=0, atol=1e-9)


def test_powersgd_finds_a_low_rank_matrix_exactly(exchange, values):
    left, right = values(2, 12, 3, dtype=torch.float64), values(2, 3, 18, seed=1, dtype=torch.float64)
    x = left[:1] @ right  # two workers with the same column space
    outcome, _ = exchange("powersgd(rank=3)", x)
    torch.testing.assert_close(outcome.mean, x.mean(0), rtol=0, atol=1e-11)  # u times conditions below 1e4


def nearly_low_rank(values) -> Tensor:
    """Return a matrix whose two largest singular values stand out, in float64."""
    left, right = values(1, 12, 2, seed=1, dtype=torch.float64), values(1, 2, 18, seed=2, dtype=torch.float64)
    return 10 * left @ right + values(1, 12, 18, dtype=torch.float64)


def test_powersgd_warm_start_converges_to_the_best_approximation(exchange, values):
    """Power iteration on one matrix: the error tends to that of the truncated singular value decomposition."""
    x = nearly_low_rank(values)
    u, sigma, vt = np.linalg.svd(x[0].numpy())
    state = None
    for step in range(30):
        outcome, _ = exchange("powersgd(rank=2)", x, state, step)
        state = outcome.state
    best = u[:, :2] * sigma[:2] @ vt[:2]
    # The error shrinks by (sigma_3 / sigma_2)^2 a step.
    assert (sigma[2] / sigma[1]) ** 60 < 1e-12
    np.testing.assert_allclose(outcome.mean.numpy(), best, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("true_rank", [0, 1, 2])
def test_powersgd_rank_deficient_input_gives_no_nan(rank, true_rank, exchange, values):
    state = None
    x = values(3, 12, true_rank) @ values(3, true_rank, 18, seed=1) if true_rank else torch.zeros(3, 12, 18)
    x = x[:1].expand(3, -1, -1)
    for step in range(3):
        outcome, _ = exchange(f"powersgd(rank={rank})", x, state, step)
        state = outcome.state
        assert outcome.mean.isfinite().all()
        assert outcome.sent.dense(x[0].reshape(-1)).isfinite().all()
        if rank >= true_rank:
            # u = 6e-8 times the norm, 20, times condition numbers below 1e2.
            torch.testing.assert_close(outcome.mean, x[0], rtol=0, atol=2e-4)


def test_powersgd_recovers_after_a_step_of_zeros(exchange, values):
    """With Q = 0 kept, and P left at zero, nothing would ever be sent again."""
    x = nearly_low_rank(values)
    state = exchange("powersgd(rank=2)", x)[0].state
    state = exchange("powersgd(rank=2)", torch.zeros_like(x), state, 1)[0].state
    for step in range(2, 12):
        outcome, _ = exchange("powersgd(rank=2)", x, state, step)
        state = outcome.state
    sigma = torch.linalg.svdvals(x[0])
    best = sigma[2:].square().sum().sqrt()
    # Ten power iterations leave (sigma_3 / sigma_2)^20 of whatever P began with.
    assert float(sigma[2] / sigma[1]) ** 20 < 1e-4
    torch.testing.assert_close((outcome.mean - x[0]).norm(), best, rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", [(300,), (1, 50), (5, 60), (60, 5), (3, 3, 5, 4), (10, 11)], ids=str)
def test_powersgd_sends_dense_what_it_cannot_shrink(shape, exchange, values):
    """Vectors, fewer rows or columns than the rank, and rank (a + b) >= a b."""
    x = values(2, *shape)
    outcome, log = exchange("powersgd(rank=6)", x)
    assert torch.equal(outcome.mean, (x[0] + x[1]) / 2)
    assert [c.sent_bytes for c in log.collectives] == [(4 * math.prod(shape),) * 2]
    assert PowerSGD(6).error_bound(shape) == 0


def test_powersgd_sees_a_convolution_as_a_matrix_of_filters(exchange, values):
    x = values(2, 16, 4, 3, 3)
    outcome, log = exchange("powersgd(rank=2)", x)
    flat, _ = exchange("powersgd(rank=2)", x.view(2, 16, 36))
    assert torch.equal(outcome.mean.view(16, 36), flat.mean)
    assert [(c.round, c.sent_bytes[0]) for c in log.collectives] == [(0, 4 * 2 * 16), (1, 4 * 2 * 36)]


def test_powersgd_needs_two_collectives_whatever_the_number_of_units(values):
    scheme = PowerSGD(2)
    shapes = [(16, 8 + i) for i in range(40)] + [(16,)] * 40
    driver = StackedDriver(3)
    items = []
    for i, shape in enumerate(shapes):
        x = values(3, *shape, seed=i)
        items.append(Item(x, scheme, scheme.init(shape, 3, x[0]), Turn(1, 0, f"layer{i}", (0, 1, 2), 3)))
    _, log = driver.exchange(items)
    first = sum(4 * 2 * 16 for _ in range(40)) + 40 * 4 * 16
    second = sum(4 * 2 * (8 + i) for i in range(40))
    assert [(c.operation, c.round, c.sent_bytes) for c in log.collectives] == [
        ("all-reduce", 0, (first,) * 3),
        ("all-reduce", 1, (second,) * 3),
    ]


def test_powersgd_starts_from_the_same_draws_everywhere_and_each_layer_from_its_own(values):
    def first_p(unit: str, seed: int, ranks: tuple[int, ...], step: int = 0) -> Tensor:
        x = values(1, 12, 18)
        request = next(PowerSGD(2).rounds(x, State(), Turn(seed, step, unit, ranks, 4)))
        assert isinstance(request, AllReduce)
        return request.payload.fixed(0)

    one = first_p("a", 1, (0,))
    assert torch.equal(one, first_p("a", 1, (3,)))
    assert torch.equal(one, first_p("a", 1, (0,), step=9))  # a layer that joins later needs no history
    assert not torch.equal(one, first_p("b", 1, (0,)))
    assert not torch.equal(one, first_p("a", 2, (0,)))


@pytest.mark.parametrize("size", [1, 3])
def test_powersgd_error_of_a_worker_is_never_larger_than_its_input(size, values, exchange):
    """P P^T is a projection: what a worker could not send is orthogonal to what it could."""
    x = values(size, 15, 10, dtype=torch.float64)
    for step in range(5):
        outcome, _ = exchange("powersgd(rank=2)", x, step=step)
        error = (outcome.sent.dense(x[0].reshape(-1)) - x.reshape(size, -1)).square().sum(1)
        assert (error <= x.reshape(size, -1).square().sum(1)).all()


def test_powersgd_starts_in_full_and_then_factorises(exchange, values):
    state = None
    for step in range(4):
        x = values(3, 12, 18, seed=step)
        outcome, log = exchange("ef(powersgd(rank=2, start_step=2))", x, state, step)
        state = outcome.state
        lengths = [c.sent_bytes[0] for c in log.collectives]
        assert lengths == ([4 * 12 * 18] if step < 2 else [4 * 2 * 12, 4 * 2 * 18])
        assert bool(state.elements["residual"].any()) == (step >= 2)
        if step < 2:
            assert torch.equal(outcome.mean, (x[0] + x[1] + x[2]) / 3)


def test_powersgd_sends_dense_what_shrinks_less_than_the_minimum_rate(exchange, values):
    """24 x 24 at rank 4 is 576 values against 192: exactly 3 times as many, and the rate must be exceeded."""
    for rate, expected in ((1, [384, 384]), (2.9, [384, 384]), (3, [2304]), (10, [2304])):
        _, log = exchange(f"powersgd(rank=4, min_rate={rate})", values(2, 24, 24))
        assert [c.sent_bytes[0] for c in log.collectives] == expected
        assert PowerSGD(4, rate).wire_bytes((24, 24)) == sum(expected)


@pytest.mark.parametrize("text", ["powersgd(rank=0)", "powersgd(min_rate=0.5)", "powersgd(start_step=-1)"])
def test_powersgd_parameters_are_checked(text):
    with pytest.raises(SchemeError, match=r"is out of range: .* must be at least"):
        parse_scheme(text)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_regression_a_zero_gradient_layer_gives_nan_for_ever(rank, exchange, values):
    """Gram-Schmidt without an epsilon divides 0 by 0, and error feedback keeps the NaN."""
    text, state = f"ef(powersgd(rank={rank}))", None
    for step in range(3):
        state = exchange(text, torch.zeros(2, 64, 64), state, step)[0].state
    x = values(2, 64, 64)
    outcome, _ = exchange(text, x, state, 3)
    assert outcome.mean.isfinite().all()
    assert outcome.mean.any()
    assert outcome.state.elements["residual"].isfinite().all()


def test_regression_bytes_of_a_convolution_are_those_of_the_matrix_it_is_sent_as(exchange, values):
    """o + i + kh + kw counts too few: an (o, i, kh, kw) kernel is a matrix of o x (i kh kw)."""
    _, log = exchange("powersgd(rank=4)", values(2, 64, 32, 3, 3))
    assert sum(c.sent_bytes[0] for c in log.collectives) == 4 * 4 * (64 + 32 * 9)
    assert PowerSGD(4).wire_bytes((64, 32, 3, 3)) == 4 * 4 * (64 + 32 * 9)


def test_regression_only_q_must_be_divided_by_the_number_of_workers(exchange, values):
    """Workers that agree must get what each of them alone would get: P's scale is lost in its orthonormalisation."""
    x = values(1, 12, 18, dtype=torch.float64)
    alone, _ = exchange("powersgd(rank=2)", x)
    together, _ = exchange("powersgd(rank=2)", x.expand(8, -1, -1))
    torch.testing.assert_close(together.mean, alone.mean, rtol=1e-12, atol=1e-12)


def test_regression_ranks_that_draw_their_own_q_disagree(values):
    """With draws of their own, the sum of the workers' P = M Q would be no product with any Q."""
    x = values(4, 12, 18)
    requests = []
    for rank in range(4):
        torch.manual_seed(rank)  # what a rank's global generator holds plays no part
        rounds = PowerSGD(2).rounds(x[rank : rank + 1], State(), Turn(1, 0, "u", (rank,), 4))
        requests.append(next(rounds).payload.fixed(0).view(2, 12))
    together = next(PowerSGD(2).rounds(x, State(), Turn(1, 0, "u", (0, 1, 2, 3), 4))).payload.fixed(0)
    assert torch.equal(together, torch.stack(requests).view(4, -1))
    expected = x.double().numpy() @ np.random.Generator(stream(1, Purpose.START, 0, "u")).standard_normal((18, 2))
    np.testing.assert_allclose(torch.stack(requests).transpose(1, 2).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_ranks_follow_a_schedule_and_each_keeps_its_q(exchange, values):
    """From step 2 on, what was sent has the second scheme's rank; its Q has not seen the first one's steps."""
    scheme, state, ranks = "phases(powersgd(rank=3), powersgd(rank=1), at=2)", None, []
    for step in range(4):
        x = values(2, 12, 10, seed=step, dtype=torch.float64)
        outcome, _ = exchange(scheme, x, state, step)
        state = outcome.state
        ranks.append(int(torch.linalg.matrix_rank(outcome.mean)))
    assert ranks == [3, 3, 1, 1]
    fresh = exchange("powersgd(rank=1)", values(2, 12, 10, seed=2, dtype=torch.float64), step=2)[0]
    again = exchange("powersgd(rank=1)", values(2, 12, 10, seed=3, dtype=torch.float64), fresh.state, 3)[0]
    assert torch.equal(outcome.mean, again.mean)
