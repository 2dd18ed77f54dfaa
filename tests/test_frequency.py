"""How often compression pays: every step of a grid against a prediction of its own, and counts against loops."""

from itertools import product

import pytest

from gradwire.analysis.frequency import BUCKETS, HOSTS, UNCOMPRESSED, Setup, Step, how_often, setups
from gradwire.compressors.errors import InputError
from gradwire.sim.prediction import make_job, predict
from gradwire.sim.step.synthetic import Cache

WORKERS, NETWORKS, COSTS = (4, 16), ("10 Gbit/s", "100 Gbit/s"), (1.0, 5.0)
SCHEMES = ("ef(powersgd(rank=2))", "signsgd")


@pytest.fixture(scope="module")
def cache():
    return Cache()


@pytest.fixture(scope="module")
def grid(cache):
    return setups(["resnet18"], WORKERS, NETWORKS, SCHEMES, COSTS, cache=cache)


def predicted(cache, scheme, workers, network, cost=1.0, batch=32):
    """Return the shortest step over the sizes of buckets, each from a job of its own."""
    jobs = [
        {
            "model": "resnet18",
            "scheme": scheme,
            "training": {"workers": workers, "bucket": bucket, "batch_size": batch},
            "cluster": {**HOSTS, "bandwidth": network},
            "overhead": {"factor": cost},
        }
        for bucket in BUCKETS
    ]
    return min((predict(make_job(job), cache=cache) for job in jobs), key=lambda one: one.step_s)


def test_every_point_is_there_once_in_order(grid):
    points = [(one.workers, one.bandwidth, one.scheme, one.cost) for one in grid]
    assert points == list(product(WORKERS, NETWORKS, SCHEMES, COSTS))
    assert {(one.model, one.batch) for one in grid} == {("resnet18", 32)}


def test_steps_are_those_of_single_predictions(grid, cache):
    for one in grid:
        own = predicted(cache, one.scheme, one.workers, one.bandwidth, one.cost)
        assert one.step.step_s == pytest.approx(own.step_s, rel=1e-12)
        assert one.step.bucket == own.job.model_dump(mode="json")["training"]["bucket"]
        assert one.step.codec_s == pytest.approx(float(own.timeline.encode_s[0] + own.timeline.decode_s[0]), rel=1e-12)
        assert one.step.exposed_s == pytest.approx(float(own.timeline.exposed_communication_s[0]), rel=1e-9, abs=1e-12)
        assert sum(one.step[1:4]) == pytest.approx(one.step.step_s, rel=1e-12)
        assert one.step.compute_s == pytest.approx(own.alone_s, rel=1e-12)


def test_uncompressed_steps_have_their_best_buckets_and_plain_costs(grid, cache):
    for n, network in product(WORKERS, NETWORKS):
        here = [one for one in grid if (one.workers, one.bandwidth) == (n, network)]
        for name in UNCOMPRESSED:
            step_s = predicted(cache, name, n, network).step_s
            assert all(one.uncompressed[name].step_s == pytest.approx(step_s, rel=1e-12) for one in here)


def test_gains_are_over_the_best_uncompressed_step():
    dense = {
        "dense(dtype=fp32)": Step(3.0, 1.0, 0.0, 2.0, "1 MiB"),
        "dense(dtype=bf16)": Step(2.0, 1.0, 0.1, 0.9, "1 MiB"),
    }
    one = Setup("lstm", 20, 8, "10 Gbit/s", "signsgd", 1.0, Step(1.6, 1.0, 0.2, 0.4, "1 MiB"), dense)
    assert one.gain() == pytest.approx(0.25)
    assert one.gain(["dense(dtype=fp32)"]) == pytest.approx(0.875)
    assert one.most == pytest.approx(1.0)


def test_counts_are_those_of_a_loop(grid):
    found = how_often(grid, lambda one: (one.bandwidth, one.cost), more_than=(-0.2, 0.0, 0.1))
    expected = {}
    for network, cost in product(NETWORKS, COSTS):
        gains = [
            min(step.step_s for step in one.uncompressed.values()) / one.step.step_s - 1
            for one in grid
            if (one.bandwidth, one.cost) == (network, cost)
        ]
        expected[network, cost] = (len(gains), *(len([g for g in gains if g > least]) for least in (-0.2, 0.0, 0.1)))
    assert found == expected
    assert len(set(found.values())) > 1
    alone = how_often(grid, lambda one: one.bandwidth, baselines=["dense(dtype=fp32)"])
    assert alone["10 Gbit/s"] > how_often(grid, lambda one: one.bandwidth)["10 Gbit/s"]


def test_a_larger_batch_leaves_less_to_gain(grid, cache):
    larger = setups(["resnet18"], WORKERS, NETWORKS, SCHEMES, COSTS, batch_factor=4, cache=cache)
    assert {one.batch for one in larger} == {128}
    for one, other in zip(grid, larger, strict=True):
        assert other.most < one.most
        assert other.step.compute_s > 3 * one.step.compute_s
    own = predicted(cache, SCHEMES[0], 4, "10 Gbit/s", batch=128)
    assert larger[0].step.step_s == pytest.approx(own.step_s, rel=1e-12)


def test_mistakes_are_said_in_one_line(cache):
    with pytest.raises(InputError, match=r"costs = \[2.0\]: 1 must be one of them"):
        setups(["resnet18"], [4], NETWORKS, SCHEMES, [2.0])
    with pytest.raises(InputError, match="model 'resnet19' is unknown"):
        setups(["resnet19"], [4], NETWORKS)
    leaves = {"preset": "leaf-spine-25g"}
    with pytest.raises(InputError, match="closed"):
        setups(["resnet18"], [32], ["25 Gbit/s"], SCHEMES[1:], hosts=leaves, cache=cache)
