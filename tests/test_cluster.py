"""Clusters from TOML: what each key means, which clusters are uniform, and what every mistake says."""

import tomllib

import numpy as np
import pytest

from gradwire.compressors.errors import InputError
from gradwire.sim.cluster import CLUSTERS, Tier, Uniform, load_cluster, read_cluster
from gradwire.sim.cluster.cluster import make_cluster

BASE = {"bandwidth": "10 Gbit/s", "latency": "30 us", "launch": "20 us"}
INTRA = {"bandwidth": "100 GB/s", "latency": "4 us", "efficiency": 0.5}
RING = [{"between": [f"host{i}", f"host{(i + 1) % 4}"]} for i in range(4)]
GRAPH = {**BASE, "hosts": 4, "fabric": {"kind": "graph"}, "links": RING}
LEAVES = {"kind": "leaf-spine", "hosts_per_leaf": 4, "spines": 2}


def cluster(**keys):
    return make_cluster({**BASE, **keys})


def test_the_simple_form_is_equal_hosts_on_one_switch():
    simple = cluster()
    topology = simple.topology(3)
    assert topology.names == ("host0 up", "host1 up", "host2 up", "host0 down", "host1 down", "host2 down")
    assert topology.capacity_bps.tolist() == [10e9] * 6
    assert simple.terms(10**9) == (0, 20e-6, 30e-6, 0.0, 1.0)


@pytest.mark.parametrize("name", [name for name in CLUSTERS if name.startswith(("ethernet", "infiniband"))])
def test_simple_presets_stay_simple_and_uniform(name):
    preset = load_cluster(name)
    numbers = preset.uniform(16)
    assert isinstance(numbers, Uniform)
    assert numbers[:5] == (16, 1, preset.bandwidth, preset.latency, preset.launch)


@pytest.mark.parametrize("name", CLUSTERS)
def test_presets_have_a_topology(name):
    topology = load_cluster(name).topology(64)
    ring = np.arange(64)
    routes = topology.routes(ring, (ring + 1) % 64)
    assert (topology.capacity_bps > 0).all()
    assert (np.diff(routes.first) >= 2).all()


def test_numbers_of_a_cluster_of_several_gpus():
    """Payload is the bandwidth times the efficiency of its own tier."""
    rich = cluster(gpus=4, intra=INTRA, efficiency=0.9, hosts=2, reduce="300 GB/s")
    numbers = rich.uniform(8)
    assert isinstance(numbers, Uniform)
    assert (numbers.hosts, numbers.gpus, numbers.bandwidth_bps) == (2, 4, 9e9)
    assert numbers.intra == Tier(400e9, 4e-6, shared=False)
    assert numbers.reduce_bytes_s == 300e9
    assert rich.uniform(3)[:2] == (1, 3)
    assert rich.uniform(6) == "the last host has 2 workers and the others 4"
    assert rich.kind == "switch, 4 GPUs a host"


def test_pieces_replace_what_they_name_from_their_size_on():
    pieces = [
        {"from": "0 B", "latency": "5 us", "efficiency": 0.5},
        {"from": "64 KiB", "launch": "40 us", "intra_latency": "1 us"},
    ]
    pieced = cluster(pieces=pieces, gpus=4, intra=INTRA)
    assert pieced.terms(0) == pieced.terms(65535) == (0, 20e-6, 5e-6, 4e-6, 0.5)
    assert pieced.terms(65536) == (65536, 40e-6, 30e-6, 1e-6, 1.0)
    numbers = pieced.uniform(4)
    assert isinstance(numbers, Uniform)
    assert (numbers.latency_s, numbers.launch_s) == (5e-6, 20e-6)
    assert numbers.terms == (pieced.terms(0), pieced.terms(65536))


def test_the_price_is_a_note():
    assert cluster(price={"per_gpu_hour": 3.06}).price.per_gpu_hour == 3.06
    assert cluster(price={"per_gpu_hour": 3.06}).uniform(4) == cluster().uniform(4)


@pytest.mark.parametrize(
    ("keys", "workers", "why"),
    [
        ({"background": [{"from": "host0", "to": "host1"}]}, 4, "background flows take part of the network"),
        ({"profile": [{"link": "nics", "times": ["1 s"], "factors": [0.5]}]}, 4, "changes in the course of the run"),
        ({"host": [{"which": 1, "bandwidth": "5 Gbit/s"}]}, 4, "hosts differ in bandwidth"),
        ({"host": [{"which": 1, "latency": "1 ms"}]}, 4, "hosts differ in latency"),
        ({"upload": "5 Gbit/s"}, 4, "hosts upload and download at different rates"),
        ({"fabric": {"core": "39 Gbit/s"}}, 4, "the core of the switch is slower than all hosts together"),
        ({"fabric": {**LEAVES, "oversubscription": 3.0}}, 8, "the leaf-spine is oversubscribed 3:1"),
        ({"fabric": {**LEAVES, "uplink": "10 Gbit/s"}}, 8, "the leaf-spine is oversubscribed 2:1"),
        ({"fabric": {**LEAVES, "oversubscription": 1.0}}, 8, "hashes flows to spines"),
        ({"fabric": {**LEAVES, "oversubscription": 1.0, "latency": "1 us"}}, 8, "farther apart"),
        ({"hosts": 4, "fabric": {"kind": "graph"}, "links": RING}, 4, "the fabric is a graph"),
    ],
)
def test_what_is_not_uniform_says_why(keys, workers, why):
    reason = cluster(**keys).uniform(workers)
    assert isinstance(reason, str)
    assert why in reason


@pytest.mark.parametrize(
    ("keys", "workers"),
    [
        ({"fabric": {"core": "40 Gbit/s"}}, 4),
        ({"fabric": {**LEAVES, "oversubscription": 3.0}}, 4),
        ({"fabric": {**LEAVES, "oversubscription": 1.0, "ecmp": "spread"}}, 8),
        ({"fabric": {**LEAVES, "spines": 1, "uplink": "40 Gbit/s"}}, 8),
        (  # 25 / (11 * (25 / 11)) is a little above 1 in floating point
            {
                "bandwidth": "25 Gbit/s",
                "fabric": {**LEAVES, "hosts_per_leaf": 1, "spines": 11, "oversubscription": 1.0, "ecmp": "spread"},
            },
            8,
        ),
        ({"host": [{"which": 7, "bandwidth": "1 Gbit/s"}]}, 4),
        ({"upload": "5 Gbit/s", "gpus": 4, "intra": INTRA}, 4),
    ],
)
def test_what_never_binds_leaves_a_cluster_uniform(keys, workers):
    assert isinstance(cluster(**keys).uniform(workers), Uniform)


def test_hosts_that_all_differ_alike_are_uniform():
    numbers = cluster(host=[{"which": "0-3", "bandwidth": "1 Gbit/s", "latency": "1 ms"}]).uniform(4)
    assert isinstance(numbers, Uniform)
    assert (numbers.bandwidth_bps, numbers.latency_s, numbers.terms[0].latency_s) == (1e9, 1e-3, 1e-3)


FAULTS = [
    ({"gpus": 0}, ["gpus", "0", "greater than or equal to 1"]),
    ({"gpus": 4}, ["gpus = 4", "intra"]),
    ({"intra": INTRA}, ["intra", "gpus is 1"]),
    ({"gpus": 4, "intra": {**INTRA, "bandwidth": "0 GB/s"}}, ["intra.bandwidth", "'0 GB/s'", "above 0"]),
    ({"gpus": 4, "intra": {**INTRA, "share": True}}, ["intra.share", "unknown key", "shared"]),
    ({"bandwidth": "-1 Gbit/s"}, ["bandwidth", "'-1 Gbit/s'", "above 0"]),
    ({"upload": 1e9}, ["upload", "text with a unit"]),
    ({"efficiency": 1.5}, ["efficiency", "1.5", "less than or equal to 1"]),
    ({"efficiency": 0.0}, ["efficiency", "greater than 0"]),
    ({"host": [{"which": "x", "latency": "1 ms"}]}, ["host.0.which", "'x' means no host", "host0-host3"]),
    ({"host": [{"which": "3-1", "latency": "1 ms"}]}, ["host.0.which", "'3-1' means no host"]),
    ({"host": [{"which": True, "latency": "1 ms"}]}, ["host.0.which", "means no host"]),
    ({"host": [{"which": 1}]}, ["host.0", "give bandwidth, upload, download or latency"]),
    ({"host": [{"which": 1, "latency": "1 s"}, {"which": "0-1", "latency": "1 s"}]}, ["host1", "more than one"]),
    ({"host": [{"which": 1, "latency": "1 s"}, {"which": "1-9999999999", "latency": "1 s"}]}, ["more than one"]),
    ({"hosts": 2, "host": [{"which": 2, "latency": "1 s"}]}, ["host2 is not there", "host0 to host1"]),
    ({"fabric": {"kind": "torus"}}, ["fabric.kind", "'torus'", "'leaf-spine'"]),
    ({"fabric": {"spines": 2}}, ["fabric.spines", "'switch'", "core"]),
    ({"fabric": {"kind": "leaf-spine"}}, ["hosts_per_leaf, spines"]),
    ({"fabric": LEAVES}, ["either uplink or oversubscription"]),
    ({"fabric": {**LEAVES, "uplink": "1 Gbit/s", "oversubscription": 2.0}}, ["either uplink or oversubscription"]),
    ({"fabric": {**LEAVES, "uplink": "0 Gbit/s"}}, ["fabric.uplink", "above 0"]),
    ({"links": RING}, ["links", "'switch'", "allowed only with 'graph'"]),
    ({"pieces": [{"from": "1 KiB"}]}, ["pieces", "from 1024 B", "0 B"]),
    ({"pieces": [{"from": "0 B"}, {"from": "0 B"}]}, ["pieces", "rising sizes"]),
    ({"pieces": [{}]}, ["pieces.0.from", "this key is needed"]),
    ({"pieces": [{"from": "0 B", "for": "1 B"}]}, ["pieces.0.for", "unknown key", "from"]),
    ({"pieces": [{"from": "-1 B"}]}, ["pieces.0.from", "negative"]),
    ({"pieces": [{"from": "0 B", "intra_latency": "1 us"}]}, ["intra_latency", "gpus is 1"]),
    ({"background": [{"from": "host0", "to": "h1"}]}, ["background: to = 'h1'", "no node 'h1'", "host0 to"]),
    ({"background": [{"from": "host0", "to": "host0"}]}, ["background", "must differ"]),
    (
        {"background": [{"from": "host0", "to": "host1", "start": "2 s", "stop": "1 s"}]},
        ["stop = 1 s", "after start = 2 s"],
    ),
    ({"hosts": 2, "background": [{"from": "host0", "to": "host2"}]}, ["no node 'host2'", "host0 to host1"]),
    ({"profile": [{"link": "nics", "times": ["0 s"], "factors": []}]}, ["profile.0.factors"]),
    ({"profile": [{"link": "nics", "times": ["0 s"], "factors": [1.0, 2.0]}]}, ["1 times and 2 factors"]),
    ({"profile": [{"link": "nics", "times": ["1 s", "1 s"], "factors": [1.0, 2.0]}]}, ["times must rise"]),
    ({"profile": [{"link": "nics", "times": ["1 s"], "factors": [0.0]}]}, ["profile.0.factors.0", "greater than 0"]),
    ({"hosts": 2, "profile": [{"link": "x", "times": ["1 s"], "factors": [2.0]}]}, ["link = 'x'", "host0 up"]),
    ({"hosts": 2, "profile": 2 * [{"link": "nics", "times": ["1 s"], "factors": [2.0]}]}, ["has a profile already"]),
    ({"background": [{"from": "host0", "to": "host99999999"}]}, ["no node 'host99999999'", "host0 to host1048575"]),
    ({"hosts": 10**12}, ["hosts = 1000000000000", "less than or equal to 1048576"]),
    ({"hosts": 2**18, "gpus": 8, "intra": INTRA}, ["hosts = 262144", "gpus = 8", "at most 1048576 GPUs"]),
    ({"host": [{"which": "0-99999999999", "latency": "1 us"}]}, ["host99999999999", "host0 to host1048575"]),
    ({"fabric": {**LEAVES, "spines": 10**9, "uplink": "1 Gbit/s"}}, ["fabric.spines", "1048576"]),
    ({"price": {"per_gpu_hour": -1.0}}, ["price.per_gpu_hour", "greater than 0"]),
    ({**GRAPH, "hosts": None}, ["'graph' needs hosts"]),
    ({**GRAPH, "upload": "1 Gbit/s"}, ["upload", "links have bandwidths"]),
    ({**GRAPH, "host": [{"which": 0, "upload": "1 Gbit/s"}]}, ["host", "links have bandwidths"]),
    ({**GRAPH, "links": RING[:2]}, ["no way between host0 and host3"]),
    ({**GRAPH, "links": [*RING[:3], {**RING[3], "duplex": "one-way"}, *RING[:1]]}, ["'host0', 'host1'", "linked"]),
    ({**GRAPH, "links": [{**link, "duplex": "one-way"} for link in RING[:3]]}, ["no way between host0"]),
    ({**GRAPH, "links": [*RING, {"between": ["host0", "s0"]}]}, ["links: between", "no node 's0'"]),
    ({**GRAPH, "links": [*RING, {"between": ["host0", "host0"]}]}, ["two different nodes"]),
    ({**GRAPH, "links": [*RING, {"between": ["host0"]}]}, ["links.4.between"]),
    ({**GRAPH, "links": [{**RING[0], "bandwidth": "0 bit/s"}]}, ["links.0.bandwidth", "above 0"]),
    (
        {**GRAPH, "fabric": {"kind": "graph", "switches": ["s"]}, "background": [{"from": "s", "to": "host0"}]},
        ["no way between host0 and s"],
    ),
    ({**GRAPH, "fabric": {"kind": "graph", "switches": ["s", "s"]}}, ["'s'", "each name once"]),
    ({**GRAPH, "fabric": {"kind": "graph", "switches": ["host1"]}}, ["'host1'", "each name once"]),
    ({**GRAPH, "fabric": {"kind": "graph", "ecmp": "hash"}}, ["fabric.ecmp", "switches"]),
    ({**GRAPH, "routes": [{"path": ["host0", "host2"]}]}, ["routes", "no link from 'host0' to 'host2'"]),
    ({**GRAPH, "routes": [{"path": ["host0", "host9"]}]}, ["routes", "no node 'host9'"]),
    ({**GRAPH, "routes": [{"path": ["host0", "host1", "host0"]}]}, ["routes", "each node once"]),
    ({**GRAPH, "routes": [{"path": ["host0"]}]}, ["routes.0.path"]),
    ({**GRAPH, "routes": 2 * [{"path": ["host0", "host1"]}]}, ["two ways from 'host0' to 'host1'"]),
]


@pytest.mark.parametrize(("keys", "words"), FAULTS)
def test_every_mistake_is_one_clear_line(keys, words):
    with pytest.raises(InputError) as caught:
        cluster(**keys)
    said = str(caught.value)
    assert "\n" not in said
    for word in words:
        assert word in said


def test_more_workers_than_gpus_are_refused():
    small = cluster(hosts=2, gpus=4, intra=INTRA)
    small.topology(8)
    for refused in (small.topology, small.uniform):
        with pytest.raises(InputError, match=r"workers = 9: the cluster has 8 GPUs \(hosts = 2, gpus = 4\); .* most 8"):
            refused(9)
    with pytest.raises(InputError, match="workers = 0: allowed: 1 or more"):
        small.topology(0)


def test_what_is_too_large_to_be_laid_out_is_refused():
    leaves = cluster(fabric={"kind": "leaf-spine", "hosts_per_leaf": 1, "spines": 2**17, "uplink": "1 Gbit/s"})
    leaves.topology(8)
    with pytest.raises(InputError, match="fabric.spines = 131072: with 9 leaves; allowed: at most 1048576 uplinks"):
        leaves.topology(9)
    others = [{"from": "host0", "to": "host262143"}]
    far = cluster(gpus=8, intra=INTRA, background=others)
    with pytest.raises(InputError, match="workers = 1: they need 262144 hosts of 8 GPUs each; allowed: 1048576 GPUs"):
        far.topology(1)


def test_a_file_is_read_and_its_faults_are_said(tmp_path):
    path = tmp_path / "own.toml"
    text = 'bandwidth = "10 Gbit/s"\nlatency = "30 us"\nlaunch = "20 us"\n[[host]]\nwhich = "1-2"\nlatency = "1 ms"\n'
    path.write_text(text)
    assert read_cluster(path) == make_cluster(tomllib.loads(text))
    path.write_text(text.replace("latency", "latancy"))
    with pytest.raises(InputError) as caught:
        read_cluster(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert any("latancy: unknown key; did you mean latency" in line for line in lines)
    path.write_text("= 1")
    with pytest.raises(InputError, match="no valid TOML"):
        read_cluster(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_cluster(tmp_path / "none.toml")
