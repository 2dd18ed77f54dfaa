"""Gains over seeds against scipy's own intervals, and the memory of schemes against what they really keep."""

from math import ceil, exp, log, log2, prod

import numpy as np
import pytest
import torch
from scipy import stats

from gradwire.analysis.advice.gains import Gain, paired_gain
from gradwire.analysis.advice.memory import scheme_memory, state_bytes
from gradwire.compressors.base import Turn
from gradwire.compressors.drivers import Item, StackedDriver
from gradwire.compressors.partition import partition
from gradwire.compressors.registry import SCHEMES
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wirelog import Collective, MessageLog, Work
from gradwire.sim.step.synthetic import LATE, synthetic_log

BASE_S, OWN_S = [4.0, 5.0, 4.5, 5.5], [2.0, 3.1, 2.4, 2.2]


def test_the_interval_is_that_of_a_paired_t_test_on_logarithms():
    found = paired_gain(BASE_S, OWN_S)
    interval = stats.ttest_rel(np.log(BASE_S), np.log(OWN_S)).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((exp(interval.low), exp(interval.high)), rel=1e-12)
    assert found.ratio == pytest.approx(prod(b / o for b, o in zip(BASE_S, OWN_S, strict=True)) ** 0.25, rel=1e-12)
    assert found.seeds == 4


def test_two_seeds_by_hand():
    """t of one degree of freedom is 12.706 at 97.5 %; logs 4 and 1 differ by log 4 and have the mean log 2."""
    found = paired_gain([4.0, 1.0], [1.0, 1.0])
    half = 12.706204736 * (log(4) / 2**0.5) / 2**0.5
    assert (found.ratio, found.low, found.high) == pytest.approx((2, 2 * exp(-half), 2 * exp(half)), rel=1e-9)
    assert not found.decided


def test_one_seed_has_no_interval():
    assert paired_gain([3.0], [2.0]) == Gain(pytest.approx(1.5), None, None, 1)
    assert paired_gain([3.0], [2.0]).decided


@pytest.mark.parametrize(("low", "high", "decided"), [(1.1, 1.3, True), (0.7, 0.9, True), (0.9, 1.3, False)])
def test_an_interval_that_holds_1_decides_nothing(low, high, decided):
    assert Gain(1.0, low, high, 3).decided is decided


# ------------------------------------------------------------------------------------------------------------ memory

SHAPES = [("a.weight", (40, 30)), ("a.bias", (40,))]
ELEMENTS = 40 * 30 + 40
TEXTS = sorted(
    {str(kind()) for kind in SCHEMES.values()}
    | {example for kind in SCHEMES.values() for example in kind.examples}
    | {"ef(topk(density=0.1))", "ef(powersgd(rank=2))", "ef21(topk(density=0.1))", "lowpass(topk(density=0.1))"}
    | {"warmup(topk(density=0.01), start=1.0, steps=100)", "ef(phases(topk(density=0.1), topk(density=0.01), at=9))"}
)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("text", TEXTS)
def test_the_state_is_what_a_step_leaves(text, workers):
    scheme, shape = parse_scheme(text), (20, 30)
    draws = np.random.Generator(np.random.Philox(3)).standard_normal((workers, *shape)).astype(np.float32)
    x = torch.from_numpy(draws)
    turn = Turn(0, LATE, "unit", tuple(range(workers)), workers)
    (outcome,), _ = StackedDriver(workers).exchange([Item(x, scheme, scheme.init(shape, workers, x[0]), turn)])
    assert state_bytes(scheme, shape, workers) == _bytes(outcome.state, workers)


def _bytes(state, workers):
    own = [t for part in (state.elements, state.rows) for t in part.values()]
    assert all(len(t) == workers for t in own)
    shared = [t for t in state.shared.values() if isinstance(t, torch.Tensor)]
    total = sum(t.nbytes // workers for t in own) + sum(t.nbytes for t in shared)
    return total + (0 if state.inner is None else _bytes(state.inner, workers))


def test_memory_by_formula():
    """A residual of 4 bytes a value; k entries of a value and an index of ceil(log2 n) bits, 8 bytes of header."""
    cut, workers = partition(SHAPES), 4

    def memory(text):
        scheme = parse_scheme(text)
        return scheme_memory(scheme, cut, workers, [synthetic_log(cut, scheme, workers)])

    found = memory("ef(topk(density=0.1))")
    payload = sum(8 + 4 * k + ceil(k * ceil(log2(n)) / 8) for k, n in ((120, 1200), (4, 40)))
    assert found.state_bytes == 4 * ELEMENTS
    assert found.buffer_bytes == (1 + workers) * payload
    assert found.total_bytes == found.state_bytes + found.buffer_bytes
    dense, half = memory("dense"), memory("dense(dtype=bf16)")
    assert (dense.state_bytes, dense.buffer_bytes) == (0, 0)
    assert (half.state_bytes, half.buffer_bytes) == (0, 2 * ELEMENTS)
    low_rank = memory("powersgd(rank=2)")
    assert low_rank.state_bytes == 4 * 2 * 30  # Q, of the matrix only
    assert low_rank.buffer_bytes == 4 * 2 * (40 + 30)  # both factors; the bias is sent from where it lies
    assert memory("ef21(topk(density=0.1))").state_bytes == 2 * 4 * ELEMENTS


def test_memory_of_float64_and_of_the_largest_step():
    scheme, cut = parse_scheme("ef(dense(dtype=bf16))"), partition(SHAPES)

    def log(size):
        work = Work("ef(dense(dtype=bf16))", (ELEMENTS,), 1)
        return (MessageLog(0, (work,), (Collective("all-gather", 0, "bytes", (size, size - 7)),)),)

    found = scheme_memory(scheme, cut, 2, [log(20), log(30), log(10)], torch.float64)
    assert (found.state_bytes, found.buffer_bytes) == (8 * ELEMENTS, 30 + 2 * 30)
    exact = scheme_memory(scheme, cut, 2, [log(30)], torch.float64, "exact")
    assert exact.buffer_bytes == 30 + 30 + 23
