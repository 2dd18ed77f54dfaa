"""Traffic that shares links: max-min fair rates against golden cases, a plain simulation, and numbers by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment

from gradwire.compressors.errors import InputError
from gradwire.sim.cluster import load_cluster
from gradwire.sim.cluster.topology import Terms
from gradwire.sim.network import Network
from gradwire.sim.network.schedule import Schedule, Transfer
from gradwire.sim.network.traffic import Traffic

from .flowgraphs import HandWritten, plain_filling, star

GOLDEN = json.loads((Path(__file__).parent / "data" / "max_min_flows.json").read_text())


FREE = Terms(0, 0.0, 0.0, 0.0, 1.0)
"""What costs nothing besides sharing links."""


def end_s(topology, transfers, start=None):
    """When each transfer of a graph ends."""
    schedule = Schedule.of(transfers)
    if isinstance(topology, WithDelays):
        schedule = replace(schedule, src=schedule.src + MANY * np.arange(len(schedule)))
    road = Traffic(topology)
    number = road.add(schedule, 0.0, FREE, earliest_s=np.array(start or 0.0))
    assert road.advance(np.inf)
    assert road.done(number)
    return road.end_s(schedule).tolist()


class WithDelays:
    """A topology in which transfer t waits ``delay[t]`` more: every transfer gets a pair of workers of its own."""

    def __init__(self, topology, delay):
        self.topology = topology
        self.delay = np.array(delay)
        self.capacity_bps, self.background, self.changes = topology.capacity_bps, topology.background, topology.changes

    def routes(self, src, dst, terms):
        return self.topology.routes(src % MANY, dst % MANY, terms)._replace(latency_s=self._latency(src, dst, terms))

    def _latency(self, src, dst, terms):
        return self.topology.routes(src % MANY, dst % MANY, terms).latency_s + self.delay[src // MANY]


MANY = 1000

# ---------------------------------------------------------------------------------------------------- golden data


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: str(case["seed"]))
def test_golden_graphs_of_simgrid(case):
    """Random graphs that SimGrid 3.32 has played."""
    place = {t["id"]: i for i, t in enumerate(case["transfers"])}
    transfers = [Transfer(t["src"], t["dst"], t["size"], tuple(place[i] for i in t["deps"])) for t in case["transfers"]]
    delay, start = ([t[key] for t in case["transfers"]] for key in ("delay", "start"))
    topology = star(case["up"], case["down"], case["lat"], case["core"])
    waiting = WithDelays(topology, delay)
    expected = [case["finish"][t["id"]] for t in case["transfers"]]
    assert end_s(waiting, transfers, start) == pytest.approx(expected, rel=1e-12)


def ring_all_reduce(size, hosts):
    """Written from the definition, transfer by transfer."""
    chunks = [size // hosts + (i < size % hosts) for i in range(hosts)]
    rounds = range(2 * (hosts - 1))
    place = {(k, i): k * hosts + i for k in rounds for i in range(hosts)}
    return [
        Transfer(
            i, (i + 1) % hosts, chunks[(i - k) % hosts], (place[k - 1, i], place[k - 1, (i - 1) % hosts]) if k else ()
        )
        for k in rounds
        for i in range(hosts)
    ]


def test_worked_ring_all_reduce_on_unequal_hosts():
    """SimGrid: 1.206150000 s, in which the slow host's links carry six chunks."""
    rates = [1.25e9, 1.25e9, 1.25e8, 1.25e9]
    ends = end_s(star(rates, rates, [25e-6, 25e-6, 1e-3, 25e-6]), ring_all_reduce(10**8, 4))
    assert max(ends) == pytest.approx(1.206150000, rel=1e-9)


def test_worked_ring_all_gather_of_unequal_blocks():
    """SimGrid: 0.056150000 s."""
    rates, sizes = [1.25e9, 1.25e9, 1.25e8, 1.25e9], [10**6, 2 * 10**6, 3 * 10**6, 4 * 10**6]
    transfers = [
        Transfer(i, (i + 1) % 4, sizes[(i - k) % 4], ((k - 1) * 4 + i, (k - 1) * 4 + (i - 1) % 4) if k else ())
        for k in range(3)
        for i in range(4)
    ]
    assert max(end_s(star(rates, rates, [25e-6] * 4), transfers)) == pytest.approx(0.056150000, rel=1e-9)


def test_worked_direct_all_gather():
    """SimGrid: 0.073025000 s, everyone's block to everyone else at once."""
    rates, sizes = [1.25e9, 1.25e9, 1.25e8, 1.25e9], [10**6, 2 * 10**6, 3 * 10**6, 4 * 10**6]
    transfers = [Transfer(i, j, sizes[i]) for i in range(4) for j in range(4) if i != j]
    assert max(end_s(star(rates, rates, [25e-6, 25e-6, 1e-3, 25e-6]), transfers)) == pytest.approx(
        0.073025000, rel=1e-9
    )


# ------------------------------------------------------------------------------------------- a plain simulation


def random_graph(seed):
    """A random topology whose ways cross up to four shared links, and a random graph of transfers on it."""
    rng = np.random.default_rng(seed)
    workers, links = int(rng.integers(2, 9)), int(rng.integers(1, 12))
    capacity = 10 ** rng.uniform(6, 10, links)
    if seed % 3 == 0:
        capacity[:] = capacity[0]  # ties everywhere
    ways = {
        (i, j): (
            sorted(rng.choice(links, min(links, int(rng.integers(1, 5))), replace=False).tolist()) if i != j else [],
            float(rng.choice([0.0, 1e-5, 1e-3])),
        )
        for i in range(workers)
        for j in range(workers)
    }
    count = int(rng.integers(1, 40))
    transfers, delay, start = [], [], []
    for t in range(count):
        after = rng.choice(t, min(t, int(rng.integers(0, 4))), replace=False).tolist() if t else []
        size = int(rng.choice([0, 1, 10**6, int(10 ** rng.uniform(1, 8))]))
        transfers.append(Transfer(int(rng.integers(workers)), int(rng.integers(workers)), size, tuple(after)))
        delay.append(float(rng.choice([0.0, 1e-4])))
        start.append(float(rng.choice([0.0, 0.0, rng.uniform(0, 0.1)])))
    return HandWritten(capacity, ways), transfers, delay, start


@pytest.mark.parametrize("block", range(8))
def test_random_graphs_agree_with_plain_progressive_filling(block):
    """400 graphs in all, a third of them with links of equal capacity, where many flows are tied."""
    for seed in range(50 * block, 50 * (block + 1)):
        topology, transfers, delay, start = random_graph(seed)
        expected = plain_filling(topology, transfers, delay, start)
        assert end_s(WithDelays(topology, delay), transfers, start) == pytest.approx(expected, rel=1e-9, abs=1e-15), (
            seed
        )


@given(st.integers(1, 6), st.integers(1, 30), st.floats(1e3, 1e12))
@settings(deadline=None, max_examples=50)
def test_equal_transfers_over_one_way_share_it_and_end_together(ways, each, rate):
    """n flows on a link of rate r, b bytes each: n b / r; they are one class, solved at the start and at the end."""
    topology = HandWritten([8 * rate], {(i, ways): ([0], 0.0) for i in range(ways)})
    transfers = [Transfer(i, ways, 1000) for i in range(ways) for _ in range(each)]
    road = Traffic(topology)
    road.add(Schedule.of(transfers), 0.0, FREE)
    assert road.advance(np.inf)
    assert road.now_s == pytest.approx(1000 * ways * each / rate, rel=1e-12)
    assert road.solutions == 2
    assert road.carried_bytes.tolist() == [1000 * ways * each]


def test_only_what_a_change_can_reach_is_solved_again():
    """Two pairs that share nothing: one's end leaves the other's rate alone; a third flow on its link does not."""
    topology = HandWritten([8e6, 8e6], {(0, 1): ([0], 0.0), (2, 3): ([1], 0.0)})
    road = Traffic(topology)
    road.add(Schedule.of([Transfer(0, 1, 10**6), Transfer(2, 3, 3 * 10**6), Transfer(2, 3, 10**6, (0,))]), 0.0, FREE)
    assert road.advance(np.inf)
    # 1 s alone, then the second link is shared for 2 s: 1 MB of each
    assert road.now_s == pytest.approx(4.0, rel=1e-12)


# ------------------------------------------------------------------------------------------- what else happens


def test_reductions_delay_what_waits_for_them():
    topology = star([1e6, 1e6], [1e6, 1e6], [0, 0])
    transfers = [Transfer(0, 1, 10**6, (), reduces=True), Transfer(1, 0, 10**6, (0,))]
    schedule = Schedule.of(transfers)
    road = Traffic(topology)
    road.add(schedule, 0.0, FREE._replace(launch_s=0.5), reduce_bytes_s=2e6)
    assert road.advance(np.inf)
    assert road.end_s(schedule).tolist() == pytest.approx([0.5 + 1 + 0.5, 3.0], rel=1e-12)


def test_headers_take_their_share_of_the_links():
    topology = star([1e6, 1e6], [1e6, 1e6], [0, 0])
    road = Traffic(topology)
    road.add(Schedule.of([Transfer(0, 1, 900_000)]), 0.0, FREE._replace(efficiency=0.9))
    assert road.advance(np.inf)
    assert road.now_s == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(
    ("rate_bps", "start_s", "stop_s", "ends_s"),
    [
        (np.inf, 0.0, np.inf, 2.0),  # half of the link for each
        (2e6, 0.0, np.inf, 4 / 3),  # a quarter of the link is taken
        (np.inf, 0.5, 1.0, 1.25),  # half a second at half the rate
        (np.inf, 3.0, np.inf, 1.0),
        (np.inf, 0.0, 0.0, 1.0),
    ],
)
def test_background_takes_its_fair_share(rate_bps, start_s, stop_s, ends_s):
    others = [((0, 1), rate_bps, start_s, stop_s)]
    topology = star([1e6, 1e6], [1e6, 1e6], [0, 0], background=others)
    assert end_s(topology, [Transfer(0, 1, 10**6)]) == pytest.approx([ends_s], rel=1e-12)


@pytest.mark.parametrize("stop_s", [0.5, np.inf])
def test_background_is_not_in_what_links_have_carried(stop_s):
    topology = star([1e6, 1e6], [1e6, 1e6], [0, 0], background=[((0, 1), np.inf, 0.0, stop_s)])
    road = Traffic(topology)
    road.add(Schedule.of([Transfer(0, 1, 10**6)]), 0.0, FREE)
    assert road.advance(np.inf)
    assert road.carried_bytes.tolist() == [1e6, 0, 0, 1e6]


def test_capacities_that_change_with_time():
    """1 MB/s for a second, a tenth of it for two, then all again: 1 + 0.2 MB by then, 0.8 s for the rest."""
    changes = [(1.0, 0, 0.1), (3.0, 0, 1.0)]
    topology = star([1e6, 1e6], [1e7, 1e7], [0, 0], changes=changes)
    assert end_s(topology, [Transfer(0, 1, 2 * 10**6)]) == pytest.approx([3.8], rel=1e-12)


def test_collectives_that_overlap_share_and_those_of_the_past_are_forgotten():
    topology = star([1e6, 1e6], [1e6, 1e6], [0, 0])
    road = Traffic(topology)
    one = Schedule.of([Transfer(0, 1, 10**6)])
    first, second = road.add(one, 0.0, FREE), road.add(one, 0.5, FREE)
    assert road.advance(np.inf)
    assert (road.done(first), road.done(second)) == (True, False)
    assert road.now_s == pytest.approx(1.5, rel=1e-12)
    assert not road.advance(1.6)
    assert road.advance(np.inf)
    assert road.now_s == pytest.approx(2.0, rel=1e-12)
    third = road.add(one, 5.0, FREE)
    assert road.advance(np.inf)
    assert [road.done(number) for number in (first, second, third)] == [True] * 3
    assert road.now_s == pytest.approx(6.0, rel=1e-12)
    assert road.carried_bytes.tolist() == [3e6, 0, 0, 3e6]


def test_a_link_without_capacity_stands_still():
    road = Traffic(star([1e6, 1e6], [1e6, 1e6], [0, 0], changes=[(0.5, 0, 0.0)]))
    road.add(Schedule.of([Transfer(0, 1, 10**6)]), 0.0, FREE)
    assert not road.advance(np.inf)


# ----------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("transfers", "said"),
    [
        ([Transfer(0, 1, -5)], "transfer 0 has -5 bytes; a transfer has 0 bytes or more"),
        ([Transfer(0, 1, 5), Transfer(0, -1, 5)], "transfer 1 is of worker -1; workers count from 0"),
        ([Transfer(0, 1, 5, (3,))], "a transfer waits for one that is not among the schedule's 1"),
        (
            [Transfer(0, 1, 5, (1,)), Transfer(0, 1, 5, (2,)), Transfer(0, 1, 5, (1,))],
            "transfers 0, 1, 2 wait for each other",
        ),
    ],
)
def test_schedules_that_cannot_be_played(transfers, said):
    with pytest.raises(InputError, match=said):
        Schedule.of(transfers)


def built(sizes, after):
    """Transfers from worker 0 to 1, each after one other, put together without a check."""
    count = len(sizes)
    ends = np.zeros(count, np.int64), np.ones(count, np.int64)
    return Schedule(*ends, np.array(sizes), np.arange(count + 1), np.array(after), np.zeros(count, np.bool_))


def test_unchecked_schedules_are_refused_where_they_are_played():
    """Sizes when they are put in, which takes no time; a cycle when nothing moves any more."""
    cluster = load_cluster("ethernet-10g")
    for schedule, said in (
        (built([5, -5], [1, 0]), "transfer 1 has -5 bytes"),
        (built([5, 5], [1, 0]), "transfers 0, 1 wait for each other in a cycle"),
    ):
        env = Environment()
        network = Network(env, cluster, 2)
        with pytest.raises(InputError, match=said):
            env.run(until=network.play(schedule, cluster.terms(5)))
