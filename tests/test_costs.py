"""Costs on clusters: closed form and flow engine agree wherever both apply, and links carry what they should."""

import math

import numpy as np
import pytest
import simpy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gradwire.compressors.errors import InputError
from gradwire.compressors.wirelog import Collective
from gradwire.sim.cluster.cluster import make_cluster
from gradwire.sim.network import ALGORITHMS, Machine, Network, choose
from gradwire.sim.network.costs import Batch, Costs
from gradwire.sim.network.critical import ClosedFormError

PLAIN = {"bandwidth": "8 Mbit/s", "latency": "10 ms", "launch": "1 ms"}
"""A byte a microsecond."""


def played(costs, collective):
    """The time that the engine needs, and what each link has carried, by name."""
    env = simpy.Environment()
    network = Network(env, costs.cluster, costs.workers)
    env.run(until=network.play(*costs.schedule(collective)))
    carried = network.traffic.carried_bytes
    return env.now, dict(zip(costs.cluster.topology(costs.workers).names, carried.tolist(), strict=True))


def closed(costs, collective):
    """The time in closed form."""
    sent = np.array([collective.sent_bytes])
    cost = costs.cost(Batch(collective.operation, collective.peers, sent))
    uniform = costs.check_uniform()
    return float(cost.seconds(uniform.bandwidth_bps, uniform.latency_s, uniform.launch_s)[0])


@st.composite
def cases(draw):
    """A uniform cluster with one or more GPUs a host, and a collective under one of its algorithms."""
    gpus, hosts = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rate = st.floats(1e3, 1e9)
    latency = st.sampled_from([0.0, 1e-6, 1e-3])
    keys = {
        "bandwidth": f"{draw(rate)!r} bit/s",
        "latency": f"{draw(latency)!r} s",
        "launch": f"{draw(latency)!r} s",
        "gpus": gpus,
    }
    if gpus > 1:
        keys["intra"] = {"bandwidth": f"{draw(rate)!r} bit/s", "latency": f"{draw(latency)!r} s"}
    if draw(st.booleans()):
        keys["reduce"] = f"{draw(rate)!r} B/s"
    if draw(st.booleans()):
        keys["efficiency"] = draw(st.floats(0.1, 1))
    if draw(st.booleans()):
        first, second = ({"efficiency": draw(st.floats(0.2, 1)), "launch": f"{draw(latency)!r} s"} for _ in range(2))
        keys["pieces"] = [{"from": "0 B", **first}, {"from": "1 kB", **second}]
    operation = draw(st.sampled_from([name for name in ALGORITHMS if name != "permute"]))
    algorithm = draw(st.sampled_from(["auto", *ALGORITHMS[operation]]))
    workers = gpus * hosts
    assume(algorithm != "halving" or not workers & (workers - 1))
    size = draw(st.integers(0, 5000))
    sent = (size,) * workers
    if operation == "all-gather" and draw(st.booleans()):
        sent = tuple(draw(st.integers(0, 5000)) for _ in range(workers))
    if operation == "broadcast":
        sent = (size,) + (0,) * (workers - 1)
    peers = (0,) if operation == "broadcast" else ()
    gathers = draw(st.sampled_from(["padded", "exact"]))
    costs = Costs(make_cluster(keys), workers, {operation: algorithm}, gathers)
    return costs, Collective(operation, 0, "bytes", sent, peers)


@settings(deadline=None, max_examples=300)
@given(cases())
def test_closed_form_and_engine_agree_wherever_both_apply(case):
    costs, collective = case
    try:
        expected = closed(costs, collective)
    except ClosedFormError:
        return
    assert played(costs, collective)[0] == pytest.approx(expected, rel=1e-9), (costs.cluster, costs.algorithms)


@pytest.mark.parametrize(
    ("keys", "collective", "why"),
    [
        ({"host": [{"which": 0, "bandwidth": "1 Mbit/s"}]}, "all-reduce", "hosts differ in bandwidth"),
        ({"gpus": 2, "intra": {"bandwidth": "8 Gbit/s", "latency": "0 s"}}, "all-to-all", "shares the links of hosts"),
    ],
)
def test_where_there_is_no_closed_form_the_reason_is_told(keys, collective, why):
    costs = Costs(make_cluster(PLAIN | keys), 4)
    with pytest.raises(ClosedFormError, match=why):
        closed(costs, Collective(collective, 0, "bytes", (100,) * 4))


def test_a_ring_whose_links_take_equally_long_everywhere_is_played():
    """Chunks of unequal size may then take either way, which no single chain tells."""
    keys = {"gpus": 2, "intra": {"bandwidth": "8 Mbit/s", "latency": "10 ms"}}
    costs = Costs(make_cluster(PLAIN | keys), 4)
    with pytest.raises(ClosedFormError, match="take as long inside of hosts as between them"):
        closed(costs, Collective("all-reduce", 0, "float32", (10,) * 4))


# ------------------------------------------------------------------------------------------------ bytes on links


def nic_bytes(operation, sent, algorithm, hosts=4, gpus=1, **more):
    """What leaves, and enters, each host."""
    keys = PLAIN | {"gpus": gpus} | ({"intra": {"bandwidth": "8 Gbit/s", "latency": "0 s"}} if gpus > 1 else {})
    costs = Costs(make_cluster(keys), hosts * gpus, {operation: algorithm})
    links = played(costs, Collective(operation, 0, "bytes", sent, **more))[1]
    return [links[f"host{i} up"] for i in range(hosts)], [links[f"host{i} down"] for i in range(hosts)]


@pytest.mark.parametrize("algorithm", ["ring", "halving-doubling", "direct"])
def test_an_all_reduce_sends_each_byte_twice_but_for_the_own_share(algorithm):
    """2 (N - 1) / N of the buffer over each link, each way (Patarasu & Yuan 2009)."""
    assert nic_bytes("all-reduce", (400,) * 4, algorithm) == ([600.0] * 4, [600.0] * 4)


def test_recursive_doubling_sends_the_buffer_log2_n_times():
    assert nic_bytes("all-reduce", (400,) * 4, "recursive-doubling") == ([800.0] * 4, [800.0] * 4)


def test_a_double_tree_moves_the_buffer_up_and_down_once():
    """N - 1 edges in each tree, each of which carries half of the buffer up and down."""
    up, down = nic_bytes("all-reduce", (400_000,) * 4, "double-tree")
    assert sum(up) == sum(down) == 2 * 3 * 400_000


def test_a_hierarchical_all_reduce_crosses_nics_with_one_hosts_worth():
    """2 (H - 1) / H of the buffer for each host, however many GPUs it has."""
    assert nic_bytes("all-reduce", (800,) * 8, "hierarchical", gpus=2) == ([1200.0] * 4, [1200.0] * 4)


def test_a_flat_ring_crosses_nics_with_a_hosts_edge():
    """2 (N - 1) / N of the buffer: every host's NIC is one edge of the ring."""
    assert nic_bytes("all-reduce", (800,) * 8, "ring", gpus=2) == ([1400.0] * 4, [1400.0] * 4)


@pytest.mark.parametrize("algorithm", ["ring", "bruck", "direct"])
def test_an_all_gather_brings_everyone_all_of_the_others(algorithm):
    _, down = nic_bytes("all-gather", (100, 100, 100, 100), algorithm)
    assert down == [300.0] * 4


def test_padding_is_charged():
    """A backend without an all-gatherv sends as much as the largest from everybody."""
    collective = Collective("all-gather", 0, "bytes", (10, 20, 30, 40))
    padded, exact = (Costs(make_cluster(PLAIN), 4, gathers=gathers) for gathers in ("padded", "exact"))
    assert sum(played(padded, collective)[1].values()) == 2 * 4 * 3 * 40
    assert sum(played(exact, collective)[1].values()) == 2 * 3 * (10 + 20 + 30 + 40)
    assert closed(padded, collective) == pytest.approx(1e-3 + 3 * (10e-3 + 40e-6), rel=1e-12)


@pytest.mark.parametrize("algorithm", ["pairwise", "direct"])
def test_an_all_to_all_sends_everyone_a_chunk(algorithm):
    assert nic_bytes("all-to-all", (400,) * 4, algorithm) == ([300.0] * 4, [300.0] * 4)


def test_chunks_of_different_lengths():
    chunks = ((0, 1, 2, 3), (4, 0, 5, 6), (7, 8, 0, 9), (10, 11, 12, 0))
    up, down = nic_bytes("all-to-all", tuple(map(sum, chunks)), "pairwise", chunks=chunks)
    assert up == [6.0, 15.0, 24.0, 33.0]
    assert down == [21.0, 20.0, 19.0, 18.0]


# ------------------------------------------------------------------------------------------------ choices, errors


def test_auto_says_what_it_chose_and_why():
    costs = Costs(make_cluster(PLAIN | {"bandwidth": "100 Gbit/s"}), 64, {"all-reduce": "auto"})
    costs.cost(Batch("all-reduce", (), np.full((1, 64), 1000)))
    costs.cost(Batch("all-reduce", (), np.full((1, 64), 10**9)))
    chosen = {size: choice.algorithm for (_, size), choice in costs.choices.items()}
    assert chosen == {1000: "double-tree", 10**9: "ring"}
    assert all(choice.reason.endswith("assuming ampere GPUs and 2 channels") for choice in costs.choices.values())
    assert all(choice.reason.startswith("NCCL 2.18 estimates") for choice in costs.choices.values())


@pytest.mark.parametrize(
    ("more", "workers", "gbit"),
    [
        ({}, 8, 100),
        ({"host": [{"which": 7, "upload": "10 Gbit/s"}]}, 8, 10),
        ({"host": [{"which": 8, "upload": "10 Gbit/s"}]}, 8, 100),  # has no workers
        ({"gpus": 4, "intra": {"bandwidth": "40 Gbit/s", "latency": "1 us"}}, 8, 40),
        ({"gpus": 4, "intra": {"bandwidth": "400 Gbit/s", "latency": "1 us"}}, 8, 100),
        ({"gpus": 8, "intra": {"bandwidth": "400 Gbit/s", "latency": "1 us"}}, 8, 400),
    ],
)
def test_nccls_model_is_told_the_slowest_links_and_the_gpus(more, workers, gbit):
    keys = PLAIN | {"bandwidth": "100 Gbit/s"} | more
    costs = Costs(make_cluster(keys), workers, {"all-reduce": "auto"}, generation="volta")
    costs.algorithm("all-reduce", 10**6)
    nvlink = "intra" in more and more["intra"]["bandwidth"] == "400 Gbit/s"
    machine = Machine(gbit * 1e9, nvlink, generation="volta")
    expected = choose("all-reduce", 10**6, workers, -(-workers // more.get("gpus", 1)), machine)
    assert list(costs.choices.values()) == [expected]


@pytest.mark.parametrize(("workers", "gpus", "even"), [(3, 8, True), (9, 4, False), (6, 4, False), (8, 4, True)])
def test_nccls_model_needs_hosts_with_equally_many_workers(workers, gpus, even):
    """Of 9 workers on hosts of 4 the last host has one, though 3 hosts divide 9; so it is with 6, on 2 hosts."""
    intra = {"bandwidth": "100 GB/s", "latency": "1 us"}
    costs = Costs(make_cluster(PLAIN | {"gpus": gpus, "intra": intra}), workers, {"all-reduce": "auto"})
    costs.algorithm("all-reduce", 10**6)
    (choice,) = costs.choices.values()
    assert choice.reason.startswith("NCCL 2.18 estimates" if even else "hosts have different numbers of workers")


def test_each_log_gets_the_algorithm_of_its_size():
    costs = Costs(make_cluster(PLAIN | {"bandwidth": "100 Gbit/s"}), 64, {"all-reduce": "auto"})
    sizes = np.array([[1000], [10**9]]) * np.ones((1, 64), np.int64)
    both = costs.cost(Batch("all-reduce", (), sizes))
    for i, name in enumerate(("double-tree", "ring")):
        alone = Costs(costs.cluster, 64, {"all-reduce": name}).cost(Batch("all-reduce", (), sizes[i : i + 1]))
        assert [float(column[i]) for column in both] == [float(column[0]) for column in alone]


@pytest.mark.parametrize(
    ("operation", "name", "words"),
    [
        ("all-reduce", "hierarchical", "timing.all_reduce = 'hierarchical' with workers = 6; allowed: a multiple of 4"),
        ("reduce-scatter", "halving", "timing.reduce_scatter = 'halving' with workers = 6; allowed: 1, 2, 4, 8"),
    ],
)
def test_numbers_of_workers_that_an_algorithm_does_not_take(operation, name, words):
    intra = {"bandwidth": "100 GB/s", "latency": "1 us"}
    costs = Costs(make_cluster(PLAIN | {"gpus": 4, "intra": intra}), 6, {operation: name})
    with pytest.raises(InputError, match=words):
        costs.schedule(Collective(operation, 0, "float32", (1000,) * 6))
    Costs(costs.cluster, 8, {operation: name}).schedule(Collective(operation, 0, "float32", (1000,) * 8))


def test_unknown_algorithms_are_refused():
    with pytest.raises(InputError, match="algorithm 'rings' of all-reduce is unknown; allowed: auto, ring, halving"):
        Costs(make_cluster(PLAIN), 4, {"all-reduce": "rings"})


def test_numbers_that_vary_only_where_the_cluster_leaves_them_open():
    """Terms by size are the cluster's own: another latency has no effect on them, another bandwidth has."""
    pieces = [
        {"from": "0 B", "latency": "5 ms", "launch": "2 ms"},
        {"from": "1 kB", "latency": "7 ms", "launch": "3 ms"},
    ]
    cost = Costs(make_cluster(PLAIN | {"pieces": pieces}), 2).cost(Batch("all-reduce", (), np.full((1, 2), 2000)))
    assert cost.seconds(8e6, 0.0, 0.0) == pytest.approx([3e-3 + 2 * (7e-3 + 1e-3)], rel=1e-12)
    assert cost.seconds(8e6, 1.0, 1.0) == cost.seconds(8e6, 0.0, 0.0)
    assert cost.seconds(math.inf, 0.0, 0.0) == pytest.approx([3e-3 + 2 * 7e-3], rel=1e-12)
