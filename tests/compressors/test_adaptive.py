"""CAT against its definition: the best ratio over all T by brute force, its lemmas on quadratics, its bytes."""

import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from gradwire.compressors.adaptive import CAT
from gradwire.compressors.base import SchemeError, State, Turn
from gradwire.compressors.costs import CostModel, affine_of, payload_bytes
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.payload import Ragged
from gradwire.compressors.remember import remember
from gradwire.compressors.spec import parse_scheme

Array = NDArray[np.float64]


def turn(step: int = 0, workers: int = 1) -> Turn:
    return Turn(1, step, "u", tuple(range(workers)), workers)


def heavy(size: int, seed: int = 0) -> Array:
    """Return values of which few are large, as gradients have."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(size) * np.exp(2 * rng.standard_normal(size))


def probabilities_of(g: Array, expected: float) -> Array:
    """Return min(1, c |g|) that add up to ``expected``, by bisection of c."""
    low, high = 0.0, expected / np.abs(g[g != 0]).min() + 1
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(1, middle * np.abs(g)).sum() < expected else (low, middle)
    return np.minimum(1, high * np.abs(g))


def gain(operator: str, g: Array, count: int) -> float:
    """Return alpha, beta or omega of T = ``count``, from the definitions."""
    norm = float(np.sum(g**2))
    largest = np.sort(np.abs(g))[::-1][:count]
    if operator == "top":
        return float(np.sum(largest**2)) / norm
    if operator == "sq":
        return float(np.sum(largest)) ** 2 / (count * norm)
    p = probabilities_of(g, count)
    return norm / float(np.sum(g[g != 0] ** 2 / p[g != 0]))


@lru_cache
def all_gains(operator: str, size: int, seed: int) -> list[float]:
    g = heavy(size, seed)
    return [gain(operator, g, count) for count in range(1, size + 1)]


def bits_of(operator: str, count: int, size: int, value_bits: int) -> int:
    """Return the paper's P_S or P_SQ, in bits."""
    index = max(1, math.ceil(math.log2(size)))
    return value_bits + count * (index + 1) if operator == "sq" else count * (index + value_bits)


def cost(scheme: CAT, count: int, size: int, value_bits: int = 64) -> float:
    payload = bits_of(scheme.operator, count, size, value_bits) / 8
    if scheme.cost == "payload":
        return payload
    packets = payload / scheme.packet
    return scheme.fixed + scheme.per_packet * (math.ceil(packets) if scheme.cost == "packets" else packets)


COSTS = {
    "payload": {"cost": "payload"},
    "packets": {"cost": "packets"},
    "small packets": {"cost": "packets", "packet": 102, "per_packet": 127.0, "fixed": 30.0},
    "packets of less than an entry": {"cost": "packets", "packet": 5, "per_packet": 9.0, "fixed": 40.0},
    "line": {"cost": "affine", "fixed": 1000.0, "per_packet": 1.0, "packet": 1},
    "long latency": {"cost": "affine", "fixed": 1e7, "per_packet": 1.0, "packet": 1},
    "no overhead": {"cost": "affine", "fixed": 0.0},
}


@pytest.mark.parametrize("costs", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("operator", ["top", "sq", "stochastic"])
@pytest.mark.parametrize("size", [1, 2, 37, 200])
def test_choice_is_the_best_of_all(size, operator, costs):
    scheme = CAT(operator=operator, **costs)
    for seed in range(2):
        g = heavy(size, seed)
        ratios = [gain / cost(scheme, t, size) for t, gain in enumerate(all_gains(operator, size, seed), 1)]
        chosen = scheme.choose(torch.from_numpy(g))
        assert ratios[chosen - 1] == pytest.approx(max(ratios), rel=1e-9)


@pytest.mark.parametrize("costs", [COSTS["line"], COSTS["long latency"], COSTS["packets"]], ids=str)
def test_early_stop_finds_the_best_of_a_long_row(costs):
    """20 000 values, far more than are looked at first."""
    scheme, size = CAT(**costs), 20_000
    g = heavy(size)
    alpha = np.cumsum(np.sort(g**2)[::-1]) / np.sum(g**2)
    ratios = alpha / [cost(scheme, t, size) for t in range(1, size + 1)]
    chosen = scheme.choose(torch.from_numpy(g))
    assert ratios[chosen - 1] == pytest.approx(ratios.max(), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_without_overhead_one_entry_is_best(seed):
    """alpha is concave, so alpha(T) / T falls: bits alone never pay for a second entry."""
    g = torch.from_numpy(heavy(2000, seed))
    assert CAT(cost="payload").choose(g) == 1
    assert CAT(cost="affine", fixed=0).choose(g) == 1


@pytest.mark.parametrize("seed", range(5))
def test_full_packets_are_sent(seed):
    """d = 5000, 13 + 32 bits an entry, 512 bytes: 91 entries fill a packet."""
    g = torch.from_numpy(heavy(5000, seed)).float()
    chosen = CAT().choose(g)
    assert chosen % 91 == 0
    assert CAT(fixed=1e6).choose(g) in range(91, 5001)


def test_regression_bits_and_bytes_are_not_mixed_up():
    """512 bytes hold 91 entries of 45 bits; 512 taken for bits would hold 11, and 64 bits an entry only 64."""
    assert payload_bytes(np.array([91.0, 92.0]), 5000, 4, "top").tolist() == [511.875, 517.5]
    packets = CostModel("packets", fixed=64, per_packet=576, packet=512)
    assert packets.of(payload_bytes(np.array([1.0, 91.0, 92.0, 182.0, 183.0]), 5000, 4, "top")).tolist() == [
        *[64 + 576] * 2,
        *[64 + 2 * 576] * 2,
        64 + 3 * 576,
    ]
    assert CAT(fixed=0).choose(torch.from_numpy(heavy(5000)).float()) == 91


def test_regression_ratio_that_never_falls_takes_all_entries_not_all_but_one():
    """Where every entry counts the same and a message costs much, the last entry pays too."""
    for operator in ("top", "sq", "stochastic"):
        for size in (5, 300, 3000):
            assert CAT(operator=operator, cost="affine", fixed=1e12).choose(torch.ones(size)) == size
    assert CAT(cost="packets", fixed=1e12).choose(torch.ones(500)) == 500  # 91 to a packet do not divide 500


def test_regression_quantized_gain_is_not_monotone_so_that_a_climb_would_stop_early():
    """beta(T) falls after the first entry, and rises later above where it was."""
    g = np.concatenate([[10.0], np.full(2000, 1.0)])
    beta = [gain("sq", g, t) for t in range(1, len(g) + 1)]
    assert beta[1] < beta[0] < beta[-1]
    scheme = CAT(operator="sq", cost="affine", fixed=1e9)
    assert scheme.choose(torch.from_numpy(g)) == 1 + int(np.argmax(beta)) == 2001


# ------------------------------------------------------------------------------------------------------------- lemmas


def decoded(scheme: CAT, g: Array, step: int = 0) -> Array:
    _, sent, _ = scheme.encode(torch.from_numpy(g)[None], State(), turn(step))
    return sent.dense(torch.zeros(len(g), dtype=torch.float64)).numpy()[0]


@pytest.mark.parametrize("operator", ["top", "sq"])
@pytest.mark.parametrize("smooth", [1.0, 7.5])
def test_descent_lemma_is_tight_on_a_quadratic(smooth, operator):
    """f = L/2 |x|^2, step 1/L: f falls by exactly gain(T) |g|^2 / (2 L)."""
    scheme = CAT(operator=operator, cost="affine", fixed=200.0, per_packet=1.0, packet=1)
    for seed in range(5):
        point = heavy(120, seed)
        g = smooth * point
        count = scheme.choose(torch.from_numpy(g))
        after = point - decoded(scheme, g) / smooth
        fall = smooth / 2 * (np.sum(point**2) - np.sum(after**2))
        assert fall == pytest.approx(gain(operator, g, count) * np.sum(g**2) / (2 * smooth), rel=1e-10)


def test_quantized_step_is_the_papers():
    """gamma ||g|| sign(g), gamma = sqrt(beta) / (sqrt(T) L), with the step 1/L taken out."""
    scheme, g = CAT(operator="sq", cost="affine", fixed=500.0, packet=1, per_packet=1.0), heavy(80)
    count = scheme.choose(torch.from_numpy(g))
    largest = np.argsort(-np.abs(g))[:count]
    expected = np.zeros(80)
    gamma = math.sqrt(gain("sq", g, count)) / math.sqrt(count)
    expected[largest] = gamma * math.sqrt(np.sum(g**2)) * np.sign(g[largest])
    assert 1 < count < 80
    np.testing.assert_allclose(decoded(scheme, g), expected, rtol=1e-12)


def test_stochastic_operator_is_unbiased_with_the_variance_that_omega_says():
    """Each entry is g / p with probability p; E||Q||^2 = ||g||^2 / omega(T), so a step of omega / L falls by omega."""
    scheme, g = CAT(operator="stochastic", cost="affine", fixed=100.0, packet=1, per_packet=1.0), heavy(60, 3)
    count = scheme.choose(torch.from_numpy(g))
    p = probabilities_of(g, count)
    draws = np.array([decoded(scheme, g, step) for step in range(800)])
    assert 1 < count < 60
    nonzero = draws != 0
    np.testing.assert_allclose(draws[nonzero], np.broadcast_to(g / p, draws.shape)[nonzero], rtol=1e-9)
    deviation = np.abs(nonzero.mean(0) - p) / np.sqrt(np.maximum(p * (1 - p), 1e-12) / 800)
    assert deviation[p < 1 - 1e-9].max() < 6.1  # 1e-9 two-sided
    assert nonzero[:, p > 1 - 1e-9].all()
    second = np.sum(g**2 / p)
    assert gain("stochastic", g, count) * second == pytest.approx(np.sum(g**2), rel=1e-12)
    omega = gain("stochastic", g, count)  # exactly: E f(x - omega/L Q) for f = |x|^2 / 2 and x = g
    after = (np.sum(g**2) - 2 * omega * np.sum(g**2) + omega**2 * second) / 2
    assert np.sum(g**2) / 2 - after == pytest.approx(omega * np.sum(g**2) / 2, rel=1e-12)


def test_stochastic_draws_are_each_workers_own_and_follow_the_key():
    scheme, x = CAT(operator="stochastic", fixed=1e4), torch.from_numpy(heavy(400)).expand(3, 400)
    _, sent, _ = scheme.encode(x, State(), turn(5, 3))
    rows = sent.dense(x[0])
    _, again, _ = scheme.encode(x[1:], State(), Turn(1, 5, "u", (1, 2), 3))
    assert torch.equal(again.dense(x[0]), rows[1:])
    assert not torch.equal(rows[0], rows[1])
    _, other, _ = scheme.encode(x, State(), turn(6, 3))
    assert not torch.equal(other.dense(x[0]), rows)


def test_small_probabilities_are_not_lost():
    """4095 entries of p = 2^-13 are sent as often as they should be, all together."""
    scheme = CAT(operator="stochastic", cost="payload")
    g = np.full(4096, 2.0**-12)
    g[0] = 4096 * 2.0**-12
    rows = np.array([decoded(scheme, g, step) for step in range(200)])
    p = probabilities_of(g, 1)
    assert scheme.choose(torch.from_numpy(g)) == 1
    assert p[1] == pytest.approx(2.0**-13, rel=1e-3)
    tail = binom.cdf(np.count_nonzero(rows[:, 1:]), 200 * 4095, p[1])
    assert 1e-9 < tail < 1 - 1e-9


# ----------------------------------------------------------------------------------------------------- wire, contract


def read_bits(row: Tensor, width: int, count: int) -> list[int]:
    number = int.from_bytes(bytes(row.tolist()), "little")
    return [number >> (width * i) & (2**width - 1) for i in range(count)]


def test_quantized_payload_is_one_scale_and_a_position_and_sign_an_entry():
    scheme = CAT(operator="sq", cost="affine", fixed=300.0, per_packet=1.0, packet=1)
    g = torch.from_numpy(np.stack([heavy(100, seed) for seed in range(3)])).float()
    payload, sent, _ = scheme.encode(g, State(), turn(0, 3))
    codes = payload.buffers[1]
    assert isinstance(codes, Ragged)
    counts = [scheme.choose(row) for row in g]
    assert len(set(counts)) > 1
    for r, (row, count) in enumerate(zip(g.numpy(), counts, strict=True)):
        chosen = np.sort(np.argsort(-np.abs(row), kind="stable")[:count])
        expected = [2 * int(i) + int(row[i] < 0) for i in chosen]
        assert read_bits(codes.row(r), 8, count) == expected
        assert payload.row_bytes[r] == 4 + count
        assert float(payload.fixed(0)[r, 0]) == np.float32(np.abs(row[chosen].astype(np.float64)).mean())
    like = torch.zeros(100)
    assert torch.equal(scheme.decode(payload, (100,), turn(0, 3)).dense(like), sent.dense(like))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_padding_of_short_codes_is_not_read_as_entries(size):
    """Of codes below 8 bits several fit into what fills the last byte."""
    for count in range(1, size + 1):
        g = torch.zeros(1, size)
        g[0, :count] = 1.0
        for rows in (g, -g, g.flip(1)):
            scheme = CAT(operator="sq", cost="affine", fixed=1e9)
            payload, sent, _ = scheme.encode(rows, State(), turn())
            assert scheme.choose(rows[0]) == count
            found = scheme.decode(payload, (size,), turn())
            assert torch.equal(found.dense(rows[0]), rows)
            assert torch.equal(sent.dense(rows[0]), rows)


@pytest.mark.parametrize("operator", ["top", "sq", "stochastic"])
def test_both_sides_agree_and_zeros_are_sent_as_zeros(operator, exchange):
    x = torch.from_numpy(np.stack([heavy(200, seed) for seed in range(4)])).float()
    x[2] = 0
    outcome, log = exchange(CAT(operator=operator), x)
    rows = outcome.sent.dense(x[0])
    assert not rows[2].any()
    torch.testing.assert_close(outcome.mean, rows.mean(0), rtol=1e-6, atol=1e-6 * float(x.abs().max()))
    assert len(set(log.collectives[-1].sent_bytes)) > 1


@pytest.mark.parametrize("operator", ["top", "sq"])
@pytest.mark.parametrize("costs", COSTS.values(), ids=COSTS)
def test_error_stays_below_its_bound(costs, operator):
    scheme = CAT(operator=operator, **costs)
    inputs = [heavy(50, seed) for seed in range(5)] + [np.ones(50), np.eye(50)[7], np.eye(50)[7] + 0.14]
    for g in inputs:
        error = np.sum((decoded(scheme, g) - g) ** 2) / np.sum(g**2)
        assert error <= scheme.error_bound((50,)) * (1 + 1e-12)
    assert scheme.error_bound((50,)) == 0.98


def test_error_feedback_takes_the_deterministic_operators_only():
    for operator in ("top", "sq"):
        remember(ErrorFeedback(), CAT(operator=operator)).init((50,), 1, torch.zeros(()))
    with pytest.raises(SchemeError, match="error feedback needs at most 1"):
        remember(ErrorFeedback(), CAT(operator="stochastic")).init((50,), 1, torch.zeros(()))


def test_bytes_of_the_table_are_those_of_normal_values(values):
    for text in ("cat", "cat(operator=sq)", "cat(operator=stochastic, fixed=5000)"):
        scheme = parse_scheme(text)
        x = values(20, 4000)
        payload, _, _ = scheme.encode(x, scheme.init((4000,), 20, x[0]), turn(0, 20))
        assert scheme.wire_bytes((4000,)) == pytest.approx(8 + np.mean(payload.row_bytes), rel=0.15)


# ------------------------------------------------------------------------------------------------------------ network


def test_a_networks_line_counts_its_fixed_time_in_bytes():
    """1 ms at 80 Mbit/s is 10 000 bytes; costs are then proportional to seconds."""
    line = affine_of(1e-3, 80e6)
    assert line == (10_000.0, 1.0, 1)
    model = CostModel("affine", *line)
    payload = np.array([0.0, 1000.0, 30_000.0])
    seconds = 1e-3 + 8 * payload / 80e6
    np.testing.assert_allclose(model.of(payload) / model.of(np.zeros(1)), seconds / 1e-3, rtol=1e-12)
    g = torch.from_numpy(heavy(5000)).float()
    slow, fast = (CAT("top", "affine", *affine_of(1e-3, bandwidth)) for bandwidth in (1e6, 1e9))
    assert slow.choose(g) < fast.choose(g)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cat(fixed=-1)", r"cat: fixed = -1 is out of range: fixed must be at least 0"),
        ("cat(per_packet=0)", r"cat: per_packet = 0 is out of range: per_packet must be above 0"),
        ("cat(packet=0)", r"cat: packet = 0 is out of range: packet must be at least 1"),
        ("cat(operator=all)", r"operator must be one of top, sq, stochastic"),
        ("cat(cost=bytes)", r"cost must be one of payload, packets, affine, cluster"),
    ],
)
def test_what_is_refused(text, reason):
    with pytest.raises(SchemeError, match=reason):
        parse_scheme(text)
