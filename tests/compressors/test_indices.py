"""Index codings against bit strings written by hand, slow encoders of the definitions, and their entropy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradwire.compressors.gapcodes import elias_encode, rice_encode, rice_parameter, to_gaps
from gradwire.compressors.indices import (
    Coding,
    decode_indices,
    encode_indices,
    indices_bytes,
    length_varies,
)
from gradwire.compressors.payload import Ragged

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

CODINGS: tuple[Coding, ...] = ("raw", "log2", "bitmap", "rice", "elias", "auto")


def coded(positions: list[int], size: int, coding: Coding) -> list[int]:
    """Return one row's bytes."""
    buffer = encode_indices(torch.tensor([positions]), size, coding)
    assert isinstance(buffer, Ragged) == length_varies(coding)
    return (buffer.row(0) if isinstance(buffer, Ragged) else buffer[0]).tolist()


def as_bytes(bits: str) -> list[int]:
    """Return bits, written in the order in which they are sent, as bytes that are filled from the lowest bit on."""
    bits = bits.replace(" ", "")
    return [int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8)]


# ------------------------------------------------------------------------------------------------------------ by hand


def test_fixed_lengths_by_hand():
    assert coded([1, 4, 6], 7, "raw") == [1, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0]
    assert coded([1, 4, 6], 7, "log2") == as_bytes("100 001 011")  # lowest bit first
    assert coded([1, 4, 6], 7, "bitmap") == as_bytes("0100101")


def test_rice_by_hand():
    """Positions 2, 9, 11, 31: gaps 2, 6, 1, 19. With b = 2: low bits 2, 2, 1, 3 and quotients 0, 1, 0, 4."""
    assert to_gaps(torch.tensor([2, 9, 11, 31])).tolist() == [2, 6, 1, 19]
    assert coded([2, 9, 11, 31], 40, "rice") == [2, *as_bytes("01 01 10 11"), *as_bytes("1 01 1 00001")]


def test_rice_with_parameter_0_is_the_bitmap_up_to_the_last_position():
    assert coded([0, 2, 3, 5, 6, 8], 40, "rice") == [0, *as_bytes("1 01 1 01 1 01")]


@pytest.mark.parametrize(
    ("gap", "unary", "of_n", "of_x"),
    [
        (0, "1", "", ""),  # x = 1: N = 0, L = 0
        (1, "01", "0", "0"),  # x = 0b10: N + 1 = 0b10
        (2, "01", "0", "1"),  # x = 0b11
        (3, "01", "1", "00"),  # x = 0b100: N + 1 = 0b11
        (7, "001", "00", "000"),  # x = 0b1000: N + 1 = 0b100
        (16, "001", "10", "1000"),  # x = 0b10001: N + 1 = 0b101, low bits 01, lowest first
        (254, "0001", "000", "1111111"),  # x = 0b11111111: N + 1 = 0b1000
    ],
)
def test_elias_delta_of_one_gap_by_hand(gap, unary, of_n, of_x):
    """x = 17 is 001 01 0001 in the usual order of bits, 9 of them; ours come lowest first."""
    assert coded([gap], 300, "elias") == as_bytes(unary + of_n + of_x)


def test_elias_delta_of_three_gaps_by_hand():
    """Gaps 3, 0, 1: x = 4, 1, 2, each part for all of them."""
    assert coded([3, 4, 6], 7, "elias") == as_bytes("01 1 01  1 0  00 0")


@pytest.mark.parametrize(
    ("positions", "size", "chosen"),
    [
        ([70_000], 100_000, "log2"),  # 17 bits; Rice 1 + 2 + 1 bytes, Elias 25 bits
        ([0, 1, 2, 4, 5, 6, 7, 9, 11, 12, 13, 14, 15], 16, "bitmap"),
        (list(range(3, 100_000, 100)), 100_000, "rice"),
        ([0, 1, 2, 3, 4, 5, 6, 7, 40_000, 99_000], 2**20, "elias"),
    ],
)
def test_auto_names_the_shortest(positions, size, chosen):
    lengths = {c: len(coded(positions, size, c)) for c in ("log2", "bitmap", "rice", "elias")}
    assert min(lengths, key=lengths.__getitem__) == chosen
    tag = ["log2", "bitmap", "rice", "elias"].index(chosen)
    assert coded(positions, size, "auto") == [tag, *coded(positions, size, chosen)]


# -------------------------------------------------------------------------------------------------------- definitions


def slow_rice(gaps: list[int], b: int) -> list[int]:
    low = "".join(format(g % 2**b, f"0{b}b")[::-1] for g in gaps) if b else ""
    high = "".join("0" * (g // 2**b) + "1" for g in gaps)
    return [b, *as_bytes(low), *as_bytes(high)]


def slow_elias(gaps: list[int]) -> list[int]:
    parts = ["", "", ""]
    for gap in gaps:
        x = format(gap + 1, "b")
        n = format(len(x), "b")
        for i, digits in enumerate(("0" * (len(n) - 1) + "1", n[:0:-1], x[:0:-1])):
            parts[i] += digits
    return as_bytes("".join(parts))


GAPS = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 300), st.integers(0, 2**31)), min_size=1, max_size=40)


@given(gaps=GAPS)
@settings(PATIENT, max_examples=300)
def test_gap_codes_are_those_of_their_definitions(gaps):
    row = torch.tensor(gaps)
    b, length = rice_parameter(row)
    code = rice_encode(row).tolist()
    assert code == slow_rice(gaps, b)
    assert len(code) == length
    assert elias_encode(row).tolist() == slow_elias(gaps)


@given(count=st.integers(1, 200), mean=st.floats(0, 1000), seed=st.integers(0, 2**32 - 1))
@settings(PATIENT, max_examples=100)
def test_rice_parameter_is_the_best_of_all_for_geometric_gaps(count, mean, seed):
    """Of gaps that are not geometric a parameter farther off could be better; of these, none by more than 2 %."""
    gaps = np.random.default_rng(seed).geometric(1 / (mean + 1), count) - 1
    _, length = rice_parameter(torch.from_numpy(gaps))
    best = min(1 + math.ceil(count * b / 8) + math.ceil((count + int((gaps >> b).sum())) / 8) for b in range(16))
    assert best <= length <= 1.02 * best + 1


# -------------------------------------------------------------------------------------------------------- round trips


def subsets(size: int, count: int, rows: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.tensor(np.array([np.sort(rng.choice(size, count, replace=False)) for _ in range(rows)]))


@given(coding=st.sampled_from(CODINGS), size=st.integers(1, 300), seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(PATIENT, max_examples=300)
def test_rows_of_equal_counts_come_back(coding, size, seed, data):
    count = data.draw(st.integers(1, size))
    positions = subsets(size, count, 3, seed)
    found = decode_indices(encode_indices(positions, size, coding), [count] * 3, size, coding)
    assert torch.equal(found.flat.view(3, count) if isinstance(found, Ragged) else found, positions)


@given(coding=st.sampled_from(CODINGS), size=st.integers(1, 300), seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(PATIENT, max_examples=300)
def test_rows_of_different_counts_come_back(coding, size, seed, data):
    counts = data.draw(st.lists(st.integers(0, size), min_size=1, max_size=4))
    rows = Ragged.of([subsets(size, count, 1, seed)[0].long() for count in counts])
    buffer = encode_indices(rows, size, coding)
    assert isinstance(buffer, Ragged)
    assert [length == 0 for length in buffer.lengths] == [count == 0 for count in counts]
    found = decode_indices(buffer, counts, size, coding)
    assert isinstance(found, Ragged)
    assert found.offsets == rows.offsets
    assert torch.equal(found.flat, rows.flat)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(
    ("positions", "size"),
    [([0], 1), (list(range(500)), 500), ([0], 2**31), ([2**31 - 1], 2**31), ([0, 2**31 - 1], 2**31), ([3, 4], 5)],
    ids=["one of one", "all", "first of many", "last of many", "both ends", "last two"],
)
def test_extremes_come_back(coding, positions, size):
    if coding == "bitmap" and size > 10**6:
        pytest.skip("256 MiB of zeros")
    buffer = encode_indices(torch.tensor([positions]), size, coding)
    found = decode_indices(buffer, [len(positions)], size, coding)
    assert (found.flat if isinstance(found, Ragged) else found[0]).tolist() == positions


# ------------------------------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(
    ("count", "size"), [(1, 1), (1, 1000), (10, 1000), (100, 1000), (500, 1000), (1000, 1000), (655, 65_536)]
)
def test_length_is_the_expectation_over_random_positions(coding, count, size):
    rows = [encode_indices(subsets(size, count, 1, seed), size, coding) for seed in range(60)]
    lengths = np.array([row.lengths[0] if isinstance(row, Ragged) else row.shape[1] for row in rows])
    expected = indices_bytes(count, size, coding)
    if not length_varies(coding):
        assert set(lengths) == {expected}
    # 6 standard errors of the mean; a byte for the padding and for choosing the best of each row.
    assert abs(lengths.mean() - expected) <= 6 * lengths.std() / math.sqrt(60) + 1


def entropy(density: float) -> float:
    """Return the bits that a kept entry's position must cost: n H(density) / k."""
    return -(density * math.log2(density) + (1 - density) * math.log2(1 - density)) / density


@pytest.mark.parametrize(("density", "rice", "elias"), [(0.1, 4.76, 6.11), (0.01, 8.11, 10.8), (0.001, 11.5, 15.4)])
def test_bits_an_index_of_25_million(density, rice, elias):
    """Rice is within 2 % of the entropy; the table's figures have three digits."""
    size = 25_557_032
    count = round(density * size)
    bits = {coding: 8 * indices_bytes(count, size, coding) / count for coding in CODINGS}
    assert bits["rice"] == pytest.approx(rice, abs=0.05 if rice > 10 else 0.005)
    assert bits["elias"] == pytest.approx(elias, abs=0.05 if elias > 10 else 0.005)
    assert entropy(density) < bits["rice"] < 1.02 * entropy(density)
    assert bits["log2"] == pytest.approx(25, abs=8 / count)  # a byte of padding
    assert bits["raw"] == 32
    assert bits["bitmap"] == pytest.approx(1 / density, rel=1e-4)
    assert bits["auto"] == pytest.approx(bits["rice"], abs=1e-3)


@pytest.mark.parametrize("coding", ["elias", "auto"])
def test_clustered_positions_take_less_than_random_ones(coding):
    """Rice codes all gaps alike, so it gains nothing."""
    clustered = [100 * i + j for i in range(0, 1000, 100) for j in range(10)]
    assert len(coded(clustered, 100_000, coding)) < 0.7 * indices_bytes(100, 100_000, coding)
