"""What the figures of a sweep show: their cells, lines, bars and marks against the arrays and against closed forms."""

from itertools import product

import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.colors import to_hex
from scipy import stats

from gradwire.analysis.plots import save_figures
from gradwire.analysis.sweep.seeds import over_seeds
from gradwire.analysis.sweep_plots import (
    along_axis,
    frontier,
    over_workers,
    phases_at_point,
    speedup_map,
    sweep_figures,
    winner_map,
)
from gradwire.analysis.sweep_plots.axes import axis_of
from gradwire.compressors.errors import InputError

from .sweep_data import DENSE, PHASES, QSGD, TOPK, sweep


@pytest.fixture(scope="module")
def three():
    """The axes of the shipped sweep: density, cost, bandwidth, latency, seed."""
    return sweep(workers=None)


@pytest.fixture(scope="module")
def workers():
    return sweep(workers=[2, 4, 8, 16, 32], bandwidth=[1e9, 1e10], latency=None, cost=None)


def geometric(runs, axis=0):
    """Return the mean of ratios over seeds."""
    return np.exp(np.log(runs).mean(axis))


def interval(runs):
    """Return scipy's confidence interval of the mean over seeds, which stand first."""
    return stats.t.interval(0.95, len(runs) - 1, loc=runs.mean(0), scale=stats.sem(runs))


def power_law(bandwidths, costs, **attrs):
    """Return a sweep whose speed-up is (bandwidth / 1 Gbit/s) ** -0.5 * cost ** -0.25: a straight break-even line."""
    data = sweep(bandwidth=bandwidths, cost=costs, density=None, latency=None, workers=None, seed=None)
    law = (data["bandwidth"] / 1e9) ** -0.5 * data["cost"] ** -0.25
    data["speedup"] = law.broadcast_like(data["speedup"]).transpose(*data["speedup"].dims)
    return data.assign_attrs(attrs)


def mesh(figure):
    return next(one for one in figure.axes[0].collections if isinstance(one, QuadMesh))


def cells(figure):
    """Return, by label, the middles of hatched or coloured cells, in the logarithm of both axes."""
    return {
        one.get_label(): {tuple(np.log(path.vertices[:4]).mean(0).round(6)) for path in one.get_paths()}
        for one in figure.axes[0].collections
        if isinstance(one, PolyCollection) and not isinstance(one, QuadMesh)
    }


def middles(x, y):
    """Return the middles of the cells of values, in the units of the axes."""
    return {tuple(np.log([a, b]).round(6)) for a, b in zip(x, y, strict=True)}


def labelled(figure, axes=0):
    return {line.get_label(): line for line in figure.axes[axes].lines if not line.get_label().startswith("_")}


def said(figure):
    """Return the caption of a figure in one line."""
    return figure.axes[0].texts[-1].get_text().replace("\n", " ").replace("\u00a0", " ")


# ------------------------------------------------------------------------------------------------------------- maps


def test_a_map_holds_the_mean_speed_ups_on_a_scale_centred_on_1(three):
    figure = speedup_map(three, QSGD, "bandwidth", "cost", {"density": 0.03, "latency": 10e-6})
    point = three.sel(scheme=QSGD, density=0.03, latency=10e-6)
    expected = geometric(np.array([point["speedup"].sel(seed=i).transpose("cost", "bandwidth") for i in range(3)]))
    drawn = mesh(figure)
    np.testing.assert_allclose(drawn.get_array(), expected, rtol=1e-12)
    assert drawn.norm.vmin * drawn.norm.vmax == pytest.approx(1, rel=1e-12)
    assert drawn.norm.vmax == pytest.approx(max(expected.max(), 1 / expected.min()))
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("bandwidth (Gbit/s)", "compression cost (factor)")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_title("left") == "Speed-up"
    assert said(figure) == f"{QSGD} over the best uncompressed scheme; density 0.03, latency 10 us"


def test_cells_lie_around_their_values(three):
    figure = speedup_map(three, QSGD, "bandwidth", "density")
    corners = mesh(figure).get_coordinates()
    x = three["bandwidth"].values / 1e9
    np.testing.assert_allclose(np.sqrt(corners[0, :-1, 0] * corners[0, 1:, 0]), x)
    y = three["density"].values
    np.testing.assert_allclose(corners[1:-1, 0, 1], np.sqrt(y[:-1] * y[1:]))


def test_values_of_an_axis_need_not_rise(three):
    backwards = three.isel(bandwidth=slice(None, None, -1), cost=[2, 0, 4, 1, 3])
    first, second = (mesh(speedup_map(data, TOPK, "bandwidth", "cost")) for data in (three, backwards))
    np.testing.assert_array_equal(first.get_array(), second.get_array())
    np.testing.assert_array_equal(first.get_coordinates(), second.get_coordinates())


def test_the_break_even_line_is_where_the_speed_up_is_1():
    """cost = (bandwidth / 1 Gbit/s) ** -2 is straight on logarithmic axes, so interpolation is exact."""
    figure = speedup_map(power_law(np.geomspace(2e8, 5e9, 9), [0.2, 0.5, 1.1, 3.0, 9.0]), TOPK, "bandwidth", "cost")
    x, y = labelled(figure)["break-even (interpolated)"].get_data()
    assert len(x) > 5
    np.testing.assert_allclose(y, x**-2.0, rtol=1e-9)
    assert (min(y), max(y)) == pytest.approx((0.2, 9.0), rel=1e-9)


def test_a_line_that_was_found_is_drawn_as_it_is(three):
    branches = [(np.array([1e9, 2e9, 3e9]), np.array([4.0, 2.0, 1.0])), (np.array([2e10, 3e10]), np.array([1.0, 3.0]))]
    figure = speedup_map(three, TOPK, "bandwidth", "cost", break_even=branches)
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["break-even", "_more"]
    for line, (x, y) in zip(lines, branches, strict=True):
        np.testing.assert_allclose(line.get_data(), [x / 1e9, y])
    assert "no break-even" not in said(figure)
    assert said(speedup_map(three, TOPK, "bandwidth", "cost", break_even=[])).endswith("no break-even in this range")


def test_lines_of_the_dataset_are_drawn_where_it_has_them(three):
    """Crossings along the cost at each bandwidth, two at some; along the bandwidth at each density."""
    data = three.copy()
    by = np.array(["time to target", "step"], dtype=object)
    costs = np.full((3, 2, 5, 12, 2, 2), np.nan)
    costs[1, 0, 2, :, 0, 0] = np.geomspace(4, 0.3, 12)
    costs[1, 0, 2, 4, 0, 0] = np.nan
    costs[1, 0, 2, 8:, 0, 1] = 3.5
    data["break_even_cost"] = (("scheme", "by", "density", "bandwidth", "latency", "root"), costs)
    bandwidths = np.full((3, 2, 5, 5, 2, 2), np.nan)
    bandwidths[1, 0, 1:, 2, 0, 0] = [1e9, 2e9, 3e9, 4e9]
    data["break_even_bandwidth"] = (("scheme", "by", "density", "cost", "latency", "root"), bandwidths)
    data = data.assign_coords(by=by)
    at = {"density": 0.01, "latency": 10e-6}
    figure = speedup_map(data, TOPK, "bandwidth", "cost", at)
    x, lines = data["bandwidth"].values / 1e9, figure.axes[0].lines
    for line, part, root in zip(lines, (slice(0, 4), slice(5, 12), slice(8, 12)), (0, 0, 1), strict=True):
        np.testing.assert_allclose(line.get_data(), [x[part], costs[1, 0, 2, part, 0, root]])
    assert lines[0].get_label() == "break-even"
    turned = speedup_map(data, TOPK, "cost", "bandwidth", at).axes[0].lines
    for line, same in zip(lines, turned, strict=True):
        np.testing.assert_allclose(line.get_data(), same.get_data()[::-1])
    (line,) = speedup_map(data, TOPK, "density", "bandwidth", {"latency": 10e-6}).axes[0].lines
    np.testing.assert_allclose(line.get_data(), [[0.003, 0.01, 0.03, 0.1], [1, 2, 3, 4]])
    assert said(speedup_map(data, QSGD, "bandwidth", "cost", at)).endswith("no break-even in this range")


def test_cells_without_the_target_are_hatched_and_named(three):
    """One seed of three that fails is enough: a mean over the others would flatter."""
    figure = speedup_map(three, TOPK, "bandwidth", "density")
    late = three["steps_to_target"].sel(scheme=TOPK).isnull()
    assert late.any("seed").values.tolist() == [True, False, False, False, False]
    assert not late.all("seed").any()
    hatched = cells(figure)
    assert list(hatched) == ["target not reached by all seeds"]
    x = three["bandwidth"].values / 1e9
    assert hatched["target not reached by all seeds"] == middles(x, np.full(12, 0.001))
    assert figure.axes[0].collections[-1].get_hatch()
    assert mesh(figure).get_array().mask.sum() == 12
    legend = [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
    assert "target not reached by all seeds" in legend


def test_where_dense_training_fails_it_is_said(three):
    failed = three.copy()
    failed["baseline_time_to_target_s"] = three["baseline_time_to_target_s"] * np.nan
    failed["speedup"] = failed["speedup"] * np.nan
    figure = speedup_map(failed, QSGD, "bandwidth", "cost")
    assert {name: len(found) for name, found in cells(figure).items()} == {
        "only compressed training reached the target": 60
    }


def test_a_factor_of_0_has_its_cell():
    data = sweep(cost=[0.0, 0.5, 1.0, 2.0], workers=None)
    axis = axis_of(data, "cost")
    assert axis.scale == "symlog"
    edges = axis.edges()
    assert all(np.diff(edges) > 0)
    assert all((edges[:-1] < axis.values) & (axis.values < edges[1:]))
    figure = speedup_map(data, TOPK, "bandwidth", "cost")
    assert figure.axes[0].get_yscale() == "symlog"
    assert figure.axes[0].get_yticks().tolist() == [0.0, 0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1, 2, 4, 8], "log"),
        ([1, 2, 5, 10], "log"),
        ([2, 4, 6, 8], "linear"),
        ([0, 1, 2, 3], "linear"),
        ([0, 1, 10, 100], "symlog"),
        ([1, 3], "linear"),
        ([1, 10], "log"),
        ([-2, -1, 5], "linear"),
    ],
)
def test_axes_are_logarithmic_where_their_values_are(values, scale):
    axis = axis_of(sweep(**{"training.momentum": values}, cost=None), "training.momentum")
    assert axis.scale == scale
    np.testing.assert_allclose(axis.backward(axis.forward(axis.values)), values, atol=1e-12)


@pytest.mark.parametrize("at", [{}, {"density": 0.003, "latency": 10e-6}])
@pytest.mark.parametrize("target", [0.9, None])
def test_the_winner_is_the_soonest(at, target):
    data = sweep(workers=None, target=target)
    figure = winner_map(data, "bandwidth", "cost", at)
    variable = "time_to_target_s" if target else "step_s"
    point = data.sel(at or {"latency": 100e-6}).mean("seed", skipna=False)
    expected = {}
    for bandwidth, cost in product(data["bandwidth"].values, data["cost"].values):
        cell = point.sel(bandwidth=bandwidth, cost=cost)
        times = {name: np.nanmin(cell[variable].sel(scheme=name)) for name in (TOPK, QSGD)}
        name = min(times, key=times.get)
        winner = name if times[name] < float(cell[f"baseline_{variable}"].min()) else DENSE
        expected.setdefault(winner, set()).add(tuple(np.log([bandwidth / 1e9, cost]).round(6)))
    assert cells(figure) == expected
    assert len(expected) > 1
    assert figure.axes[0].get_title("left") == ("Soonest at the target" if target else "Shortest step")
    assert ("each scheme at its best density" in said(figure)) == (not at)


def test_winners_have_the_colours_of_their_schemes(three):
    figure = winner_map(three, "bandwidth", "density")
    colours = {one.get_label(): to_hex(one.get_facecolor()[0]) for one in figure.axes[0].collections}
    assert colours == {DENSE: "#000000", TOPK: "#0072b2", QSGD: "#d55e00"}


def test_a_map_says_where_nothing_reached_the_target(three):
    none = three.copy()
    for name in ("time_to_target_s", "baseline_time_to_target_s"):
        none[name] = three[name].where(three["bandwidth"] > 1e10)
    found = cells(winner_map(none, "bandwidth", "cost"))
    assert len(found["target not reached by all seeds, by any scheme"]) == 5 * int((three["bandwidth"] <= 1e10).sum())


# ----------------------------------------------------------------------------------------------------------- curves


def test_speed_ups_along_an_axis_have_bands_over_the_seeds(three):
    figure = along_axis(three, "bandwidth", {"density": 0.01, "latency": 10e-6})
    drawn = labelled(figure)
    assert list(drawn) == ["as the best uncompressed", TOPK, QSGD]
    bands = [one for one in figure.axes[0].collections if not isinstance(one, QuadMesh)]
    for name, area in zip((TOPK, QSGD), bands, strict=True):
        runs = three["speedup"].sel(scheme=name, density=0.01, latency=10e-6, cost=1.0).transpose("seed", ...).values
        np.testing.assert_allclose(drawn[name].get_data(), [three["bandwidth"] / 1e9, geometric(runs)])
        low, high = np.exp(interval(np.log(runs)))
        corners = area.get_paths()[0].vertices
        for x, least, most in zip(three["bandwidth"].values / 1e9, low, high, strict=True):
            heights = corners[np.isclose(corners[:, 0], x), 1]
            assert (heights.min(), heights.max()) == pytest.approx((least, most))
    assert said(figure) == "density 0.01, compression cost x 1, latency 10 us"


def test_crossings_are_where_the_speed_up_is_1():
    """At cost 3 the speed-up is 1 at 3 ** -0.5 Gbit/s, at bandwidth 2 Gbit/s at a cost of 1/4."""
    data = power_law([1e8, 5e8, 2e9, 9e9], [0.1, 0.3, 1.0, 3.0])
    for axis, at, root in (("bandwidth", {"cost": 3.0}, 3**-0.5), ("cost", {"bandwidth": 2e9}, 0.25)):
        figure = along_axis(data, axis, at)
        marks = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
        assert len(marks) == 2
        for mark in marks:
            assert mark.get_xdata()[0] == pytest.approx(root, rel=1e-9)
            assert mark.get_ydata()[0] == 1
        assert figure.axes[0].texts[0].get_text() == f"{root:.3g}"


def test_nothing_is_marked_between_trained_densities(three):
    at = {"bandwidth": float(three["bandwidth"][6]), "latency": 10e-6, "cost": 0.5}
    means = three["speedup"].sel(at | {"scheme": TOPK}).mean("seed", skipna=False)
    assert (means < 1).any()
    assert (means > 1).any()
    assert all(len(line.get_xdata()) > 1 for line in along_axis(three, "density", at).axes[0].lines)


def test_crossings_that_were_found_are_marked_as_they_are(three):
    figure = along_axis(three, "bandwidth", crossings={TOPK: [2e9, 5e10]})
    marks = [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert marks == pytest.approx([2, 50])


def test_times_against_workers(workers):
    figure = over_workers(workers, {"bandwidth": 1e9})
    assert [axes.get_title("left") for axes in figure.axes] == ["Time to target", "Time of a step", "Speed-up"]
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "virtual time (s)", "virtual time (ms)", "over the best uncompressed",
    ]  # fmt: skip
    panels = (("time_to_target_s", 1, 3), ("step_s", 1e-3, 3), ("speedup", 1, 2))
    for i, (variable, unit_s, count) in enumerate(panels):
        drawn = labelled(figure, i)
        assert len(drawn) == count
        for name, line in drawn.items():
            runs = workers[variable].sel(scheme=name, bandwidth=1e9, density=0.01).transpose("seed", "workers").values
            values = geometric(runs) if variable == "speedup" else runs.mean(0)
            np.testing.assert_allclose(line.get_data(), [workers["workers"], values / unit_s])
    assert said(figure) == "density 0.01, 1 Gbit/s"


# --------------------------------------------------------------------------------------------------------- one point


@pytest.mark.parametrize("against", ["time_to_target_s", "run_s", "bytes_to_target", "sent_bytes"])
def test_a_frontier_has_a_marker_for_each_scheme_and_density(three, against):
    bandwidth = float(three["bandwidth"][6])
    figure = frontier(three, against, {"latency": 10e-6, "bandwidth": bandwidth})
    point = three.sel(latency=10e-6, cost=1.0, bandwidth=bandwidth).mean("seed", skipna=False)
    drawn = labelled(figure)
    places = []
    for name, count in ((DENSE, 1), (TOPK, 5), (QSGD, 1)):
        x, y = drawn[name].get_data()
        assert len(x) == count
        np.testing.assert_allclose(x, np.atleast_1d(point[against].sel(scheme=name))[:count])
        np.testing.assert_allclose(y, np.atleast_1d(point["final_metric"].sel(scheme=name))[:count])
        places += list(zip(x, y, strict=True))
    front = set(zip(*drawn["Pareto front"].get_data(), strict=True))
    known = [place for place in places if np.isfinite(place).all()]
    assert front == {(x, y) for x, y in known if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in known)}
    assert len(front) > 1
    written = {text.get_text() for text in figure.axes[0].texts[:-1]}
    assert written - {"0.001"} == {"0.003", "0.01", "0.03", "0.1"}
    assert ("0.001" in written) == (against in ("run_s", "sent_bytes"))


def test_bars_of_a_frontier_are_confidence_limits(three):
    figure = frontier(three, "run_s")
    runs = three.sel(latency=100e-6, cost=1.0).isel(bandwidth=6).sel(scheme=QSGD, density=0.01)["final_metric"].values
    low, high = interval(runs)
    segments = [segment for bars in figure.axes[0].collections for segment in bars.get_segments()]
    assert any(np.allclose(segment[:, 1], [low, high]) for segment in segments)


def test_a_metric_that_is_better_lower_has_its_front_below(three):
    losses = three.assign(final_metric=1 - three["final_metric"]).assign_attrs(metric="loss", higher_is_better=0)
    first, second = (labelled(frontier(data))["Pareto front"].get_xdata() for data in (three, losses))
    np.testing.assert_array_equal(first, second)
    assert frontier(losses).axes[0].get_ylabel() == "final test loss"


def test_phases_at_a_point_stack_to_the_step(three):
    at = {"density": 0.1, "cost": 2.0, "bandwidth": 1e8, "latency": 10e-6}
    figure = phases_at_point(three, at)
    axes = figure.axes[0]
    point = three.sel(at).mean("seed")
    for container, phase in zip(axes.containers, PHASES, strict=True):
        np.testing.assert_allclose([bar.get_width() for bar in container], 1e3 * point[phase])
    ends = [bar.get_x() + bar.get_width() for bar in axes.containers[-1]]
    np.testing.assert_allclose(ends, 1e3 * point["step_s"])
    assert labelled(figure)["best uncompressed"].get_xdata()[0] == pytest.approx(1e3 * float(point["baseline_step_s"]))
    assert said(figure) == "density 0.1, compression cost x 2, 100 Mbit/s, latency 10 us"


# ------------------------------------------------------------------------------------------------------- all of them


def test_a_sweep_over_three_parameters_has_these_figures(three):
    pairs = ["bandwidth-cost", "bandwidth-density"]
    assert set(sweep_figures(three)) == {
        "step-phases", "frontier-time", "frontier-bytes",
        *(f"speedup-against-{name}" for name in ("density", "cost", "bandwidth", "latency")),
        *(f"winner-{pair}" for pair in pairs),
        *(f"speedup-{scheme}-{pair}" for scheme in ("ef-topk-density", "qsgd-bits-4") for pair in pairs),
    }  # fmt: skip


def test_a_sweep_of_seeds_alone_has_what_stands_at_a_point():
    data = sweep(**dict.fromkeys(("density", "cost", "bandwidth", "latency", "workers")))
    assert set(sweep_figures(data)) == {"step-phases", "frontier-time", "frontier-bytes"}


def test_workers_and_other_keys_are_axes_too(workers):
    assert {"scaling", "speedup-against-workers", "winner-workers-density"} <= set(sweep_figures(workers))
    data = sweep(bandwidth=None, cost=None, **{"training.batch_size": [8, 16, 32], "task.name": ["a", "b"]})
    names = set(sweep_figures(data))
    assert {"speedup-against-training-batch_size", "winner-density-training-batch_size"} <= names
    assert "task.name a" not in said(sweep_figures(data)["step-phases"])
    assert "task.name b" in said(sweep_figures(data, {"task.name": "b"})["step-phases"])


def test_given_lines_and_values_reach_their_figures(three):
    line = (np.array([1e9, 2e9]), np.array([1.0, 0.5]))
    lines = {(TOPK, "bandwidth", "cost"): [line]}
    figures = sweep_figures(three, {"cost": 4.0, "latency": 10e-6}, lines)
    drawn = labelled(figures["speedup-ef-topk-density-bandwidth-cost"])["break-even"]
    np.testing.assert_allclose(drawn.get_data(), [[1, 2], [1, 0.5]])
    assert "compression cost x 4, latency 10 us" in said(figures["speedup-qsgd-bits-4-bandwidth-density"])
    assert "cost x" not in said(figures["speedup-against-cost"])


def test_without_a_target_steps_are_compared():
    figures = sweep_figures(sweep(workers=None, target=None))
    assert figures["speedup-against-bandwidth"].axes[0].get_title("left") == "Speed-up of a step"
    assert figures["speedup-qsgd-bits-4-bandwidth-cost"].axes[0].get_title("left") == "Speed-up of a step"
    assert figures["frontier-time"].axes[0].get_xlabel().startswith("time of the run (")
    assert figures["frontier-bytes"].axes[0].get_xlabel().startswith("bytes a step and worker")


def test_means_and_limits_may_stand_in_place_of_seeds(three):
    first, second = (
        speedup_map(three, TOPK, "bandwidth", "density"),
        speedup_map(over_seeds(three), TOPK, "bandwidth", "density"),
    )
    np.testing.assert_array_equal(mesh(first).get_array(), mesh(second).get_array())
    assert cells(first) == cells(second)


def test_without_an_uncompressed_scheme_there_are_no_speed_ups(workers):
    alone = workers.drop_vars([name for name in workers if "speedup" in name or "baseline" in name])
    alone = alone.sel(scheme=[TOPK, QSGD])
    figures = sweep_figures(alone)
    assert not [name for name in figures if name.startswith("speedup")]
    assert [axes.get_title("left") for axes in figures["scaling"].axes] == ["Time to target", "Time of a step"]
    assert "best uncompressed" not in labelled(figures["step-phases"])
    assert set(cells(figures["winner-workers-density"])) == {QSGD}


def test_a_proxy_is_marked_in_every_title(three, workers):
    for data in (three, workers):
        for name, figure in sweep_figures(data.assign_attrs(proxy="resnet50")).items():
            assert figure.axes[0].get_title("left").endswith("(proxy: timed as resnet50)"), name
        for name, figure in sweep_figures(data).items():
            assert "proxy" not in figure.axes[0].get_title("left"), name


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda data: speedup_map(data, "topk", "bandwidth", "cost"),
            "scheme 'topk': not in the sweep; allowed: dense",
        ),
        (lambda data: speedup_map(data, TOPK, "bandwidth", "bandwidth"), "a map needs two different axes"),
        (
            lambda data: winner_map(data, "speed", "cost"),
            "axis 'speed': no numeric axis of the sweep; allowed: density",
        ),
        (lambda data: along_axis(data, "cost", {"speed": 1}), "'speed': no axis of the sweep; allowed: density, cost"),
        (
            lambda data: phases_at_point(data, {"cost": 3.0}),
            r"cost = 3.0: not on the axis; allowed: 0.25, 0.5, 1, 2, 4",
        ),
        (over_workers, "axis 'workers': no numeric axis of the sweep"),
        (lambda data: frontier(data, "step_s"), "against = 'step_s': allowed: time_to_target_s, run_s"),
    ],
)
def test_mistakes_are_said_in_one_line(three, draw, message):
    with pytest.raises(InputError, match=message) as caught:
        draw(three)
    assert "\n" not in str(caught.value)


def test_files_are_the_same_at_every_writing(three, tmp_path):
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        folder.mkdir()
        map_, winner = speedup_map(three, TOPK, "bandwidth", "density"), winner_map(three, "bandwidth", "cost")
        save_figures({"map": map_, "winner": winner, "line": along_axis(three, "cost")}, folder)
    names = [path.name for path in sorted(folders[0].iterdir())]
    assert names == ["line.png", "map.png", "winner.png"]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
