"""Elias codes of QSGD: test vectors, round trips, and the paper's bounds on the expected length."""

import math

import numpy as np
import pytest
import torch

from gradwire.compressors.base import State, Turn
from gradwire.compressors.payload import Ragged
from gradwire.compressors.quantizers.elias import decode_levels, encode_levels
from gradwire.compressors.quantizers.qsgd import QSGD

OMEGA = {
    1: "0", 2: "100", 3: "110", 4: "101000", 7: "101110", 8: "1110000", 15: "1111110", 16: "10100100000",
    100: "1011011001000", 127: "1011011111110", 128: "10111100000000",
}  # fmt: skip
"""Elias 1975, table of the omega code; its rule gives the others."""


def omega(k: int) -> str:
    """The code of k, from the definition."""
    code = "0"
    while k > 1:
        code = f"{k:b}" + code
        k = len(f"{k:b}") - 1
    return code


def turn(workers: int = 1) -> Turn:
    return Turn(1, 0, "u", tuple(range(workers)), workers)


def as_text(row: torch.Tensor) -> str:
    return "".join(f"{byte:08b}"[::-1] for byte in row.tolist())


def written(levels: list[int], gaps: bool) -> str:
    """The bits of a row by section 3 of the paper, filled up with ones."""
    bits, last = "", -1
    for i, level in enumerate(levels):
        if gaps and level:
            bits += omega(i - last) + ("1" if level < 0 else "0") + omega(abs(level))
            last = i
        elif not gaps:
            bits += omega(abs(level) + 1) + ("" if level == 0 else "1" if level < 0 else "0")
    return bits + "1" * (-len(bits) % 8)


@pytest.mark.parametrize("k", OMEGA)
def test_the_code_is_the_published_one(k):
    assert omega(k) == OMEGA[k]


@pytest.mark.parametrize("gaps", [True, False])
@pytest.mark.parametrize("top", [1, 7, 127])
def test_rows_are_written_by_the_definition_and_read_back(gaps, top):
    rng = np.random.default_rng(top)
    rows = rng.integers(-top, top + 1, (9, 300))
    rows[:6] *= rng.random((6, 300)) < np.array([0, 0.01, 0.1, 0.3, 0.6, 0.9])[:, None]
    codes = torch.from_numpy(rows + top).to(torch.uint8)
    coded = encode_levels(codes, top, gaps)
    for r, row in enumerate(rows):
        assert as_text(coded.row(r)) == written(row.tolist(), gaps)
    assert torch.equal(decode_levels(coded, top, 300, gaps), codes)


def test_rows_of_any_length_end_where_they_end():
    """Up to 7 ones fill the last byte, and none of them is read as an entry."""
    for size in range(1, 40):
        for gaps in (True, False):
            codes = torch.full((1, size + 20), 1, dtype=torch.uint8)
            codes[0, :size] = 2
            assert torch.equal(decode_levels(encode_levels(codes, 1, gaps), 1, size + 20, gaps), codes)


def test_zeros_take_no_bytes_with_gaps():
    coded = encode_levels(torch.full((2, 1000), 7, dtype=torch.uint8), 7, gaps=True)
    assert coded.lengths == [0, 0]
    assert decode_levels(coded, 7, 1000, gaps=True).eq(7).all()


@pytest.mark.parametrize("code", ["elias", "elias_dense"])
def test_only_the_code_differs_from_fixed_width(code):
    x = torch.randn(3, 2000, generator=torch.Generator().manual_seed(1))
    _, fixed, _ = QSGD(4, 512).encode(x, State(), turn(3))
    payload, sent, _ = QSGD(4, 512, code=code).encode(x, State(), turn(3))
    assert torch.equal(sent.dense(x[0]), fixed.dense(x[0]))
    decoded = QSGD(4, 512, code=code).decode(payload, (2000,), turn())
    assert torch.equal(decoded.dense(x[0]), fixed.dense(x[0]))


def lengths(bits: int, n: int, code: str, kind: str) -> np.ndarray:
    """Bits of the codes of several draws, the norm's 32 with them."""
    rng, draws = np.random.default_rng(n), 100 if n > 50_000 else 300
    v = {"normal": rng.standard_normal(n), "flat": np.ones(n), "heavy": rng.standard_cauchy(n)}[kind]
    x = torch.from_numpy(v).expand(draws, -1)
    payload, _, _ = QSGD(bits, n, "l2", code).encode(x, State(), turn(draws))
    buffer = payload.buffers[1]
    assert isinstance(buffer, Ragged)
    return 32 + 8 * np.array(buffer.lengths)


@pytest.mark.parametrize("kind", ["normal", "flat", "heavy"])
@pytest.mark.parametrize(("bits", "n"), [(2, 10_000), (2, 100_000), (3, 100_000), (4, 100_000)])
def test_expected_length_keeps_theorem_3_2(bits, n, kind):
    """(3 + 3/2 log2(2 (s^2 + n) / (s (s + sqrt n)))) s (s + sqrt n) + 32 bits, its o(1) taken for 0."""
    s = 2 ** (bits - 1) - 1
    entries = s * (s + math.sqrt(n))
    bound = (3 + 1.5 * math.log2(2 * (s**2 + n) / entries)) * entries + 32
    found = lengths(bits, n, "elias", kind)
    assert found.mean() + 6.5 * found.std() / math.sqrt(len(found)) <= bound
    assert QSGD(bits, n, "l2", "elias").wire_bytes((n,)) == pytest.approx(8 + 8 + bound / 8)  # header, announced length


def test_regression_gap_codes_cost_more_than_fixed_ones_where_entries_are_dense():
    """The maximum norm leaves few zeros: the table's guess is no promise, the wire's bytes are what is charged."""
    x = torch.randn(1, 5000, generator=torch.Generator().manual_seed(1))
    dense, _, _ = QSGD(8, 512, "max", "elias").encode(x, State(), turn())
    fixed, _, _ = QSGD(8, 512).encode(x, State(), turn())
    assert dense.row_bytes[0] > fixed.row_bytes[0]
    assert QSGD(8, code="elias").varying
    assert not QSGD(8).varying
