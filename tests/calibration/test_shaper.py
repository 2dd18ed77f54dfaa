"""Shapers found again from collectives that the simulator's own token buckets held up."""

import numpy as np
import pytest

from gradwire.analysis.calibration.collectives import Link, fit_network
from gradwire.analysis.measurement.records import CollectiveRecord
from gradwire.compressors.errors import InputError
from gradwire.sim.cluster.cluster import make_cluster
from gradwire.sim.cluster.sections import Shaper
from gradwire.sim.network.costs import Batch, Costs
from gradwire.sim.network.tokens import TokenBucket

LINK = Link(100e6, 250_000)
TRUE = Shaper.model_validate({"rate": "92 Mbit/s", "burst": "220 kB"})
FREE = make_cluster({"bandwidth": "5 Gbit/s", "latency": "0 s", "launch": "300 us"})
SIZES = (2 ** np.arange(10, 23)).tolist()


def behind(size, operation, pause_s, workers=4, repeats=40):
    """Return how long the last of many collectives takes, with a rest between them."""
    costs = Costs(FREE, workers)
    cost = costs.cost(Batch(operation, (), np.full((1, workers), size)))
    bucket, at = TokenBucket(TRUE, float(TRUE.burst)), np.zeros(())
    for _ in range(repeats):
        seconds = bucket.send([cost], at, 5e9, 0.0, 300e-6)
        at = at + seconds + pause_s
    return float(seconds[0])


def measured(pause_s, noise=0.0, link=LINK):
    draws = np.random.default_rng(1)
    return [
        CollectiveRecord(
            operation=operation,
            workers=4,
            bytes=size,
            pause_s=pause_s,
            link_bps=link.rate_bps,
            burst_bytes=link.burst_bytes,
            seconds=tuple(behind(size, operation, pause_s) * (1 + noise * draws.standard_normal(3))),
        )
        for operation in ("all-reduce", "all-gather")
        for size in SIZES
    ]


def test_rate_and_burst_are_found_again_in_noise():
    fit = fit_network(measured(0.05, 0.02) + measured(0.0, 0.02), LINK)
    assert fit.cluster.shaper.rate == pytest.approx(TRUE.rate, rel=0.02)
    assert fit.cluster.shaper.burst == pytest.approx(TRUE.burst, rel=0.1)
    assert fit.cluster.launch == pytest.approx(300e-6, rel=0.1)
    assert fit.errors["all-gather, shaped"].median < 0.03
    assert fit.unused > 0  # small ones, back to back: nobody knows how full the bucket was


def test_the_range_says_what_was_measured_behind_the_shaper_too():
    fit = fit_network(measured(0.05), LINK)
    assert {(r.operation, r.from_bytes, r.to_bytes, r.workers) for r in fit.cluster.measured} == {
        ("all-reduce", SIZES[0], SIZES[-1], (4, 4)),
        ("all-gather", SIZES[0], SIZES[-1], (4, 4)),
    }


def test_a_known_shaper_is_taken_and_held_against_what_was_measured():
    known = Shaper.model_validate({"rate": "46 Mbit/s", "burst": "220 kB"})
    fit = fit_network(measured(0.05), LINK, known)
    assert fit.cluster.shaper == known
    assert fit.errors["all-reduce, shaped"].worst == pytest.approx(1.0, abs=0.1)  # half the rate takes twice as long


def test_other_links_say_what_small_collectives_take_and_no_more():
    slower = Link(50e6, 250_000)
    fit = fit_network(measured(0.1, link=slower) + measured(0.05), LINK)
    assert fit.cluster.shaper.rate == pytest.approx(TRUE.rate, rel=0.01)


def test_what_cannot_be_told_is_said_in_one_line():
    rested = measured(0.05)
    with pytest.raises(InputError, match="no times of collectives that a link of 100 Mbit/s held up: measure larger"):
        fit_network([record for record in rested if record.bytes < 30_000], LINK)
    with pytest.raises(InputError, match="no times of collectives that no shaper held up"):
        fit_network([record for record in rested if record.bytes > 200_000], LINK)
