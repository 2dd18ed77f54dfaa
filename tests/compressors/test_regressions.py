"""Mistakes that codes of these schemes are known to make, each as a test by name."""

import itertools
import math
import random

import numpy as np
import pytest
import torch

from gradwire.compressors.base import Codec, NonFiniteError, State, Turn
from gradwire.compressors.lowrank import atomo
from gradwire.compressors.lowrank.atomo import Atomo
from gradwire.compressors.partition import Parameter, Unit
from gradwire.compressors.quantizers.coding import pack_codes
from gradwire.compressors.quantizers.elias import decode_levels, encode_levels
from gradwire.compressors.quantizers.int8 import Int8
from gradwire.compressors.quantizers.signs import SignSGD
from gradwire.compressors.regroup import regrouped
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wire import pack, unpack
from gradwire.sim.cluster.cluster import make_cluster
from gradwire.sim.network.costs import Batch, Costs

# ------------------------------------------------------------------------------------------ random draws and their keys


def test_regression_the_users_generators_are_left_alone(sample, exchange, values):
    """GRACE's random k calls ``torch.manual_seed`` at every step, and so reseeds the user's own draws."""
    x = values(3, 6, 10)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)  # noqa: NPY002 - the global one is what this is about
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    state = exchange(sample, x)[0].state
    exchange(sample, x, state, 1)
    after = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    assert after[0] == before[0]
    assert all(np.array_equal(one, other) for one, other in zip(after[1], before[1], strict=True))
    assert torch.equal(after[2], before[2])


RANDOM = ["randomk", "randomk(density=0.1, seed=own)", "randomblock", "qsgd", "natural", "terngrad", "wangni", "atomo"]


@pytest.mark.parametrize("text", RANDOM)
def test_regression_units_whose_names_are_anagrams_draw_apart(text, values):
    """GRACE sums the bytes of the name and adds the step, so that ``conv12`` at one step is ``conv21`` at the same."""
    scheme, x = parse_scheme(text), values(1, 20, 25)
    assert isinstance(scheme, Codec)
    found = []
    for name, step in (("conv12", 0), ("conv21", 0), ("conv11", 1), ("conv12", 0)):
        _, sent, _ = scheme.encode(x, State(), Turn(1, step, name, (0,), 1))
        found.append(sent.dense(x[0].reshape(-1)))
    assert torch.equal(found[0], found[3])
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(found[:3], 2))


# --------------------------------------------------------------------------------------------------------------- ATOMO


@pytest.mark.parametrize("scale", [1e-8, 1e-30])
def test_regression_a_matrix_of_tiny_values_is_sampled_like_any_other(scale, exchange, monkeypatch):
    """Where sigma_1 < 1e-6, the authors' code sends the first atom for certain, which is biased."""
    x, seen = scale * torch.eye(4, dtype=torch.float64), []
    mean = torch.zeros(4, 4, dtype=torch.float64)
    for outcome in itertools.product([False, True], repeat=4):
        drawn = torch.tensor([outcome])
        monkeypatch.setattr(atomo, "_draw", lambda p, _, drawn=drawn: (seen.append(p), drawn)[1])
        found = exchange(Atomo(budget=1), x[None])[0].mean
        mean += found * 0.25 ** sum(outcome) * 0.75 ** (4 - sum(outcome))
    assert all(p.tolist() == [[pytest.approx(0.25, rel=1e-14)] * 4] for p in seen)
    torch.testing.assert_close(mean, x, rtol=1e-13, atol=0)


# ------------------------------------------------------------------------------------------------- buckets and streams


@pytest.mark.parametrize("text", ["qsgd(bits=4, bucket=8, norm=max)", "nuqsgd(bits=4, bucket=8, norm=max)"])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 19, 24])
def test_regression_buckets_need_not_divide_the_unit(text, size, exchange, values):
    """ATOMO's QSGD splits into equal buckets or fails; here the last is shorter and has a norm of its own."""
    x = values(1, size, dtype=torch.float64)
    x[0, 8 * ((size - 1) // 8) :] *= 1e-6
    outcome, log = exchange(text, x)
    for bucket, sent in zip(x[0].split(8), outcome.mean.split(8), strict=True):
        peak = int(bucket.abs().argmax())
        assert float(sent[peak]) == pytest.approx(float(bucket[peak]), rel=1e-15)
        assert float(sent.abs().max()) <= float(bucket.abs().max()) * (1 + 1e-15)
    assert log.collectives[-1].sent_bytes == (8 + 8 * math.ceil(size / 8) + math.ceil(size / 2),)


@pytest.mark.parametrize("size", [512, 1024, 1023, 1025])
def test_regression_int8_pads_no_whole_block(size, exchange, values):
    """torch's hook by channels adds a block of 512 where the unit is a multiple of 512."""
    x = values(2, size)
    outcome, log = exchange(Int8(block=512), x)
    assert log.collectives[-1].sent_bytes == (8 + 4 * math.ceil(size / 512) + size,) * 2
    step = torch.stack([block.abs().amax(1) / 127 for block in x.split(512, dim=1)], 1)
    error = (outcome.sent.dense(x[0]) - x).abs()
    assert (error <= step.repeat_interleave(512, 1)[:, :size] * (0.5 + 1e-5)).all()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 31, 32, 33, 63, 65])
def test_regression_odd_lengths_of_one_bit_an_entry(size, values):
    """BytePS reads up to 31 entries beyond a tensor that is no multiple of a word."""
    backing = torch.cat([values(1, size), torch.full((1, 64), 5.0)], 1)  # whose neighbours are all positive
    x = -backing[:, :size].abs()
    payload, sent, _ = SignSGD().encode(x, State(), Turn(1, 0, "u", (0,), 1))
    assert payload.row_bytes == [(size + 7) // 8]
    assert not payload.fixed(0).any()
    assert sent.dense(x[0]).tolist() == [[-1.0] * size]
    backing[:, :size] = backing[:, :size].abs()
    _, sent, _ = SignSGD().encode(backing[:, :size], State(), Turn(1, 0, "u", (0,), 1))
    assert sent.dense(x[0]).tolist() == [[1.0] * size]


@pytest.mark.parametrize("way", [pack, pack_codes], ids=["on any device", "as QSGD does"])
def test_regression_packed_streams_of_more_than_2_to_the_24_bits(way):
    """BytePS keeps a stream's length as float32, which is exact up to 2^24 alone."""
    size = 2**24 // 7 + 5
    codes = torch.zeros(1, size, dtype=torch.uint8)
    codes[0, :2], codes[0, -3:] = torch.tensor([127, 1]), torch.tensor([5, 0, 126])
    packed = way(codes, 7)
    assert packed.shape == (1, math.ceil(size * 7 / 8))
    assert packed.shape[1] * 8 > 2**24
    assert torch.equal(unpack(packed, 7, size, torch.uint8), codes)


def test_regression_coded_levels_of_more_than_2_to_the_24_bits():
    """The same of Elias's code: level 127 + 1 takes 8 + 3 + 2 bits and the closing one, and its sign another."""
    size, top = 2**24 // 15 + 9, 127
    codes = torch.full((1, size), 2 * top, dtype=torch.uint8)
    codes[0, -4:] = torch.tensor([0, top, top - 1, top + 2])
    written = encode_levels(codes, top, gaps=False)
    bits = 15 * (size - 3) + 1 + 4 + 4  # levels 0, 1 and 2 as 1, 2 and 3, in 1, 3 and 3 bits and two signs
    assert bits > 2**24
    assert written.lengths == [math.ceil(bits / 8)]
    assert torch.equal(decode_levels(written, top, size, gaps=False), codes)


# ------------------------------------------------------------------------------------------------------ error feedback


def test_regression_error_feedback_around_cat_remembers(exchange):
    """A published code of CAT has the update of its memory commented out: what is small would never be sent."""
    text, state, total = "ef(cat(cost=payload))", None, torch.zeros(1, 3, dtype=torch.float64)
    x = torch.tensor([[8.0, 3.0, 1.0]], dtype=torch.float64)
    for step in range(20):
        outcome, _ = exchange(text, x, state, step)
        state, total = outcome.state, total + outcome.mean
        assert torch.equal(total + state.elements["residual"], (step + 1) * x)
    assert (total > 0).all()


def test_regression_workers_are_charged_for_padding_to_the_longest(exchange):
    """An all-gather without lengths of their own moves the longest payload from everybody."""
    x = torch.ones(3, 64)
    x[0, 1:] = 0  # one entry says all of it
    _, log = exchange("cat(cost=affine)", x)
    sent = np.array([log.collectives[-1].sent_bytes])
    assert sent[0, 0] < sent[0, 1] == sent[0, 2]
    cluster = make_cluster({"bandwidth": "8 Mbit/s", "latency": "10 ms", "launch": "1 ms"})  # a byte a microsecond
    padded, exact = (Costs(cluster, 3, gathers=gathers) for gathers in ("padded", "exact"))
    assert padded.sent("all-gather", sent).tolist() == [[sent.max()] * 3]
    assert exact.sent("all-gather", sent).tolist() == sent.tolist()
    cost, numbers = padded.cost(Batch("all-gather", (), sent)), padded.check_uniform()
    seconds = cost.seconds(numbers.bandwidth_bps, numbers.latency_s, numbers.launch_s)
    assert seconds == pytest.approx([1e-3 + 2 * (10e-3 + 1e-6 * sent.max())], rel=1e-12)  # a ring of three


def test_regression_residuals_in_gradient_units_are_the_papers_at_a_constant_rate_only(exchange):
    """Stich et al.: m' = m + eta g - C(m + eta g). GRACE and PowerSGD keep g instead of eta g."""
    rng = np.random.default_rng(5)
    gradients = rng.integers(-9, 10, (12, 1, 8)).astype(np.float64)

    def distance(units: str, rates: list[float]) -> float:
        memory, state, apart = np.zeros(8), None, 0.0
        for step, (g, lr) in enumerate(zip(gradients, rates, strict=True)):
            put = memory + lr * g[0]
            sent = np.zeros(8)
            chosen = np.argsort(-np.abs(put), kind="stable")[:2]
            sent[chosen] = put[chosen]
            memory = put - sent
            outcome, _ = exchange(f"ef(topk(density=0.25), units={units})", torch.from_numpy(g), state, step, lr)
            state = outcome.state
            apart = max(apart, float(np.abs(lr * outcome.mean.numpy() - sent).max()))
        return apart

    changing = [2.0**-2] * 4 + [2.0**-5] * 4 + [2.0**-1] * 4
    assert distance("update", [0.25] * 12) == distance("gradient", [0.25] * 12) == distance("update", changing) == 0
    assert distance("gradient", changing) > 0.1


def test_regression_a_residual_follows_its_parameter_not_its_bucket(exchange):
    """DDP rebuilds its buckets after the first step: what is keyed by their index goes to other parameters."""
    a, b = Parameter("a", (2,), 0), Parameter("b", (3,), 2)
    text, whole = "ef(topk(density=0.2))", Unit((a, b))
    x = torch.tensor([[1.0, 2, 30, 4, 5]])
    state = exchange(text, x, None, 0, 0.5)[0].state
    swapped = Unit((Parameter("b", (3,), 0), Parameter("a", (2,), 3)))
    fresh = parse_scheme(text).init((5,), 1, x[0])
    moved = regrouped(fresh, swapped, [(whole, state)])
    assert moved.elements["residual"].tolist() == [[0, 4, 5, 1, 2]]
    outcome, _ = exchange(text, torch.zeros(1, 5), moved, 1, 0.5)
    assert outcome.mean.tolist() == [0, 0, 5, 0, 0]


def test_regression_the_memory_keeps_what_zeros_were_decoded_as(exchange):
    """sign(0) is sent as plus, so the scale is owed there; a code that takes torch.sign's 0 would forget it."""
    outcome, _ = exchange("ef(scaledsign)", torch.tensor([[0.0, 2, -4, 0]]))
    assert outcome.mean.tolist() == [1.5, 1.5, -1.5, 1.5]
    assert outcome.state.elements["residual"].tolist() == [[-1.5, 0.5, -2.5, -1.5]]


def test_regression_the_memory_of_signs_subtracts_what_was_sent(exchange):
    """PowerSGD's paper code adds the sign to the memory, which then grows by twice what it should lose."""
    state, x = None, torch.tensor([[3.0, -1.0]])
    for step, (mean, rest) in enumerate([([2, -2], [1, 1]), ([2, 2], [2, -2]), ([4, -4], [1, 1])]):
        outcome, _ = exchange("ef(scaledsign)", x, state, step)
        state = outcome.state
        assert outcome.mean.tolist() == mean
        assert state.elements["residual"].tolist() == [rest]


@pytest.mark.parametrize("memory", ["ef", "momentum"])
def test_regression_rounding_of_the_selected_entries_stays_in_the_memory(memory, exchange, values):
    """DGC's release casts to half precision after it has set its residual to zero, and so loses the rounding."""
    x = values(2, 40)
    outcome, _ = exchange(f"{memory}(topk(density=0.25) | dense(dtype=bf16))", x)
    rest = outcome.state.elements["residual" if memory == "ef" else "unsent"].numpy()
    for row, kept in zip(x.numpy(), rest, strict=True):
        chosen = np.argsort(-np.abs(row), kind="stable")[:10]
        expected = row.copy()
        expected[chosen] -= torch.from_numpy(row[chosen]).bfloat16().float().numpy()
        assert kept.tolist() == expected.tolist()
        assert kept[chosen].any()


def test_regression_powersgd_means_do_not_depend_on_which_residual_is_kept(exchange, values):
    """Own contribution or mean subtracted: memories differ by half their size, their sums and so all means do not."""
    x, after = (values(4, 12, 18, seed=seed, dtype=torch.float64) for seed in (0, 1))
    outcome, _ = exchange("ef(powersgd(rank=2))", x)
    own = outcome.state.elements["residual"].clone()
    papers = (x - outcome.mean).view(4, -1)
    assert (own - papers).norm() > 0.2 * own.norm()
    torch.testing.assert_close(own.sum(0), papers.sum(0), rtol=0, atol=1e-12)
    swapped = outcome.state.map(torch.clone)
    swapped.elements["residual"] = papers
    means = [exchange("ef(powersgd(rank=2))", after, state, 1)[0].mean for state in (outcome.state, swapped)]
    torch.testing.assert_close(*means, rtol=0, atol=1e-12)


# -------------------------------------------------------------------------------------------------------------- sparse


@pytest.mark.parametrize("text", ["topk(density=0.1)", "dgcsample(density=0.1)", "dgc(density=0.1)", "cat", "sidco"])
def test_regression_entries_that_several_workers_send_are_added(text, exchange, values):
    """A ``scatter_`` over the payloads end to end would keep one worker's value of each entry and drop the others."""
    row = values(1, 200, dtype=torch.float64)
    outcome, _ = exchange(text, row * torch.tensor([[1.0], [2.0], [5.0], [8.0]]))
    sent = outcome.sent.dense(row[0])
    chosen = sent.ne(0).all(0)
    assert chosen.any()
    torch.testing.assert_close(outcome.mean[chosen], 4 * row[0, chosen], rtol=1e-14, atol=0)


# ---------------------------------------------------------------------------------------------------------- non-finite


@pytest.mark.parametrize("text", ["topk(density=0.1)", "randomk(density=0.1)", "signsgd", "threshold", "sidco"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_regression_no_scheme_selects_or_hides_what_is_not_finite(text, bad, exchange, values):
    """A NaN sorts as the largest, and an infinity outside of the drawn entries, or its sign, looks like any other."""
    for place in range(10):
        x = values(2, 10)
        x[1, place] = bad
        with pytest.raises(NonFiniteError, match=r"holds an infinity or a NaN on worker 1$"):
            exchange(text, x)


@pytest.mark.parametrize("inner", ["topk(density=0.1)", "randomk(density=0.1)"])
def test_regression_a_memory_that_overflows_is_not_hidden_by_what_is_selected(inner, exchange):
    """Finite gradients add up to an infinity in nine of ten entries that need not be sent."""
    x = torch.full((2, 10), 3e38)
    x[0] = 1.0
    state = exchange(f"ef({inner})", x)[0].state
    with pytest.raises(NonFiniteError, match=r"worker 1$"):
        exchange(f"ef({inner})", x, state, 1)
