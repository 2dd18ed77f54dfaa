"""Who leads, and where another one does: roots by hand, and against a search that tries everything."""

from math import log

import numpy as np
import pytest

from gradwire.analysis.advice.cases import Point
from gradwire.analysis.advice.choice import UNCOMPRESSED, Change, _tipping, flips, leader, scores, tippings
from gradwire.analysis.verdict import TIE
from gradwire.compressors.errors import InputError
from gradwire.sim.cluster.cluster import make_cluster
from gradwire.sim.step.overhead import Overhead

from .toycases import (
    BANDWIDTH,
    BLOCK,
    ELEMENTS,
    NETWORK,
    WORKERS,
    block_codec_s,
    block_log,
    block_s,
    case,
    dense_log,
    dense_s,
)

BLOCK_SCHEME = "randomblock(density=0.01)"
MOVES = 2 * (WORKERS - 1)


def both(**options):
    return [case(dense_log(), **options), case(block_log(), **options)]


def found(cases, key):
    return next(tipping for tipping in tippings(cases) if tipping.key == key)


def test_scores_by_hand():
    assert scores(both()) == pytest.approx({UNCOMPRESSED: dense_s(), BLOCK_SCHEME: TIE * block_s()}, rel=1e-12)
    assert leader(scores(both())) == BLOCK_SCHEME


def test_the_best_uncompressed_case_stands_for_all():
    slow = case(dense_log(), cluster=make_cluster(NETWORK | {"bandwidth": "1 Gbit/s"}))
    assert scores([slow, *both()])[UNCOMPRESSED] == pytest.approx(dense_s(), rel=1e-12)


DEAR = 400.0
"""An overhead factor at which a block takes some milliseconds to encode and decode."""


def dear(bandwidth="80 Gbit/s"):
    return both(cluster=make_cluster(NETWORK | {"bandwidth": bandwidth}), overhead=Overhead(factor=DEAR))


def test_a_faster_network_flips_the_answer_where_it_does_by_hand():
    """Solve compute + launch + moves (latency + bits / (f B)) = TIE (the same of a block + its cost) for f."""
    fixed_s = TIE * block_s(cost=DEAR, bandwidth=float("inf")) - dense_s(bandwidth=float("inf"))
    bits = 32 * (ELEMENTS / WORKERS - TIE * BLOCK / WORKERS)
    expected = MOVES * bits / (2 * BANDWIDTH) / fixed_s
    assert 1 < expected < 16
    tipping = found(dear("16 Gbit/s"), "cluster.bandwidth")
    assert tipping.changes == (Change(pytest.approx(expected, rel=1e-5), UNCOMPRESSED, flips=True),)
    assert tipping.lowest == pytest.approx(1 / 16)
    assert expected < tipping.highest < 2 * expected  # no search beyond the flip


def test_dearer_compression_flips_the_answer_where_it_does_by_hand():
    expected = (dense_s(bandwidth=10.0) / TIE - block_s(cost=0.0, bandwidth=10.0)) / (DEAR * block_codec_s())
    assert 1 < expected < 16
    changes = found(dear(), "overhead.factor").changes
    assert changes == (Change(pytest.approx(expected, rel=1e-5), UNCOMPRESSED, flips=True),)


def test_without_a_change_that_is_said():
    """Latencies of nearly equal exchanges: dense pays as much as a block."""
    tipping = found(both(), "cluster.launch")
    assert tipping.changes == ()
    assert (tipping.lowest, tipping.highest) == (pytest.approx(1 / 16), pytest.approx(16))
    assert {tipping.key for tipping in tippings(both())} == {
        "cluster.bandwidth", "cluster.latency", "cluster.launch", "compute times", "overhead.factor",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_changes_against_a_dense_grid(seed):
    """Random rivals, each a + b f + c / f: the first change and the first flip, to the grid's precision."""
    draws = np.random.Generator(np.random.Philox(seed))
    terms = dict(zip((UNCOMPRESSED, "a", "b", "c"), draws.uniform(0.1, 1.0, (4, 3)).tolist(), strict=True))

    def at(factor):
        return {name: a + b * factor + c / factor for name, (a, b, c) in terms.items()}

    here = leader(at(1.0))
    tipping = _tipping("x", at)
    for side in (-1, 1):
        grid = np.exp(side * np.linspace(0, log(16), 20_001))
        leaders = [leader(at(factor)) for factor in grid.tolist()]
        own = sorted((c for c in tipping.changes if side * log(c.factor) > 0), key=lambda c: abs(log(c.factor)))
        moved = next((i for i, name in enumerate(leaders) if name != here), None)
        flipped = next((i for i, name in enumerate(leaders) if (name == UNCOMPRESSED) != (here == UNCOMPRESSED)), None)
        expected = [i for i in dict.fromkeys((moved, flipped)) if i is not None]
        assert [c.factor for c in own] == pytest.approx([grid[i] for i in expected], rel=3e-4)
        assert [c.leader for c in own] == [leaders[i] for i in expected]
        assert [c.flips for c in own] == [i == flipped for i in expected]


def test_a_search_ends_where_nothing_can_be_timed():
    def at(factor):
        if factor > 3:
            raise InputError("too large")
        return {UNCOMPRESSED: 1.0, "a": 10.0 / factor}

    tipping = _tipping("x", at)
    assert tipping.changes == ()
    assert 2 < tipping.highest <= 3
    assert tipping.lowest == pytest.approx(1 / 16)


def test_costs_that_nobody_measured_flip_the_answer_where_they_do_by_hand():
    times_s = {factor: block_s(cost=factor * DEAR, bandwidth=10.0) for factor in (1.0, 3.0, 1 / 3)}
    dense = dense_s(bandwidth=10.0)
    assert TIE * times_s[1.0] < dense < TIE * times_s[3.0]
    larger, smaller = flips(dear())
    assert (larger.factor, larger.leader, larger.flips) == (3.0, UNCOMPRESSED, True)
    assert (smaller.factor, smaller.leader, smaller.flips) == (1 / 3, BLOCK_SCHEME, False)
    assert larger.gain == pytest.approx(dense / times_s[3.0], rel=1e-12)
    assert smaller.gain == pytest.approx(dense / times_s[1 / 3], rel=1e-12)


def test_by_events_the_search_is_coarse_and_still_right():
    """Hosts that differ need the event engine; a bottleneck of 1 Gbit/s is as if all had it."""
    unequal = make_cluster(NETWORK | {"host": [{"which": 3, "bandwidth": "4 Gbit/s"}]})
    cases = both(cluster=unequal)
    assert all(one.by_events for one in cases)
    slower = [one.seconds(Point(compute=1.0)) for one in cases]
    assert slower == pytest.approx([dense_s(bandwidth=0.5), block_s(bandwidth=0.5)], rel=1e-3)
    costly = both(cluster=unequal, overhead=Overhead(factor=1000.0))
    (change,) = found(costly, "overhead.factor").changes
    expected = (dense_s(bandwidth=0.5) / TIE - block_s(cost=0.0, bandwidth=0.5)) / (1000 * block_codec_s())
    assert 1 < expected < 16
    assert (change.factor, change.leader) == (pytest.approx(expected, rel=0.05), UNCOMPRESSED)
