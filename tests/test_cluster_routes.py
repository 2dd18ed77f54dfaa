"""Topologies: capacities and ways against examples by hand and an independent search, and that they come quickly."""

import time
from collections import deque
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire.compressors.errors import InputError
from gradwire.sim.cluster import load_cluster
from gradwire.sim.cluster.cluster import make_cluster

BASE = {"bandwidth": "10 Gbit/s", "latency": "30 us", "launch": "20 us"}
INTRA = {"bandwidth": "100 GB/s", "latency": "4 us", "efficiency": 0.5}

LEAVES = {"kind": "leaf-spine", "hosts_per_leaf": 2, "spines": 3, "uplink": "1 Gbit/s"}


def cluster(**keys):
    return make_cluster({**BASE, **keys})


def way(topology, src, dst, terms=None):
    """Return the names of the links between two workers, and the latency."""
    routes = topology.routes(np.array([src]), np.array([dst]), terms)
    assert routes.first.tolist() == [0, len(routes.links)]
    return [topology.names[link] for link in routes.links], float(routes.latency_s[0])


def capacities(topology):
    return dict(zip(topology.names, topology.capacity_bps.tolist(), strict=True))


def test_hosts_with_one_gpu():
    topology = cluster(upload="8 Gbit/s", efficiency=0.5).topology(2)
    assert capacities(topology) == {"host0 up": 4e9, "host1 up": 4e9, "host0 down": 5e9, "host1 down": 5e9}
    assert way(topology, 0, 1) == (["host0 up", "host1 down"], 30e-6)
    assert way(topology, 1, 1) == ([], 0.0)


def test_hosts_of_their_own():
    own = [{"which": 0, "latency": "10 us"}, {"which": "2-3", "bandwidth": "1 Gbit/s", "download": "2 Gbit/s"}]
    topology = cluster(host=own).topology(4)
    assert topology.capacity_bps.tolist() == [10e9, 10e9, 1e9, 1e9, 10e9, 10e9, 2e9, 2e9]
    assert way(topology, 0, 1)[1] == pytest.approx(20e-6, rel=1e-12)
    assert way(topology, 1, 2)[1] == 30e-6


def test_gpus_with_ports_of_their_own():
    topology = cluster(gpus=2, intra=INTRA).topology(4)
    assert len(topology.names) == 4 + 8
    assert capacities(topology)["host1.gpu0 down"] == 400e9
    assert way(topology, 0, 1) == (["host0.gpu0 up", "host0.gpu1 down"], 4e-6)
    assert way(topology, 1, 2) == (["host0.gpu1 up", "host0 up", "host1 down", "host1.gpu0 down"], 30e-6)


def test_a_shared_bus_is_crossed_once_at_each_host():
    topology = cluster(gpus=2, intra={**INTRA, "shared": True}).topology(4)
    assert capacities(topology)["host0 bus"] == 400e9
    assert way(topology, 2, 3) == (["host1 bus"], 4e-6)
    assert way(topology, 1, 2) == (["host0 bus", "host0 up", "host1 down", "host1 bus"], 30e-6)


def test_a_core_is_crossed_by_what_leaves_a_host():
    topology = cluster(fabric={"core": "15 Gbit/s"}, gpus=2, intra=INTRA, efficiency=0.8).topology(4)
    assert capacities(topology)["core"] == 12e9
    assert way(topology, 0, 2)[0] == ["host0.gpu0 up", "host0 up", "core", "host1 down", "host1.gpu0 down"]
    assert way(topology, 0, 1)[0] == ["host0.gpu0 up", "host0.gpu1 down"]


def test_leaves_and_spines():
    """Two hosts of 10 Gbit/s on two uplinks, oversubscribed 4:1, leave 2.5 Gbit/s for each uplink."""
    fabric = {"kind": "leaf-spine", "hosts_per_leaf": 2, "spines": 2, "oversubscription": 4.0, "latency": "2 us"}
    topology = cluster(fabric=fabric).topology(5)
    links = capacities(topology)
    assert [name for name in links if "spine" in name][:3] == ["leaf0 > spine0", "leaf0 > spine1", "leaf1 > spine0"]
    assert len(links) == 10 + 2 * 3 * 2
    assert {links[name] for name in links if "spine" in name} == {2.5e9}
    assert way(topology, 0, 1) == (["host0 up", "host1 down"], 30e-6)
    names, latency_s = way(topology, 1, 4)
    assert latency_s == pytest.approx(32e-6, rel=1e-12)
    spine = names[1].removeprefix("leaf0 > ")
    assert names == ["host1 up", f"leaf0 > {spine}", f"{spine} > leaf2", "host4 down"]
    assert way(topology, 4, 1)[0] == ["host4 up", f"leaf2 > {spine}", f"{spine} > leaf0", "host1 down"]


def test_hashing_uses_all_spines_and_spreading_bundles_them():
    fabric = {"kind": "leaf-spine", "hosts_per_leaf": 16, "spines": 4, "uplink": "10 Gbit/s"}
    hashed = cluster(fabric=fabric).topology(32)
    src, dst = np.repeat(np.arange(16), 16), np.tile(np.arange(16, 32), 16)
    routes = hashed.routes(src, dst)
    counts = np.bincount(routes.links, minlength=len(hashed.names))
    chosen = [counts[hashed.names.index(f"leaf0 > spine{s}")] for s in range(4)]
    assert sum(chosen) == 256
    assert all(40 < count < 90 for count in chosen)  # 64 each, standard deviation 6.9
    spread = cluster(fabric={**fabric, "ecmp": "spread"}).topology(32)
    assert capacities(spread)["leaf0 > spines"] == 40e9
    headers = cluster(fabric={**fabric, "ecmp": "spread"}, efficiency=0.5).topology(32)
    assert capacities(headers)["leaf0 > spines"] == 20e9
    assert way(spread, 0, 16)[0] == ["host0 up", "leaf0 > spines", "spines > leaf1", "host16 down"]


def test_a_graph_by_hand():
    """Two hosts on each of two switches; the direct cable is shorter in hops and longer in time."""
    links = [
        {"between": ["host0", "a"], "latency": "1 us"},
        {"between": ["host1", "a"], "bandwidth": "1 Gbit/s", "duplex": "half"},
        {"between": ["host2", "b"], "latency": "1 us"},
        {"between": ["a", "b"], "latency": "2 us"},
        {"between": ["host0", "host2"], "latency": "10 us", "bandwidth": "5 Gbit/s"},
    ]
    fabric = {"kind": "graph", "switches": ["a", "b"]}
    hops = cluster(hosts=3, fabric=fabric, links=links, efficiency=0.5).topology(3)
    assert capacities(hops)["host1 - a"] == 0.5e9
    assert capacities(hops)["host2 > host0"] == 2.5e9
    assert len(hops.names) == 9
    assert way(hops, 0, 2) == (["host0 > host2"], pytest.approx(40e-6))
    assert way(hops, 1, 0)[0] == ["host1 - a", "a > host0"]
    assert way(hops, 0, 1)[0] == ["host0 > a", "host1 - a"]
    quick = cluster(hosts=3, fabric={**fabric, "routing": "latency"}, links=links).topology(3)
    assert way(quick, 0, 2) == (["host0 > a", "a > b", "b > host2"], pytest.approx(34e-6))
    routes = [{"path": ["host0", "host2", "b", "a", "host1"]}]
    given_way = cluster(hosts=3, fabric=fabric, links=links, routes=routes).topology(3)
    assert way(given_way, 0, 1)[0] == ["host0 > host2", "host2 > b", "b > a", "host1 - a"]
    assert way(given_way, 1, 0)[0] == ["host1 - a", "a > host0"]


def test_equally_good_ways_take_the_first_node_there_and_back():
    square = [{"between": [f"host{a}", f"host{b}"]} for a, b in ((0, 2), (2, 3), (3, 1), (1, 0))]
    topology = cluster(hosts=4, fabric={"kind": "graph"}, links=square).topology(4)
    assert way(topology, 0, 3)[0] == ["host0 > host1", "host1 > host3"]
    assert way(topology, 3, 0)[0] == ["host3 > host1", "host1 > host0"]


def test_ways_do_not_depend_on_which_was_asked_for_first():
    """From host0 the first node is host1, from host5 it would be host3, on the other way."""
    pairs = ((0, 1), (1, 4), (4, 5), (0, 2), (2, 3), (3, 5))
    keys = {
        "hosts": 6,
        "fabric": {"kind": "graph"},
        "links": [{"between": [f"host{a}", f"host{b}"]} for a, b in pairs],
    }
    assert way(cluster(**keys).topology(6), 0, 5)[0] == ["host0 > host1", "host1 > host4", "host4 > host5"]
    assert way(cluster(**keys).topology(6), 5, 0)[0] == ["host5 > host4", "host4 > host1", "host1 > host0"]


def test_one_way_links_lead_round():
    ring = [{"between": [f"host{i}", f"host{(i + 1) % 5}"], "duplex": "one-way"} for i in range(5)]
    topology = cluster(hosts=5, fabric={"kind": "graph"}, links=ring).topology(5)
    assert way(topology, 1, 0)[0] == ["host1 > host2", "host2 > host3", "host3 > host4", "host4 > host0"]
    assert way(topology, 0, 1)[0] == ["host0 > host1"]


@st.composite
def graphs(draw):
    """Return the number of hosts and cables of a connected graph of hosts and switches, full duplex."""
    hosts, switches = draw(st.integers(2, 7)), draw(st.integers(0, 4))
    nodes = [f"host{h}" for h in range(hosts)] + [f"s{s}" for s in range(switches)]
    pairs = {(draw(st.integers(0, i - 1)), i) for i in range(1, len(nodes))}
    more = draw(st.lists(st.tuples(st.integers(0, len(nodes) - 1), st.integers(0, len(nodes) - 1)), max_size=8))
    pairs |= {(min(pair), max(pair)) for pair in more if pair[0] != pair[1]}
    cables = [(nodes[a], nodes[b], draw(st.integers(0, 3))) for a, b in draw(st.permutations(sorted(pairs)))]
    return hosts, nodes[hosts:], cables


def breadth_first(cables, start):
    """Return the least number of cables to each node."""
    near = {start: 0}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for a, b, _ in cables:
            for here, there in ((a, b), (b, a)):
                if here == node and there not in near:
                    near[there] = near[node] + 1
                    queue.append(there)
    return near


def relaxed(cables, start):
    """Return the least latency in us to each node, by Bellman and Ford."""
    best = {start: 0}
    for _ in range(12):
        for a, b, latency in cables:
            for here, there in ((a, b), (b, a)):
                if here in best:
                    best[there] = min(best.get(there, 10**9), best[here] + latency)
    return best


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from(["hops", "latency"]))
def test_ways_through_any_graph_are_shortest_whole_and_the_same_back(graph, routing):
    hosts, switches, cables = graph
    links = [{"between": [a, b], "latency": f"{us} us"} for a, b, us in cables]
    fabric = {"kind": "graph", "switches": switches, "routing": routing}
    topology = cluster(hosts=hosts, fabric=fabric, links=links).topology(hosts)
    for src in range(hosts):
        hops, least = breadth_first(cables, f"host{src}"), relaxed(cables, f"host{src}")
        for dst in range(hosts):
            names, latency_s = way(topology, src, dst)
            if src == dst:
                assert names == []
                continue
            steps = [name.split(" > ") for name in names]
            assert [steps[0][0], steps[-1][1]] == [f"host{src}", f"host{dst}"]
            assert all(before[1] == after[0] for before, after in pairwise(steps))
            assert [name.split(" > ")[::-1] for name in way(topology, dst, src)[0]][::-1] == steps
            own_us = latency_s * 1e6 - 30
            assert own_us == pytest.approx(sum(us for a, b, us in cables if [a, b] in steps or [b, a] in steps))
            if routing == "hops":
                assert len(names) == hops[f"host{dst}"]
            else:
                assert own_us == pytest.approx(least[f"host{dst}"], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([{}, {"core": "5 Gbit/s"}, LEAVES]),
    st.sampled_from([{}, {"gpus": 3, "intra": INTRA}, {"gpus": 2, "intra": {**INTRA, "shared": True}}]),
    st.integers(1, 17),
)
def test_the_way_back_crosses_the_other_direction_of_the_same_links(fabric, hosts, workers):
    topology = cluster(fabric=fabric, **hosts).topology(workers)
    src, dst = (axis.ravel() for axis in np.indices((workers, workers)))
    there, back = topology.routes(src, dst), topology.routes(dst, src)
    assert there.latency_s.tolist() == back.latency_s.tolist()
    for p in range(len(src)):
        mine = [topology.names[link] for link in there.links[there.first[p] : there.first[p + 1]]]
        other = [topology.names[link] for link in back.links[back.first[p] : back.first[p + 1]]]
        assert [reverse(name) for name in other][::-1] == mine


def reverse(name):
    if " > " in name:
        return " > ".join(name.split(" > ")[::-1])
    return name[:-2] + "down" if name.endswith(" up") else name.replace(" down", " up")


def test_terms_of_a_collective_change_the_latency_of_hosts_without_their_own():
    pieces = [{"from": "0 B"}, {"from": "1 MiB", "latency": "50 us", "intra_latency": "7 us"}]
    pieced = cluster(gpus=2, intra=INTRA, pieces=pieces, host=[{"which": 2, "latency": "10 us"}])
    topology, large = pieced.topology(6), pieced.terms(2**20)
    assert way(topology, 0, 2)[1] == 30e-6
    assert way(topology, 0, 2, large)[1] == 50e-6
    assert way(topology, 0, 1, large)[1] == 7e-6
    assert way(topology, 0, 5, large)[1] == pytest.approx(30e-6, rel=1e-12)


def test_background_flows_cross_nics_and_fabric():
    flows = [
        {"from": "host0", "to": "host1"},
        {"from": "host1", "to": "host3", "rate": "2 Gbit/s", "start": "1 s", "stop": "3 s"},
    ]
    topology = cluster(gpus=2, intra=INTRA, fabric={"core": "5 Gbit/s"}, background=flows).topology(4)
    background = topology.background
    crossed = [[topology.names[link] for link in background.links[a:b]] for a, b in pairwise(background.first)]
    assert crossed == [["host0 up", "core", "host1 down"], ["host1 up", "core", "host3 down"]]
    assert background.rate_bps.tolist() == [np.inf, 2e9]
    assert background.start_s.tolist() == [0.0, 1.0]
    assert background.stop_s.tolist() == [np.inf, 3.0]


def test_background_flows_of_a_graph_may_start_at_a_switch():
    links = [{"between": ["host0", "s"]}, {"between": ["s", "host1"]}]
    fabric = {"kind": "graph", "switches": ["s"]}
    flows = [{"from": "s", "to": "host1"}]
    topology = cluster(hosts=2, fabric=fabric, links=links, background=flows).topology(2)
    assert [topology.names[link] for link in topology.background.links] == ["s > host1"]


def test_profiles_become_changes_in_the_order_of_time():
    profile = [
        {"link": "host1 down", "times": ["2 s", "5 s"], "factors": [0.5, 1.0]},
        {"link": "core", "times": ["3 s"], "factors": [2.0]},
    ]
    topology = cluster(fabric={"core": "5 Gbit/s"}, profile=profile).topology(2)
    changes = topology.changes
    rows = zip(changes.time_s.tolist(), [topology.names[link] for link in changes.link], changes.factor, strict=True)
    assert list(rows) == [(2.0, "host1 down", 0.5), (3.0, "core", 2.0), (5.0, "host1 down", 1.0)]
    everywhere = cluster(profile=[{"link": "nics", "times": ["1 s"], "factors": [0.1]}]).topology(3).changes
    assert everywhere.link.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_worker_that_is_not_there_is_refused():
    topology = cluster().topology(4)
    with pytest.raises(InputError, match="worker 4 is not on the cluster; its workers are 0 to 3"):
        topology.routes(np.array([0]), np.array([4]))
    with pytest.raises(InputError, match="worker -1 is not"):
        topology.routes(np.array([-1]), np.array([0]))


def test_no_pairs_have_no_routes():
    routes = cluster().topology(4).routes(np.array([], np.int64), np.array([], np.int64))
    assert (routes.first.tolist(), len(routes.links), len(routes.latency_s)) == ([0], 0, 0)


@pytest.mark.parametrize("name", ["ethernet-10g", "dgx-a100", "leaf-spine-25g"])
def test_ten_thousand_workers_are_quick_and_need_no_table_of_pairs(name):
    """Limits are many times what an idle machine takes, which is 1 to 10 ms."""
    preset = load_cluster(name)
    start = time.perf_counter()
    topology = preset.topology(10_000)
    ring = np.arange(10_000)
    routes = topology.routes(ring, (ring + 1) % 10_000)
    assert time.perf_counter() - start < 0.5
    assert len(topology.names) < 50_000
    assert len(routes.links) < 60_000
    src = np.tile(np.arange(64), 126)
    assert len(src) == 8064
    best = min(seconds(lambda: topology.routes(src, (src + 1) % 64)) for _ in range(5))
    assert best < 0.05


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
