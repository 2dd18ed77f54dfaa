"""Each scheme against its definition, written anew in numpy."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from gradwire.compressors.base import Codec, SchemeError, State, Turn, kept
from gradwire.compressors.decoded import Decoded
from gradwire.compressors.decoded import Dense as DenseRows
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.payload import Payload
from gradwire.compressors.quantizers.dense import Dense
from gradwire.compressors.quantizers.qsgd import QSGD
from gradwire.compressors.remember import remember
from gradwire.compressors.sparsifiers.randomblock import RandomBlock
from gradwire.compressors.sparsifiers.randomk import RandomK
from gradwire.compressors.sparsifiers.topk import TopK
from gradwire.compressors.spec import parse_scheme

LEVEL = 1e-9
"""Chance of one of a test's comparisons to fail although the scheme is right, divided by their number."""


def turn(step: int = 0, workers: int = 1, seed: int = 1) -> Turn:
    return Turn(seed, step, "u", tuple(range(workers)), workers)


def read_codes(data: Tensor, bits: int, count: int) -> list[list[int]]:
    """Read packed codes from each row as digits of one big number whose lowest byte comes first."""
    numbers = [int.from_bytes(bytes(row), "little") for row in data.tolist()]
    return [[number >> (bits * i) & (2**bits - 1) for i in range(count)] for number in numbers]


def assert_counts_follow(counts: NDArray[np.int64], draws: int, p: NDArray[np.float64] | float) -> None:
    """Hold counts against the exact binomial distribution, two-sided and corrected for their number."""
    tail = 2 * np.minimum(binom.cdf(counts, draws, p), binom.sf(counts - 1, draws, p))
    assert tail.min() > LEVEL / np.size(counts)


@pytest.mark.parametrize(
    ("density", "elements", "expected"),
    [
        (0.07, 100, 7),
        (0.01, 100, 1),
        (0.01, 101, 2),
        (1e-9, 5, 1),
        (1, 5, 5),
        (0.1, 10**9 + 1, 10**8 + 1),
        (0.3, 10, 3),
    ],
)
def test_density_keeps_the_exact_ceiling_of_the_decimal(density, elements, expected):
    assert kept(density, elements) == expected


# -------------------------------------------------------------------------------------------------------------- dense


def round_to_bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the upper 16 bits of a float32, to nearest, ties to the even one."""
    bits = values.view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def test_dense_sums_in_rank_order(exchange, values):
    x = values(5, 300)
    outcome, log = exchange("dense", x)
    total = x[0].numpy().copy()
    for row in x[1:].numpy():
        total += row
    assert np.array_equal(outcome.mean.numpy(), total / np.float32(5))
    assert [(c.operation, c.dtype, c.sent_bytes) for c in log.collectives] == [("all-reduce", "float32", (1200,) * 5)]


def test_dense_bf16_rounds_values_and_every_addition(exchange, values):
    x = values(5, 300)
    x[0, :3] = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20])  # a tie down, a tie up, above a tie
    outcome, log = exchange("dense(dtype=bf16)", x)
    rounded = round_to_bf16(x.numpy())
    assert rounded[0, :3].tolist() == [1, 1 + 2**-6, 1 + 2**-7]
    total = rounded[0]
    for row in rounded[1:]:
        total = round_to_bf16(total + row)
    assert np.array_equal(outcome.sent.dense(x[0]).numpy(), rounded)
    assert np.array_equal(outcome.mean.numpy(), total / np.float32(5))
    assert [(c.dtype, c.sent_bytes) for c in log.collectives] == [("bfloat16", (600,) * 5)]


def test_dense_fp32_rounds_float64(exchange, values):
    x = values(3, 50, dtype=torch.float64)
    outcome, log = exchange("dense(dtype=fp32)", x)
    narrow = x.numpy().astype(np.float32)
    assert np.array_equal(outcome.sent.dense(x[0]).numpy(), narrow.astype(np.float64))
    assert np.array_equal(outcome.mean.numpy(), ((narrow[0] + narrow[1]) + narrow[2]).astype(np.float64) / 3)
    assert log.collectives[0].sent_bytes == (200,) * 3


def test_dense_error_bound_is_attained():
    """1 + 2^-8 is a tie, halfway between neighbours: off by 2^-8 of the number below it."""
    x = torch.tensor([[1 + 2**-8]], dtype=torch.float64)
    _, sent, _ = Dense(dtype="bf16").encode(x, State(), turn())
    error = float((sent.dense(x[0]) - x).square() / x.square())
    assert 0.99 * Dense(dtype="bf16").error_bound((1,)) < error <= Dense(dtype="bf16").error_bound((1,))


# -------------------------------------------------------------------------------------------------------------- top-k


def slow_top_k(values: NDArray[np.float64], k: int) -> list[int]:
    """Sort all entries by magnitude, equal ones by index."""
    return sorted(sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:k])


@pytest.mark.parametrize("density", [0.01, 0.1, 0.37, 1])
def test_topk_sends_the_largest_with_their_indices(density):
    rng = np.random.default_rng(3)
    x = rng.integers(-6, 7, (3, 200)).astype(np.float64)  # full of ties and signs
    k = math.ceil(density * 200)
    payload, sent, _ = TopK(density).encode(torch.from_numpy(x), State(), turn(workers=3))
    expected = [slow_top_k(row, k) for row in x]
    assert read_codes(payload.fixed(1), 8, k) == expected
    assert payload.fixed(0).tolist() == [row[chosen].tolist() for row, chosen in zip(x, expected, strict=True)]
    assert payload.row_bytes == [8 * k + k] * 3
    dense = np.zeros_like(x)
    for row, out, chosen in zip(x, dense, expected, strict=True):
        out[chosen] = row[chosen]
    assert np.array_equal(sent.dense(torch.zeros(200, dtype=torch.float64)).numpy(), dense)


def test_topk_takes_the_lowest_indices_of_ties(exchange):
    x = torch.tensor([[1.0, -2, 2, 2, -2, 0], [3.0, 3, 3, 3, 3, 3]])
    outcome, _ = exchange("topk(density=0.5)", x)
    assert outcome.sent.dense(x[0]).tolist() == [[0, -2, 2, 2, 0, 0], [3, 3, 3, 0, 0, 0]]
    assert outcome.mean.tolist() == [1.5, 0.5, 2.5, 1, 0, 0]


def test_topk_error_bound_is_attained_where_all_are_equal(exchange):
    x = torch.full((1, 40), 2.0)
    outcome, _ = exchange("topk(density=0.25)", x)
    error = float((outcome.sent.dense(x[0]) - x).square().sum() / x.square().sum())
    assert error == TopK(0.25).error_bound((40,)) == 0.75


# --------------------------------------------------------------------------------------------- random-k, random-block


def supports(scheme: RandomK | RandomBlock, size: int, draws: int) -> list[tuple[int, ...]]:
    """Return which entries are kept at each step; with ones as input these are the ones sent."""
    found = []
    for step in range(draws):
        x = torch.ones(2, size)
        payload, sent, _ = scheme.encode(x, State(), turn(step, workers=2))
        rows = sent.dense(x[0])
        assert torch.equal(rows[0], rows[1])
        assert torch.equal(rows, scheme.decode(payload, (size,), turn(step, workers=2)).dense(x[0]))
        found.append(tuple(rows[0].nonzero().flatten().tolist()))
    return found


@pytest.mark.parametrize(("density", "k"), [(0.1, 2), (0.25, 5), (0.95, 19)])
def test_randomk_keeps_every_entry_equally_often(density, k):
    draws = supports(RandomK(density), 20, 2000)
    assert {len(chosen) for chosen in draws} == {k}
    counts = Counter(entry for chosen in draws for entry in chosen)
    assert_counts_follow(np.array([counts[entry] for entry in range(20)]), 2000, k / 20)


def test_randomk_draws_every_subset_equally_often():
    draws = Counter(supports(RandomK(0.3), 6, 3000))
    subsets = list(combinations(range(6), 2))
    assert set(draws) == set(subsets)
    assert_counts_follow(np.array([draws[subset] for subset in subsets]), 3000, 1 / 15)


@pytest.mark.parametrize("scaled", [False, True])
def test_randomk_averaged_over_all_subsets_keeps_its_promises(scaled):
    scheme = RandomK(0.3, scaled)  # 2 of 6
    x = torch.tensor([[5.0, -1, 0.25, 0.5, 3, -7]], dtype=torch.float64)
    every = distinct_outputs(scheme, x, 400)
    assert len(every) == 15
    error = (every - x).square().sum(1).mean() / x.square().sum()
    assert float(error) == pytest.approx(2.0 if scaled else 2 / 3, rel=1e-14)  # 15 sums of 6 squares: 21 * 2^-53
    assert scheme.error_bound((6,)) == pytest.approx(2.0 if scaled else 2 / 3, rel=1e-15)
    torch.testing.assert_close(every.mean(0), x[0] if scaled else x[0] / 3, rtol=1e-14, atol=0)


def distinct_outputs(scheme: RandomK | RandomBlock, x: Tensor, draws: int) -> Tensor:
    """Return each of the results that ``draws`` steps give, once."""
    outputs = {}
    for step in range(draws):
        _, sent, _ = scheme.encode(x, State(), turn(step))
        row = sent.dense(x[0])[0]
        outputs[tuple(row.tolist())] = row
    return torch.stack(list(outputs.values()))


def test_randomk_payload_holds_the_chosen_values_in_order():
    x = torch.arange(1.0, 31).view(3, 10)
    for scaled, factor in ((False, 1.0), (True, 2.5)):
        payload, sent, _ = RandomK(0.4, scaled).encode(x, State(), turn(4, workers=3))
        chosen = sent.dense(x[0])[0].nonzero().flatten()
        assert len(payload.buffers) == 1
        assert torch.equal(payload.fixed(0), x[:, chosen] * factor)


def test_randomblock_starts_everywhere_and_wraps():
    draws = Counter(supports(RandomBlock(0.25), 20, 2000))
    blocks = [tuple(sorted((start + i) % 20 for i in range(5))) for start in range(20)]
    assert set(draws) == set(blocks)
    assert_counts_follow(np.array([draws[block] for block in blocks]), 2000, 1 / 20)
    inclusion = Counter(entry for block in draws for entry in block)  # each start once
    # A start within bounds would include entry 0 with probability 1 / 16 and the middle with 5 / 16.
    assert [inclusion[entry] / 20 for entry in range(20)] == [0.25] * 20


@pytest.mark.parametrize("scaled", [False, True])
def test_randomblock_averaged_over_all_starts_keeps_its_promises(scaled):
    scheme = RandomBlock(0.25, scaled)
    x = torch.from_numpy(np.random.default_rng(1).standard_cauchy((1, 20)))
    every = distinct_outputs(scheme, x, 400)
    assert len(every) == 20
    error = (every - x).square().sum(1).mean() / x.square().sum()
    # 20 sums of 20 squares in float64: 40 * 2^-53 = 4e-15.
    assert float(error) == pytest.approx(3.0 if scaled else 0.75, rel=1e-14)
    assert scheme.error_bound((20,)) == (3.0 if scaled else 0.75)
    torch.testing.assert_close(every.mean(0), x[0] if scaled else x[0] / 4, rtol=1e-14, atol=0)


def test_randomblock_payload_runs_on_at_the_other_end():
    x = torch.arange(1.0, 8)[None]
    seen = set()
    for step in range(200):
        payload, _, _ = RandomBlock(0.4).encode(x, State(), turn(step))
        first, second, third = payload.fixed(0)[0].tolist()
        seen.add((first, second, third))
    assert seen == {(1 + s % 7, 1 + (s + 1) % 7, 1 + (s + 2) % 7) for s in range(7)}


@pytest.mark.parametrize("text", ["ef(randomk(density=0.25))", "ef(randomblock(density=0.25))"])
def test_shared_coordinates_make_all_workers_one(text, exchange, values):
    """Selecting the same entries is linear: what happens to the average is the average of what happens."""
    many, one = None, None
    for step in range(5):
        x = values(4, 40, seed=step, dtype=torch.float64)
        several, _ = exchange(text, x, many, step)
        alone, _ = exchange(text, x.mean(0, keepdim=True), one, step)
        many, one = several.state, alone.state
        # Averages of 4 values over 5 steps: 20 additions of values below 20, 20 * 20 * 2^-53 = 5e-14.
        torch.testing.assert_close(several.mean, alone.mean, rtol=0, atol=1e-13)
        averaged = many.elements["residual"].mean(0, keepdim=True)
        torch.testing.assert_close(averaged, one.elements["residual"], rtol=0, atol=1e-13)


# --------------------------------------------------------------------------------------------------------------- QSGD


def norms_of(x: NDArray[np.float64], bucket: int, norm: str) -> NDArray[np.float64]:
    """Return each bucket's norm; the last bucket may be shorter."""
    parts = [x[start : start + bucket] for start in range(0, len(x), bucket)]
    return np.array([np.abs(part).max() if norm == "max" else math.sqrt(np.sum(part**2)) for part in parts])


QUANTIZERS = [QSGD(2, 128), QSGD(3, 7, "l2"), QSGD(4, 512), QSGD(4, 10**12), QSGD(7, 50, "l2"), QSGD(8, 64), QSGD(8, 1)]


@pytest.mark.parametrize("scheme", QUANTIZERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_qsgd_rounds_to_a_neighbouring_level(scheme, dtype, values):
    x = values(2, 300, dtype=dtype)
    x[0, 40:60] = 0.0
    x[1] *= torch.logspace(-12, 3, 300, dtype=dtype)
    s = 2 ** (scheme.bits - 1) - 1
    payload, sent, _ = scheme.encode(x, State(), turn(3, workers=2))
    levels = np.array(read_codes(payload.fixed(1), scheme.bits, 300)) - s
    exact = x.numpy().astype(np.float64)
    norms = np.stack([norms_of(row, scheme.bucket, scheme.norm) for row in exact])
    u = torch.finfo(dtype).eps / 2
    # A norm of up to 300 squares, or the two roundings of the largest entry's own: (300 / 2 + 4) u at the most.
    np.testing.assert_allclose(payload.fixed(0).numpy(), norms, rtol=160 * u)
    assert payload.fixed(0).dtype == dtype
    spread = np.repeat(norms, min(scheme.bucket, 300), axis=1)[:, :300]
    position = np.abs(exact) * s / np.where(spread > 0, spread, 1)
    slack = 200 * u * s
    assert (np.abs(levels) >= np.floor(position - slack)).all()
    assert (np.abs(levels) <= np.ceil(position + slack)).all()
    assert (np.abs(levels) <= s).all()
    assert (levels * exact >= 0).all()
    np.testing.assert_allclose(sent.dense(x[0]).numpy(), levels * spread / s, rtol=200 * u)


def test_qsgd_ragged_last_bucket_has_its_own_norm():
    x = torch.tensor([[100.0, 1, 1, 1, 0.5, 0.5]])
    payload, sent, _ = QSGD(4, 4).encode(x, State(), turn())
    assert payload.fixed(0).tolist() == [[100.0, 0.5]]
    assert sent.dense(x[0])[0, 4:].tolist() == [0.5, 0.5]  # the maximum lies on the highest level
    assert payload.row_bytes == [2 * 4 + 3]


def test_qsgd_zero_bucket_beside_others():
    x = torch.tensor([[0.0, -0.0, 0, 2, -2, 2]])
    for norm in ("max", "l2"):
        payload, sent, _ = QSGD(3, 3, norm).encode(x, State(), turn())
        assert payload.fixed(0)[0, 0] == 0
        assert read_codes(payload.fixed(1), 3, 6)[0][:3] == [3, 3, 3]
        assert sent.dense(x[0])[0, :3].tolist() == [0, 0, 0]


@pytest.mark.parametrize("norm", ["max", "l2"])
def test_qsgd_lone_entry_is_exact_and_never_above_the_highest_level(norm):
    """Where |x| / norm is rounded to 1 and more, the level stays s; every float32 has its chance to misbehave."""
    x = torch.from_numpy(np.random.default_rng(0).uniform(0.5, 1, (1, 5000)).astype(np.float32))
    for bits in (2, 3, 8):
        payload, sent, _ = QSGD(bits, 1, norm).encode(x, State(), turn())
        s = 2 ** (bits - 1) - 1
        assert set(read_codes(payload.fixed(1), bits, 5000)[0]) == {2 * s}
        torch.testing.assert_close(sent.dense(x[0]), x, rtol=2**-23, atol=0)  # norm / s * s rounds twice


def test_qsgd_rounds_up_with_the_fraction_not_its_complement():
    """Rounding up with probability 1 - p, a published bug, would give ||E Q - x|| = 1.22 ||x|| here.

    The expected square of the average's error is the variance over the draws, summed over 1000 independent entries:
    its relative spread is sqrt(2 / 1000) = 0.045 or somewhat more, so a factor of 1.5 is 8 such spreads or more away.
    """
    rng = np.random.default_rng(7)
    x, draws = rng.standard_normal(1000), 400
    rows = torch.from_numpy(x).expand(draws, -1)
    _, sent, _ = QSGD(4, 1000).encode(rows, State(), turn(workers=draws))
    average = sent.dense(rows[0]).numpy().mean(0)
    position = np.abs(x) * 7 / np.abs(x).max()
    fraction = position - np.floor(position)
    variance = np.sum(fraction * (1 - fraction)) * (np.abs(x).max() / 7) ** 2 / draws
    assert 1 / 1.5 < np.sum((average - x) ** 2) / variance < 1.5


@pytest.mark.parametrize("bits", [3, 8])
def test_qsgd_keeps_the_expectation_of_entries_far_below_the_maximum(bits):
    """At 2^-20 of the maximum an entry is seldom sent, but as often as its size demands. 8-bit draws never would."""
    size, steps, s = 2**16, 40, 2 ** (bits - 1) - 1
    x = torch.full((4, size), 2.0**-20)
    x[:, 0] = 1.0
    ups = 0
    for step in range(steps):
        _, sent, _ = QSGD(bits, size).encode(x, State(), turn(step, workers=4))
        ups += int((sent.dense(x[0])[:, 1:] != 0).sum())
    # A draw of 23 bits misses p by 2^-24 at most, a fiftieth of p or less, which is added on either side.
    p, trials = s * 2.0**-20, 4 * steps * (size - 1)
    assert binom.cdf(ups, trials, p - 2.0**-24) > LEVEL
    assert binom.sf(ups - 1, trials, p + 2.0**-24) > LEVEL
    assert binom.cdf(0, trials, p) < LEVEL


def test_qsgd_second_moment_with_one_level_is_the_product_of_norms():
    """E||Q||^2 = ||v||_2 ||v||_1: an entry is sent as ||v||_2 with probability |v_i| / ||v||_2.

    The number of entries sent is a sum of independent zeros and ones; Bernstein's inequality bounds its deviation.
    """
    v = np.random.default_rng(2).standard_normal(60)
    l1, l2, draws = np.abs(v).sum(), math.sqrt(np.sum(v**2)), 4000
    rows = torch.from_numpy(v).expand(draws, -1)
    _, sent, _ = QSGD(2, 60, "l2").encode(rows, State(), turn(workers=draws))
    moment = sent.dense(rows[0]).square().sum(1).mean()
    p = np.abs(v) / l2
    spread, log = draws * np.sum(p * (1 - p)), math.log(2 / LEVEL)
    allowed = l2**2 * (log / 3 + math.sqrt((log / 3) ** 2 + 2 * spread * log)) / draws
    assert abs(float(moment) - l2 * l1) < allowed
    assert allowed < 0.1 * l2 * l1


def relative_variance(x: NDArray[np.float64], s: int, norm: str) -> NDArray[np.float64]:
    """Return E||Q - x||^2 / ||x||^2 for each row of x, a whole bucket, from the definition."""
    scale = np.abs(x).max(1) if norm == "max" else np.sqrt(np.sum(x**2, 1))
    position = np.abs(x) * s / scale[:, None]
    fraction = position - np.floor(position)
    return np.sum(fraction * (1 - fraction), 1) * (scale / s) ** 2 / np.sum(x**2, 1)


@pytest.mark.parametrize("norm", ["max", "l2"])
@pytest.mark.parametrize(("bits", "bucket"), [(2, 2), (2, 128), (3, 7), (4, 512), (8, 64)])
def test_qsgd_error_bound_is_never_exceeded(bits, bucket, norm):
    s, rng = 2 ** (bits - 1) - 1, np.random.default_rng(bucket)
    bound = QSGD(bits, bucket, norm).error_bound((bucket,))
    shapes = rng.uniform(0, 6, (2000, 1))  # from flat to heavy-tailed
    x = rng.uniform(-1, 1, (2000, bucket))
    assert relative_variance(np.sign(x) * np.abs(x) ** shapes, s, norm).max() <= bound
    assert relative_variance(rng.standard_normal((2000, bucket)), s, norm).max() <= bound


@pytest.mark.parametrize(("bits", "bucket"), [(2, 2), (2, 128), (3, 7), (4, 512), (8, 64), (4, 1)])
def test_qsgd_error_bound_for_the_maximum_norm_is_the_supremum(bits, bucket):
    """One entry is the maximum, the others lie at a fraction of the first level, which is tried on a grid."""
    s = 2 ** (bits - 1) - 1
    fractions = np.linspace(0, 1, 2001)[1:-1]
    x = np.repeat(fractions[:, None] / s, bucket, axis=1)
    x[:, 0] = 1.0
    bound = QSGD(bits, bucket).error_bound((bucket,))
    found = relative_variance(x, s, "max").max()
    # Near a top at f >= 0.08 of width about f, half a grid step of 2.5e-4 loses (2.5e-4 / 0.08)^2 = 1e-5.
    assert found == pytest.approx(bound, rel=2e-5)


def test_qsgd_error_bound_looks_at_short_units():
    assert QSGD(2, 512).error_bound((3,)) == QSGD(2, 3).error_bound((3,))
    assert QSGD(2, 512).error_bound((1,)) == 0


# ------------------------------------------------------------------------------------------------------ error feedback


BY_HAND = {
    "update": [([4, 0, 0, 0], [0, 3, -1, 0]), ([0, 6, 0, 0], [1, 0, -2, 0.5]), ([0, 0, -1, 0], [0.5, 0, 0, 0.25])],
    "gradient": [([4, 0, 0, 0], [0, 3, -1, 0]), ([0, 3, 0, 0], [1, 0, -1, 0.5]), ([1, 0, 0, 0], [0, 0, -1, 0.5])],
}


@pytest.mark.parametrize("units", BY_HAND)
def test_error_feedback_around_topk_by_hand(units, exchange):
    """One of four entries is sent a step; the rate halves before the second step and doubles before the third."""
    gradients, state = ([4.0, 3, -1, 0], [1.0, 0, 0, 0.5], [0.0, 0, 0, 0]), None
    for step, lr in enumerate((0.5, 0.25, 0.5)):
        x = torch.tensor([gradients[step]])
        outcome, _ = exchange(f"ef(topk(density=0.25), units={units})", x, state, step, lr)
        state = outcome.state
        assert (outcome.mean.tolist(), state.elements["residual"][0].tolist()) == BY_HAND[units][step]


def test_scaled_random_k_above_one_half_is_the_limit_of_what_error_feedback_takes():
    like = torch.zeros(10)
    parse_scheme("ef(randomk(density=0.5, scaled=True))").init((10,), 1, like)
    with pytest.raises(SchemeError, match=r"ef\(randomk\(density=0.4, scaled=True\)\): .* can be 1.5 times"):
        parse_scheme("ef(randomk(density=0.4, scaled=True))").init((10,), 1, like)


class SendsItsInput(Dense):
    """Its payload lies in the memory of what it was given, which ``sent`` does not."""

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        payload, sent, state = super().encode(x, state, turn)
        return payload, DenseRows(sent.dense(x[0].reshape(-1)) / 2), state


def test_the_payload_outlives_the_change_of_the_memory(values):
    x = values(2, 6)
    scheme = remember(ErrorFeedback(), SendsItsInput())
    assert isinstance(scheme, Codec)
    payload, _, state = scheme.encode(x, scheme.init((6,), 2, x[0]), turn(workers=2))
    assert torch.equal(state.elements["residual"], x - x / 2)
    assert torch.equal(payload.fixed(0), x)
