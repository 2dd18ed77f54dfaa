"""Shapers: steps behind token buckets against a bucket that is filled and emptied in small steps of time."""

import numpy as np
import pytest

from gradwire.compressors.errors import InputError
from gradwire.compressors.wirelog import Collective, MessageLog, Work
from gradwire.sim.cluster.cluster import make_cluster
from gradwire.sim.cluster.sections import Shaper
from gradwire.sim.network.costs import Batch, Costs
from gradwire.sim.network.tokens import TokenBucket
from gradwire.sim.step.device import load_device
from gradwire.sim.step.options import StepOptions
from gradwire.sim.step.overhead import Overhead
from gradwire.sim.step.timeline import timeline
from gradwire.sim.step.workload import Layer, Workload

FREE = {"bandwidth": "8 Gbit/s", "latency": "1 ms", "launch": "2 ms"}
SHAPED = FREE | {"shaper": {"rate": "80 Mbit/s", "burst": "100 kB"}}
WORKERS = 4
NO_OVERLAP = StepOptions(overlap=False)


def step(*sizes, operation="all-gather", workers=WORKERS):
    """Return a step log of one message for each size."""
    return tuple(
        MessageLog(i, (Work("dense", (10,), 1),), (Collective(operation, 0, "bytes", (size,) * workers),))
        for i, size in enumerate(sizes)
    )


def played(cluster, sizes, compute_s, options=NO_OVERLAP):
    """Return the timeline of one step; the backward pass of as many equal layers as there are messages."""
    layers = tuple(Layer(str(i), (str(i),), 10, 0.0, compute_s / len(sizes)) for i in range(len(sizes)))
    ready = tuple(range(len(sizes)))
    where = make_cluster(cluster), Overhead(), load_device("v100"), options
    return timeline([step(*sizes)], ready, Workload(layers, 0.0, "given"), *where)


def drip(sizes, compute_s, *, rate=1e7, burst=1e5, free=1e9, launch=2e-3, hop=3e-3, steps=40):
    """Play steps one after the other by a clock with small ticks; return how long the last one takes.

    A gather moves three payloads, for each of which a hop's latency passes; meanwhile bytes are sent.
    """
    tick, tokens = 2e-6, burst
    for _ in range(steps):
        elapsed = compute_s
        tokens = min(burst, tokens + rate * compute_s)
        for size in sizes:
            tokens = min(burst, tokens + rate * launch)
            elapsed += launch
            left, took = 3 * size, 0.0
            at_least = hop + 3 * size / free  # the latencies do not hide behind bytes that the NIC sends freely
            while left > 0 or took < at_least:
                sent = min(left, tokens, free * tick)
                left -= sent
                tokens = min(burst, tokens - sent + rate * tick)
                took += tick
            elapsed += took
    return elapsed


@pytest.mark.parametrize("sizes", [(10_000,), (60_000,), (400_000,), (20_000, 200_000, 5_000)], ids=str)
@pytest.mark.parametrize("compute_s", [0.0, 0.004, 0.05])
def test_steps_behind_a_shaper_take_as_long_as_by_a_dripping_bucket(sizes, compute_s):
    assert played(SHAPED, sizes, compute_s).step_s[0] == pytest.approx(drip(sizes, compute_s), rel=3e-3)


def test_without_tokens_the_rate_is_all_there_is_and_with_enough_of_them_the_bandwidth():
    bucket = {"rate": "80 Mbit/s", "burst": "1 B"}
    assert played(FREE | {"shaper": bucket}, (10**6,), 0.0).step_s[0] == pytest.approx(0.002 + 0.3, rel=1e-3)
    plenty = {"rate": "80 Mbit/s", "burst": "1 GB"}
    free = played(FREE, (10**6,), 1.0).step_s[0]
    assert played(FREE | {"shaper": plenty}, (10**6,), 1.0).step_s[0] == free


def test_what_is_sent_after_a_rest_goes_faster_than_what_follows_at_once():
    costs = Costs(make_cluster(SHAPED), 4)
    gather = costs.cost(Batch("all-gather", (), np.full((1, 4), 30_000)))
    bucket = TokenBucket(Shaper.model_validate(SHAPED["shaper"]), 1e5)
    network = (8e9, 0.0, 0.0)
    first = bucket.send([gather], np.zeros(()), *network)
    second = bucket.send([gather], first, *network)
    assert first == pytest.approx(90_000 / 1e9)
    assert second == pytest.approx((90_000 - (10_000 + 900)) / 1e7)
    assert bucket.tokens(first + second) == pytest.approx(0, abs=1e-6)
    assert bucket.tokens(first + second + 0.005) == pytest.approx(50_000)
    assert bucket.tokens(first + second + 1) == 1e5


def test_the_trace_of_a_step_ends_when_the_step_does():
    run = played(SHAPED, (20_000, 200_000), 0.01)
    assert max(span.end_s for span in run.spans(0)) == pytest.approx(run.step_s[0], rel=1e-12)
    assert run.engine == "closed-form"


def test_the_event_engine_refuses_a_shaper():
    with pytest.raises(InputError, match=r"timing.engine = 'events': cluster.shaper has a closed form only"):
        played(SHAPED, (1000,), 0.0, StepOptions(engine="events"))
    unequal = SHAPED | {"host": [{"which": 0, "bandwidth": "1 Gbit/s"}]}
    with pytest.raises(InputError, match=r"cluster.shaper: .* none, for hosts differ in bandwidth"):
        played(unequal, (1000,), 0.0)


def test_many_points_at_once_are_refused():
    plan = played(SHAPED, (1000,), 0.0).plan
    assert "cluster.shaper has a rate of its own" in plan.one_point_only()


@pytest.mark.parametrize(("size", "expected_s"), [(100, 0.5 + 300 / 1e9), (4000, 0.25 + 12_000 / 0.5e9)])
def test_an_operation_has_pieces_of_its_own(size, expected_s):
    pieces = [
        {"from": "0 B", "launch": "1 s"},
        {"from": "0 B", "operation": "all-gather", "launch": "0.5 s", "latency": "0 s"},
        {"from": "2 kB", "operation": "all-gather", "launch": "0.25 s", "latency": "0 s", "efficiency": 0.5},
    ]
    cluster = make_cluster(FREE | {"pieces": pieces})
    costs = Costs(cluster, 4)
    uniform = costs.check_uniform()
    point = (uniform.bandwidth_bps, uniform.latency_s, uniform.launch_s)
    own = costs.cost(Batch("all-gather", (), np.full((1, 4), size)))
    assert own.seconds(*point) == pytest.approx(expected_s, rel=1e-12)
    other = costs.cost(Batch("all-reduce", (), np.full((1, 4), size)))
    assert other.seconds(*point) == pytest.approx(1 + 6 * 1e-3 + 6 * size / 4 / 1e9, rel=1e-12)


@pytest.mark.parametrize("size", [100, 4000])
def test_pieces_of_an_operation_mean_the_same_to_both_engines(size):
    pieces = [{"from": "0 B", "operation": "all-gather", "launch": "3 ms", "efficiency": 0.25}]
    found = [
        played(FREE | {"pieces": pieces}, (size,), 0.001, StepOptions(overlap=False, engine=engine)).step_s[0]
        for engine in ("closed-form", "events")
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    assert found[0] == pytest.approx(0.001 + 0.003 + 0.003 + 3 * size / 0.25e9, rel=1e-9)


def test_pieces_of_an_operation_begin_at_nothing_and_rise():
    for pieces, words in (
        ([{"from": "1 kB", "operation": "broadcast"}], "the first of broadcast is from 1000 B"),
        ([{"from": "0 B"}, {"from": "0 B", "operation": "permute"}, {"from": "0 B", "operation": "permute"}], "rising"),
    ):
        with pytest.raises(InputError, match=words):
            make_cluster(FREE | {"pieces": pieces})


def test_collectives_beyond_what_was_measured_are_marked():
    measured = [{"operation": "all-gather", "from": "1 kB", "to": "1 MB", "workers": [2, 4]}]
    cluster = FREE | {"measured": measured}
    assert played(cluster, (1000, 10**6), 0.0).extrapolated == ()
    assert played(FREE, (10,), 0.0).extrapolated == ()
    (why,) = played(cluster, (999,), 0.0).extrapolated
    assert why == "all-gather of 999 to 999 B among 4 workers was measured for 1000 to 1000000 B among 2 to 4 workers"
    costs = Costs(make_cluster(cluster), 5)
    costs.cost(Batch("all-gather", (), np.full((1, 5), 2000)))
    costs.cost(Batch("all-reduce", (), np.full((1, 5), 2000)))
    assert set(costs.extrapolated) == {"all-gather", "all-reduce"}
    assert costs.extrapolated["all-reduce"] == "all-reduce was not measured"
