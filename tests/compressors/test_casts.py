"""Casts to fewer bits: fp16, block int8 and MX, against their definitions."""

import math

import numpy as np
import pytest
import torch

from gradwire.compressors.base import NonFiniteError, State, Turn
from gradwire.compressors.quantizers.dense import Dense
from gradwire.compressors.quantizers.int8 import Int8
from gradwire.compressors.quantizers.mx import MX
from gradwire.compressors.quantizers.qsgd import QSGD


def turn(workers: int = 1) -> Turn:
    return Turn(1, 4, "layer.weight", tuple(range(workers)), workers)


# ----------------------------------------------------------------------------------------------------------------- fp16


def test_fp16_rounds_to_nearest_and_sums_in_fp16(exchange, values):
    x = values(5, 300)
    outcome, log = exchange("dense(dtype=fp16)", x)
    narrow = x.numpy().astype(np.float16)
    assert np.array_equal(outcome.sent.dense(x[0]).numpy(), narrow.astype(np.float32))
    total = narrow[0]
    for row in narrow[1:]:
        total = (total + row).astype(np.float16)
    assert np.array_equal(outcome.mean.numpy(), total.astype(np.float32) / np.float32(5))
    assert [(c.operation, c.dtype, c.sent_bytes) for c in log.collectives] == [("all-reduce", "float16", (600,) * 5)]


@pytest.mark.parametrize("size", [3, 600_000])
@pytest.mark.parametrize("value", [65520.0, -65520.0, 1e30, -1e30])
def test_regression_fp16_never_hides_an_overflow(value, size, exchange):
    x = torch.ones(3, size)
    x[1, -1] = value
    with pytest.raises(
        NonFiniteError,
        match=r"^step 0: layer.weight, or its sum over all workers, exceeds fp16's 65504$",
    ):
        exchange("dense(dtype=fp16)", x)
    x[1, -1] = math.copysign(65519.0, value)  # rounds to the largest, 65504
    outcome, _ = exchange("dense(dtype=fp16)", x)
    assert outcome.sent.dense(x[0])[1, -1].item() == math.copysign(65504.0, value)


@pytest.mark.parametrize("sign", [1, -1])
def test_regression_a_sum_that_overflows_fp16_is_not_hidden(sign, exchange):
    with pytest.raises(NonFiniteError, match=r"^step 0: layer.weight, or its sum over all workers, exceeds fp16's"):
        exchange("dense(dtype=fp16)", sign * torch.full((3, 5), 30_000.0))


def test_fp16_error_bound_is_attained():
    x = torch.tensor([[1.0 + 2.0**-11]], dtype=torch.float64)  # half-way between two neighbours
    _, sent, _ = Dense(dtype="fp16").encode(x, State(), turn())
    error = float((sent.dense(x[0]) - x).square() / x.square())
    assert 0.99 * Dense(dtype="fp16").error_bound((1,)) < error <= Dense(dtype="fp16").error_bound((1,))


# ----------------------------------------------------------------------------------------------------------------- int8


@pytest.mark.parametrize("size", [5, 700, 70_003])
@pytest.mark.parametrize("block", [1, 7, 512])
def test_int8_rounds_to_the_nearest_127th_of_the_largest(block, size, values):
    x = values(1, size, dtype=torch.float64)
    payload, sent, _ = Int8(block).encode(x, State(), turn())
    v = x[0].numpy()
    scale = np.array([np.abs(v[i : i + block]).max() for i in range(0, size, block)])
    spread = np.repeat(scale, block)[:size]
    assert np.array_equal(payload.fixed(0)[0].numpy(), scale)
    levels = payload.fixed(1)[0].numpy().astype(int) - 127
    assert np.array_equal(levels, np.rint(v / spread * 127))
    assert np.allclose(sent.dense(x[0])[0].numpy(), levels * spread / 127, rtol=1e-14)
    assert payload.row_bytes == [8 * len(scale) + size]


def test_int8_rounds_halves_to_even():
    x = torch.tensor([[127.0, 0.5, 1.5, -0.5, -2.5, 126.5]])
    _, sent, _ = Int8().encode(x, State(), turn())
    assert sent.dense(x[0]).tolist() == [[127, 0, 2, 0, -2, 126]]


def test_int8_bound_is_attained():
    x = torch.full((1, 300), 0.5, dtype=torch.float64)
    x[0, 7] = 127.0
    _, sent, _ = Int8().encode(x, State(), turn())
    error = float((sent.dense(x[0]) - x).square().sum() / x.square().sum())
    assert error == pytest.approx(Int8().error_bound((300,)), rel=1e-12)


def test_int8_at_random_is_qsgd_in_8_bits(values):
    x = values(2, 1000)
    one, other = Int8(100, "stochastic"), QSGD(8, 100)
    assert one.unbiased
    assert one.error_bound((1000,)) == other.error_bound((1000,))
    first, second = one.encode(x, State(), turn(2))[1], other.encode(x, State(), turn(2))[1]
    assert torch.equal(first.dense(x[0]), second.dense(x[0]))


# ------------------------------------------------------------------------------------------------------------------- MX

FORMATS = {"e4m3": (3, -6, 8, 448.0), "e5m2": (2, -14, 15, 57344.0)}
"""Bits of mantissa, exponent of the smallest normal number, of the largest power of two, and the largest number."""


def to_element(v: np.ndarray, element: str) -> np.ndarray:
    """Round to the format's numbers, halves to even, and cut off what is larger; from the specification."""
    mantissa, smallest, _, largest = FORMATS[element]
    exponent = np.maximum(np.floor(np.log2(np.where(v == 0, 1, np.abs(v)))), smallest)
    spacing = np.exp2(exponent - mantissa)
    return np.clip(np.rint(v / spacing) * spacing, -largest, largest)


@pytest.mark.parametrize("block", [7, 32])
@pytest.mark.parametrize("element", FORMATS)
def test_mx_is_the_formats_of_the_specification(element, block, values):
    x = values(1, 1003) * torch.logspace(-20, 20, 1003)
    x[0, :40] = 0.0
    payload, sent, _ = MX(element, block).encode(x, State(), turn())
    v = x[0].double().numpy()
    for number, start in enumerate(range(0, 1003, block)):
        part = v[start : start + block]
        largest = np.abs(part).max()
        shared = math.floor(math.log2(largest)) - FORMATS[element][2] if largest else -127
        assert payload.fixed(0)[0, number].item() == shared + 127
        expected = to_element(part / 2.0**shared, element) * 2.0**shared
        assert np.array_equal(sent.dense(x[0])[0, start : start + block].numpy(), expected.astype(np.float32))
    assert payload.row_bytes == [math.ceil(1003 / block) + 1003]


@pytest.mark.parametrize("element", FORMATS)
def test_mx_cuts_off_what_exceeds_the_largest_element(element):
    """511 and 63 / 64 of the next power of two lie above 448 and 57344, at an error of just below 1/8."""
    x = torch.tensor([[-511.0]])
    _, sent, _ = MX(element).encode(x, State(), turn())
    assert sent.dense(x[0]).tolist() == [[-448.0]]
    error = (63 / 511) ** 2
    assert 0.95 * MX(element).error_bound((1,)) < error <= MX(element).error_bound((1,))


def test_mx_keeps_tiny_and_refuses_what_float32_cannot_hold():
    x = torch.tensor([[1e-40, -3e-40]])
    _, sent, _ = MX().encode(x, State(), turn())
    assert sent.dense(x[0])[0].tolist() == pytest.approx([1e-40, -3e-40], rel=2.0**-3)
    with pytest.raises(
        NonFiniteError, match=r"^step 4: mx\(.*\) makes an infinity or a NaN of the gradient of layer.weight on worker"
    ):
        MX().encode(torch.tensor([[1e39]], dtype=torch.float64), State(), turn())
