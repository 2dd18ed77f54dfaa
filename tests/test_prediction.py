"""Predictions without training: closed forms by hand, what was measured, and both engines against each other."""

from itertools import pairwise
from math import ceil, prod

import numpy as np
import pytest
import torch

from gradwire.compressors.base import Turn
from gradwire.compressors.drivers import Item, StackedDriver
from gradwire.compressors.errors import InputError
from gradwire.compressors.keys import Purpose, stream
from gradwire.compressors.partition import partition
from gradwire.compressors.registry import SCHEMES
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.models import load_model
from gradwire.sim.network import choose
from gradwire.sim.network.tuning import Machine
from gradwire.sim.prediction import make_job, predict
from gradwire.sim.step.synthetic import LATE, Cache, synthetic_log

RESNET50 = 25_557_032
TEN_GIGABIT, LATENCY_S, LAUNCH_S = 9.41e9, 30e-6, 20e-6
"""The numbers of ethernet-10g."""
WHOLE = {"message": "model"}


def job(scheme="dense", workers=16, cluster="ethernet-10g", training=None, timing=None, **sections):
    """Return a job of ResNet-50 at its batch of 32, whose step a V100 has published times for: 97 ms."""
    named = {"preset": cluster} if isinstance(cluster, str) else cluster
    keys = {"workers": workers, **(training or {})}
    return make_job(
        {"model": "resnet50", "scheme": scheme, "training": keys, "cluster": named, "timing": timing or {}, **sections}
    )


def ring_s(size, workers):
    return LAUNCH_S + 2 * (workers - 1) * (LATENCY_S + 8 * ceil(size / workers) / TEN_GIGABIT)


# ------------------------------------------------------------------------------------------------- times by hand


@pytest.mark.parametrize("workers", [2, 7, 16])
def test_a_ring_after_the_backward_pass_by_hand(workers):
    made = predict(job(workers=workers, training=WHOLE, timing={"overlap": False}))
    step_s = 97e-3 + ring_s(4 * RESNET50, workers)
    assert made.step_s == pytest.approx(step_s, rel=1e-12)
    assert made.alone_s == pytest.approx(97e-3, rel=1e-12)
    assert made.efficiency == pytest.approx(97e-3 / step_s, rel=1e-12)
    assert made.speedup == pytest.approx(workers * 97e-3 / step_s, rel=1e-12)
    assert made.throughput == pytest.approx(32 * workers / step_s, rel=1e-12)


def test_buckets_follow_each_other_by_hand():
    made = predict(job(timing={"overlap": False}))
    assert len(made.sent_bytes) == 5
    assert sum(made.sent_bytes) == 4 * RESNET50
    assert made.step_s == pytest.approx(97e-3 + sum(ring_s(int(size), 16) for size in made.sent_bytes), rel=1e-12)


@pytest.mark.parametrize(("workers", "published_ms"), [(8, 399.29), (16, 412.05), (32, 416.19)])
def test_measured_steps_on_10_gigabit_ethernet(workers, published_ms):
    """Dense all-reduce of ResNet-50 after the backward pass; one GPU alone took 252.86 ms with their batch.

    github.com/HKBU-HPML/ddl-benchmarks, results of 2020-05-29 (arXiv 2005.13247), nothing fitted to them.
    """
    made = predict(job(workers=workers, training=WHOLE, timing={"overlap": False}))
    predicted_ms = 252.86 + 1e3 * made.timeline.exposed_communication_s[0]
    assert predicted_ms == pytest.approx(published_ms, rel=0.03)


def test_one_worker_alone_is_the_published_step():
    made = predict(job(workers=1))
    assert made.step_s == pytest.approx(97e-3, rel=1e-12)
    assert (made.efficiency, made.speedup) == pytest.approx((1, 1), rel=1e-12)
    assert made.links == ()
    assert "97" not in made.workload.source
    assert "pytorch/pytorch" in made.workload.source


def test_overlap_hides_at_most_the_backward_pass():
    """Nothing is sent before the last layer is done, and the first layer's bucket goes when all is done."""
    apart, over = (predict(job(timing={"overlap": overlap})) for overlap in (False, True))
    last = ring_s(int(over.sent_bytes[-1]), 16)
    assert 97e-3 + last <= over.step_s < apart.step_s
    assert apart.step_s - over.step_s <= over.workload.backward_s


def test_the_buckets_of_the_first_step_are_no_steps_buckets():
    usual, first = (predict(job(timing={"one_bucket_first": first})) for first in (False, True))
    assert first.step_s == usual.step_s
    assert first.sent_bytes == usual.sent_bytes


def test_topk_pays_for_its_selection_by_hand():
    """One unit of n values: 0.4997 ns n log2 n and a launch on a V100; memory passes and decoding besides."""
    made = predict(job("topk(density=0.01)", training={"unit": "model", "message": "model"}, overhead={"factor": 2.0}))
    encode_s = 2 * (0.499671953e-9 * RESNET50 * np.log2(RESNET50) + 5e-6)
    assert made.timeline.encode_s[0] == pytest.approx(encode_s, rel=1e-9)
    kept = ceil(0.01 * RESNET50)
    assert made.sent_bytes[0] == pytest.approx(kept * (4 + 25 / 8), rel=1e-3)  # values, and indices of 25 bits
    assert "published figure" in made.cost_source


def test_more_bandwidth_never_hurts_and_more_workers_never_help_a_step():
    rates = ["1 Gbit/s", "5 Gbit/s", "9 Gbit/s", "40 Gbit/s", "400 Gbit/s"]
    clusters = [{"preset": "ethernet-10g", "bandwidth": rate} for rate in rates]
    cache = Cache()
    for scheme in ("dense", "ef(topk(density=0.01))"):
        by_rate = [predict(job(scheme, cluster=one), cache=cache).step_s for one in clusters]
        assert all(a >= b for a, b in pairwise(by_rate))
        by_count = [predict(job(scheme, workers=n), cache=cache).step_s for n in (1, 2, 4, 8, 64, 1000, 10_000)]
        assert all(a <= b for a, b in pairwise(by_count))


# ------------------------------------------------------------------------------------------- links and algorithms


def test_use_of_nics_by_hand():
    """Of S bytes a ring of N carries 2 (N - 1) / N through every NIC, each way."""
    made = predict(job(workers=16))
    carried = sum(2 * 15 * ceil(size / 16) for size in made.sent_bytes)
    (link,) = made.links
    assert (link.name, link.at_most) == ("NICs of all hosts, each way", False)
    assert link.share == pytest.approx(8 * carried / TEN_GIGABIT / made.step_s, rel=1e-12)


def test_both_engines_find_the_same_use_of_links():
    closed, played = (predict(job(workers=4, timing={"engine": engine})) for engine in ("closed-form", "events"))
    assert played.step_s == pytest.approx(closed.step_s, rel=1e-9)
    assert {link.name for link in played.links} == {f"host{h} {way}" for h in range(4) for way in ("up", "down")}
    assert [link.share for link in played.links] == pytest.approx([closed.links[0].share] * 8, rel=1e-4)
    assert (closed.engine, played.engine, played.timeline.why) == ("closed-form", "events", "asked for")


@pytest.mark.parametrize(("algorithm", "workers"), [("double-tree", 32), ("halving-doubling", 7), ("ring", 7)])
def test_where_links_differ_the_closed_form_gives_a_bound(algorithm, workers):
    """In a double tree no NIC carries more than 2 S each way: its own halves up, and one half down to two children."""
    timing = {"all_reduce": algorithm}
    closed, played = (predict(job(workers=workers, timing=timing | {"engine": e})) for e in ("closed-form", "events"))
    (bound,), busiest = closed.links, played.links[0]
    assert bound.at_most == (algorithm != "ring")
    assert not busiest.at_most
    if algorithm == "ring":
        assert bound.share == pytest.approx(busiest.share, rel=1e-4)
    else:
        assert bound.share > busiest.share
    if algorithm == "double-tree":
        assert busiest.share == pytest.approx(8 * 2 * 4 * RESNET50 / TEN_GIGABIT / played.step_s, rel=1e-3)


def test_inside_a_host_only_its_ports_are_used():
    """aws-p3-16xlarge: 150 GB/s a port, of which 89.7 % are payload."""
    made = predict(job(workers=8, cluster="aws-p3-16xlarge"))
    (link,) = made.links
    carried = sum(2 * 7 * ceil(size / 8) for size in made.sent_bytes)
    assert link.name.startswith("ports")
    assert link.share == pytest.approx(carried / (0.897 * 150e9) / made.step_s, rel=1e-9)


def test_ports_and_nics_of_several_hosts_agree_with_what_is_played():
    both = [predict(job(workers=8, cluster="pcie-4gpu-10g", timing={"engine": e})) for e in ("closed-form", "events")]
    closed = {link.name.split()[0]: link.share for link in both[0].links}
    busiest = {kind: max(link.share for link in both[1].links if ("gpu" in link.name) == (kind == "ports"))
               for kind in closed}  # fmt: skip
    assert closed == pytest.approx(busiest, rel=1e-3)


def test_links_under_a_profile_are_measured_by_what_they_could_carry():
    """At a tenth of the bandwidth for all of the step, and for its first 100 ms, by hand."""
    for until, factors in ((["0 s"], [0.1]), (["0 s", "100 ms"], [0.1, 1.0])):
        profile = [{"link": "nics", "times": until, "factors": factors}]
        cluster = {"preset": "ethernet-10g", "profile": profile}
        made = predict(job(workers=4, cluster=cluster, training=WHOLE))
        lost_s = 0.9 * (made.step_s if len(factors) == 1 else 0.1)
        carried = 2 * 3 * RESNET50  # (N - 1) / N of 4 bytes a value, twice
        assert made.links[0].share == pytest.approx(8 * carried / (made.step_s - lost_s) / TEN_GIGABIT, rel=1e-6)
        assert made.links[0].share <= 1


def test_algorithms_are_those_asked_for_or_nccls():
    (asked, *_) = predict(job(timing={"all_reduce": "recursive-doubling"})).algorithms
    assert (asked.name, asked.why) == ("recursive-doubling", "")
    made = predict(job(workers=10_000, timing={"all_reduce": "auto"}))
    assert {one.size_bytes for one in made.algorithms} == set(made.sent_bytes)
    for one in made.algorithms:
        choice = choose("all-reduce", one.size_bytes, 10_000, 10_000, Machine(TEN_GIGABIT, generation="volta"))
        assert (one.name, one.why) == (choice.algorithm, choice.reason)


def test_a_cluster_without_a_closed_form_is_played_and_says_why():
    made = predict(job(workers=32, cluster="leaf-spine-25g"))
    assert (made.engine, made.timeline.why) == (
        "events",
        "hosts on different leaves are farther apart than those on one",
    )
    assert 0 < made.links[0].share <= 1


# ------------------------------------------------------------------------------------------------------ synthetic logs

SMALL = [("a.weight", (20, 30)), ("a.bias", (20,)), ("b.weight", (5, 20)), ("b.bias", (5,))]


@pytest.mark.parametrize(
    "scheme",
    ["dense", "topk(density=0.1)", "ef(topk(density=0.1))", "threshold(value=1.0)", "qsgd", "powersgd(rank=2)"],
)
@pytest.mark.parametrize("bucket_bytes", [2**20, 100])
def test_synthetic_logs_are_those_of_workers_that_hold_the_same(scheme, bucket_bytes):
    cut, parsed = partition(SMALL, bucket_bytes=bucket_bytes, first_bucket_bytes=bucket_bytes), parse_scheme(scheme)
    cache = Cache()
    for workers in (1, 3, 8):
        log = synthetic_log(cut, parsed, workers, cache=cache)
        assert log == synthetic_log(cut, parsed, workers)
        for number, message in enumerate(cut.messages):
            items = [_item(parsed, unit.shape, workers) for unit in message]
            assert StackedDriver(workers).exchange(items, number)[1] == log[number]
    assert {key[1] for key in cache} == {shape for _, shape in SMALL}
    assert {key[3] for key in cache} == {0}


EXAMPLES = [text for cls in SCHEMES.values() for text in cls.examples]
OTHERS = ["ef(powersgd(rank=2))", "twosided(onebit)", "phases(powersgd(rank=2), powersgd(rank=1), at=10)"]


@pytest.mark.parametrize("text", [*EXAMPLES, *OTHERS])
def test_a_cache_does_not_mix_numbers_of_workers(text):
    cut, scheme, cache = partition(SMALL), parse_scheme(text), Cache()
    if "layer" not in scheme.granularity:
        pytest.skip("is not for layers")
    for workers in (2, 5, 8, 2):
        assert synthetic_log(cut, scheme, workers, cache=cache) == synthetic_log(cut, scheme, workers)


def _item(scheme, shape, workers):
    draws = np.random.Generator(stream(0, Purpose.MODEL, 0, str(shape)))
    x = torch.from_numpy(draws.standard_normal((1, *shape), np.float32)).expand(workers, *shape).contiguous()
    turn = Turn(0, LATE, str(shape), tuple(range(workers)), workers)
    return Item(x, scheme, scheme.init(shape, workers, x[0]), turn)


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("onebitadam(freeze_step=100)", "onebitadam(freeze_step=1)"),
        ("phases(dense, topk(density=0.01), at=100)", "topk(density=0.01)"),
        ("powersgd(rank=2, start_step=1000)", "powersgd(rank=2)"),
        ("ef(dgcsample(density=0.01, warmup_steps=500))", "ef(dgcsample(density=0.01, warmup_steps=0))"),
        ("warmup(topk(density=0.01), start=1.0, steps=100)", "topk(density=0.01)"),
    ],
)
@pytest.mark.parametrize("workers", [3, 4])
def test_a_scheme_that_changes_is_taken_at_its_step(text, last, workers):
    """After the schedule's end what the last scheme sends; at step 0, at least half of what dense does."""
    cut = partition(SMALL)

    def sent(scheme, **options):
        log = synthetic_log(cut, parse_scheme(scheme), workers, **options)
        return sum(c.sent_bytes[0] for message in log for c in message.collectives)

    assert sent(text) == pytest.approx(sent(last), rel=0.02)
    assert sent(text) < sent("dense") / 2
    assert sent(text, step=0) > 1.5 * sent(text)


def test_the_step_is_a_key():
    late, first = (predict(job("powersgd(rank=2, start_step=1000)", training=t)) for t in ({}, {"step": 999}))
    assert sum(first.sent_bytes) == 4 * RESNET50
    assert sum(late.sent_bytes) < sum(first.sent_bytes) / 20


def test_regression_shards_for_each_worker_were_cached_for_another_number_of_workers():
    cut, cache = partition(SMALL), Cache()
    for text in ("graddrop(rate=0.9, scope=shard)", "ef(graddrop(rate=0.9, scope=shard))"):
        scheme = parse_scheme(text)
        logs = [synthetic_log(cut, scheme, workers, cache=cache) for workers in (2, 64)]
        assert logs == [synthetic_log(cut, scheme, workers) for workers in (2, 64)]
        assert logs[0][0].collectives[-1].sent_bytes[0] != logs[1][0].collectives[-1].sent_bytes[0]


@pytest.mark.parametrize("scheme", ["gtopk(density=0.1)", "oktopk(density=0.1)", "twosided(scaledsign)", "powersgd"])
def test_what_protocols_send_is_kept_for_each_number_of_workers(scheme):
    """Those that send to partners of their own, in chunks, or all alike."""
    cut, parsed, cache = partition(SMALL), parse_scheme(scheme), Cache()
    for workers in (4, 2, 4):
        assert synthetic_log(cut, parsed, workers, cache=cache) == synthetic_log(cut, parsed, workers)


def test_units_are_layers_buckets_or_the_model():
    shapes = load_model("resnet50").parameters()
    assert sum(prod(shape) for _, shape in shapes) == RESNET50
    lengths = {m: len(predict(job(training={"message": m})).sent_bytes) for m in ("layer", "bucket", "model")}
    assert lengths == {"layer": len(shapes), "bucket": 5, "model": 1}


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"model": "resnet5"}, "model = 'resnet5': model 'resnet5' is unknown; did you mean resnet50"),
        ({}, "model: this key is needed"),
        ({"model": "resnet50", "scheme": "topc"}, "topk"),
        ({"model": "resnet50", "training": {"worker": 2}}, "training.worker: unknown key; did you mean workers"),
        ({"model": "resnet50", "training": {"workers": 0}}, "training.workers = 0: .* greater than or equal to 1"),
        ({"model": "resnet50", "training": {"workers": 2.0}}, "training.workers = 2.0: .* integer"),
        ({"model": "resnet50", "training": {"steps": 9}}, "training.steps: unknown key"),
        ({"model": "resnet50", "workload": {"device": "v10"}}, "did you mean v100"),
        ({"model": "resnet50", "workload": {"times": "guessed"}}, "workload.times = 'guessed': .*published"),
        ({"model": "resnet50", "timing": {"all_reduce": "rings"}}, "timing.all_reduce = 'rings'"),
        ({"model": "resnet50", "cluster": {"preset": "ethernet-10g", "hosts": 4}}, "workers = 8: the cluster has 4"),
    ],
    ids=str,
)
def test_faults_are_a_line_each(data, words):
    with pytest.raises(InputError, match=words) as caught:
        make_job(data)
    assert "\n" not in str(caught.value)


def test_jobs_that_cannot_be_predicted():
    with pytest.raises(InputError, match="nothing is published for resnet50 on a100"):
        predict(job(workload={"device": "a100", "times": "published"}))
    with pytest.raises(InputError, match=r"training.unit = 'bucket': powersgd\(rank=4\) works on layer only"):
        predict(job("powersgd(rank=4)", training={"unit": "bucket"}))
    with pytest.raises(InputError, match=r"unit = 'model' is larger than message = 'bucket'"):
        predict(job(training={"unit": "model"}))


def test_what_cannot_be_played_is_refused_at_once():
    with pytest.raises(InputError, match=r"workers = 4096: .* play all-reduce \(ring\), .* at most 2048") as caught:
        predict(job(workers=4096, cluster="leaf-spine-25g"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("device", "generation"), [("v100", "volta"), ("a100", "ampere"), ("h100", "hopper")])
def test_nccls_model_is_told_the_device(device, generation):
    data = {"model": "resnet18", "workload": {"device": device}, "timing": {"all_reduce": "auto"}}
    prediction = predict(make_job(data))
    assert {f"assuming {generation} GPUs and 2 channels" in one.why for one in prediction.algorithms} == {True}
