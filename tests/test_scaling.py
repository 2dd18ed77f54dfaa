"""Scaling and the influence of inputs: definitions by hand, prices, and inputs that can have no effect."""

from math import ceil, log

import pytest

from gradwire.analysis.influence import influences
from gradwire.analysis.predictions import facts
from gradwire.analysis.scaling import read_workers, scale, scaling_figure, step_cost
from gradwire.compressors.errors import InputError
from gradwire.sim.prediction import make_job, predict

RESNET50, STEP_S = 25_557_032, 97e-3
"""Its parameters; its published step at a batch of 32 on a V100."""
BANDWIDTH, LATENCY_S, LAUNCH_S = 9.41e9, 30e-6, 20e-6
OPTIMIZER_S = 5 * 4 * RESNET50 / 900e9 + 5e-6
"""Five passes over all values at 900 GB/s, and a kernel launch; part of the published step."""


def job(scheme="dense", workers=8, cluster=None, timing=None, **sections):
    """Return a job in which nothing overlaps, with all gradients in one message."""
    return make_job(
        {
            "model": "resnet50",
            "scheme": scheme,
            "training": {"workers": workers, "message": "model"},
            "cluster": cluster or {"preset": "ethernet-10g"},
            "timing": {"overlap": False} | (timing or {}),
            **sections,
        }
    )


def ring_s(workers, bandwidth=BANDWIDTH, latency_s=LATENCY_S):
    chunk = ceil(4 * RESNET50 / workers)
    return LAUNCH_S + 2 * (workers - 1) * (latency_s + 8 * chunk / bandwidth) if workers > 1 else 0.0


def compute_s(batch):
    """Forward and backward pass go with the batch, the optimizer does not."""
    return (STEP_S - OPTIMIZER_S) * batch / 32 + OPTIMIZER_S


# ----------------------------------------------------------------------------------------------------------- scaling


def test_weak_scaling_keeps_each_workers_batch():
    made = scale([job()], [1, 2, 16])
    assert [(point.workers, point.batch) for point in made.points] == [(1, 32), (2, 32), (16, 32)]
    for point in made.points:
        step_s = STEP_S + ring_s(point.workers)
        assert point.step_s == pytest.approx(step_s, rel=1e-12)
        assert point.exposed_communication_s == pytest.approx(ring_s(point.workers), rel=1e-9)
        assert point.throughput == pytest.approx(32 * point.workers / step_s, rel=1e-12)
        assert point.efficiency == pytest.approx(STEP_S / step_s, rel=1e-12)
        assert point.speedup == pytest.approx(point.workers * STEP_S / step_s, rel=1e-12)


def test_strong_scaling_keeps_the_global_batch():
    """8 workers of 32 samples: one alone would compute 256, 16 compute 16 each."""
    made = scale([job(workers=8)], [1, 4, 8, 16], strong=True)
    assert [(point.workers, point.batch) for point in made.points] == [(1, 256), (4, 64), (8, 32), (16, 16)]
    for point in made.points[2:]:  # both batches lie nearest to the published one of 32
        step_s = compute_s(point.batch) + ring_s(point.workers)
        assert point.step_s == pytest.approx(step_s, rel=1e-9)
        assert point.throughput == pytest.approx(256 / step_s, rel=1e-9)
        assert point.speedup == pytest.approx(point.throughput / made.alone, rel=1e-12)
        assert point.efficiency == pytest.approx(point.speedup / point.workers, rel=1e-12)
    assert made.points[0].efficiency == pytest.approx(1, rel=1e-12)
    alone_s = (0.36716 - OPTIMIZER_S) * 2 + OPTIMIZER_S  # published for a batch of 128: 367.16 ms
    assert made.alone == pytest.approx(256 / alone_s, rel=1e-9)


def test_strong_scaling_refuses_workers_that_do_not_divide():
    with pytest.raises(
        InputError, match=r"^scaling to 3 workers: they do not divide the global batch of 256 \(32 x 8 workers\); .*$"
    ):
        scale([job()], [2, 3], strong=True)


def test_schemes_share_one_reference_and_come_in_order():
    told = []
    schemes = ["dense", "ef(topk(density=0.01))"]
    made = scale([job(scheme) for scheme in schemes], [2, 4], progress=lambda: told.append(1))
    assert [point.scheme for point in made.points] == ["dense(dtype=native)"] * 2 + ["ef(topk(density=0.01))"] * 2
    assert len(told) == 4
    assert made.alone == pytest.approx(32 / STEP_S, rel=1e-12)
    for point in made.points:
        assert point.throughput == pytest.approx(made.alone * point.speedup, rel=1e-12)
        assert point.step_cost is None


def test_prices():
    assert step_cost(0.5, 16, 3.6) == pytest.approx(16 * 0.5 * 0.001, rel=1e-12)
    (point,) = scale([job()], [16], per_gpu_hour=3.06, steps=100_000).points
    assert point.step_cost == pytest.approx(16 * (STEP_S + ring_s(16)) * 3.06 / 3600, rel=1e-9)
    assert point.run_cost == pytest.approx(100_000 * point.step_cost, rel=1e-12)
    (without_steps,) = scale([job()], [16], per_gpu_hour=3.06).points
    assert without_steps.run_cost is None


@pytest.mark.parametrize("strong", [False, True])
def test_the_figure_has_a_line_a_scheme_and_the_ideal(strong):
    made = scale([job(), job("ef(topk(density=0.01))")], [2, 4, 8], strong)
    figure = scaling_figure(made)
    throughput, efficiency = figure.axes
    lines = {line.get_label(): line for line in throughput.lines}
    assert list(lines) == ["ideal", "dense(dtype=native)", "ef(topk(density=0.01))"]
    assert lines["ideal"].get_ydata() == pytest.approx([n * made.alone for n in (2, 4, 8)])
    for i, scheme in enumerate(("dense(dtype=native)", "ef(topk(density=0.01))")):
        own = [point for point in made.points if point.scheme == scheme]
        assert list(lines[scheme].get_xdata()) == [2, 4, 8]
        assert list(lines[scheme].get_ydata()) == [point.throughput for point in own]
        assert list(efficiency.lines[i + 1].get_ydata()) == [point.efficiency for point in own]
    assert list(efficiency.lines[0].get_ydata()) == [1, 1, 1]
    assert ("strong" if strong else "weak") in throughput.get_title(loc="left")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("4", [4]), ("2,4, 12", [2, 4, 12]), ("4,2,4", [2, 4]), ("2..1024", [2**i for i in range(1, 11)]),
     ("3..20", [3, 6, 12]), ("5..5", [5]), ("2,4,...,16", [2, 4, 8, 16]), ("3, 6, ..., 25", [3, 6, 12, 24])],
)  # fmt: skip
def test_numbers_of_workers_are_read(text, numbers):
    assert read_workers(text) == numbers


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2,",
        "0",
        "-1",
        "2...8",
        "..8",
        "8..2",
        "two",
        "2..4..8",
        "1.5",
        "²",
        "2,5,...,16",
        "0,0,...,8",
        "2,4,...",
        "2,4,...,16,32",
        "2,...,16",
    ],
)
def test_numbers_of_workers_that_are_none(text):
    with pytest.raises(InputError, match="--scaling") as caught:
        read_workers(text)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------------------------- influence


def found(made):
    return {one.key: one for one in influences(predict(made))}


def test_influence_by_hand():
    """The step is the published one and a ring of which each number is known."""
    effects = found(job(workers=16))
    step_s = STEP_S + ring_s(16)
    expected = {
        "cluster.bandwidth": STEP_S + ring_s(16, bandwidth=1.5 * BANDWIDTH),
        "cluster.latency": STEP_S + ring_s(16, latency_s=1.5 * LATENCY_S),
        "cluster.launch": step_s + 0.5 * LAUNCH_S,
        "training.batch_size": compute_s(48) + ring_s(16),
    }
    for key, changed_s in expected.items():
        assert effects[key].ratio == pytest.approx(changed_s / step_s, rel=1e-9), key
        assert effects[key].elasticity == pytest.approx(log(changed_s / step_s) / log(1.5), rel=1e-6)
    assert effects["cluster.bandwidth"].value == BANDWIDTH
    without = {key for key, one in effects.items() if not one.has_effect}
    assert set(effects) - without == set(expected)
    assert without == {
        "training.bucket", "training.first_bucket",  # there is one message
        "device.peak", "device.efficiency", "device.memory", "device.kernel_launch",  # times are published
        "overhead.factor",  # nothing is compressed
    }  # fmt: skip


def test_one_worker_needs_no_network():
    effects = found(job(workers=1))
    assert not any(effects[f"cluster.{key}"].has_effect for key in ("bandwidth", "latency", "launch"))
    assert effects["training.batch_size"].has_effect


def test_inside_one_host_its_nic_has_no_influence():
    effects = found(job(workers=8, cluster={"preset": "aws-p3-16xlarge"}))
    assert not effects["cluster.bandwidth"].has_effect
    assert not effects["cluster.latency"].has_effect
    assert effects["cluster.intra.bandwidth"].has_effect
    assert effects["cluster.intra.latency"].has_effect
    assert "cluster.price.per_gpu_hour" not in effects


def test_compression_brings_its_cost_into_play():
    effects = found(job("ef(topk(density=0.01))"))
    assert effects["overhead.factor"].ratio > 1
    assert effects["device.memory"].ratio < 1
    given = found(job("ef(topk(density=0.01))", overhead={"encode_fixed": "10 ms"}))
    units = 161  # parameters of ResNet-50, each a unit
    step_s = predict(job("ef(topk(density=0.01))", overhead={"encode_fixed": "10 ms"})).step_s
    assert given["overhead.encode_fixed"].ratio == pytest.approx(1 + 0.5 * units * 10e-3 / step_s, rel=1e-9)


def test_estimated_times_depend_on_the_device():
    effects = found(job(workload={"times": "analytic"}))
    assert all(effects[f"device.{key}"].has_effect for key in ("peak", "efficiency", "memory", "kernel_launch"))


def test_numbers_inside_of_tables_have_keys_too():
    """Three of four bucket sizes are below the second piece, whose terms then have no influence."""
    cluster = {
        "preset": "ethernet-10g",
        "reduce": "100 GB/s",
        "pieces": [{"from": "0 B", "latency": "50 us"}, {"from": "1 TB", "efficiency": 0.5, "latency": "0 s"}],
    }
    effects = found(job(workers=4, cluster=cluster))
    assert effects["cluster.pieces.0.latency"].has_effect
    assert effects["cluster.reduce"].has_effect
    assert not effects["cluster.pieces.1.efficiency"].has_effect
    assert not effects["cluster.latency"].has_effect  # each piece gives its own
    assert "cluster.pieces.1.latency" not in effects  # half as much again of nothing is nothing


def test_every_number_of_a_cluster_can_be_changed():
    """Host 1 is the ring's slowest part, uplinks of 20 / 2 / 2 = 5 Gbit/s come next."""
    cluster = {
        "bandwidth": "10 Gbit/s", "latency": "30 us", "launch": "20 us", "efficiency": 0.9, "gpus": 2, "hosts": 4,
        "intra": {"bandwidth": "100 GB/s", "latency": "4 us", "efficiency": 0.8},
        "host": [{"which": "host1", "bandwidth": "2 Gbit/s", "latency": "10 us"}],
        "fabric": {"kind": "leaf-spine", "hosts_per_leaf": 2, "spines": 2, "oversubscription": 2.0, "latency": "1 us"},
        "background": [{"from": "host0", "to": "host3", "rate": "1 Gbit/s", "start": "10 ms", "stop": "20 ms"}],
        "profile": [{"link": "host2 up", "times": ["100 ms", "120 ms"], "factors": [0.5, 1.0]}],
    }  # fmt: skip
    effects = found(job(workers=8, cluster=cluster))
    keys = {key.removeprefix("cluster.") for key in effects if key.startswith("cluster.")}
    assert keys == {
        "bandwidth", "latency", "launch", "efficiency", "intra.bandwidth", "intra.latency", "intra.efficiency",
        "host.0.bandwidth", "host.0.latency", "fabric.oversubscription", "fabric.latency", "background.0.rate",
        "background.0.start", "background.0.stop", "profile.0.times.0", "profile.0.times.1", "profile.0.factors.0",
        "profile.0.factors.1",
    }  # fmt: skip
    assert effects["cluster.host.0.bandwidth"].ratio < 0.9
    assert not effects["cluster.fabric.oversubscription"].has_effect
    assert not effects["cluster.intra.bandwidth"].has_effect
    assert not effects["cluster.background.0.rate"].has_effect  # it is over before the backward pass is


def test_integers_that_are_rounded_say_by_how_much():
    """Of 3 samples 4 are made: a third more. One is doubled."""
    for batch, factor in ((3, 4 / 3), (1, 2), (32, 1.5)):
        made = predict(job(training={"workers": 1, "batch_size": batch}))
        (one,) = (one for one in influences(made) if one.key == "training.batch_size")
        assert one.factor == factor
        assert one.elasticity == pytest.approx(log(one.ratio) / log(factor), rel=1e-12)
        lines = dict(facts(made, [one], None))
        assert ("more)" in lines["step with 50 % more of"]) == (factor != 1.5)


@pytest.mark.parametrize("workers", [8, 4096])
def test_regression_a_change_without_closed_form_ended_all(workers):
    """A ring's hops inside hosts that take half as long again may outlast those between them."""
    cluster = {
        "bandwidth": "10 Gbit/s", "latency": "30 us", "launch": "20 us", "gpus": 4,
        "intra": {"bandwidth": "12 Gbit/s", "latency": "30 us"},
    }  # fmt: skip
    for engine in ("auto", "closed-form"):
        timing = {"overlap": False, "engine": engine}
        made = predict(job(workers=workers, cluster=cluster, timing=timing))
        assert made.engine == "closed-form"
        effects = influences(made)
        unknown = {one.key for one in effects if one.ratio is None}
        assert unknown == (set() if workers == 8 else {"cluster.bandwidth", "cluster.intra.latency"})
        assert all(one.elasticity is None and not one.has_effect for one in effects if one.key in unknown)
        assert ("not computed" in dict(facts(made, effects, None))) == bool(unknown)


def test_the_event_engine_answers_too():
    played = found(job(workers=4, timing={"engine": "events"}))
    closed = found(job(workers=4))
    assert played.keys() == closed.keys()
    for key, one in played.items():
        assert one.ratio == pytest.approx(closed[key].ratio, rel=1e-9), key
