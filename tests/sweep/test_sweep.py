"""Sweeps: every point is the run that the experiment at that point gives; each trajectory is trained once."""

import re

import numpy as np
import pytest
import xarray as xr

from gradwire.analysis.comparison import compare
from gradwire.analysis.sweep.dataset import assemble
from gradwire.analysis.sweep.executors import Here
from gradwire.analysis.sweep.sweep import sweep
from gradwire.sim.run import run
from gradwire.sim.training.order import Order
from gradwire.sim.training.store import Store, StoreWarning

from .small import AXES, grid

ALL = ("step_s", "run_s", "time_to_target_s", "steps_to_target", "final_metric", "sent_bytes")


class Counting(Here):
    """Notes what is trained and what is played."""

    def __init__(self):
        self.trained, self.played = [], 0

    def run(self, function, items):
        if function is Order.train_elsewhere:
            self.trained += [item.key for item in items]
        else:
            self.played += len(items)
        return super().run(function, items)


def swept(found, store, executor=None):
    return assemble(sweep(found, Store(store), executor or Here()))


def check_against_runs(found, data, store, indices):
    """Compare points of a sweep with the run of their experiment, which takes its trajectories from another store."""
    for index in indices:
        experiment = found.experiment(index)
        one = run(experiment, Store(store)).dataset()
        rows = compare(one).rows
        here = data.isel({axis.name: i for axis, i in zip(found.axes, index, strict=True)})
        for i, row in enumerate(rows):
            mine = {name: float(here[name].isel(scheme=i)) for name in ALL}
            assert mine["step_s"] == pytest.approx(row.step_s, rel=1e-12)
            assert mine["run_s"] == pytest.approx(float(one["end_s"].isel(scheme=i)[-1]), rel=1e-12)
            assert mine["sent_bytes"] == pytest.approx(row.sent_bytes, rel=1e-12)
            assert mine["final_metric"] == row.final_metric
            for name, value in (("time_to_target_s", row.time_to_target_s), ("steps_to_target", row.steps_to_target)):
                assert mine[name] == pytest.approx(np.nan if value is None else value, rel=1e-12, nan_ok=True), name


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The small sweep, and what its executor noted."""
    executor = Counting()
    folder = tmp_path_factory.mktemp("store")
    return grid(), swept(grid(), folder, executor), executor, folder


def test_every_point_is_a_run(results, tmp_path):
    found, data, _, _ = results
    indices = [(0, 0, 0, 0, 0), (1, 1, 2, 1, 0), (0, 2, 1, 0, 1), (1, 2, 0, 1, 1)]
    check_against_runs(found, data, tmp_path, indices)


def test_each_trajectory_is_trained_once(results):
    """Three schemes with two seeds, of which the sparse one has two densities: no network or cost trains anything."""
    _, _, executor, _ = results
    assert len(executor.trained) == len(set(executor.trained)) == 2 * (1 + 1 + 2 + 1)
    assert executor.played == 0


def test_a_second_sweep_trains_nothing_and_gives_the_same(results):
    found, data, _, folder = results
    executor = Counting()
    again = swept(found, folder, executor)
    assert executor.trained == []
    assert again.identical(data)


def test_dimensions_say_what_depends_on_what(results):
    _, data, _, _ = results
    assert data["time_to_target_s"].dims == ("scheme", *AXES)
    assert data["steps_to_target"].dims == ("scheme", "density", "seed")
    assert data["validation_metric"].dims == ("scheme", "density", "seed", "evaluation")
    assert data["baseline_step_s"].dims == tuple(AXES)
    assert data["bandwidth"].attrs["units"] == "bit/s"
    assert all("units" in data[name].attrs for name in data if data[name].dtype == float)
    dense = data.sel(scheme="dense(dtype=fp32)")
    assert (dense["time_to_target_s"].isel(density=0) == dense["time_to_target_s"].isel(density=1)).all()


def test_it_is_written_to_netcdf_and_read_back(results, tmp_path):
    _, data, _, _ = results
    data.to_netcdf(tmp_path / "sweep.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "sweep.nc", engine="h5netcdf") as back:
        xr.testing.assert_equal(back.load(), data)


def test_speedups_are_over_the_best_uncompressed_scheme(results):
    _, data, _, _ = results
    dense = data.isel(scheme=[0, 1])["time_to_target_s"]
    best = dense.mean("seed").argmin("scheme")
    expected = dense.isel(scheme=best)
    xr.testing.assert_allclose(
        data["baseline_time_to_target_s"], expected.reset_coords(drop=True).transpose(*AXES), rtol=1e-15
    )
    ratio = data["baseline_time_to_target_s"] / data["time_to_target_s"]
    np.testing.assert_array_equal(data["speedup"].transpose(*ratio.dims).values, ratio.values)
    assert set(np.unique(data["baseline"].values)) <= {
        f"dense(dtype={dtype}), buckets of {size} MiB" for dtype in ("fp32", "bf16") for size in (1, 5, 25, 100)
    }


def test_workers_model_options_and_networks_are_axes_too(tmp_path):
    found = grid({"workers": [2, 4], "timing.all_reduce": ["ring", "double-tree"], "training.batch_size": [4, 8]})
    data = swept(found, tmp_path / "one")
    assert data["timing.all_reduce"].values.tolist() == ["ring", "double-tree"]
    check_against_runs(found, data, tmp_path / "two", [(0, 1, 0), (1, 0, 1), (1, 1, 1)])


def test_a_network_without_closed_form_is_played_point_by_point_and_kept(tmp_path):
    core = {"fabric": {"kind": "switch", "core": "1.5 Gbit/s"}}
    axes = {"bandwidth": ["1 Gbit/s", "2 Gbit/s"], "cost": [1, 3], "density": [0.1]}
    found = grid(axes, cluster=core, training={"steps": 10})
    executor = Counting()
    data = swept(found, tmp_path / "one", executor)
    assert executor.played == 4 * 4
    assert any("events" in engine for engine in data.attrs["engines"])
    check_against_runs(found, data, tmp_path / "two", [(0, 0, 0), (1, 1, 0)])
    again = Counting()
    xr.testing.assert_identical(swept(found, tmp_path / "one", again), data)
    assert (again.trained, again.played) == ([], 0)


def test_algorithms_that_depend_on_the_network_are_chosen_at_every_point(tmp_path):
    found = grid({"bandwidth": ["1 Gbit/s", "100 Gbit/s"], "latency": ["1 us", "1 ms"]}, timing={"all_reduce": "auto"})
    data = swept(found, tmp_path / "one")
    check_against_runs(found, data, tmp_path / "two", [(0, 0), (1, 1)])


def test_a_scheme_that_adapts_to_the_cluster_learns_on_each(tmp_path):
    found = grid({"bandwidth": ["1 Mbit/s", "10 Gbit/s"], "cost": [0, 1]}, schemes=["dense", "ef(cat(cost=cluster))"])
    executor = Counting()
    data = swept(found, tmp_path / "one", executor)
    assert len(executor.trained) == 3
    assert "bandwidth" in data["steps_to_target"].dims
    check_against_runs(found, data, tmp_path / "two", [(0, 0), (1, 1)])


def test_each_scheme_keeps_the_rate_that_serves_it_best(tmp_path):
    """Chosen on the validation split of the first seed: fewest steps to the target, then the better metric."""
    rates = (0.01, 0.3, 3.0)
    found = grid({"density": [0.1, 0.4], "seed": [5, 6]}, tune={"learning_rates": list(rates)})
    data = swept(found, tmp_path / "one")
    for density in range(2):
        experiment = found.experiment((density, 0))
        scores = {}
        for rate in rates:
            plan = experiment.training.model_copy(update={"learning_rate": rate})
            fixed = experiment.model_copy(
                update={"training": plan, "tune": experiment.tune.model_copy(update={"learning_rates": ()})}
            )
            one = run(fixed, Store(tmp_path / "two")).dataset()
            for i, row in enumerate(compare(one).rows):
                steps = np.inf if row.steps_to_target is None else row.steps_to_target
                last = float(one["validation_metric"].isel(scheme=i)[-1])
                scores.setdefault(i, {})[rate] = (steps, -last, rate)
        for i, tried in scores.items():
            best = min(tried, key=tried.get)
            assert data["learning_rate"].isel(scheme=i, density=density).values.tolist() == [best, best]
    assert data.attrs["tuned_rates"] == list(rates)


def test_a_damaged_entry_is_noticed_and_trained_anew(tmp_path):
    found = grid({"density": [0.1], "cost": [0, 1]})
    data = swept(found, tmp_path)
    entry = next(tmp_path.glob("??/*.json.gz"))
    entry.write_bytes(entry.read_bytes()[:-20])
    executor = Counting()
    with pytest.warns(StoreWarning, match=re.escape(f"{entry} is damaged")):
        again = swept(found, tmp_path, executor)
    assert [entry.name] == [f"{key}.json.gz" for key in executor.trained]
    xr.testing.assert_identical(again, data)


def test_a_full_disk_loses_nothing_that_is_in_memory(tmp_path, monkeypatch):
    found = grid({"density": [0.1], "cost": [0, 1]})
    data = swept(found, tmp_path / "one")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "_write", full)
    executor = Counting()
    with pytest.warns(StoreWarning, match="a result is not stored: No space left on device"):
        again = swept(found, tmp_path / "two", executor)
    assert len(executor.trained) == len(set(executor.trained)) == 4
    xr.testing.assert_identical(again, data)


def test_a_target_that_nobody_reaches_and_a_training_that_diverges(tmp_path):
    axes = {"bandwidth": ["1 Gbit/s", "2 Gbit/s"], "training.learning_rate": [0.1, 1e30]}
    data = swept(grid(axes, task={"name": "quadratic", "dimension": 10}, training={"target": -1.0}), tmp_path)
    assert np.isnan(data["time_to_target_s"]).all()
    status = data["status"].isel({"training.learning_rate": 1}).values.ravel()
    assert all(str(text).startswith("diverged at step") for text in status)
    assert (data["status"].isel({"training.learning_rate": 0}) == "completed").all()
    good, bad = (data["baseline"].isel({"training.learning_rate": i}) for i in (0, 1))
    assert (bad == "none").all()
    assert (good != "none").all()
