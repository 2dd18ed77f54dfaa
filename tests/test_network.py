"""Collectives: schedules move the textbook volume, and playing them takes what the closed form says."""

import math
from functools import cache

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire.sim.cluster import Cluster
from gradwire.sim.network import Network, Schedule, Transfer, critical_path, schedule
from gradwire.sim.units import format_bandwidth, format_duration

OPERATIONS = ("all-reduce", "reduce-scatter", "all-gather", "broadcast", "all-to-all", "permute")
TEN_GBIT = (10e9, 50e-6, 0.0)
MB = 10**6


def make_cluster(bandwidth, latency, launch: float):
    return Cluster(
        bandwidth=format_bandwidth(bandwidth), latency=format_duration(latency), launch=format_duration(launch)
    )


def played_s(transfers, cluster: Cluster, workers):
    """The time that the engine needs for a schedule."""
    env = simpy.Environment()
    env.run(until=Network(env, cluster, workers).play(transfers, cluster.terms(0)))
    return float(env.now)


def both(operation, sent, peers=(), point=TEN_GBIT):
    """The time by the engine and in closed form."""
    by_events = played_s(schedule(operation, sent, peers), make_cluster(*point), len(sent))
    return by_events, float(critical_path(operation, sent, peers).seconds(*point))


# ----------------------------------------------------------------------------------------------- hand-computed numbers


@pytest.mark.parametrize(
    ("operation", "sent", "peers", "seconds"),
    [
        # 6 rounds of 50 us and 25 MB at 1.25 GB/s
        ("all-reduce", (100 * MB,) * 4, (), 6 * (50e-6 + 0.02)),
        # 10 bytes on 4 hosts: chunks of 3, 3, 2, 2
        ("all-reduce", (10,) * 4, (), 6 * (50e-6 + 3 / 1.25e9)),
        ("reduce-scatter", (100 * MB,) * 4, (), 3 * (50e-6 + 0.02)),
        # the block of 4 MB goes round
        ("all-gather", (1 * MB, 2 * MB, 3 * MB, 4 * MB), (), 3 * (50e-6 + 3.2e-3)),
        # 1 -> 2 -> 4 -> 5 holders
        ("broadcast", (0, 0, 10 * MB, 0, 0), (2,), 3 * (50e-6 + 8e-3)),
        # 3 chunks of 1 MB leave each host, one after the other
        ("all-to-all", (4 * MB,) * 4, (), 3 * (50e-6 + 0.8e-3)),
        ("permute", (5 * MB, 9 * MB, 1 * MB, 9 * MB), (2, -1, 0, 3), 50e-6 + 4e-3),
        ("all-reduce", (100 * MB,), (), 0.0),
        ("all-gather", (0, 0, 0), (), 0.0),
        ("permute", (7, 7), (-1, -1), 0.0),
        ("permute", (7, 7), (0, 1), 0.0),
    ],
)
def test_durations_by_hand(operation, sent, peers, seconds):
    assert both(operation, sent, peers) == pytest.approx((seconds, seconds), rel=1e-12)


def test_the_launch_is_paid_once_and_only_if_something_is_sent():
    point = (10e9, 50e-6, 1.0)
    assert both("all-reduce", (100 * MB,) * 4, point=point) == pytest.approx((1.1203, 1.1203), rel=1e-12)
    assert both("all-reduce", (0,) * 4, point=point) == (0, 0)
    assert both("all-reduce", (8,), point=point) == (0, 0)


def test_a_ring_has_dependencies_and_no_barriers():
    """Block i - k goes from i in round k, once i has it and its link is free."""
    assert schedule("all-gather", (10, 11, 12)).transfers() == [
        Transfer(0, 1, 10, ()),
        Transfer(1, 2, 11, ()),
        Transfer(2, 0, 12, ()),
        Transfer(0, 1, 12, (2, 0)),
        Transfer(1, 2, 10, (0, 1)),
        Transfer(2, 0, 11, (1, 2)),
    ]


# --------------------------------------------------------------------------------------------------- agreement, volumes


@st.composite
def collectives(draw):
    """Any collective that a wire log may hold."""
    operation = draw(st.sampled_from(OPERATIONS))
    workers = draw(st.integers(1, 17))
    sizes = st.one_of(st.integers(0, 40), st.integers(0, 10**9))
    if operation in ("all-reduce", "reduce-scatter"):
        return operation, (draw(sizes),) * workers, ()
    if operation == "broadcast":
        root = draw(st.integers(0, workers - 1))
        size = draw(sizes)
        return operation, tuple(size * (i == root) for i in range(workers)), (root,)
    sent = tuple(draw(st.lists(sizes, min_size=workers, max_size=workers)))
    if operation == "permute":
        peers = draw(st.permutations(range(workers)))
        silent = draw(st.lists(st.booleans(), min_size=workers, max_size=workers))
        return operation, sent, tuple(-1 if quiet else peer for peer, quiet in zip(peers, silent, strict=True))
    return operation, sent, ()


POINTS = st.tuples(
    st.floats(1e3, 1e12),
    st.one_of(st.just(0.0), st.floats(1e-9, 1e-1)),
    st.one_of(st.just(0.0), st.floats(1e-9, 1e-1)),
)


@settings(deadline=None, max_examples=150)
@given(collectives(), POINTS)
def test_engine_and_closed_form_agree(collective, point):
    operation, sent, peers = collective
    by_events, closed = both(operation, sent, peers, point)
    assert closed == pytest.approx(by_events, rel=1e-9, abs=0)


def near_even(size, parts: int):
    """Whole parts of a size, as numpy cuts an array of this length."""
    return [len(part) for part in np.array_split(np.empty(size, np.int8), parts)]


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 9), st.integers(1, 200))
def test_rings_carry_the_textbook_volume_over_each_link(workers, size: int):
    chunk = near_even(size, workers)
    carried = dict.fromkeys(range(workers), 0)
    for transfer in schedule("all-reduce", (size,) * workers).transfers():
        assert transfer.dst == (transfer.src + 1) % workers
        carried[transfer.src] += transfer.bytes
    # each half of an all-reduce spares every link one chunk
    assert carried == {i: 2 * size - chunk[(i + 1) % workers] - chunk[(i + 2) % workers] for i in range(workers)}
    assert sum(carried.values()) == 2 * (workers - 1) * size
    assert schedule("reduce-scatter", (size,) * workers).bytes.sum() == (workers - 1) * size


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 100), min_size=2, max_size=9))
def test_everyone_receives_what_the_operation_promises(sent: list[int]):
    workers = len(sent)

    def received(operation, sizes, peers=()):
        totals = [0] * workers
        for transfer in schedule(operation, sizes, peers).transfers():
            totals[transfer.dst] += transfer.bytes
        return totals

    assert received("all-gather", sent) == [sum(sent) - own for own in sent]
    chunks = [near_even(size, workers) for size in sent]
    from_others = [sum(chunks[src][dst] for src in range(workers) if src != dst) for dst in range(workers)]
    assert received("all-to-all", sent) == from_others
    size = sent[0]
    assert received("broadcast", [size * (i == 1) for i in range(workers)], (1,)) == [
        0 if i == 1 else size for i in range(workers)
    ]
    shift = [(i + 1) % workers for i in range(workers)]
    assert received("permute", sent, shift) == sent[-1:] + sent[:-1]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_engine_plays_any_schedule_along_its_longest_chain(data):
    transfers: list[Transfer] = []
    for i in range(data.draw(st.integers(1, 12))):
        after = data.draw(st.sets(st.integers(0, i - 1))) if i else set()
        transfers.append(Transfer(2 * i, 2 * i + 1, data.draw(st.integers(0, 9)), tuple(after)))  # nothing shared

    @cache
    def end(i: int):
        return max((end(j) for j in transfers[i].after), default=0.0) + 0.5 + transfers[i].bytes

    longest = max(end(i) for i in range(len(transfers)))
    assert played_s(Schedule.of(transfers), make_cluster(8.0, 0.5, 0.25), 24) == 0.25 + longest


def test_the_closed_form_takes_arrays():
    sent = np.array([[[1, 5, 2], [0, 0, 0]], [[7, 7, 7], [9, 1, 1]]])
    bandwidth = np.array([1e3, 1e4])
    times = critical_path("all-gather", sent).seconds(bandwidth, 0.1, 0.2)
    assert times.shape == (2, 2)
    for i, j in np.ndindex(2, 2):
        alone = critical_path("all-gather", sent[i, j]).seconds(bandwidth[j], 0.1, 0.2)
        assert times[i, j] == float(alone)
    points = critical_path("all-reduce", (64,) * 4).seconds(np.full((5, 3), 1e3), np.zeros(3), 0.0)
    assert points.shape == (5, 3)
    assert np.all(points == 6 * 16 * 8 / 1e3)


def test_rings_scale_to_ten_thousand_workers():
    path = critical_path("all-reduce", np.full(10_000, 10**9))
    assert (int(path.hops), int(path.bytes)) == (19_998, 19_998 * 100_000)


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match="buffers of different lengths, which cannot be summed"):
        critical_path("all-reduce", (1, 2))
    for refuse in (critical_path, schedule):
        with pytest.raises(ValueError, match="two workers send to the same one"):
            refuse("permute", (1, 1, 1), (2, 2, -1))


def test_a_tree_doubles_its_holders():
    for workers in range(1, 40):
        hops = int(critical_path("broadcast", [8] + [0] * (workers - 1), (0,)).hops)
        assert hops == math.ceil(math.log2(workers))
