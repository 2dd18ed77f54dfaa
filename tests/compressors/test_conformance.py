"""What every scheme must keep, tested on each that is listed: to be in the registry is to be tested here."""

import math
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

from gradwire.compressors.base import Codec, Scheme, SchemeError, State, Turn
from gradwire.compressors.drivers import Frame, Item, StackedDriver
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.lowrank.atomo import Atomo
from gradwire.compressors.payload import Payload, Ragged
from gradwire.compressors.quantizers.natural import Natural
from gradwire.compressors.quantizers.nuqsgd import NUQSGD
from gradwire.compressors.quantizers.qsgd import QSGD
from gradwire.compressors.quantizers.sharedqsgd import SharedQSGD
from gradwire.compressors.quantizers.terngrad import SharedTernGrad, TernGrad
from gradwire.compressors.remember import remember
from gradwire.compressors.requests import AllToAll, Broadcast, Gather, Permute, Request
from gradwire.compressors.sparsifiers.randomblock import RandomBlock
from gradwire.compressors.sparsifiers.randomk import RandomK
from gradwire.compressors.sparsifiers.sampledtopk import SampledTopK
from gradwire.compressors.sparsifiers.wangni import Wangni
from gradwire.compressors.wirelog import Collective

from .laws import (
    FLOATS,
    WORKERS,
    algorithm_1,
    lawful_mean,
    may_send_nothing,
    mean_error,
    plain,
    remembers,
    residual,
    rows_of,
    selects,
)

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

    Who sends to nobody pays nothing, of a broadcast only the root pays, and rows of unknown length announce it in 8. In
    an all-to-all that holds for each chunk, of which a worker keeps one.
    """
    if isinstance(request, AllToAll) and any(isinstance(b, Ragged) for b in request.payload.buffers):
        return [sum(chunk_due(b, worker) for b in request.payload.buffers) for worker in range(WORKERS)]
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


def chunk_due(buffer: Tensor | Ragged, worker: int) -> int:
    """Return what a worker is to be charged for a buffer of chunks for the others."""
    if isinstance(buffer, Ragged):
        chunks = [buffer.row(worker * WORKERS + other) for other in range(WORKERS)]
        announced = 8 * WORKERS
    else:
        chunks, announced = list(buffer[worker].view(WORKERS, -1)), 0
    moved = (chunk.contiguous().view(torch.uint8).numel() for other, chunk in enumerate(chunks) if other != worker)
    return announced + sum(moved)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_charges_the_length_of_the_buffers(case, dtype, values):
    spy = Spy(WORKERS)
    x = values(WORKERS, *case.shape, dtype=dtype)
    turn = Turn(3, 0, "u", tuple(range(WORKERS)), WORKERS)
    _, log = spy.exchange([Item(x, case.scheme, case.scheme.init(case.shape, WORKERS, x[0]), turn)])
    charged = [sum(c.sent_bytes[worker] for c in log.collectives) for worker in range(WORKERS)]
    assert charged == [sum(due) for due in zip(*map(bytes_due, spy.requests), strict=True)]
    if not case.scheme.varying:
        assert max(charged) == round(case.scheme.at(turn).wire_bytes(case.shape, dtype.itemsize))
        rooted = any(isinstance(request, Broadcast | Permute) for request in spy.requests)
        assert rooted or len(set(charged)) == 1  # only in a tree, or under a leader, workers send unequally


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
    everything = getattr(codec, "density", 0) == 1
    if type(codec) in {*LAWS, *BY_ATOMS}:
        assert random != everything
    elif random:
        assert codec.parts()[-1].selects, "a random scheme needs its law, unless it only chooses what to send as it is"
        assert not codec.unbiased


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


def sampling_law(scheme: Wangni, x: NDArray[np.float64]) -> Law:
    """Wangni et al. 2018: x_i / p_i with probability p_i = min(1, c |x_i|), where the p_i add up to k."""
    p = algorithm_1(np.abs(x), max(1, math.ceil(Fraction(str(scheme.density)) * x.size)))
    return Law(np.zeros_like(x), x / np.where(p > 0, p, 1), p)


def threshold_law(scheme: SampledTopK, x: NDArray[np.float64]) -> Law:
    """An entry reaches the r-th largest of m draws if fewer than r of them hit one of the larger entries."""
    draws, magnitude = scheme.draws(x.size), np.abs(x)
    if not draws:
        order = np.lexsort((np.arange(x.size), -magnitude))
        p = np.zeros(x.size)
        p[order[: math.ceil(Fraction(str(scheme.density)) * x.size)]] = 1
    else:
        larger = np.array([np.sum(magnitude > value) for value in magnitude]) / x.size
        p = binom.cdf(math.ceil(Fraction(str(scheme.density)) * draws) - 1, draws, larger)
    return Law(np.zeros_like(x), x, p)


def whole_unit_law(scheme: SharedQSGD, x: NDArray[np.float64]) -> Law:
    """QSGD's with one bucket, if there is but one worker."""
    return rounding_law(QSGD(scheme.bits, x.size), x)


def ternary_law(scheme: TernGrad | SharedTernGrad, x: NDArray[np.float64]) -> Law:
    """Wen et al. 2017: what is clipped to c sigma is sent as its maximum s with probability |x| / s."""
    limit = scheme.clip * x.std() if scheme.clip and np.ptp(x) else math.inf
    clipped = np.clip(x, -limit, limit)
    scaler = np.abs(clipped).max()
    return Law(np.zeros_like(x), np.sign(x) * scaler, np.abs(clipped) / (scaler or 1))


def natural_law(_: Natural, x: NDArray[np.float64]) -> Law:
    """Horvath et al. 2019: one of the neighbouring powers of two."""
    below = np.where(x == 0, 0, np.exp2(np.floor(np.log2(np.where(x == 0, 1, np.abs(x))))))
    return Law(np.sign(x) * below, np.sign(x) * 2 * below, np.abs(x) / np.where(x == 0, 1, below) - (x != 0))


def power_law(scheme: NUQSGD, x: NDArray[np.float64]) -> Law:
    """Ramezani-Kebrya et al. 2021: levels 0 and 2^-s to 1 of the norm."""
    lowest = 2.0 ** -(2 ** (scheme.bits - 1) - 2)
    low, high, p = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for start in range(0, x.size, scheme.bucket):
        part = slice(start, start + scheme.bucket)
        norm = np.abs(x[part]).max() if scheme.norm == "max" else math.sqrt(np.sum(x[part] ** 2))
        ratio = np.abs(x[part]) / (norm or 1)
        below = np.exp2(np.floor(np.log2(np.maximum(ratio, lowest))))
        first, second = np.where(ratio < lowest, 0, below), np.where(ratio < lowest, lowest, 2 * below)
        low[part], high[part] = np.sign(x[part]) * first * norm, np.sign(x[part]) * second * norm
        p[part] = (ratio - first) / (second - first)
    return Law(low, high, p)


LAWS: dict[type[Scheme], Callable[..., Law]] = {
    RandomK: selection_law,
    RandomBlock: selection_law,
    QSGD: rounding_law,
    SampledTopK: threshold_law,
    Wangni: sampling_law,
    SharedQSGD: whole_unit_law,
    NUQSGD: power_law,
    Natural: natural_law,
    TernGrad: ternary_law,
    SharedTernGrad: ternary_law,
}
"""How the random schemes are distributed, from their definitions. The others must keep their promises in every draw."""


BY_ATOMS = {Atomo}
"""Random schemes whose law is that of the atoms that they draw, not of entries; each keeps it in tests of its own."""


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
    if math.isinf(bound):
        pytest.skip("what it remembers comes out, too")
    rounding = 1 + 1e-12  # sums of 150 squares in float64: 150 * 2^-53 = 1.7e-14
    if type(sample) in LAWS:
        law = LAWS[type(sample)](sample, x.numpy())
        error = law.squared_error(x.numpy())
        assert error <= (bound * squared * rounding if squared else 0)  # a bound may be infinite
        if isinstance(sample, RandomK | RandomBlock):
            assert error == pytest.approx(bound * squared, rel=1e-12)
        return
    if type(sample) in BY_ATOMS:
        pytest.skip("the error of single draws is not bounded")
    both = torch.stack([x, -x.flip(0)])
    for step in range(10):
        outcome, _ = exchange(sample, both.view(2, *shape), step=step)
        assert float((outcome.mean.view(-1) - both.mean(0)).square().sum()) <= bound * squared * rounding
        if isinstance(sample, Codec):  # in a protocol, what one worker keeps may be another's
            assert float((rows_of(outcome) - both).square().sum(1).max()) <= bound * squared * rounding


LEVEL = 1e-9
"""Chance of one of a test's comparisons to fail although the law is right, divided by their number."""
DRAWS = 1500


def draws(scheme: Scheme, x: Tensor) -> Tensor:
    """Return what many workers send of the same values, or one worker in many steps where all draw the same."""
    workers, steps = (DRAWS, 1) if isinstance(scheme, Codec) and scheme.combine == "gather" else (1, DRAWS)
    rows = x.expand(workers, -1)
    outcomes = []
    for step in range(steps):
        item = Item(rows, scheme, scheme.init(x.shape, workers, x), Turn(1, step, "u", tuple(range(workers)), workers))
        outcomes += StackedDriver(workers).exchange([item])[0]
    return torch.cat([rows_of(outcome) for outcome in outcomes])


def test_follows_its_law(sample):
    """Every draw takes one of the two values of the law, and no count is improbable under the exact binomial."""
    if type(sample) not in LAWS:
        pytest.skip("not random, or without a law: the bound was tested on every draw")
    x = inputs()["small"]
    law = LAWS[type(sample)](sample, x.numpy())
    drawn = draws(sample, x).numpy()
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
        close = np.allclose(expectation, x.numpy(), rtol=1e-8, atol=0)
        assert close or not sample.unbiased
        assert sample.unbiased or not close or name != "heavy-tailed"  # a bias need not show on every input
    elif sample.unbiased and type(sample) not in BY_ATOMS:
        assert torch.equal(rows_of(exchange(sample, x[None])[0])[0], x)
    else:
        pytest.skip("biased, and says so, or by atoms")


# ---------------------------------------------------------------------------------------------------- mean, residuals


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_mean_follows_from_sent_by_the_law(case, dtype, exchange, values):
    state, kept = None, 0.0
    for step in range(3):
        x = values(WORKERS, *case.shape, seed=step, dtype=dtype)
        p = x.reshape(WORKERS, -1) + kept
        outcome, log = exchange(case.scheme, x, state, step)
        state = outcome.state
        kept = residual(state) if "residual" in state.elements else 0.0
        difference = outcome.mean.reshape(-1).double() - lawful_mean(case.scheme, outcome)
        assert (difference.abs() <= mean_error(case.scheme, p, outcome, log)).all()
        assert rows_of(outcome).any() or may_send_nothing(*case)


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


def test_error_feedback_refuses_exactly_what_remembers_votes_or_can_expand(sample, shape, values):
    if remembers(sample):
        with pytest.raises(SchemeError, match="already has a memory"):
            remember(ErrorFeedback(), sample)
        return
    wrapped, refused = remember(ErrorFeedback(), sample), nullcontext()
    if sample.law != "mean of sent":
        refused = pytest.raises(SchemeError, match="error feedback needs the mean of what the workers sent")
    elif sample.error_bound(shape) > 1:
        refused = pytest.raises(SchemeError, match="error feedback needs at most 1")
    with refused:
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
