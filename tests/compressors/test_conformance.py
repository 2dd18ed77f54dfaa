"""What every scheme must keep, tested on each that is listed: to be in the registry is to be tested here."""

import io
import math
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from gradwire.compressors.base import (
    Broadcast,
    Codec,
    Gather,
    Memory,
    NonFiniteError,
    Outcome,
    Permute,
    Request,
    Scheme,
    SchemeError,
    State,
    Turn,
)
from gradwire.compressors.drivers import Frame, Item, StackedDriver
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.lowrank.powersgd import PowerSGD
from gradwire.compressors.payload import Payload, Ragged
from gradwire.compressors.quantizers.dense import Dense
from gradwire.compressors.quantizers.qsgd import QSGD
from gradwire.compressors.remember import remember
from gradwire.compressors.sparsifiers.randomblock import RandomBlock
from gradwire.compressors.sparsifiers.randomk import RandomK
from gradwire.compressors.sparsifiers.topk import TopK
from gradwire.compressors.wirelog import Collective, MessageLog

WORKERS = 4
ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8}
FLOATS = (torch.float32, torch.float64)


# ------------------------------------------------------------------------------------------------------------ helpers


def plain(scheme: Scheme) -> Scheme:
    """Return the scheme inside its memories."""
    stage = scheme.parts()[-1]
    assert not isinstance(stage, Memory)
    return stage


def selects(scheme: Scheme) -> bool:
    """Return whether each entry is sent as it is or not at all."""
    stage = plain(scheme)
    if isinstance(stage, RandomK | RandomBlock):
        return not stage.scaled or stage.density == 1
    return isinstance(stage, TopK) or (isinstance(stage, Dense) and stage.dtype == "native")


def rows_of(outcome: Outcome) -> Tensor:
    """Return ``sent`` as [W, n]."""
    return outcome.sent.dense(outcome.mean.reshape(-1))


def residual(state: State) -> Tensor:
    """Return error feedback's memory, [W, n]; a copy, since the next step writes to it."""
    return state.elements["residual"].clone()


def assert_same(one: State, other: State) -> None:
    """Compare two states bit for bit."""

    def leaves(state: State) -> dict[str, object]:
        parts = {**state.elements, **state.rows, **state.shared}
        return {**parts, **({} if state.inner is None else {f"inner {k}": v for k, v in leaves(state.inner).items()})}

    left, right = leaves(one), leaves(other)
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(right[key])), key


def sum_roundoff(log: MessageLog, dtype: torch.dtype) -> float:
    """Return the unit roundoff of the coarsest dtype in which workers' values were added."""
    summed = [c.dtype for c in log.collectives if c.operation in ("all-reduce", "reduce-scatter")]
    return max(ROUNDOFF[name] for name in [*summed, str(dtype).removeprefix("torch.")])


def mean_error(scheme: Scheme, p: Tensor, outcome: Outcome, log: MessageLog) -> Tensor:
    """Return how far rounding may take ``mean`` from the exact average of ``sent``, entry by entry.

    N - 1 additions and a division, each off by a factor of 1 + u at most, give N u / (1 - N u) times the sum of
    magnitudes over N. A factorisation P Q_w^T of rank r adds r products and additions on either side, for which
    |P_i| |Q_wj| <= ||p_w|| bounds the magnitudes, P being orthonormal and Q_w = M_w^T P. Subnormal results add half a
    spacing of the smallest numbers.
    """
    terms, u = len(p), sum_roundoff(log, p.dtype)
    magnitude = rows_of(outcome).double().abs().mean(0)
    stage = plain(scheme)
    if isinstance(stage, PowerSGD):
        terms += 2 * stage.rank + 2
        magnitude = magnitude.new_full(magnitude.shape, float(p.double().reshape(len(p), -1).norm(dim=1).mean()))
    return terms * u / (1 - terms * u) * magnitude + torch.finfo(p.dtype).smallest_normal * 2 * u


# ------------------------------------------------------------------------------------------------------ shapes, bytes


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_shapes_and_dtypes(case, dtype, exchange, values):
    state = None
    for step in range(2):
        x = values(WORKERS, *case.shape, seed=step, dtype=dtype)
        outcome, _ = exchange(case.scheme, x, state, step)
        state = outcome.state
        assert outcome.mean.shape == case.shape
        assert outcome.mean.dtype == dtype
        assert rows_of(outcome).shape == (WORKERS, math.prod(case.shape))
        assert rows_of(outcome).dtype == dtype
        assert_state_shapes(state, math.prod(case.shape), dtype)


def assert_state_shapes(state: State, size: int, dtype: torch.dtype) -> None:
    """Check what a checkpoint relies on to spread a state over other workers and units."""
    for tensor in state.elements.values():
        assert tensor.shape == (WORKERS, size)
        assert tensor.dtype == dtype
    assert all(len(tensor) == WORKERS for tensor in state.rows.values())
    assert all(isinstance(value, Tensor | float) for value in state.shared.values())
    if state.inner is not None:
        assert_state_shapes(state.inner, size, dtype)


class Spy(StackedDriver):
    """Remembers which payloads it was asked to exchange."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.requests: list[Request] = []

    def _perform(self, frames: list[Frame], number: int) -> tuple[list[Payload], list[Collective]]:
        self.requests += [frame.request for frame in frames]
        return super()._perform(frames, number)


def bytes_due(request: Request) -> list[int]:
    """Return what each worker is to be charged: its buffers' memory, a header of 8 bytes where payloads are moved.

    Who sends to nobody pays nothing, of a broadcast only the root pays, and rows of unknown length announce it in 8.
    """
    header = 8 if isinstance(request, Gather | Permute) else 0
    due = []
    for worker in range(WORKERS):
        rows = [b.row(worker) if isinstance(b, Ragged) else b[worker] for b in request.payload.buffers]
        length = header + sum(row.contiguous().view(torch.uint8).numel() for row in rows)
        if isinstance(request, Permute) and request.to[worker] < 0:
            length = 0
        if isinstance(request, Broadcast) and request.root != worker:
            length = 0
        due.append(length + 8 * sum(isinstance(b, Ragged) for b in request.payload.buffers))
    return due


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_charges_the_length_of_the_buffers(case, dtype, values):
    spy = Spy(WORKERS)
    x = values(WORKERS, *case.shape, dtype=dtype)
    turn = Turn(3, 0, "u", tuple(range(WORKERS)), WORKERS)
    _, log = spy.exchange([Item(x, case.scheme, case.scheme.init(case.shape, WORKERS, x[0]), turn)])
    charged = [sum(c.sent_bytes[worker] for c in log.collectives) for worker in range(WORKERS)]
    assert charged == [sum(due) for due in zip(*map(bytes_due, spy.requests), strict=True)]
    if not any(request.payload.is_ragged for request in spy.requests):
        assert charged == [round(case.scheme.wire_bytes(case.shape, dtype.itemsize))] * WORKERS


def test_decode_reads_what_encode_sent(codec_case, values):
    scheme, shape = codec_case
    x = values(WORKERS, *shape)
    turn = Turn(3, 5, "u", tuple(range(WORKERS)), WORKERS)
    payload, sent, _ = scheme.encode(x, scheme.init(shape, WORKERS, x[0]), turn)
    like = x[0].reshape(-1)
    decoded = scheme.decode(payload, shape, turn)
    assert torch.equal(decoded.dense(like), sent.dense(like))
    assert torch.equal(decoded.total(like), sent.total(like))


def test_names_what_it_is(sample):
    """Tables and the text form rely on these."""
    assert type(sample).name == str(sample).partition("(")[0]
    assert sample.title
    assert sample.paper
    assert sample.collective
    assert sample.granularity <= {"layer", "bucket", "model"}
    assert sample.granularity
    assert all(math.isfinite(part) and part >= 0 for part in sample.passes((24, 20)))


# ------------------------------------------------------------------------------------------------------- random draws


def wire_image(scheme: Codec, x: Tensor, seed: int = 1, step: int = 2, unit: str = "u", first: int = 0) -> bytes:
    """Return the payload's bytes for one key."""
    turn = Turn(seed, step, unit, tuple(range(first, first + len(x))), 8)
    payload, _, _ = scheme.encode(x, scheme.init(tuple(x.shape[1:]), len(x), x[0]), turn)
    tensors = [buffer.flat if isinstance(buffer, Ragged) else buffer for buffer in payload.buffers]
    return b"".join(bytes(tensor.view(torch.uint8).flatten().tolist()) for tensor in tensors)


def test_draws_follow_from_the_key_alone(codec, values):
    x = values(2, 30, 41)
    first = wire_image(codec, x)
    torch.manual_seed(99)  # the global generator plays no part
    assert wire_image(codec, x) == first
    differs = {
        wire_image(codec, x, seed=2) != first,
        wire_image(codec, x, step=3) != first,
        wire_image(codec, x, unit="v") != first,
    }
    assert len(differs) == 1, "a draw depends on seed, step and unit, or on none of them"
    random = differs.pop()
    # Payloads can only be summed where all workers made the same draws; where they are gathered, each makes its own.
    assert (wire_image(codec, x, first=3) != first) == (random and codec.combine == "gather")
    everything = isinstance(codec, RandomK) and codec.density == 1
    assert random == (type(codec) in LAWS and not everything), "a random scheme needs its law, a fixed one has none"


class Law(NamedTuple):
    """Each entry of C(x) is ``high`` with probability ``p``, else ``low``."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]

    @property
    def expectation(self) -> NDArray[np.float64]:
        return self.low + self.p * (self.high - self.low)

    def squared_error(self, x: NDArray[np.float64]) -> float:
        """Return E||C(x) - x||^2 exactly."""
        return float(np.sum((1 - self.p) * (self.low - x) ** 2 + self.p * (self.high - x) ** 2))


def selection_law(scheme: RandomK | RandomBlock, x: NDArray[np.float64]) -> Law:
    """Each entry is kept with probability k / n, by symmetry, and multiplied by n / k where scaled."""
    kept = max(1, math.ceil(Fraction(str(scheme.density)) * x.size))
    factor = x.size / kept if scheme.scaled else 1.0
    return Law(np.zeros_like(x), factor * x, np.full(x.size, kept / x.size))


def rounding_law(scheme: QSGD, x: NDArray[np.float64]) -> Law:
    """Alistarh et al. 2017: |x| s / norm is rounded to a neighbouring integer so that its expectation is kept."""
    levels = 2 ** (scheme.bits - 1) - 1
    low, high, p = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for start in range(0, x.size, scheme.bucket):
        part = slice(start, start + scheme.bucket)
        norm = np.abs(x[part]).max() if scheme.norm == "max" else math.sqrt(np.sum(x[part] ** 2))
        if norm == 0:
            continue
        position = np.abs(x[part]) * levels / norm
        below = np.minimum(np.floor(position), levels)
        low[part] = np.sign(x[part]) * below * norm / levels
        high[part] = np.sign(x[part]) * (below + 1) * norm / levels
        p[part] = position - below
    return Law(low, high, p)


LAWS: dict[type[Scheme], Callable[..., Law]] = {
    RandomK: selection_law,
    RandomBlock: selection_law,
    QSGD: rounding_law,
}
"""How the random schemes are distributed, from their definitions. The others must keep their promises in every draw."""


def inputs() -> dict[str, Tensor]:
    """Return vectors of 150 values that are hard in different ways; the last holds entries of 2^-20 the maximum."""
    generator = torch.Generator().manual_seed(5)
    normal = torch.randn(150, generator=generator, dtype=torch.float64)
    heavy = normal / torch.randn(150, generator=generator, dtype=torch.float64)
    one_hot = torch.zeros(150, dtype=torch.float64).index_fill_(0, torch.tensor(17), -3.0)
    small = normal.clone()
    small[::3] = small.abs().max() * 2.0**-20
    return {
        "normal": normal,
        "heavy-tailed": heavy,
        "one-hot": one_hot,
        "constant": torch.full_like(normal, -0.3),
        "zero": torch.zeros_like(normal),
        "small": small,
    }


@pytest.mark.parametrize("shape", [(150,), (15, 10)], ids=str)
@pytest.mark.parametrize("name", inputs())
def test_error_stays_below_its_bound(sample, name, shape, exchange):
    """The expected error is computed from the law, of which the next test shows that it is followed."""
    x = inputs()[name]
    bound, squared = sample.error_bound(shape), float(x.square().sum())
    rounding = 1 + 1e-12  # sums of 150 squares in float64: 150 * 2^-53 = 1.7e-14
    if type(sample) in LAWS:
        law = LAWS[type(sample)](sample, x.numpy())
        error = law.squared_error(x.numpy())
        assert error <= bound * squared * rounding
        if isinstance(sample, RandomK | RandomBlock):
            assert error == pytest.approx(bound * squared, rel=1e-12)
        return
    both = torch.stack([x, -x.flip(0)])
    for step in range(10):
        sent = rows_of(exchange(sample, both.view(2, *shape), step=step)[0])
        assert float((sent - both).square().sum(1).max()) <= bound * squared * rounding


LEVEL = 1e-9
"""Chance of one of a test's comparisons to fail although the law is right, divided by their number."""
DRAWS = 1500


def test_follows_its_law(sample, exchange):
    """Every draw takes one of the two values of the law, and no count is improbable under the exact binomial."""
    if type(sample) not in LAWS:
        pytest.skip("not random, or without a law: the bound was tested on every draw")
    x = inputs()["small"]
    law = LAWS[type(sample)](sample, x.numpy())
    drawn = np.stack([rows_of(exchange(sample, x[None], step=step)[0]).numpy()[0] for step in range(DRAWS)])
    high = np.abs(drawn - law.high) < np.abs(drawn - law.low)
    # A scale and a product are rounded: a few units of 2^-53, of values that the norm bounds.
    np.testing.assert_allclose(drawn, np.where(high, law.high, law.low), rtol=1e-14, atol=1e-14 * float(x.abs().max()))
    counts = high.sum(0)[law.high != law.low]
    p = law.p[law.high != law.low]
    tail = 2 * np.minimum(binom.cdf(counts, DRAWS, p), binom.sf(counts - 1, DRAWS, p))
    assert len(counts) >= 100
    assert tail.min() > LEVEL / len(counts)


@pytest.mark.parametrize("name", ["normal", "heavy-tailed", "constant", "small"])
def test_is_unbiased_exactly_where_it_says_so(sample, name, exchange):
    x = inputs()[name]
    if type(sample) in LAWS:
        expectation = LAWS[type(sample)](sample, x.numpy()).expectation
        # A position and its level are rounded before they are subtracted: 2^-53 of the norm, over 2^-20 of it.
        assert sample.unbiased == np.allclose(expectation, x.numpy(), rtol=1e-8, atol=0)
    elif sample.unbiased:
        assert torch.equal(rows_of(exchange(sample, x[None])[0])[0], x)
    else:
        pytest.skip("biased, and says so")


# ---------------------------------------------------------------------------------------------------- mean, residuals


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_mean_is_the_average_of_sent(case, dtype, exchange, values):
    state, kept = None, 0.0
    for step in range(3):
        x = values(WORKERS, *case.shape, seed=step, dtype=dtype)
        p = x.reshape(WORKERS, -1) + kept
        outcome, log = exchange(case.scheme, x, state, step)
        state = outcome.state
        kept = residual(state) if "residual" in state.elements else 0.0
        difference = outcome.mean.reshape(-1).double() - rows_of(outcome).double().mean(0)
        assert (difference.abs() <= mean_error(case.scheme, p, outcome, log)).all()
        assert rows_of(outcome).abs().max() > 0


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_residual_is_what_was_not_sent(remembered, dtype, exchange, values):
    state, before = None, torch.zeros(WORKERS, math.prod(remembered.shape), dtype=dtype)
    for step in range(4):
        x = values(WORKERS, *remembered.shape, seed=step, dtype=dtype)
        local = before + x.reshape(WORKERS, -1)
        outcome, _ = exchange(remembered.scheme, x, state, step)
        state = outcome.state
        sent, before = rows_of(outcome), residual(state)
        assert torch.equal(before, local - sent)
        if selects(remembered.scheme):
            assert torch.equal(sent + before, local)
            assert ((sent == 0) | (sent == local)).all()


def test_nothing_is_lost_over_fifty_steps(remembered, exchange, values):
    state, means, gradients, allowed = None, 0.0, 0.0, 0.0
    kept = torch.zeros(())
    for step in range(50):
        x = values(WORKERS, *remembered.shape, seed=step, dtype=torch.float64)
        p = x.reshape(WORKERS, -1) + kept
        outcome, log = exchange(remembered.scheme, x, state, step)
        state, kept = outcome.state, residual(outcome.state)
        means = means + outcome.mean.reshape(-1)
        gradients = gradients + x.reshape(WORKERS, -1).mean(0)
        allowed = allowed + mean_error(remembered.scheme, p, outcome, log)
    # What the test and the memory round: 50 steps of about 10 operations on values below 1e3, 50 * 10 * 1e3 * 2^-53.
    assert ((means + kept.mean(0) - gradients).abs() <= allowed + 1e-10).all()
    assert (gradients.abs() > 1e-3).any()


def test_error_feedback_refuses_exactly_what_can_expand(sample, shape, values):
    wrapped = remember(ErrorFeedback(), sample)
    expands = sample.error_bound(shape) > 1
    with pytest.raises(SchemeError, match="error feedback needs at most 1") if expands else nullcontext():
        wrapped.init(shape, WORKERS, values(*shape))


def test_error_feedback_keeps_what_is_known_of_the_scheme(remembered):
    """A wrapped codec is a codec, and a wrapped protocol a protocol, on the same wire."""
    inner = plain(remembered.scheme)
    assert isinstance(remembered.scheme, Codec) == isinstance(inner, Codec)
    assert remembered.scheme.wire_bytes(remembered.shape) == inner.wire_bytes(remembered.shape)
    assert remembered.scheme.error_bound(remembered.shape) == inner.error_bound(remembered.shape)
    assert remembered.scheme.granularity == inner.granularity
    assert remembered.scheme.law == inner.law
    assert not remembered.scheme.unbiased
    assert remembered.scheme.passes(remembered.shape).encode > inner.passes(remembered.shape).encode


# -------------------------------------------------------------------------------------------------------- hard inputs


def test_zeros_stay_zeros_and_leave_no_trace(case, exchange, values):
    state = None
    for step in range(2):
        outcome, _ = exchange(case.scheme, torch.zeros(WORKERS, *case.shape), state, step)
        state = outcome.state
        assert not outcome.mean.any()
        assert not rows_of(outcome).any()
    after, _ = exchange(case.scheme, values(WORKERS, *case.shape), state, 2)
    assert after.mean.isfinite().all()
    assert after.mean.any()


def test_constants(case, exchange):
    x = torch.full((WORKERS, *case.shape), -0.7)
    outcome, log = exchange(case.scheme, x)
    difference = outcome.mean.reshape(-1).double() - rows_of(outcome).double().mean(0)
    assert (difference.abs() <= mean_error(case.scheme, x, outcome, log)).all()
    assert (outcome.mean <= 0.7 * 2.0**-20).all()  # nothing changes sign, but for the rounding of a factorisation
    assert (outcome.mean < 0).any()


@pytest.mark.parametrize("power", [100, -100])
def test_huge_and_tiny_values_are_treated_like_ordinary_ones(case, power, exchange, values):
    """Multiplying by 2^100 = 1.3e30 is exact, and so is everything after it unless something overflows or vanishes."""
    ordinary, scaled = None, None
    for step in range(3):
        x = values(WORKERS, *case.shape, seed=step)
        one, _ = exchange(case.scheme, x, ordinary, step)
        other, _ = exchange(case.scheme, x * 2.0**power, scaled, step)
        ordinary, scaled = one.state, other.state
        assert other.mean.isfinite().all()
        back, sent = other.mean * 2.0**-power, rows_of(other) * 2.0**-power
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
        difference = outcome.mean.reshape(-1).double() - rows_of(outcome).double().mean(0)
        assert (difference.abs() <= mean_error(case.scheme, x, outcome, log)).all()
        if "residual" in state.elements:
            assert torch.equal(residual(state), before + x.reshape(WORKERS, -1) - rows_of(outcome))
            before = residual(state)
    assert outcome.mean.any() or not selects(case.scheme)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_non_finite_values_are_refused_before_anything_happens(case, bad, exchange, values):
    x = values(WORKERS, *case.shape)
    state = exchange(case.scheme, x)[0].state
    kept = State.from_dict(pickle.loads(pickle.dumps(state.state_dict())))
    x[2].reshape(-1)[-1] = bad
    with pytest.raises(NonFiniteError, match=r"^step 5: the gradient of layer\.weight holds .* on worker 2$"):
        exchange(case.scheme, x, state, step=5)
    assert_same(state, kept)


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
    scheme = remember(ErrorFeedback(), sample) if memory else sample
    expands = memory and scheme.error_bound((1920, 41)) > 1
    shape = (7,) if expands else (1920, 41)  # the latter is long enough to be split between threads
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


# ------------------------------------------------------------------------------------------------------ learning rate

POWERS = (1.0, 0.5, 0.125, 2.0, 0.25)
"""A schedule that multiplies without rounding, so that equal things are equal bit for bit."""


def test_memory_in_update_units_is_that_of_the_papers(remembered, exchange, values):
    """The papers put lr g into the memory: q = m + lr g, the weights move by C(q), m = q - C(q)."""
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
