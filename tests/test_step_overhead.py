"""Overhead: each charge by hand, where it comes from, and how often it is paid."""

from dataclasses import dataclass
from math import log2

import pytest
import torch
from pydantic import ValidationError

from gradwire.compressors.base import Codec, Memory, Passes, Protocol, Turn
from gradwire.compressors.drivers import Item, StackedDriver
from gradwire.compressors.partition import partition
from gradwire.compressors.registry import SCHEMES
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wirelog import Work
from gradwire.sim.step.device import Device, load_device
from gradwire.sim.step.overhead import TABLE, Charge, Overhead, cost_of, decodes_all
from gradwire.sim.step.synthetic import synthetic_log

V100, A100 = load_device("v100"), load_device("a100")
TOY = Device(name="toy", peak="1 TFLOP/s", efficiency=1, memory="4 GB/s", kernel_launch="1 ms")
"""A billion float32 values a second."""


@dataclass(frozen=True)
class FakePart:
    """What the cost model asks of a scheme or a memory, and nothing else."""

    name: str
    counts: tuple[float, float, float]

    def passes(self, shape):
        return Passes(*self.counts)


@dataclass(frozen=True)
class FakeMemory(FakePart, Memory):
    init = check = before = after = None


@dataclass(frozen=True)
class FakeCodec(FakePart, Codec):
    memories: tuple[Memory, ...] = ()
    combine: str = "gather"
    init = error_bound = wire_bytes = encode = decode = unbiased = None

    def parts(self):
        return (*self.memories, self)


@dataclass(frozen=True)
class FakeProtocol(FakePart, Protocol):
    init = error_bound = wire_bytes = rounds = unbiased = None


def charges(scheme, shape=(10, 100), units=1, device=TOY, **overhead):
    return cost_of(Work("x", shape, units), Overhead(**overhead), device, lambda _: scheme)


def test_the_roofline_counts_passes_and_a_launch_for_each_unit():
    """2 passes over 1000 values at 1e9 values/s and a launch of 1 ms; three units."""
    assert charges(FakeProtocol("odd", (2, 1, 0.5)), units=3) == (
        Charge("odd", "encode", pytest.approx(3 * (1e-3 + 2e-6)), "roofline"),
        Charge("odd", "between", pytest.approx(3 * (1e-3 + 1e-6)), "roofline"),
        Charge("odd", "decode", pytest.approx(3 * (1e-3 + 0.5e-6)), "roofline"),
    )


def test_what_does_not_touch_the_gradient_is_free():
    assert charges(FakeCodec("dense", (0, 0, 0))) == ()
    assert charges(FakeCodec("dense", (0, 0, 0)), encode_fixed="1 s") == ()


def test_a_memory_receives_once():
    scheme = FakeCodec("odd", (1, 0, 1), memories=(FakeMemory("lowpass", (3, 0, 2)),))
    assert [(charge.part, charge.phase) for charge in charges(scheme)] == [
        ("lowpass", "encode"),
        ("lowpass", "receive"),
        ("odd", "encode"),
        ("odd", "decode"),
    ]


def test_published_costs_by_hand():
    million = 2**20
    topk = charges(FakeCodec("topk", (4, 0, 1)), (million,), device=V100)
    seconds = 4.99671953e-10 * million * 20 + 5e-6
    assert topk[0] == Charge("topk", "encode", pytest.approx(seconds), "published")
    assert topk[1].origin == "roofline"
    randomk = FakeCodec("randomk", (1, 0, 1))
    for elements, times in ((10, 1), (million, 1), (3 * million, 3)):
        assert charges(randomk, (elements,), device=V100) == (
            Charge("randomk", "encode", pytest.approx(times * 54e-6), "published"),
            Charge("randomk", "decode", pytest.approx(times * 34e-6), "published"),
        )


def test_published_costs_are_scaled_by_memory_bandwidth():
    elements = 10**6
    topk = charges(FakeCodec("topk", (4, 0, 0)), (elements,), device=A100)
    seconds = 4.99671953e-10 * elements * log2(elements) * 900 / 1555 + 5e-6
    assert topk == (Charge("topk", "encode", pytest.approx(seconds), "scaled"),)
    randomk = charges(FakeCodec("randomk", (1, 0, 0)), (elements,), device=A100)
    assert randomk == (Charge("randomk", "encode", pytest.approx(54e-6 * 900 / 1555), "scaled"),)


def test_a_unit_that_a_scheme_leaves_alone_is_free_in_spite_of_the_table():
    assert charges(FakeCodec("randomk", (0, 0, 0)), device=V100) == ()


def test_what_a_figure_includes_is_not_charged_again():
    memories = (FakeMemory("ef", (6, 0, 0)),)
    known, other = (FakeCodec(name, (1, 0, 1), memories) for name in ("scaledsign", "other"))
    assert {charge.part for charge in charges(known, device=V100)} == {"scaledsign"}
    assert {charge.part for charge in charges(other, device=V100)} == {"ef", "other"}


def test_given_costs_replace_the_table():
    given = {"encode_fixed": "1 ms", "encode_per_element": "2 ns", "decode_per_element": "1 ns"}
    assert charges(FakeCodec("topk", (4, 1, 1)), (1000,), units=2, **given) == (
        Charge("all", "encode", pytest.approx(2 * (1e-3 + 2e-6)), "given"),
        Charge("all", "decode", pytest.approx(2 * 1e-6), "given"),
    )
    assert charges(FakeCodec("topk", (4, 1, 1)), encode_fixed="0 s") == ()


def test_gathered_payloads_are_all_decoded_and_summed_ones_once():
    assert decodes_all(FakeCodec("odd", (1, 0, 1)))
    assert not decodes_all(FakeCodec("odd", (1, 0, 1), combine="sum"))


@pytest.mark.parametrize("text", ["twosided(qsgd)", "oktopk", "powersgd", "sharedqsgd", "gtopk"])
def test_a_protocols_last_round_holds_a_unit_once_whoever_gathers_it(text):
    """Of chunks or regions that N workers own, each an N-th, nobody decodes N units."""
    assert not decodes_all(parse_scheme(text))
    assert decodes_all(parse_scheme("ef(qsgd(bits=8))"))


def test_values_of_8_bytes_take_twice_the_memory_traffic():
    """Less the launch of 1 ms, which is the same."""
    scheme = FakeCodec("odd", (2, 0, 0.5))
    single, double = (
        cost_of(Work("x", (10, 100), 1, itemsize), Overhead(), TOY, lambda _: scheme) for itemsize in (4, 8)
    )
    for one, other in zip(single, double, strict=True):
        assert other.seconds - 1e-3 == pytest.approx(2 * (one.seconds - 1e-3))


@pytest.mark.parametrize(("dtype", "itemsize"), [(torch.float32, 4), (torch.float64, 8)])
@pytest.mark.parametrize("text", ["topk", "powersgd(rank=1)"])
def test_the_log_says_in_how_many_bytes_values_are_worked_on(text, dtype, itemsize):
    scheme, x = parse_scheme(text), torch.ones(2, 6, 8).to(dtype)
    item = Item(x, scheme, scheme.init((6, 8), 2, x[0]), Turn(0, 0, "u", (0, 1), 2))
    assert [work.itemsize for work in StackedDriver(2).exchange([item])[1].work] == [itemsize]
    log = synthetic_log(partition([("u", (6, 8)), ("v", (6, 8))]), scheme, 2, dtype=dtype)
    assert {work.itemsize for message in log for work in message.work} == {itemsize}


@pytest.mark.parametrize("name", list(SCHEMES))
def test_every_registered_scheme_has_a_cost(name: str):
    """Of a matrix, wrapped or not; only the dense baseline may be free."""
    scheme = parse_scheme(name)
    total = sum(charge.seconds for charge in cost_of(Work(str(scheme), (64, 32), 1), Overhead(), V100))
    assert (total > 0) == (name != "dense")


def test_error_feedback_is_charged_beside_its_scheme():
    parts = [charge.part for charge in cost_of(Work("ef(topk)", (1000,), 1), Overhead(), V100)]
    assert parts == ["ef", "topk", "topk"]


def test_every_row_of_the_table_has_a_source():
    assert {"topk", "randomk"} <= TABLE.keys()
    assert all("github.com" in row.source for row in TABLE.values())


def test_an_overhead_is_checked():
    for wrong in ({"factor": -1}, {"factor": float("inf")}, {"encode_fixed": 1}, {"encode": "1 s"}):
        with pytest.raises(ValidationError):
            Overhead(**wrong)


@pytest.mark.parametrize(("text", "parts"), [("ef(scaledsign)", {"scaledsign"}), ("ef(onebit)", {"ef", "onebit"})])
def test_published_sign_costs_apply_to_the_schemes_of_these_names(text, parts):
    found = cost_of(Work(text, (2**20,), 1), Overhead(), V100)
    assert {charge.part for charge in found} == parts
    name = parse_scheme(text).parts()[-1].name
    published = {charge.phase: charge.seconds for charge in found if charge.part == name}
    encode, decode = {"scaledsign": (130e-6, 140e-6), "onebit": (450e-6, 170e-6)}[name]
    assert published == pytest.approx({"encode": encode, "decode": decode})


@pytest.mark.parametrize("device", ["v100", "a100"])
def test_estimates_alone_are_multiplied(device):
    """On a V100 the selection is a published figure and the residual an estimate; elsewhere both are estimates."""
    work = Work("ef(topk(density=0.01))", (1000,), 2)
    plain, dear = (cost_of(work, Overhead(estimate_factor=factor), load_device(device)) for factor in (1.0, 3.0))
    assert [charge[:2] for charge in dear] == [charge[:2] for charge in plain]
    for before, after in zip(plain, dear, strict=True):
        times = 1 if before.origin == "published" else 3
        assert after.seconds == pytest.approx(times * before.seconds, rel=1e-12)
    assert {charge.origin for charge in plain} == {"published" if device == "v100" else "scaled", "roofline"}
    free = cost_of(work, Overhead(estimate_factor=0.0), load_device(device))
    assert {charge.origin for charge in free} == ({"published"} if device == "v100" else set())
