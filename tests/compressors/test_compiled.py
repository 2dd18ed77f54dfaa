"""Compiled loops and torch's operations give the same bits, for every quantizer and any number of threads."""

import pytest
import torch

from gradwire.compressors.base import Codec, Turn
from gradwire.compressors.decoded import Dense
from gradwire.compressors.drivers import Item, StackedDriver
from gradwire.compressors.payload import Ragged
from gradwire.compressors.quantizers import coding
from gradwire.compressors.quantizers.coded import Coded, Signs
from gradwire.compressors.quantizers.kernels import PART
from gradwire.compressors.spec import parse_scheme

TEXTS = [
    "qsgd(bits=2, bucket=100)",
    "qsgd(bits=3, bucket=7, norm=l2)",
    "qsgd(bits=4)",
    "qsgd(bits=8, bucket=1)",
    "qsgd(bits=4, code=elias)",
    "terngrad",
    "terngrad(clip=0, pack=base4)",
    "sharedterngrad",
    "sharedqsgd(bits=5)",
    "nuqsgd(bits=4, bucket=700)",
    "nuqsgd(bits=8, norm=max)",
    "natural",
    "int8",
    "int8(block=30, rounding=stochastic)",
    "mx",
    "onebit(means=unit)",
    "scaledsign",
    "signsgd",
    "signum",
]
SIZES = (1, 9, PART + 1027, 2 * PART)
THREADS = (1, 2)


def inputs(size: int, dtype: torch.dtype) -> torch.Tensor:
    """Two rows of ordinary, tiny, huge, equal and zero values."""
    x = torch.randn(2, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64).to(dtype)
    x[1] *= torch.logspace(-40, 25, size, dtype=torch.float64).to(dtype)
    x[0, size // 2 : size // 2 + 900] = 0.0
    x[0, size // 3 : size // 3 + 90] = -2.5
    return x


def outcome(text: str, x: torch.Tensor) -> list[torch.Tensor]:
    """Return mean, sent and the payload's buffers."""
    scheme = parse_scheme(text)
    turn = Turn(3, 1, "u", (0, 1), 2)
    shape = tuple(x.shape[1:])
    (done,), _ = StackedDriver(2).exchange([Item(x, scheme, scheme.init(shape, 2, x[0]), turn)])
    found = [done.mean, done.sent.dense(done.mean), done.sent.residual_of_(x.clone())]
    if isinstance(scheme, Codec):
        payload, _, _ = scheme.encode(x, scheme.init(shape, 2, x[0]), turn)
        found += [buffer.flat if isinstance(buffer, Ragged) else buffer for buffer in payload.buffers]
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("text", TEXTS)
def test_compiled_loops_give_what_torch_gives(text, dtype, monkeypatch):
    threads = torch.get_num_threads()
    for size in SIZES:
        x = inputs(size, dtype)
        monkeypatch.setattr(coding, "COMPILED_FROM", 10**12)
        expected = outcome(text, x)
        monkeypatch.setattr(coding, "COMPILED_FROM", 0)
        for count in THREADS:
            torch.set_num_threads(count)
            try:
                found = outcome(text, x)
            finally:
                torch.set_num_threads(threads)
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == other.dtype
                assert torch.equal(one, other)


@pytest.mark.parametrize("of", ["magnitudes", "values", "squares"])
def test_row_sums_are_right_and_the_same_for_any_rows(of, monkeypatch):
    x = inputs(PART + 77, torch.float64)
    shift = torch.tensor([0.5, -3.0], dtype=torch.float64)
    terms = {"magnitudes": x.abs(), "values": x, "squares": (x - shift[:, None]) ** 2}[of]
    for start in (0, 10**12):
        monkeypatch.setattr(coding, "COMPILED_FROM", start)
        found = coding.row_sums(x, of, shift)
        limit = terms.abs().sum(1) * 20 * 2.0**-53  # halving adds log2(2^17) = 17 times, and forming a term rounds
        assert ((found - terms.sum(1)).abs() <= limit).all()
        alone = [coding.row_sums(x[r : r + 1], of, shift[r : r + 1]) for r in (0, 1)]
        assert torch.equal(torch.cat(alone), found)


@pytest.mark.parametrize("bits", [0, 1, 2, 3, 5, 8, 9, 12])
def test_coded_rows_behave_as_the_dense_rows_they_stand_for(bits, monkeypatch):
    size, bucket = 2500, 300
    digits = 3 if bits == 0 else 2**bits
    codes = torch.randint(digits, (3, size), generator=torch.Generator().manual_seed(bits))
    table = torch.randn(digits, generator=torch.Generator().manual_seed(1))
    scales = torch.rand(3, 9, generator=torch.Generator().manual_seed(2))
    values = torch.stack([table[row] * scales[r].repeat_interleave(bucket)[:size] for r, row in enumerate(codes)])
    packed = coding.pack_trits(codes.to(torch.uint8)) if bits == 0 else coding.pack(codes, bits)
    check(Coded(packed, bits, table, scales, bucket, size), values, monkeypatch)


@pytest.mark.parametrize("columns", [1, 4])
def test_signs_behave_as_the_dense_rows_they_stand_for(columns, monkeypatch):
    size = 2500
    x = torch.randn(3, size, generator=torch.Generator().manual_seed(1))
    low, high = (torch.randn(3, columns, generator=torch.Generator().manual_seed(k)) for k in (2, 3))
    place = torch.arange(size) % columns
    values = torch.where(x >= 0, high[:, place], low[:, place])
    check(Signs(coding.pack_signs(x), low, high, size), values, monkeypatch)


def check(decoded, values, monkeypatch):
    p = torch.randn(values.shape, generator=torch.Generator().manual_seed(9))
    for start in (0, 10**12):
        monkeypatch.setattr(coding, "COMPILED_FROM", start)
        assert torch.equal(decoded.dense(p[0]), values)
        assert torch.equal(decoded.total(p[0]), Dense(values).total(p[0]))
        assert torch.equal(decoded.add_to_(p[0].clone()), Dense(values).add_to_(p[0].clone()))
        assert torch.equal(decoded.residual_of_(p.clone()), p - values)
        assert not decoded.clear_(p.clone()).any()
        assert decoded.dense(p[0].double()).dtype == torch.float64


def test_regression_the_smallest_power_of_many_does_not_overflow(monkeypatch):
    """127 levels reach to 2^-126: 1e-10 beside 1e30 is 1e-40 / 2^-126 of the way to the smallest, or 0.85 %."""
    x = torch.full((1, 2**17), 1e-10)
    x[0, 5] = 1e30
    found = []
    for least in (0, 10**12):
        monkeypatch.setattr(coding, "COMPILED_FROM", least)
        found.append(outcome("nuqsgd(bits=8, bucket=131072, norm=max)", x.repeat(2, 1)))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    sent = found[0][1]
    p = float(torch.tensor(1e-10) / torch.tensor(1e30)) / 2.0**-126
    small = torch.cat([sent[:, :5], sent[:, 6:]], dim=1)
    ups = int((small > 0).sum())
    count = small.numel()
    assert abs(ups - p * count) <= 5 * (p * (1 - p) * count) ** 0.5
    torch.testing.assert_close(small[small > 0], torch.full((ups,), 1e30 * 2.0**-126), rtol=1e-6, atol=0)
    assert torch.equal(sent[:, 5], x[0, 5].expand(2))
