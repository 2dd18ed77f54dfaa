"""DGC's sampled selection against its definition in numpy, its warm-up, and the whole under one name."""

import math
from collections import Counter
from math import gcd

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gradwire.compressors.base import SchemeError, Turn
from gradwire.compressors.keys import Purpose, below, stream
from gradwire.compressors.momentum import Momentum
from gradwire.compressors.sparsifiers.dgc import DGC
from gradwire.compressors.sparsifiers.dgcsample import DGCSample, stride_for
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wirelog import Work
from gradwire.sim.step.device import load_device
from gradwire.sim.step.overhead import TABLE, Overhead, cost_of


def select(magnitude: NDArray[np.float64], density: float, stride: int, start: int) -> tuple[list[int], str]:
    """Return what is sent, and which of the bounds decided it."""
    size = len(magnitude)
    k = max(1, math.ceil(density * size))
    sample = np.sort(magnitude[start::stride])[::-1]
    cut = float(sample[max(1, math.ceil(density * len(sample))) - 1])
    reason = "as sampled"
    for _ in range(10):
        if np.sum(magnitude >= cut) < 0.8 * k:
            cut, reason = 0.8 * cut, "lowered"
    if np.sum(magnitude >= cut) > 1.3 * k:
        return sorted(np.argsort(-magnitude, kind="stable")[:k].tolist()), "cut down"
    return np.flatnonzero(magnitude >= cut).tolist(), reason


def sent_positions(scheme: DGCSample, x: torch.Tensor, step: int = 0) -> list[list[int]]:
    turn = Turn(1, step, "u", tuple(range(len(x))), len(x))
    _, sent, _ = scheme.encode(x, scheme.init(tuple(x.shape[1:]), len(x), x[0]), turn)
    return [sent.indices.row(r).tolist() for r in range(len(x))]


def test_selection_follows_its_definition(values):
    """Over many starts each of the bounds decides at times."""
    size, density, reasons = 6000, 0.05, Counter()
    stride = stride_for(size, density)
    assert stride == 97
    for step in range(40):
        x = values(2, size, seed=step, dtype=torch.float64) ** 3
        for rank, found in enumerate(sent_positions(DGCSample(density), x, step)):
            start = below(stream(1, Purpose.SELECTION, step, "u", rank), stride)
            expected, reason = select(np.abs(x[rank].numpy()), density, stride, start)
            assert found == expected
            reasons[reason] += 1
    assert min(reasons[reason] for reason in ("as sampled", "lowered", "cut down")) >= 5


def test_regression_what_is_found_between_k_and_1_3_k_is_not_cut_in_index_order(values):
    """The authors' code keeps the first k by index, so that entries near the end are sent less often."""
    size, density, k, late, between = 20_000, 0.02, 400, 0, 0
    for step in range(30):
        magnitude = values(1, size, seed=step).abs()
        (found,) = sent_positions(DGCSample(density), magnitude, step)
        largest = magnitude[0].topk(len(found)).indices.sort().values.tolist()
        assert found == largest
        if k < len(found) <= 1.3 * k:
            between += 1
            late += found[-1] not in found[:k]
    assert between >= 5
    assert late == between


@pytest.mark.parametrize("density", [0.25, 0.05, 0.001])
@pytest.mark.parametrize("size", [1, 100, 2000, 21_999, 22_000, 30_000, 1_000_000, 25_557_032])
def test_sample_is_large_enough_and_its_stride_shares_no_factor_with_shapes(size, density):
    wanted = max(math.ceil(0.01 * size), math.ceil(2 / density))
    stride = stride_for(size, density)
    assert all(len(range(start, size, stride)) >= min(wanted, size) for start in (0, stride - 1))
    assert (stride == 1) == (size < 11 * wanted)
    assert all(gcd(stride, number) == 1 for number in (2**11, 3**5, 7**4, 5**3, 3 * 3 * 512, 7 * 7 * 3, 1000))


def test_regression_the_sample_is_not_of_one_channel():
    """At a stride of 32 j, and always from the start on, a sample sees one channel of 64 alone, be it the loudest."""
    x = torch.ones(1, 3200, 64) + torch.rand(1, 3200, 64, generator=torch.Generator().manual_seed(1))
    x[:, :, 0] *= 100
    (found,) = sent_positions(DGCSample(0.01), x)
    k = math.ceil(0.01 * 3200 * 64)
    assert 0.8 * k <= len(found) <= 1.3 * k


def test_a_small_unit_is_looked_at_whole(values):
    x = values(3, 1500)
    for row, found in zip(x, sent_positions(DGCSample(0.01), x), strict=True):
        assert found == row.abs().topk(15).indices.sort().values.tolist()


@pytest.mark.parametrize("x", [[0.3] * 100, [0.0] * 100, [0.0] * 99 + [1.0]])
def test_equal_magnitudes_are_cut_down_to_k_by_the_lowest_index(x):
    (found,) = sent_positions(DGCSample(0.05), torch.tensor([x]))
    assert found == ([0, 1, 2, 3, 99] if x[-1] == 1 else [0, 1, 2, 3, 4])


def test_a_threshold_is_lowered_ten_times_at_most():
    """The one sampled outlier passes, all other entries lie below 0.8^10 = 0.107 of it."""
    x = torch.full((1, 1000), 0.1)
    x[0, 17] = 1.0
    scheme = DGCSample(0.002)
    assert sent_positions(scheme, x)[0] == [0, 17]  # 1000 entries are looked at whole: the second largest is 0.1
    x = torch.full((1, 1100), 0.1)
    stride = stride_for(1100, 0.02)
    assert stride == 11
    start = below(stream(1, Purpose.SELECTION, 0, "u", 0), stride)
    x[0, [start, start + 11]] = 1.0  # of a sample of 100, the second largest is the threshold; k is 22
    assert sent_positions(DGCSample(0.02), x)[0] == [start, start + 11]
    x[x < 1] = 0.11
    assert len(sent_positions(DGCSample(0.02), x)[0]) == 22


# -------------------------------------------------------------------------------------------------------------- warm-up


def test_warm_up_falls_from_a_quarter_in_four_stages():
    """25, 6.25, 1.56, 0.4, 0.1 % in the paper, where each epoch has a quarter of the last one's density."""
    scheme = DGCSample(0.001, warmup_steps=8)
    densities = [scheme.density_at(step) for step in range(10)]
    assert densities[::2] == pytest.approx([0.25, 0.0625, 0.0156, 0.004, 0.001], rel=0.02)
    assert densities[1::2] == densities[::2]
    factors = np.array(densities[2::2]) / np.array(densities[:-2:2])
    np.testing.assert_allclose(factors, (0.001 / 0.25) ** 0.25, rtol=1e-12)
    assert [DGCSample(0.3, 8).density_at(step) for step in (0, 7, 8)] == [0.3] * 3
    assert [DGCSample(0.25**5, 2).density_at(step) for step in range(3)] == pytest.approx([0.25, 0.25**3, 0.25**5])


def test_warm_up_keeps_the_state_and_what_is_sent_follows_the_step(exchange, values):
    scheme, state = parse_scheme("dgc(density=0.01, warmup_steps=4)"), None
    sent = []
    for step in range(6):
        outcome, _ = exchange(scheme, values(2, 400, seed=step), state, step)
        state = outcome.state
        sent.append(outcome.sent.values.lengths)
    wanted = [math.ceil(400 * 0.25 * 0.04 ** (stage / 4)) for stage in range(4)] + [4, 4]
    assert all(0.8 * k <= count <= 1.3 * k for k, counts in zip(wanted, sent, strict=True) for count in counts)
    assert state.elements["momentum"].any()


# ----------------------------------------------------------------------------------------------------------- the whole


def test_dgc_is_the_papers_algorithm(exchange, values):
    """Clip to 2 / sqrt(3), u = mu u + g, v += u, send the largest of v, clear both where something was sent."""
    scheme, state = parse_scheme("dgc(density=0.1, momentum=0.8, clip=2)"), None
    u, v = np.zeros((3, 60)), np.zeros((3, 60))
    for step in range(10):
        x = values(3, 6, 10, seed=step, dtype=torch.float64)
        outcome, _ = exchange(scheme, x, state, step, lr=0.1 / (step + 1))
        state = outcome.state
        g = x.reshape(3, -1).numpy()
        u = 0.8 * u + g * np.minimum(1, 2 / math.sqrt(3) / np.linalg.norm(g, axis=1, keepdims=True))
        v = v + u
        update = np.zeros(60)
        for w in range(3):
            chosen = np.argsort(-np.abs(v[w]), kind="stable")[:6]
            update[chosen] += v[w, chosen] / 3
            u[w, chosen] = v[w, chosen] = 0
        np.testing.assert_allclose(outcome.mean.reshape(-1).numpy(), update, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(state.elements["momentum"].numpy(), u, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(state.elements["unsent"].numpy(), v, rtol=1e-12, atol=1e-13)


def test_dgc_is_its_memory_around_its_selection(exchange, values):
    options = "nesterov=True, masking=False, clip=1, units=update"
    whole = parse_scheme(f"dgc(density=0.1, {options}, warmup_steps=2)")
    apart = parse_scheme(f"momentum(dgcsample(density=0.1, warmup_steps=2), {options})")
    states = [None, None]
    for step in range(4):
        x = values(2, 50, seed=step)
        found = [exchange(s, x, state, step, 0.5**step) for s, state in zip((whole, apart), states, strict=True)]
        states = [outcome.state for outcome, _ in found]
        assert torch.equal(found[0][0].mean, found[1][0].mean)
        assert found[0][1].collectives == found[1][1].collectives
    assert whole.parts() == (whole, Momentum(nesterov=True, masking=False, clip=1, units="update"), apart.parts()[-1])
    assert whole.wire_bytes((1000,)) == apart.wire_bytes((1000,))
    assert not whole.homogeneous
    assert not apart.homogeneous
    assert DGC().homogeneous


def test_text_form_of_the_whole_is_read_back():
    text = "dgc(density=0.01, momentum=0.5, clip=2, warmup_steps=100, units=update)"
    assert str(parse_scheme(text)) == text
    assert parse_scheme("dgc") == DGC() == DGC(density=0.001, momentum=0.9, masking=True)
    with pytest.raises(SchemeError, match=r"dgcsample: density = 2 is out of range"):
        parse_scheme("dgc(density=2)")


def test_dgc_is_charged_once_by_its_published_cost():
    """390 us on a V100 up to 2^20 values; besides it the momentum's passes, but nothing more for the selection."""
    v100 = load_device("v100")
    charges = cost_of(Work("dgc(density=0.001)", (1000,), 1), Overhead(), v100)
    assert [(c.part, c.phase, c.origin) for c in charges] == [
        ("dgc", "encode", "published"),
        ("dgc", "decode", "published"),
        ("momentum", "encode", "roofline"),
    ]
    assert [c.seconds for c in charges[:2]] == pytest.approx([356e-6, 34e-6])
    assert TABLE["dgc"].includes == ("dgcsample",)
    alone = cost_of(Work("dgcsample(density=0.001)", (1000,), 1), Overhead(), v100)
    assert {c.origin for c in alone} == {"roofline"}
