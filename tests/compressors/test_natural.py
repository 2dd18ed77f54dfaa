"""Natural compression and NUQSGD against their definitions."""

import math

import numpy as np
import pytest
import torch

from gradwire.compressors.base import State, Turn
from gradwire.compressors.quantizers.natural import Natural
from gradwire.compressors.quantizers.nuqsgd import NUQSGD


def turn(step: int = 0, workers: int = 1) -> Turn:
    return Turn(1, step, "u", tuple(range(workers)), workers)


def sent_of(scheme, x: torch.Tensor, step: int = 0) -> torch.Tensor:
    _, sent, _ = scheme.encode(x, State(), turn(step, len(x)))
    return sent.dense(x[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_two_and_a_half_becomes_two_three_times_in_four(dtype):
    found = sent_of(Natural(), torch.full((1, 40_000), 2.5, dtype=dtype))
    assert set(found[0].tolist()) == {2.0, 4.0}
    assert abs(int((found == 4).sum()) - 10_000) < 563  # 6.5 standard deviations of sqrt(40000 / 4 * 3 / 4)


def test_variance_is_an_eighth_at_four_thirds():
    """E(C(x) - x)^2 = (4/3 - 1)(2 - 4/3) = 2/9 = x^2 / 8."""
    x = torch.full((1, 60_000), 4 / 3, dtype=torch.float64)
    found = sent_of(Natural(), x)
    ups = int((found == 2).sum())
    assert abs(ups - 20_000) < 6.5 * math.sqrt(60_000 * 2 / 9)
    assert pytest.approx(Natural().error_bound((1,))) == (4 / 3 - 1) * (2 - 4 / 3) / (4 / 3) ** 2


@pytest.mark.parametrize(("dtype", "bits", "bias"), [(torch.float32, 9, 127), (torch.float64, 12, 1023)])
def test_the_wire_holds_sign_and_exponent(dtype, bits, bias):
    powers = [1.0, -1.0, 2.0**-126, -(2.0**127), 0.0, -0.0, 0.5]
    payload, sent, _ = Natural().encode(torch.tensor([powers], dtype=dtype), State(), turn())
    stream = "".join(f"{byte:08b}"[::-1] for byte in payload.fixed(0)[0].tolist())
    codes = [int(stream[i * bits : (i + 1) * bits][::-1], 2) for i in range(7)]
    negative = 1 << (bits - 1)
    expected = [bias, bias + negative, bias - 126, bias + 127 + negative, 0, negative, bias - 1]
    assert codes == expected
    assert sent.dense(torch.zeros(7, dtype=dtype))[0].tolist() == powers  # powers of two are exact
    assert payload.row_bytes == [math.ceil(7 * bits / 8)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_receivers_tell_float32_from_float64(size):
    for dtype, itemsize in ((torch.float32, 4), (torch.float64, 8)):
        payload, _, _ = Natural().encode(torch.ones(2, size, dtype=dtype), State(), turn(workers=2))
        assert Natural().decode(payload, (size,), turn()).dense(torch.zeros(size)).eq(1).all()
        assert payload.row_bytes == [Natural().wire_bytes((size,), itemsize) - 8] * 2


def test_the_largest_values_do_not_become_infinite():
    x = torch.full((1, 1000), -3.0e38)  # between 2^127 and 2^128
    assert set(sent_of(Natural(), x)[0].tolist()) == {-(2.0**127)}


def test_subnormal_values_keep_their_expectation():
    """0.3 of the smallest normal number is sent as that number 3 times in 10, and else as 0."""
    tiny = 2.0**-126
    found = sent_of(Natural(), torch.full((1, 40_000), 0.3 * tiny))
    assert set(found[0].tolist()) == {0.0, tiny}
    assert abs(int((found > 0).sum()) - 12_000) < 6.5 * math.sqrt(40_000 * 0.21)


@pytest.mark.parametrize("x", [1e-37, 1e30])
def test_regression_exponents_are_not_clipped_to_7_bits(x):
    """GRACE sends 8 bits in all: exponents from 2^-109 to 2^18 alone, and anything beyond is wrong."""
    found = sent_of(Natural(), torch.full((1, 100), x))
    below = 2.0 ** math.floor(math.log2(x))
    assert set(found[0].tolist()) <= {below, 2 * below}


# --------------------------------------------------------------------------------------------------------------- NUQSGD


@pytest.mark.parametrize("norm", ["l2", "max"])
@pytest.mark.parametrize(("bits", "bucket"), [(2, 50), (3, 7), (4, 512), (8, 64)])
def test_every_entry_is_a_neighbouring_level(bits, bucket, norm):
    x = torch.randn(1, 1000, generator=torch.Generator().manual_seed(bits), dtype=torch.float64)
    x[0, ::5] *= 1e-3
    s = 2 ** (bits - 1) - 2
    levels = np.array([0.0, *(2.0**-j for j in range(s, -1, -1))])
    found = sent_of(NUQSGD(bits, bucket, norm), x)[0].numpy()
    for start in range(0, 1000, bucket):
        part = slice(start, start + bucket)
        v = x[0, part].numpy()
        size = np.abs(v).max() if norm == "max" else math.sqrt(np.sum(v**2))
        ratio = np.abs(v) / size
        above = np.minimum(np.searchsorted(levels, ratio * (1 - 1e-14)), s + 1)
        below = np.maximum(np.searchsorted(levels, ratio * (1 + 1e-14), side="right") - 1, 0)
        near = np.abs(found[part]) / size
        ok = np.isclose(near, levels[above], rtol=1e-13) | np.isclose(near, levels[below], rtol=1e-13, atol=1e-300)
        assert ok.all()
        assert (found[part] * v >= 0).all()


def variance(x: np.ndarray, s: int) -> np.ndarray:
    """E||Q - x||^2 / ||x||^2 of rows, from the definition with the 2-norm."""
    ratio = np.abs(x) / np.sqrt(np.sum(x**2, 1, keepdims=True))
    below = np.exp2(np.floor(np.log2(np.maximum(ratio, 2.0**-s))))
    low = np.where(ratio < 2.0**-s, 0, below)
    high = np.where(ratio < 2.0**-s, 2.0**-s, 2 * below)
    return np.sum((ratio - low) * (high - ratio), 1)


@pytest.mark.parametrize(("bits", "d"), [(2, 2), (2, 512), (3, 7), (3, 512), (4, 512), (4, 10_000), (8, 64)])
def test_nuqsgd_bound_is_never_exceeded(bits, d):
    s, rng = 2 ** (bits - 1) - 2, np.random.default_rng(d)
    bound = NUQSGD(bits, d).error_bound((d,)) * (1 + d * 2.0**-53)  # a sum of d terms is rounded
    rows = 4_000_000 // (20 * d)
    x = np.sign(rng.uniform(-1, 1, (rows, d))) * rng.uniform(0, 1, (rows, d)) ** rng.uniform(0, 6, (rows, 1))
    assert variance(x, s).max() <= bound
    flat = np.full((200, d), 1.0) * np.linspace(0.001, 1, 200)[:, None]
    flat[:, 0] = 1
    assert variance(flat, s).max() <= bound


def test_nuqsgd_bound_with_one_level_is_attained():
    """With 2 bits there are 0 and the norm: sqrt(d) - 1, as for QSGD with s = 1, attained by a constant."""
    assert NUQSGD(2, 400).error_bound((400,)) == pytest.approx(19)
    assert variance(np.ones((1, 400)), 0)[0] == pytest.approx(19)
