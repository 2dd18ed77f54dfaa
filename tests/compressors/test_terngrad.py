"""TernGrad, alone and with a shared scaler, and shared QSGD, against their definitions."""

import numpy as np
import pytest
import torch

from gradwire.compressors.base import SchemeError, State, Turn
from gradwire.compressors.quantizers.shared import summed_dtype
from gradwire.compressors.quantizers.sharedqsgd import SharedQSGD
from gradwire.compressors.quantizers.terngrad import SharedTernGrad, TernGrad


def turn(step: int = 0, workers: int = 1) -> Turn:
    return Turn(1, step, "u", tuple(range(workers)), workers)


def heavy(size: int) -> np.ndarray:
    rng = np.random.default_rng(size)
    return rng.standard_normal(size) / rng.uniform(0.1, 1, size)


def digits(packed: torch.Tensor, base: int, size: int) -> list[int]:
    """Read digits one after the other, in whole numbers."""
    each = 5 if base == 3 else 4
    return [byte // base**k % base for byte in packed[0].tolist() for k in range(each)][:size]


@pytest.mark.parametrize(("pack", "base", "length"), [("base3", 3, 201), ("base4", 4, 251)])
@pytest.mark.parametrize("clip", [0.0, 2.5, 1.0])
def test_digits_and_scaler_follow_from_the_definition(pack, base, length, clip):
    x = heavy(1003)
    payload, sent, _ = TernGrad(clip, pack).encode(torch.from_numpy(x)[None], State(), turn())
    limit = clip * x.std() if clip else np.inf
    clipped = np.clip(x, -limit, limit)
    assert payload.fixed(0).item() == pytest.approx(np.abs(clipped).max(), rel=1e-14)
    assert payload.fixed(1).shape == (1, length)
    found = np.array(digits(payload.fixed(1), base, 1003)) - 1
    assert set(found) == {-1, 0, 1}
    assert (found * x >= 0).all()
    assert (np.abs(found)[np.abs(x) >= limit] == 1).all()  # what is clipped is sent for certain
    assert np.allclose(sent.dense(torch.from_numpy(x))[0].numpy(), found * np.abs(clipped).max(), rtol=1e-14)


def test_second_moment_without_clipping_is_the_product_of_norms():
    """E||g~||^2 = ||g||_inf ||g||_1: counts of sent entries have a variance of sum p (1 - p)."""
    g = heavy(60)
    top, draws = np.abs(g).max(), 4000
    rows = torch.from_numpy(g).expand(draws, -1)
    _, sent, _ = TernGrad(0.0).encode(rows, State(), turn(workers=draws))
    moment = float(sent.dense(rows[0]).square().sum(1).mean())
    p = np.abs(g) / top
    spread = top**2 * np.sqrt(np.sum(p * (1 - p)) / draws)
    assert abs(moment - top * np.abs(g).sum()) < 6.5 * spread
    assert spread < 0.01 * moment


def test_regression_the_scaler_is_taken_after_clipping():
    """With the maximum before it, nothing would be sent for certain, and the clipped entry as 100."""
    x = torch.ones(1, 1000)
    x[0, ::2] = -1
    x[0, 0] = 100.0
    deviation = float(x.double().std(correction=0))
    payload, sent, _ = TernGrad(2.5).encode(x, State(), turn())
    assert payload.fixed(0).item() == pytest.approx(2.5 * deviation, rel=1e-6)
    assert sent.dense(x[0])[0, 0].item() == pytest.approx(2.5 * deviation, rel=1e-6)


@pytest.mark.parametrize("size", [1, 3, 100_003])
def test_a_constant_unit_is_not_clipped_away(size):
    x = torch.full((1, size), -0.7)
    _, sent, _ = TernGrad().encode(x, State(), turn())
    assert torch.equal(sent.dense(x[0]), x)


def test_the_deviation_is_taken_around_the_mean():
    x = 10 + heavy(5000)
    payload, _, _ = TernGrad(0.5).encode(torch.from_numpy(x)[None], State(), turn())
    assert payload.fixed(0).item() == pytest.approx(0.5 * x.std(), rel=1e-12)


# --------------------------------------------------------------------------------------------------------- shared scale


@pytest.mark.parametrize("scheme", [SharedTernGrad(0.0), SharedQSGD(2)], ids=str)
def test_all_workers_share_the_largest_scale_and_sum_whole_numbers(scheme, exchange):
    x = torch.from_numpy(np.stack([heavy(500) * factor for factor in (0.1, 1.0, 0.3)]))
    outcome, log = exchange(scheme, x)
    scale = float(x.abs().max())
    rows = outcome.sent.dense(x[0])
    assert set((rows / scale).round().unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert torch.allclose(rows, (rows / scale).round() * scale, rtol=1e-15)
    assert torch.allclose(outcome.mean, rows.sum(0) / 3, rtol=1e-15)
    assert [(c.operation, c.dtype, c.sent_bytes[0]) for c in log.collectives] == [
        ("all-reduce", "float64", 8),
        ("all-reduce", "int8", 500),
    ]


@pytest.mark.parametrize(("scheme", "top"), [(SharedTernGrad(0.0), 1), (SharedQSGD(4), 7)], ids=str)
def test_shared_scales_are_unbiased(scheme, top, exchange):
    """Each entry's mean over draws lies within 6.5 of its standard deviations, computed from the law."""
    x, draws = torch.from_numpy(np.stack([heavy(40), heavy(41)[:40] * 3])), 400
    means = torch.stack([exchange(scheme, x, step=step)[0].mean for step in range(draws)])
    unit = float(x.abs().max()) / top
    position = x.abs() / unit
    fraction = position - position.floor()
    spread = unit * (fraction * (1 - fraction)).sum(0).sqrt() / 2 / draws**0.5
    assert ((means.mean(0) - x.mean(0)).abs() <= 6.5 * spread + 1e-12).all()


@pytest.mark.parametrize(("workers", "dtype"), [(127, "int8"), (128, "int32")])
def test_regression_sums_of_many_workers_do_not_wrap(workers, dtype, exchange):
    outcome, log = exchange("sharedterngrad(clip=0)", torch.full((workers, 6), -2.0))
    assert log.collectives[-1].dtype == dtype
    assert outcome.mean.tolist() == [-2.0] * 6


def test_what_overflows_32_bits_is_refused():
    crowd = Turn(0, 0, "u", (0,), 2**31)
    with pytest.raises(
        SchemeError, match=r"^sharedterngrad\(clip=2.5\): levels up to 1 of 2147483648 workers overflow"
    ):
        summed_dtype(SharedTernGrad(), 1, crowd)
    assert summed_dtype(SharedQSGD(8), 127, Turn(0, 0, "u", (0,), 1)) == torch.int8
    assert summed_dtype(SharedQSGD(8), 127, Turn(0, 0, "u", (0,), 2)) == torch.int32


def test_huge_values_of_many_workers_have_a_finite_mean(exchange):
    outcome, _ = exchange("sharedqsgd(bits=4)", torch.full((16, 5), 3e38))
    assert outcome.mean.tolist() == pytest.approx([3e38] * 5)


@pytest.mark.parametrize("clip", [-1.0, float("inf"), float("nan")])
def test_clip_out_of_range(clip):
    for scheme in (TernGrad, SharedTernGrad):
        with pytest.raises(SchemeError, match=r"clip must be at least 0 and finite"):
            scheme(clip)
