"""Cases timed anew: by hand on a ring, and against the timeline of a cluster that was built with other numbers."""

import pytest

from gradwire.analysis.advice.cases import Point, changed_cluster
from gradwire.sim.cluster import load_cluster
from gradwire.sim.cluster.cluster import make_cluster
from gradwire.sim.step.device import load_device
from gradwire.sim.step.options import StepOptions
from gradwire.sim.step.overhead import Overhead
from gradwire.sim.step.timeline import timeline
from gradwire.sim.step.workload import Layer, Workload

from .toycases import BACKWARD_S, ELEMENTS, FORWARD_S, OPTIMIZER_S, block_log, block_s, case, dense_log, dense_s

CHANGES = [
    {},
    {"bandwidth": 3.0},
    {"latency": 0.25},
    {"launch": 7.0},
    {"compute": 2.5},
    {"bandwidth": 0.5, "latency": 4.0, "launch": 0.5, "compute": 0.1},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_steps_by_hand(changes):
    assert case(dense_log()).seconds(Point(**changes)) == pytest.approx(dense_s(**changes), rel=1e-12)
    assert case(block_log()).seconds(Point(**changes)) == pytest.approx(block_s(**changes), rel=1e-12)


@pytest.mark.parametrize("name", ["cost", "estimates"])
@pytest.mark.parametrize("factor", [0.0, 1 / 3, 3.0])
def test_costs_of_compression_by_hand(name, factor):
    """All of a block's cost is a roofline estimate, so both factors multiply it."""
    assert case(block_log()).seconds(Point(**{name: factor})) == pytest.approx(block_s(cost=factor), rel=1e-12)
    both = case(block_log()).seconds(Point(cost=2.0, estimates=3.0))
    assert both == pytest.approx(block_s(cost=6.0), rel=1e-12)


def test_given_costs_are_no_estimates():
    given = case(block_log(), overhead=Overhead(encode_fixed="1 ms"))
    assert given.seconds(Point(estimates=3.0)) == given.seconds()
    assert given.seconds(Point(cost=3.0)) == pytest.approx(given.seconds() + 2e-3, rel=1e-12)


def test_runs_are_sums_and_seeds_geometric_means():
    one_s = dense_s()
    assert case(dense_log(), 40, by_step=False).seconds() == pytest.approx(40 * one_s, rel=1e-12)
    assert case(dense_log(), 40).seconds() == pytest.approx(one_s, rel=1e-12)
    seeds = case(dense_log(), (10, 40), by_step=False)
    assert seeds.each() == pytest.approx([10 * one_s, 40 * one_s], rel=1e-12)
    assert seeds.seconds() == pytest.approx(20 * one_s, rel=1e-12)


FILES = {
    "several GPUs a host": {"gpus": 4, "intra": {"bandwidth": "100 GB/s", "latency": "4 us"}},
    "one host": {"gpus": 8, "intra": {"bandwidth": "100 GB/s", "latency": "4 us"}},
    "terms by size": {"pieces": [{"from": "0 B", "latency": "10 us"}, {"from": "1 kB", "latency": "60 us"}]},
    "unequal hosts": {"host": [{"which": 1, "bandwidth": "2 Gbit/s", "latency": "80 us"}]},
}
TIMES = {
    "bandwidth": 4.0, "latency": 0.5, "launch": 2.0, "intra": 0.25, "compute": 3.0, "cost": 2.0, "estimates": 2.0,
}  # fmt: skip


@pytest.mark.parametrize("algorithm", ["ring", "auto"])
@pytest.mark.parametrize("kind", FILES)
def test_other_clusters_against_such_a_cluster(kind, algorithm):
    """Each number is doubled and halved in the text that a cluster is read from."""
    base = {"bandwidth": "8 Gbit/s", "latency": "50 us", "launch": "20 us"} | FILES[kind]
    other = {"bandwidth": "32 Gbit/s", "latency": "25 us", "launch": "40 us"} | FILES[kind]
    if "intra" in other:
        other["intra"] = {"bandwidth": "25 GB/s", "latency": "4 us"}
    if "pieces" in other:
        other["pieces"] = [{"from": "0 B", "latency": "5 us"}, {"from": "1 kB", "latency": "30 us"}]
    if "host" in other:
        other["host"] = [{"which": 1, "bandwidth": "8 Gbit/s", "latency": "40 us"}]
    assert changed_cluster(make_cluster(base), Point(**TIMES)) == make_cluster(other)
    slower = Workload((Layer("all", ("all",), ELEMENTS, 3 * FORWARD_S, 3 * BACKWARD_S),), 3 * OPTIMIZER_S, "by hand")
    options = StepOptions(overlap=False, all_reduce=algorithm)
    expected = timeline(
        [block_log()], (0,), slower, make_cluster(other), Overhead(factor=4.0), load_device("v100"), options
    )
    found = case(block_log(), cluster=make_cluster(base), all_reduce=algorithm).seconds(Point(**TIMES))
    assert found == pytest.approx(float(expected.step_s[0]), rel=1e-9)


def test_all_latencies_and_bandwidths_between_hosts_change():
    cluster = load_cluster("leaf-spine-25g")
    changed = changed_cluster(cluster, Point(bandwidth=2.0, latency=3.0))
    assert changed.bandwidth == 2 * cluster.bandwidth
    assert changed.latency == 3 * cluster.latency
    assert changed.fabric.latency == 3 * cluster.fabric.latency
    assert changed.fabric.oversubscription == cluster.fabric.oversubscription
    assert changed_cluster(cluster, Point()) == cluster
