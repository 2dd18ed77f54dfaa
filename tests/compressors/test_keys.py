"""Random streams: what the key decides, and the numbers that Philox must give."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gradwire.compressors.keys import SHARED, Purpose, below, hash64, stream, uniform, words

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

BASE = {"seed": 5, "purpose": Purpose.ROUNDING, "step": 17, "name": "fc.weight", "worker": 3}
LENGTH = 4096


def draw(**changes: object) -> NDArray[np.uint64]:
    return stream(**{**BASE, **changes}).random_raw(LENGTH)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6},
        {"seed": 4},
        {"seed": 5 + 2**32},
        {"seed": 2**64 - 1},
        {"purpose": Purpose.SELECTION},
        {"purpose": Purpose.START},
        {"step": 18},
        {"step": 16},
        {"step": 0},
        {"step": 17 + 2**32},
        {"name": "fc.bias"},
        {"name": "fc.weight "},
        {"name": ""},
        {"worker": 4},
        {"worker": 2},
        {"worker": SHARED},
        {"seed": 17, "step": 5},
        {"step": 3, "worker": 17},
    ],
    ids=str,
)
def test_another_key_shares_no_draw_nor_a_shifted_copy(change):
    """Of 2 * 4096 words of 64 bits, two are equal by chance with probability 2^-40; a shifted copy would share most."""
    assert np.intersect1d(draw(), draw(**change)).size == 0


def test_many_keys_share_no_draw():
    keys = [
        {"seed": seed, "purpose": purpose, "step": step, "worker": worker}
        for seed in (0, 1, 2)
        for purpose in Purpose
        for step in (0, 1, 2)
        for worker in (SHARED, 0, 1)
    ]
    drawn = np.concatenate([draw(**key)[:64] for key in keys])
    assert len(np.unique(drawn)) == 3 * len(Purpose) * 3 * 3 * 64


def test_same_key_same_draws_whatever_came_before():
    first = draw()
    np.random.default_rng(0).random()
    torch.rand(3)
    stream(5, Purpose.ROUNDING, 17, "fc.weight", 2).random_raw(10)
    assert np.array_equal(draw(), first)


def philox(key: tuple[int, int], counter: list[int]) -> list[int]:
    """One block of Philox4x64-10, from the paper of Salmon et al., in whole numbers."""
    mask, (k0, k1), (c0, c1, c2, c3) = 2**64 - 1, key, counter
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (right >> 64) ^ c1 ^ k0, right & mask, (left >> 64) ^ c3 ^ k1, left & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [c0, c1, c2, c3]


def test_draws_are_those_of_the_published_generator():
    expected = []
    for block in range(1, 4):  # numpy counts up before it draws
        expected += philox((5, Purpose.ROUNDING), [block, 17, hash64("fc.weight"), 4])
    assert draw()[:12].tolist() == expected


def test_frozen_draws():
    """These must never change: results of stored runs depend on them."""
    assert hash64("fc.weight") == 8345965997118334666
    assert draw()[:4].tolist() == [
        8506980343628209888,
        11043478840566119783,
        14459466127721271913,
        1416326474544632746,
    ]
    shared = stream(0, Purpose.SELECTION, 0, "", SHARED)
    assert [below(shared, 1000) for _ in range(6)] == [709, 775, 73, 525, 423, 544]
    row = uniform([stream(0, Purpose.ROUNDING, 1, "a", 0)], 4, torch.zeros(1))
    assert (row * 2**24).tolist() == [[4942571, 8764043, 7415917, 5619035]]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 1000])
def test_words_are_the_halves_of_the_stream(count):
    found = words(stream(**BASE), count)
    whole = stream(**BASE).random_raw(count)
    halves = [half for word in whole.tolist() for half in (word & 0xFFFFFFFF, word >> 32)]
    assert found.dtype == np.uint32
    assert found.tolist() == halves[:count]


# ---------------------------------------------------------------------------------------------------- uniform numbers


class Constant:
    """A generator that always draws the same 32 bits."""

    def __init__(self, word: int) -> None:
        self.word = word

    def random_raw(self, count: int) -> NDArray[np.uint64]:
        return np.full(count, self.word << 32 | self.word, dtype=np.uint64)


def test_uniform_never_gives_zero_or_one():
    extremes = [Constant(0), Constant(2**32 - 1), Constant(2**31), Constant(2**31 - 1)]
    rows = uniform(extremes, 3, torch.zeros(1))  # type: ignore[arg-type]
    assert rows.dtype == torch.float32
    assert rows.shape == (4, 3)
    assert (rows > 0).all()
    assert (rows < 1).all()
    odd = rows.double() * 2**24
    assert torch.equal(odd % 2, torch.ones_like(odd))
    assert odd[:, 0].tolist() == [1, 2**24 - 1, 2**23 + 1, 2**23 - 1]


@given(st.integers(0, 2**32 - 1))
@PATIENT
def test_uniform_is_the_middle_of_one_of_2_to_the_23_equal_parts(word):
    row = uniform([Constant(word)], 1, torch.zeros(1)).item()  # type: ignore[list-item]
    part = int(row * 2**23)
    assert row == (part + 0.5) * 2.0**-23
    assert part == word * 2**23 // 2**32


@pytest.mark.parametrize("p", [2.0**-24, 2.0**-20, 0.1, 0.5, 0.7, 1 - 2.0**-24])
def test_uniform_is_below_p_with_probability_p(p):
    """All 2^23 results are equally likely, by the test above."""
    results = (torch.arange(2**23, dtype=torch.float64) + 0.5) * 2.0**-23
    assert abs(float((results < p).double().mean()) - p) <= 2.0**-24


def test_uniform_fills_the_interval_evenly():
    """Mean and variance of 2^20 draws: 1/2 and 1/12, whose estimates spread by sqrt(1/12) / 2^10 and less."""
    rows = uniform([stream(1, Purpose.ROUNDING, 2, "u", r) for r in range(4)], 2**18, torch.zeros(1)).double()
    spread = (1 / 12) ** 0.5 / 2**10
    assert abs(float(rows.mean()) - 0.5) < 6 * spread
    assert abs(float(rows.var()) - 1 / 12) < 6 * spread
    assert float(rows.min()) < 2**-16
    assert float(rows.max()) > 1 - 2**-16
    correlation = torch.corrcoef(rows)
    assert float((correlation - torch.eye(4, dtype=torch.float64)).abs().max()) < 6 / 2**9  # 2^18 pairs


def test_uniform_rows_are_the_streams_own():
    like = torch.zeros(1)
    both = uniform([stream(1, Purpose.ROUNDING, 2, "u", r) for r in (0, 1)], 7, like)
    alone = [uniform([stream(1, Purpose.ROUNDING, 2, "u", r)], 7, like) for r in (0, 1)]
    assert torch.equal(both, torch.cat(alone))


@pytest.mark.parametrize("bound", [1, 2, 7, 1000, 2**40 + 1])
def test_below_stays_below_and_scales_the_whole_word(bound):
    bits = stream(3, Purpose.SELECTION, 0, "u")
    raw = stream(3, Purpose.SELECTION, 0, "u").random_raw(200)
    found = [below(bits, bound) for _ in range(200)]
    assert found == [word * bound // 2**64 for word in raw.tolist()]
    assert max(found) < bound
