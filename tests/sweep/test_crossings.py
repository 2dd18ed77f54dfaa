"""Crossings in words and as lines, from surfaces made up so that they are known."""

import numpy as np
import pytest
import xarray as xr

from gradwire.analysis.sweep.breakeven import BYS, MOST_ROOTS
from gradwire.analysis.sweep.crossings import crossings, lines, setting, setting_in_words

LABELS = ["dense(dtype=fp32)", "ef(topk(density))", "qsgd(bits=4)"]
DENSITIES, COSTS, BANDWIDTHS = [0.01, 0.1], [0.0, 1.0, 10.0], [1e8, 1e9, 1e10]


def made_up(bandwidths=(), costs=(), faster_first=True, number=None, affordable_s=0.002, **attrs):
    """Return a dataset in which both compressing schemes have these crossings everywhere."""
    sizes = {"scheme": 3, "by": 2, "density": 2, "cost": 3, "bandwidth": 3}

    def roots(found, *dims):
        values = np.full((*(sizes[dim] for dim in dims), MOST_ROOTS), np.nan)
        values[1:, ..., : min(len(found), MOST_ROOTS)] = list(found)[:MOST_ROOTS]
        return (*dims, "root"), values

    def whole(value, *dims):
        values = np.full([sizes[dim] for dim in dims], float(value))
        values[0] = np.nan
        return dims, values

    at_bandwidth, at_cost = ("scheme", "by", "density", "bandwidth"), ("scheme", "by", "density", "cost")
    count = len(bandwidths) if number is None else number
    return xr.Dataset(
        {
            "break_even_bandwidth": roots(bandwidths, *at_cost),
            "break_even_bandwidth_count": whole(count, *at_cost),
            "break_even_bandwidth_faster_first": whole(faster_first, *at_cost),
            "break_even_cost": roots(costs, *at_bandwidth),
            "break_even_cost_count": whole(len(costs), *at_bandwidth),
            "break_even_cost_faster_first": whole(faster_first, *at_bandwidth),
            "affordable_cost_s": whole(affordable_s, *at_bandwidth),
            "required_ratio": whole(3.0, "scheme", "by", "density", "cost", "bandwidth"),
            "sent_bytes": (("scheme", "density", "seed"), np.full((3, 2, 2), 1e5) * [[[4]], [[1]], [[2]]]),
        },
        coords={
            "scheme": np.array(LABELS, dtype=object),
            "by": list(BYS),
            "density": ("density", DENSITIES, {"key": "scheme.density", "units": "1"}),
            "cost": ("cost", COSTS, {"key": "overhead.factor", "units": "1"}),
            "bandwidth": ("bandwidth", BANDWIDTHS, {"key": "cluster.bandwidth", "units": "bit/s"}),
            "seed": ("seed", [0, 1], {"key": "training.seed"}),
        },
        attrs={"axes": ["density", "cost", "bandwidth", "seed"], "elements": 100_000, "target": 0.9, **attrs},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("roots", "faster_first", "words"),
    [
        ([], True, "everywhere"),
        ([], False, "nowhere"),
        ([1.29e9], True, "below 1.29 Gbit/s"),
        ([1.2945e9], True, "below 1.29 Gbit/s"),
        ([1.29e9], False, "above 1.29 Gbit/s"),
        ([1e8, 2e9], True, "below 100 Mbit/s and above 2 Gbit/s"),
        ([1e8, 2e9], False, "from 100 Mbit/s to 2 Gbit/s"),
        ([1e8, 2e9, 3e10], True, "below 100 Mbit/s and from 2 Gbit/s to 30 Gbit/s"),
        ([1e8, 2e9, 3e10], False, "from 100 Mbit/s to 2 Gbit/s and above 30 Gbit/s"),
        ([1e6, 1e7, 1e8, 1e9], False, "from 1 Mbit/s to 10 Mbit/s and from 100 Mbit/s to 1 Gbit/s"),
    ],
)
def test_bandwidths_at_which_it_pays_are_told_in_words(roots, faster_first, words):
    rows = list(crossings(made_up(roots, faster_first=faster_first)))
    assert [row.name for row in rows] == ["ef(topk(density=0.01))", "ef(topk(density=0.1))", "qsgd(bits=4)"]
    assert {row.bandwidth for row in rows} == {words}
    assert {row.bandwidth_bps for row in rows} == {roots[0] if roots else None}


@pytest.mark.parametrize("faster_first", [True, False])
def test_crossings_beyond_those_that_are_kept_are_counted_and_nothing_is_claimed_of_them(faster_first):
    kept = [1e6, 1e7, 1e8, 1e9]
    (row, *_) = crossings(made_up(kept, number=7, faster_first=faster_first))
    assert row.bandwidth.endswith("(7 crossings)")
    assert "everywhere" not in row.bandwidth
    if faster_first:  # it pays below the first, between the second and third, and from the fourth to one not kept
        assert row.bandwidth.startswith("below 1 Mbit/s and from 10 Mbit/s to 100 Mbit/s and from 1 Gbit/s to the next")


def test_costs_ratios_and_what_can_be_afforded():
    (row, *_, last) = crossings(made_up(costs=[0.5]))
    assert (row.cost, row.cost_factor) == ("below 0.500x", 0.5)
    assert (row.affordable_s, row.required_ratio, row.own_ratio) == (0.002, 3.0, 4.0)
    assert last.own_ratio == 2.0
    assert [text for text, _ in row.cells()] == ["everywhere", "below 0.500x", "2.00 ms", "3.00x", "4.00x"]
    (row, *_) = crossings(made_up(affordable_s=np.inf))
    assert row.affordable_s is None
    assert row.cells()[2] == ("any", None)


def test_without_a_target_crossings_are_of_the_step():
    data = made_up([1e9])
    data["break_even_bandwidth"] = data["break_even_bandwidth"] * xr.DataArray([1.0, 2.0], dims="by")
    assert next(crossings(data)).bandwidth_bps == 1e9
    del data.attrs["target"]
    assert next(crossings(data)).bandwidth_bps == 2e9


def test_the_setting_is_at_factor_one_and_in_the_middle():
    data = made_up([1e9])
    assert setting(data) == {"cost": 1, "bandwidth": 1}
    assert setting_in_words(data) == "compression cost x 1, 1 Gbit/s"
    assert setting(data.isel(cost=[0], bandwidth=[0, 1])) == {"cost": 0, "bandwidth": 1}
    assert setting(data.isel(cost=0, bandwidth=0)) == {}


def test_lines_are_a_branch_for_each_crossing():
    found = lines(made_up([1e8, 2e9], costs=[0.5]))
    topk = "ef(topk(density))"
    assert {key for key in found if key[0] == topk} == {(topk, "bandwidth", "cost"), (topk, "bandwidth", "density")}
    ((x, y),) = found[topk, "bandwidth", "cost"]
    assert (x.tolist(), y.tolist()) == (BANDWIDTHS, [0.5] * 3)
    branches = found[topk, "bandwidth", "density"]
    assert [(x.tolist(), y.tolist()) for x, y in branches] == [([1e8, 1e8], DENSITIES), ([2e9, 2e9], DENSITIES)]
    assert found[LABELS[0], "bandwidth", "cost"] == []
    assert lines(xr.Dataset()) == {}
