"""Collectives in closed form take as long as their schedules do when links are shared fairly."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire.compressors.errors import InputError
from gradwire.sim.network import (
    ALGORITHMS,
    ClosedFormError,
    all_reduce_path,
    all_reduce_seconds,
    critical_path,
    hierarchical_paths,
    parameter_server,
    parameter_server_path,
    ring_across_hosts,
    schedule,
)

from .collectives_oracle import Star, TwoTiers, played_s

MB = 10**6


def equal_star(nodes: int, bandwidth_bps, latency_s):
    """Links of one rate; the latency is one way from host to host."""
    return Star([bandwidth_bps / 8] * nodes, [bandwidth_bps / 8] * nodes, [latency_s / 2] * nodes)


# ------------------------------------------------------------------------------------------------------ worked numbers


def test_unequal_links_by_published_numbers():
    """Three collectives on four hosts, each with links of its own; the numbers are SimGrid's, by plain max-min."""
    rates = [1.25e9, 1.25e9, 1.25e8, 1.25e9]
    slow, even = Star(rates, rates, [25e-6, 25e-6, 1e-3, 25e-6]), Star(rates, rates, [25e-6] * 4)
    blocks = (1 * MB, 2 * MB, 3 * MB, 4 * MB)
    assert played_s(schedule("all-reduce", (100 * MB,) * 4), slow) == pytest.approx(1.206150000, rel=1e-12)
    assert played_s(schedule("all-gather", blocks), even) == pytest.approx(0.056150000, rel=1e-12)
    assert played_s(schedule("all-gather", blocks, (), "direct"), slow) == pytest.approx(0.073025000, rel=1e-12)


@pytest.mark.parametrize(
    ("operation", "algorithm", "sent", "more", "numbers"),
    [
        # hops, bytes, and bytes added, on the longest chain
        ("all-reduce", "ring", (80,) * 8, {}, (14, 140, 70)),
        ("all-reduce", "recursive-doubling", (80,) * 8, {}, (3, 240, 240)),
        ("all-reduce", "recursive-doubling", (80,) * 7, {}, (4, 320, 240)),
        # halves of 40, 20, 10 bytes, and back
        ("all-reduce", "halving-doubling", (80,) * 8, {}, (6, 140, 70)),
        # a fold of 80, halves of 40 and 20, and back
        ("all-reduce", "halving-doubling", (80,) * 7, {}, (6, 280, 140)),
        ("all-reduce", "direct", (80,) * 8, {}, (2, 140, 10)),
        # hosts of four: three chunks of 20, a half of one to the other host and back, three chunks again
        ("all-reduce", "hierarchical", (80,) * 8, {"groups": [range(4), range(4, 8)]}, (8, 140, 70)),
        ("reduce-scatter", "halving", (80,) * 8, {}, (3, 70, 70)),
        ("reduce-scatter", "direct", (80,) * 8, {}, (1, 70, 10)),
        ("all-gather", "bruck", (10,) * 8, {}, (3, 70, 0)),
        ("all-gather", "bruck", (10,) * 6, {}, (3, 50, 0)),
        ("all-gather", "direct", (1, 2, 3, 4), {}, (1, 12, 0)),
        # pieces of 20 over 3 links: the last one follows three others
        ("broadcast", "chain", (80, 0, 0, 0), {"peers": (0,), "pieces": 4}, (6, 120, 0)),
        ("all-to-all", "direct", (80,) * 8, {}, (1, 70, 0)),
    ],
)
def test_paths_by_hand(operation, algorithm, sent, more, numbers):
    path = critical_path(operation, sent, algorithm=algorithm, **more)
    assert (int(path.hops), int(path.bytes), int(path.reduced)) == numbers


# ----------------------------------------------------------------------------------------------------------- agreement


@st.composite
def collectives(draw):
    """Any collective, by any algorithm, of up to nine workers."""
    operation = draw(st.sampled_from(sorted(ALGORITHMS)))
    algorithm = draw(st.sampled_from(ALGORITHMS[operation]))
    workers = draw(st.integers(1, 9))
    if algorithm == "halving":
        workers = 1 << draw(st.integers(0, 3))
    sizes = st.one_of(st.integers(0, 40), st.integers(0, 10**9))
    size = draw(sizes)
    more = {}
    sent = [size] * workers
    if algorithm == "hierarchical":
        hosts, local = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        order = draw(st.permutations(range(hosts * local)))
        more["groups"] = [order[i * local : (i + 1) * local] for i in range(hosts)]
        sent = [size] * len(order)
    elif operation == "broadcast":
        more["peers"] = (draw(st.integers(0, workers - 1)),)
        sent = [size * (i == more["peers"][0]) for i in range(workers)]
    elif operation == "permute":
        more["peers"] = draw(st.permutations(range(workers)))
    if algorithm in ("chain", "double-tree"):
        more["pieces"] = draw(st.integers(1, 6))
    if operation in ("all-gather", "permute") or algorithm == "pairwise":
        sent = draw(st.lists(sizes, min_size=workers, max_size=workers))
    return (operation, sent), {"algorithm": algorithm, **more}


POINTS = st.tuples(
    st.floats(1e3, 1e12),
    st.one_of(st.just(0.0), st.floats(1e-9, 1e-1)),
    st.one_of(st.just(0.0), st.floats(1e-9, 1e-1)),
    st.one_of(st.just(math.inf), st.floats(1e3, 1e12)),
)


@settings(deadline=None, max_examples=250)
@given(collectives(), POINTS)
def test_every_algorithm_takes_what_its_closed_form_says(collective, point):
    (operation, sent), more = collective
    bandwidth, latency, launch, reduce_rate = point
    try:
        closed = float(critical_path(operation, sent, **more).seconds(*point))
    except ClosedFormError:
        assert more["algorithm"] == "double-tree"
        assert max(sent) < 1000
        return
    network = equal_star(len(sent), bandwidth, latency)
    played = played_s(schedule(operation, sent, **more), network, launch, reduce_rate)
    assert closed == pytest.approx(played, rel=1e-9, abs=0)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 33), st.integers(1, 5), st.one_of(st.integers(200, 5000), st.integers(10**4, 10**6)), POINTS)
def test_the_double_tree_is_exact_whatever_remains(workers, pieces, size, point):
    """Pieces differ by a byte where they do not divide the size; the chain that meets most larger ones counts."""
    closed = all_reduce_path("double-tree", size, workers, pieces=pieces).seconds(*point)
    network = equal_star(workers, *point[:2])
    played = played_s(schedule("all-reduce", (size,) * workers, (), "double-tree", pieces=pieces), network, *point[2:])
    assert float(closed) == pytest.approx(played, rel=1e-9, abs=0)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=6), st.booleans(), POINTS)
def test_direct_chunks_by_source_or_by_destination_are_exact(sizes, by_source, point):
    workers = len(sizes)
    chunks = np.broadcast_to(np.array(sizes)[:, None] if by_source else np.array(sizes), (workers, workers))
    closed = float(critical_path("all-to-all", sizes, (), "direct", chunks=chunks).seconds(*point))
    moves = schedule("all-to-all", sizes, (), "direct", chunks=chunks)
    assert closed == pytest.approx(played_s(moves, equal_star(workers, *point[:2]), *point[2:]), rel=1e-9, abs=0)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 7), st.data(), POINTS)
def test_pairwise_takes_any_matrix_of_chunks(workers, data, point):
    row = st.lists(st.integers(0, 10**6), min_size=workers, max_size=workers)
    chunks = np.array([data.draw(row) for _ in range(workers)])
    closed = float(critical_path("all-to-all", chunks.sum(axis=1), chunks=chunks).seconds(*point))
    moves = schedule("all-to-all", chunks.sum(axis=1), chunks=chunks)
    assert closed == pytest.approx(played_s(moves, equal_star(workers, *point[:2]), *point[2:]), rel=1e-9, abs=0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6), st.integers(1, 8), st.data(), POINTS)
def test_servers_take_what_the_closed_form_says(push, servers, data, point):
    workers = len(push)
    pull = data.draw(st.lists(st.integers(0, 10**6), min_size=workers, max_size=workers))
    if servers > 1:
        push, pull = push[:1] * workers, pull[:1] * workers
    closed = float(parameter_server_path(push, pull, workers, servers).seconds(*point))
    nodes = tuple(range(workers, workers + servers))
    network = equal_star(workers + servers, *point[:2])
    assert closed == pytest.approx(played_s(parameter_server(push, pull, nodes), network, *point[2:]), rel=1e-9, abs=0)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 10**5), st.booleans(), st.floats(1.0, 100.0))
def test_two_tiers_take_the_sum_of_their_paths(hosts, local, size, shared, slower):
    """Either each worker has a link out of its host, or all of a host share one."""
    workers = hosts * local
    inside, across = (1e9, 1e-6), (1e9 / slower, 1e-5)
    size = size * workers if shared else size
    groups = np.arange(workers).reshape(hosts, local).tolist()
    moves = schedule("all-reduce", (size,) * workers, (), "hierarchical", groups=groups)
    network = TwoTiers(local, inside, across)
    if not shared:
        network.links = lambda src, dst: {
            ("out" if src // local == dst // local else "up", src): (
                inside if src // local == dst // local else across
            )[0]
        }
    paths = hierarchical_paths(size, workers, hosts, shared)
    tiers = zip(paths, (inside, across), strict=True)
    closed = sum(float(path.seconds(8 * rate, latency, 0.5)) for path, (rate, latency) in tiers)
    assert closed == pytest.approx(played_s(moves, network, 0.5), rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["all-reduce", "reduce-scatter", "all-gather"]),
    st.integers(2, 4),
    st.integers(2, 4),
    st.integers(1, 10**5),
    st.floats(1.0, 100.0),
    st.one_of(st.just(math.inf), st.floats(1e8, 1e12)),
)
def test_a_ring_through_hosts_goes_at_the_pace_of_the_links_across(operation, hosts, local, size, slower, reduce_rate):
    workers = hosts * local
    network = TwoTiers(local, (1e9, 1e-6), (1e9 / slower, 2e-6))
    path = ring_across_hosts(operation, size, workers, hosts)
    played = played_s(schedule(operation, (size,) * workers), network, 0.25, reduce_rate)
    assert float(path.seconds(8e9 / slower, 2e-6, 0.25, reduce_rate)) == pytest.approx(played, rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=6), st.integers(0, 5), POINTS)
def test_a_worker_may_be_the_server(push, server, point):
    server %= len(push)
    others = [size * (i != server) for i, size in enumerate(push)]
    played = played_s(parameter_server(push, push, (server,)), equal_star(len(push), *point[:2]), *point[2:])
    closed = float(parameter_server_path(others, others, len(push)).seconds(*point))
    assert closed == pytest.approx(played, rel=1e-9, abs=0)


# -------------------------------------------------------------------------------------------------------------- limits


def test_what_has_no_closed_form_says_why():
    with pytest.raises(ClosedFormError, match="chunks of different sizes share links in a direct all-to-all"):
        critical_path("all-to-all", (10, 20, 30), algorithm="direct", chunks=[[0, 1, 2], [3, 0, 4], [5, 6, 0]])
    with pytest.raises(ClosedFormError, match="9 bytes are too few"):
        critical_path("all-reduce", (9,) * 8, algorithm="double-tree")
    with pytest.raises(ClosedFormError, match="unequal payloads share the links of several servers"):
        parameter_server_path([1, 2], [3, 3], 2, servers=2)
    with pytest.raises(ClosedFormError, match="workers of a host share its link with chunks of different sizes"):
        hierarchical_paths(9, 4, 2, shared=True)


def test_what_has_no_meaning_is_refused():
    with pytest.raises(InputError, match="algorithm 'rings' of all-reduce is unknown; did you mean ring"):
        critical_path("all-reduce", (1, 1), algorithm="rings")
    with pytest.raises(InputError, match="their number must divide that of the workers"):
        all_reduce_path("hierarchical", 10, 7, 2)
    with pytest.raises(InputError, match="'star' of all-reduce is unknown"):
        all_reduce_path("star", 10, 7)
    with pytest.raises(InputError, match="needs 2 hosts or more, of 2 workers or more each"):
        ring_across_hosts("all-reduce", 10, 4, 4)
    with pytest.raises(InputError, match="a size is -5; allowed: 0 or more"):
        all_reduce_path("ring", [3, -5], 4)
    with pytest.raises(InputError, match="a number of workers or servers is 0; allowed: 1 or more"):
        all_reduce_path("ring", 5, [4, 0])
    with pytest.raises(InputError, match="a number of workers or servers is 0; allowed: 1 or more"):
        parameter_server_path([1, 2], [3, 3], 2, servers=0)
    for numbers, line in (
        ((0.0, 1e-6, 0.0), "bandwidth_bps = 0; allowed: above 0"),
        ((math.nan, 1e-6, 0.0), "bandwidth_bps = nan; allowed: above 0"),
        (([1e9, -1e9], 1e-6, 0.0), r"bandwidth_bps = -1e\+09; allowed: above 0"),
        ((1e9, -1e-6, 0.0), "latency_s = -1e-06; allowed: finite numbers of 0 or more"),
        ((1e9, 1e-6, math.inf), "launch_s = inf; allowed: finite numbers of 0 or more"),
    ):
        with pytest.raises(InputError, match=line):
            all_reduce_seconds("ring", 5, 4, *numbers)


# -------------------------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS["all-reduce"] if name != "hierarchical"])
def test_sizes_and_workers_are_arrays(algorithm):
    sizes = np.array([[5 * 10**4], [10**6 + 7], [10**9 + 1]])
    workers = np.array([1, 2, 3, 5, 8, 24, 100])
    times = all_reduce_seconds(algorithm, sizes, workers, 1e10, 5e-5, 1e-5, 1e11)
    assert times.shape == (3, 7)
    for i, j in np.ndindex(times.shape):
        alone = critical_path("all-reduce", np.full(workers[j], sizes[i, 0]), algorithm=algorithm)
        assert times[i, j] == float(alone.seconds(1e10, 5e-5, 1e-5, 1e11))


@pytest.mark.parametrize(
    ("operation", "algorithm"),
    [("all-gather", "bruck"), ("all-gather", "direct"), ("all-to-all", "pairwise"), ("reduce-scatter", "halving")],
)
def test_collectives_are_arrays(operation, algorithm):
    sent = np.array([[[1, 5, 2, 9], [0, 0, 0, 0]], [[7, 7, 7, 7], [9, 1, 1, 3]]])
    if operation == "reduce-scatter":
        sent = np.broadcast_to(sent[..., :1], sent.shape)
    path = critical_path(operation, sent, algorithm=algorithm)
    for i, j in np.ndindex(2, 2):
        alone = critical_path(operation, sent[i, j], algorithm=algorithm)
        assert [int(part[i, j]) for part in path] == [int(part) for part in alone]


def test_ten_thousand_workers_take_no_time():
    sizes = np.arange(1, 1001) * 10**6
    for algorithm in ("ring", "halving-doubling", "recursive-doubling", "direct"):
        begin = time.perf_counter()
        all_reduce_seconds(algorithm, sizes, 10_000, 1e11, 1e-6, 1e-5)
        assert time.perf_counter() - begin < 0.1
    begin = time.perf_counter()
    assert int(critical_path("all-to-all", np.full(10_000, 10**9)).bytes) == 9_999 * 100_000
    assert time.perf_counter() - begin < 0.1
    path = all_reduce_path("halving-doubling", 8192 * 1000, 10_000)  # 1808 workers fold into 8192
    assert (int(path.hops), int(path.bytes)) == (2 * 13 + 2, 2 * 8191 * 1000 + 2 * 8192 * 1000)
