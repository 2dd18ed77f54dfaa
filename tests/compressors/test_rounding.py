"""Rounding at random: every draw from its definition in whole numbers, and what 8 bits alone would lose."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from gradwire.compressors.base import State, Turn
from gradwire.compressors.keys import Purpose, stream
from gradwire.compressors.quantizers.coding import random_levels
from gradwire.compressors.quantizers.qsgd import QSGD
from gradwire.compressors.quantizers.rounding import rounding_keys, rounds_up

MASK = 2**64 - 1


def split_mix(seed: int, index: int) -> int:
    """Output ``index`` of Steele, Lea and Flood's generator, from their listing, in whole numbers."""
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def draw(key: tuple[int, int], i: int) -> Fraction:
    """The 52 bits of entry i's draw, as a number in [0, 1)."""
    first = (split_mix(key[0], i // 8) >> (8 * (i % 8))) & 255
    return Fraction((first << 44) + (split_mix(key[1], i) >> 20), 2**52)


def test_the_generator_is_the_published_one():
    """The first outputs for seed 1234567, as listed in many places."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [split_mix(1234567, j) for j in range(4)] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_an_entry_goes_up_where_its_draw_lies_below_its_probability(dtype):
    rng = np.random.default_rng(0)
    key = (2**63 + 12345, 987654321)
    draws = [draw(key, i) for i in range(2000)]
    near = np.array([float(u) for u in draws])  # close to the draw, so that the first 8 bits do not decide
    for given in (rng.random(2000), near, near + 2.0**-20, near * (1 - 2.0**-20), np.zeros(2000), np.ones(2000)):
        p = torch.from_numpy(given).to(dtype).clamp(0, 1)
        expected = [u < Fraction(x) for u, x in zip(draws, p.tolist(), strict=True)]
        assert rounds_up(p, key).tolist() == expected


def test_tied_bits_decide_somewhere():
    """Of 2000 entries whose first 8 bits tie, about half go up: the other bits are looked at."""
    key = (5, 6)
    first = torch.tensor([float(draw(key, i) * 256 // 1) for i in range(2000)])
    up = rounds_up((first + 0.5) / 256, key)
    assert 850 < int(up.sum()) < 1150  # 6.7 standard deviations of sqrt(500) either way


def test_keys_come_from_the_workers_own_streams():
    keys = rounding_keys(Turn(5, 17, "fc.weight", (2, 3), 4))
    for key, rank in zip(keys, (2, 3), strict=True):
        assert list(key) == stream(5, Purpose.ROUNDING, 17, "fc.weight", rank).random_raw(2).tolist()


def test_regression_8_bits_of_randomness_alone_lose_small_entries():
    """At 2^-20 of the maximum, p s = 127 * 2^-20 is less than 1/256: 8-bit draws give never, or 1/256 of the time."""
    size, p = 2**20, 127 * 2.0**-20
    x = torch.full((1, size), 2.0**-20)
    x[0, 0] = 1.0
    ups = 0
    for step in range(8):
        keys = rounding_keys(Turn(1, step, "u", (0,), 1))
        ups += int((random_levels(x, torch.ones(1, 1), size, 127, keys)[0, 1:] != 127).sum())
    mean = 8 * (size - 1) * p  # 1016; binomial with a standard deviation of 31.9
    assert abs(ups - mean) < 6.5 * mean**0.5
    assert 8 * size / 256 > mean + 1000 * mean**0.5 / 32  # what rounding p up to 1/256 would give


def test_regression_rounding_up_with_the_complement_of_the_probability():
    """ATOMO's qsgd takes ``dice > prob``: at a position of 0.1 of a level it would go up 9 times in 10."""
    x = torch.full((1, 10_000), 0.1 / 7)
    x[0, 0] = 1.0
    _, sent, _ = QSGD(4, 10_000).encode(x, State(), Turn(0, 0, "u", (0,), 1))
    assert 800 < int((sent.dense(x[0])[0, 1:] > 0).sum()) < 1200  # mean 1000, 6.7 standard deviations of 30


@pytest.mark.parametrize("text_norm", ["max", "l2"])
def test_regression_a_bucket_of_zeros_divides_zero_by_zero(text_norm):
    x = torch.zeros(1, 8)
    x[0, 4:] = torch.tensor([1.0, -2, 3, 4])
    _, sent, _ = QSGD(8, 4, text_norm).encode(x, State(), Turn(0, 0, "u", (0,), 1))
    assert sent.dense(x[0])[0, :4].tolist() == [0, 0, 0, 0]
    assert sent.dense(x[0]).isfinite().all()


@pytest.mark.parametrize("size", [1000, 70_000])
def test_regression_a_level_above_the_highest_wraps_at_127(size):
    """|x| 127 / norm can round to more than 127; a level of 128 in 8 bits would change sign."""
    x = torch.from_numpy(np.random.default_rng(3).uniform(0.5, 1, (1, size)).astype(np.float32))
    norms = x * (1 - 2.0**-23)  # as a norm that was rounded down
    codes = random_levels(x, norms, 1, 127, rounding_keys(Turn(0, 0, "u", (0,), 1)))
    assert set(codes[0].tolist()) == {254}
