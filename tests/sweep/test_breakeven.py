"""Break-even: what root finding finds is even in a direct simulation, and what lies on either side is not."""

from dataclasses import replace

import numpy as np
import pytest

from gradwire.analysis.comparison import compare, is_uncompressed
from gradwire.analysis.sweep.breakeven import BANDWIDTHS_BPS, BYS, COSTS, MOST_ROOTS, find_roots, with_break_even
from gradwire.analysis.sweep.dataset import assemble
from gradwire.analysis.sweep.executors import Here
from gradwire.analysis.sweep.sweep import sweep
from gradwire.sim.experiment import validate_experiment
from gradwire.sim.run import run
from gradwire.sim.timing import Timer
from gradwire.sim.training.order import Order
from gradwire.sim.training.store import Store
from gradwire.sim.units import format_bandwidth

from .small import BASE, grid

AXES = {
    "density": [0.01, 0.1],
    "cost": [0, 1, 30],
    "bandwidth": ["10 Mbit/s", "300 Mbit/s", "30 Gbit/s"],
    "seed": [0, 1],
}
LARGE = {
    "schemes": ["dense(dtype=fp32)", "dense(dtype=bf16)", "ef(topk)", "qsgd(bits=4)"],
    "task": {"name": "mnist"},
    "training": {"workers": 2, "steps": 24, "evaluate_every": 2, "learning_rate": 0.1, "target": 0.5},
}
"""A model of 266,610 parameters, for which bandwidth matters."""


def roots_of(function, scan, *others):
    return find_roots(function, np.asarray(scan, float), [np.asarray(other, float) for other in others])


def test_roots_of_known_functions():
    """Three roots, one, and none; signs at the lowest value."""
    scan, shift = np.linspace(0, 10, 101), np.array([[0.0, 3.3], [20.0, -20.0]])
    found = roots_of(lambda x, s: np.where(s == 0, (x - 1.5) * (x - 4.25) * (x - 7.123), x - s), scan, shift)
    assert found.number.tolist() == [[3, 1], [0, 0]]
    assert found.values.shape == (2, 2, MOST_ROOTS)
    assert found.values[0, 0, :3].tolist() == pytest.approx([1.5, 4.25, 7.123], rel=1e-12)
    assert found.values[0, 1, 0] == pytest.approx(3.3, rel=1e-12)
    assert np.isnan(found.values[1]).all()
    assert found.faster_first.tolist() == [[True, True], [True, False]]


def test_more_roots_than_are_kept_are_counted():
    found = roots_of(lambda x, s: np.sin(x) + s, np.linspace(0.5, 40, 2000), np.zeros(1))
    assert found.number.tolist() == [12]
    assert found.values[0].tolist() == pytest.approx([np.pi * (i + 1) for i in range(MOST_ROOTS)])


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    found = sweep(grid(AXES, **LARGE), Store(store), Here())
    return with_break_even(assemble(found), found), store


def lead(store, density, cost, bandwidth_bps, by, scheme="ef(topk)"):
    """Return the best uncompressed time over a scheme's, means over both seeds, by the event engine."""
    own, dense = [], {}
    for seed in (0, 1):
        text = scheme.replace("topk", f"topk(density={density})")
        experiment = validate_experiment(
            {
                **LARGE,
                "schemes": ["dense(dtype=fp32)", "dense(dtype=bf16)", text],
                "training": {**BASE["training"], **LARGE["training"], "seed": seed},
                "cluster": {"preset": "ethernet-1g", "bandwidth": format_bandwidth(bandwidth_bps)},
                "overhead": {"factor": cost},
                "timing": {"engine": "events"},
            }
        )
        for row in compare(run(experiment, Store(store)).dataset()).rows:
            value = row.step_s if by == "step" else row.time_to_target_s
            (dense.setdefault(row.scheme, []) if is_uncompressed(row.scheme) else own).append(value)
    return min(np.mean(values) for values in dense.values()) / np.mean(own)


@pytest.mark.parametrize("by", BYS)
@pytest.mark.parametrize("density", [0.01, 0.1])
def test_a_direct_simulation_on_both_sides_of_a_break_even_cost_agrees(surfaces, by, density):
    data, store = surfaces
    place = {"scheme": "ef(topk(density))", "by": by, "density": density, "bandwidth": 3e8}
    cost = float(data["break_even_cost"].sel(place)[0])
    assert data["break_even_cost_count"].sel(place) == 1
    assert data["break_even_cost_faster_first"].sel(place) == 1
    assert lead(store, density, cost * 0.99, 3e8, by) > 1 > lead(store, density, cost * 1.01, 3e8, by)
    assert lead(store, density, cost, 3e8, by) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("by", BYS)
def test_a_direct_simulation_on_both_sides_of_a_break_even_bandwidth_agrees(surfaces, by):
    data, store = surfaces
    place = {"scheme": "ef(topk(density))", "by": by, "density": 0.1, "cost": 1}
    bandwidth = float(data["break_even_bandwidth"].sel(place)[0])
    assert lead(store, 0.1, 1.0, bandwidth * 0.99, by) > 1 > lead(store, 0.1, 1.0, bandwidth * 1.01, by)
    assert lead(store, 0.1, 1.0, bandwidth, by) == pytest.approx(1, rel=1e-9)


def test_the_sign_between_crossings_is_that_of_the_swept_points(surfaces):
    """At every point of the sweep, how many crossings lie below it says whether the scheme is faster there."""
    data, _ = surfaces
    means = data.mean("seed", skipna=False)
    for by, time in (("time to target", "time_to_target_s"), ("step", "step_s")):
        dense = means[time].isel(scheme=[0, 1]).min("scheme")
        for label in ("ef(topk(density))", "qsgd(bits=4)"):
            own = means[time].sel(scheme=label)
            for axis in ("cost", "bandwidth"):
                roots = data[f"break_even_{axis}"].sel(scheme=label, by=by)
                below = (roots < data[axis]).sum("root")
                first = data[f"break_even_{axis}_faster_first"].sel(scheme=label, by=by) == 1
                kept = (data[f"break_even_{axis}_count"].sel(scheme=label, by=by) <= MOST_ROOTS) & own.notnull()
                faster = (first == (below % 2 == 0)).where(kept)
                seen = (own < dense).where(kept)
                np.testing.assert_array_equal(faster.transpose(*seen.dims).values, seen.values)


def test_what_a_scheme_can_afford_is_its_cost_at_the_crossing(surfaces):
    data, _ = surfaces
    place = {"scheme": "ef(topk(density))", "by": "step", "density": 0.1}
    codec_s = (data["encode_s"] + data["decode_s"]).sel(scheme="ef(topk(density))", density=0.1, cost=1).mean("seed")
    expected = data["break_even_cost"].sel(place).isel(root=0) * codec_s
    crosses = data["break_even_cost_count"].sel(place) > 0
    np.testing.assert_allclose(data["affordable_cost_s"].sel(place).where(crosses), expected.where(crosses), rtol=1e-9)
    never = data["affordable_cost_s"].where(data["break_even_cost_faster_first"] == 0)
    assert (never.fillna(0.0) == 0).all()


def test_the_required_ratio_is_even_when_bytes_are_scaled_instead(surfaces):
    """A second way: the wire log with every payload scaled by the ratio takes as long as the uncompressed step."""
    data, store = surfaces
    found = grid(AXES, **LARGE)
    place = {"scheme": "ef(topk(density))", "by": "step", "density": 0.1, "cost": 1, "bandwidth": 3e8}
    ratio = float(data["required_ratio"].sel(place))
    experiment = found.experiment((1, 1, 1, 0))
    task = experiment.make_task()
    order = Order.of(task, task.digest(), experiment.schemes[2], experiment.training)
    trajectory = order.fetch(Store(store))
    timer = Timer(experiment, task)
    sent = float(data["sent_bytes"].sel(scheme="ef(topk(density))", density=0.1)[0])
    whole = 4 * trajectory.parameters
    scale = whole / ratio / sent
    _, line = timer.timeline(trajectory)
    priced = line.plan.priced[0]
    scaled = tuple(tuple(cost._replace(bytes=cost.bytes * scale) for cost in exchange) for exchange in priced)
    plan = replace(line.plan, priced=(scaled,))
    uniform = experiment.cluster.cluster().uniform(2)
    step_s = plan.run_s(uniform.bandwidth_bps, uniform.latency_s, uniform.launch_s, 1.0) / len(trajectory.logs)
    baseline = data["baseline_step_s"].sel(density=0.1, cost=1, bandwidth=3e8).mean("seed")
    assert float(step_s) == pytest.approx(float(baseline), rel=1e-9)


def test_without_uncompressed_schemes_there_is_nothing_to_be_even_with(tmp_path):
    found = sweep(grid({"cost": [0, 1]}, schemes=["ef(topk)"]), Store(tmp_path), Here())
    assert "break_even_cost" not in with_break_even(assemble(found), found)


def test_the_scans_cover_what_is_said():
    assert (COSTS[0], COSTS[-1]) == (0, 1e4)
    assert BANDWIDTHS_BPS[[0, -1]].tolist() == pytest.approx([1e5, 1e14])
