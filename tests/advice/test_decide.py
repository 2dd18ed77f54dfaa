"""The answer, from numbers made up; and what lies outside of what was measured."""

from dataclasses import replace

import pytest

from gradwire.analysis.advice.advice import Advice, ModelError, Option, decide
from gradwire.analysis.advice.gains import Gain
from gradwire.analysis.advice.memory import Memory
from gradwire.analysis.advice.ranges import (
    estimated_parts,
    model_error,
    outside_costs,
    outside_model_times,
    outside_numbers,
)
from gradwire.analysis.advice.sentence import sentence
from gradwire.analysis.predictions import Price
from gradwire.compressors.wirelog import Work
from gradwire.sim.cluster import load_cluster
from gradwire.sim.experiment import ClusterSection
from gradwire.sim.prediction import Inputs
from gradwire.sim.step.device import load_device
from gradwire.sim.step.overhead import Overhead

BASE = Option(
    scheme="dense(dtype=bf16)", uncompressed=True, bucket_bytes=25 * 2**20, sent_bytes=1e6, compute_s=0.04, codec_s=0.0,
    exposed_s=0.06, step_s=0.1, memory=Memory(0, 0), cost_source="none", estimated=(), gain=Gain(1.0),
)  # fmt: skip
TOPK = replace(BASE, scheme="topk(density=0.01)", uncompressed=False, exposed_s=0.01, step_s=0.05, step_gain=2.0)
ERROR = ModelError(0.03, "dense(dtype=fp32)", (8, 32), "somebody", ())


@pytest.mark.parametrize(
    ("gain", "error", "answer"),
    [
        (Gain(2.0), None, "compress"),
        (Gain(2.0, 1.5, 2.6, 3), None, "compress"),
        (Gain(2.0, 0.9, 4.4, 3), None, "undecided"),
        (Gain(1.025), None, "compress"),
        (Gain(1.025), ERROR, "undecided"),
        (Gain(1.04), ERROR, "compress"),
        (Gain(1.01), None, "no difference"),
        (Gain(0.985), ERROR, "no difference"),
        (Gain(0.9), None, "do not compress"),
        (Gain(0.9, 0.5, 1.6, 3), None, "do not compress"),
    ],
    ids=str,
)
def test_answers(gain, error, answer):
    rival = replace(TOPK, gain=gain)
    assert decide([BASE, rival], BASE, error) == (answer, rival)


def test_the_fastest_harmless_scheme_is_advised():
    harmful, safe = replace(TOPK, gain=Gain(3.0), harms=True), replace(TOPK, gain=Gain(1.5), harms=False)
    assert decide([BASE, harmful, safe], BASE, None) == ("compress", safe)
    assert decide([BASE, harmful], BASE, None) == ("do not compress", harmful)
    slow = replace(safe, gain=Gain(0.5))
    assert decide([BASE, harmful, slow], BASE, None) == ("do not compress", slow)


def test_what_failed_is_not_advised():
    failed = replace(TOPK, gain=None, failure="diverged at step 3: a loss is not finite")
    assert decide([BASE, failed], BASE, None) == ("do not compress", None)
    assert decide([failed], None, None) == ("cannot say", None)
    reached = replace(TOPK, time_to_target_s=3.0)
    assert decide([failed, reached], None, None) == ("compress", reached)


def advice(*options, **changes):
    answer, best = decide(options, BASE, changes.get("error"))
    values = {
        "subject": "x", "workers": 16, "trained": False, "by_step": True, "metric": "", "target": None, "proxy": None,
        "answer": answer, "best": None if best is None else best.scheme, "baseline": BASE.scheme, "options": options,
        "trials": (), "error": None, "effects": (), "tippings": (), "flips": (), "outside": (), "notes": (),
        "compute_source": "by hand", "price": None,
    }  # fmt: skip
    return Advice(**(values | changes))


def test_sentences():
    fast = replace(TOPK, gain=Gain(2.0))
    assert sentence(advice(BASE, fast)) == (
        "Compress, if training then needs less than 100 % more steps: a step with topk(density=0.01) in buckets of "
        "25 MiB takes 50.0 ms, 2.0 times shorter than with dense(dtype=bf16) in buckets of 25 MiB, because 60 % of the "
        "dense(dtype=bf16) step is exposed communication; how the accuracy fares is not known without training."
    )
    close = replace(TOPK, gain=Gain(1.025), step_gain=1.025, step_s=0.1 / 1.025)
    assert "which is within the model's error of 3 %" in sentence(advice(BASE, close, error=ERROR))
    slow = replace(TOPK, gain=Gain(0.5), step_s=0.2, codec_s=0.15)
    assert sentence(advice(BASE, slow)).startswith(
        "Do not compress: at best, a step with topk(density=0.01) in buckets of 25 MiB takes 200 ms, 2.0 times as long "
    )
    assert sentence(advice(BASE)) == "Nothing to decide: no compressing scheme was given beside dense(dtype=bf16)."
    proxy = advice(BASE, fast, proxy="proxy: trained on mnist, timed as resnet50")
    assert sentence(proxy).endswith(" (proxy: trained on mnist, timed as resnet50)")


def test_sentences_of_trained_schemes():
    base = replace(BASE, steps_to_target=100.0, time_to_target_s=10.0, final_metric=0.91)
    own = replace(
        TOPK, steps_to_target=120.0, time_to_target_s=6.0, final_metric=0.9, gain=Gain(1.6667, 1.5, 1.85, 3), seeds=3
    )
    made = advice(base, own, trained=True, by_step=False, metric="accuracy", target=0.9)
    assert sentence(made) == (
        "Compress: topk(density=0.01) reaches 90 % validation accuracy in 6.00 s of virtual time, 1.7 times sooner "
        "than dense(dtype=bf16) in buckets of 25 MiB (95 % confidence over 3 seeds: 1.50 to 1.85x), because 60 % of "
        "the dense(dtype=bf16) step is exposed communication; its final test accuracy is 90.0 % instead of 91.0 %."
    )
    unsure = replace(own, gain=Gain(1.6667, 0.5, 5.0, 3))
    made = advice(base, unsure, trained=True, by_step=False, metric="accuracy", target=0.9)
    assert "Undecided: " in sentence(made)
    assert "no more than chance from so few seeds" in sentence(made)


def test_costs_in_money():
    """16 GPUs at 3.6 an hour are 0.016 a second."""
    own = replace(TOPK, gain=Gain(2.0), time_to_target_s=5.0)
    costs = advice(BASE, own, price=Price(3.6, "EUR", 1000)).costs(own)
    assert (costs.step, costs.run, costs.target) == pytest.approx((0.05 * 0.016, 0.8, 0.08), rel=1e-12)
    assert advice(BASE, own).costs(own) is None


# ---------------------------------------------------------------------------------------- what was measured, what not


def inputs(device="v100", **overhead):
    return Inputs(load_cluster("ethernet-10g"), load_device(device), Overhead(**overhead))


def test_published_costs_beyond_their_range():
    small, large = (Work("onebit", (n,), 1) for n in (2**20, 2**21))
    assert list(outside_costs([small], inputs())) == []
    (line,) = outside_costs([small, large], inputs())
    assert (
        line == "cost of onebit: measured for up to 1,048,576 values, taken in proportion for units of up to 2,097,152"
    )
    other = list(outside_costs([small], inputs("a100")))
    assert other == ["cost of onebit: measured on v100, scaled to a100 by memory bandwidth"]
    guessed = list(outside_costs([Work("qsgd(bits=4)", (100,), 1), Work("dense(dtype=bf16)", (9,), 1)], inputs()))
    assert guessed == ["cost of qsgd, dense: not measured, a roofline estimate"]
    half = Work("ef(topk(density=0.01))", (100,), 1)
    assert list(outside_costs([half], inputs())) == ["cost of ef, topk (decode): not measured, a roofline estimate"]
    assert estimated_parts([half], inputs()) == ("ef", "topk (decode)")
    assert estimated_parts([half], inputs("a100")) == ("ef", "topk")
    assert list(outside_costs([large], inputs(encode_fixed="1 us"))) == []


def test_compute_times_beyond_what_was_published():
    v100, a100 = load_device("v100"), load_device("a100")
    assert list(outside_model_times("resnet50", v100, 32, "auto")) == []
    assert list(outside_model_times("resnet50", v100, 64, "auto")) == [
        "compute times: measured at a batch of 32, taken in proportion for 64"
    ]
    assert list(outside_model_times("resnet50", v100, 32, "analytic")) == [
        "compute times: not measured, a roofline estimate"
    ]
    (line,) = outside_model_times("resnet50", a100, 32, "auto")
    assert line.endswith("since nothing is published for resnet50 on a100")


def test_assumed_numbers():
    def keys(name, workers, computed=False, encoded=False, device="v100"):
        found = outside_numbers(load_cluster(name), load_device(device), workers, computed, encoded)
        return [line.partition(":")[0] for line in found]

    assert keys("ethernet-10g", 8) == []
    assert keys("ethernet-100g", 8) == ["cluster.bandwidth", "cluster.latency"]
    assert keys("ethernet-100g", 8, encoded=True)[2:] == ["device.kernel_launch"]
    assert keys("ethernet-10g", 8, computed=True, device="a100") == ["device.efficiency", "device.kernel_launch"]
    assert keys("pcie-4gpu-10g", 8) == ["cluster.intra"]
    assert keys("pcie-4gpu-10g", 4) == ["cluster.intra"]
    assert keys("aws-p3-16xlarge", 8) == []  # one host: its NIC is not used
    assert keys("aws-p3-16xlarge", 16) == ["cluster.latency", "cluster.efficiency"]


def test_the_error_of_the_model_where_it_was_validated():
    cluster = load_cluster("ethernet-10g")
    found = model_error("resnet50", cluster, 16, ["dense(dtype=fp32)"], overlap=False)
    assert (found.error, found.differs) == (0.03, ())
    other = model_error("bert-large", cluster, 32, ["dense(dtype=bf16)", "topk(density=0.01)"], overlap=True)
    assert other.differs == (
        "steps with dense(dtype=bf16)", "steps with compression (topk(density=0.01))", "steps with overlap",
    )  # fmt: skip
    assert model_error("vgg16", cluster, 16, [], overlap=False) is None
    assert model_error("resnet50", cluster, 64, [], overlap=False) is None
    assert model_error("resnet50", load_cluster("ethernet-25g"), 16, [], overlap=False) is None
    faster = ClusterSection(preset="ethernet-10g", bandwidth="9 Gbit/s").cluster()
    assert model_error("resnet50", faster, 16, [], overlap=False) is None
    priced = ClusterSection(preset="ethernet-10g", price={"per_gpu_hour": 2.0}).cluster()
    assert model_error("resnet50", priced, 16, [], overlap=False) is not None
