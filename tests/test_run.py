"""Runs: reproducible to the byte, interruptible, and the same whatever the number of threads."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr

from gradwire.sim.experiment import ExperimentError, load_experiment, validate_experiment
from gradwire.sim.run import PHASES, run
from gradwire.sim.training.store import Store

OPTIONS = ["--set", "training.steps=40", "--set", "training.target=0.5"]


def gradwire(*arguments: str, store, cwd, threads: int = 2, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    environment = {**os.environ, "GRADWIRE_STORE": str(store), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "gradwire.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, check=check, capture_output=True, text=True, timeout=300)


def wait_for_an_entry(store, process) -> None:
    """Wait until a process has stored something, so that it is in the midst of its work whatever else runs."""
    deadline = time.monotonic() + 240
    while not list(store.rglob("*.gz")):
        assert process.poll() is None, "it ended before it stored anything"
        assert time.monotonic() < deadline, "nothing was stored"
        time.sleep(0.02)


@pytest.mark.slow
def test_two_runs_from_empty_stores_are_identical_and_threads_change_nothing(tmp_path):
    """The default experiment's five schemes, shortened, in fresh processes with fresh stores."""
    for name, threads in (("first", 2), ("second", 2), ("third", 1)):
        gradwire("run", *OPTIONS, "--out", name, store=tmp_path / f"store-{name}", cwd=tmp_path, threads=threads)
    summaries = {hashlib.sha256((tmp_path / n / "summary.json").read_bytes()).hexdigest() for n in ("first", "second")}
    assert len(summaries) == 1
    datasets = [xr.open_dataset(tmp_path / name / "run.nc").load() for name in ("first", "second", "third")]
    assert datasets[0].identical(datasets[1])
    xr.testing.assert_equal(datasets[0], datasets[2])


def test_phases_add_up_and_times_follow(tmp_path):
    experiment = load_experiment("mnist", ["training.steps=12", "training.evaluate_every=5"], ["dense", "qsgd"])
    data = run(experiment, Store(tmp_path)).dataset()
    total = sum(data[f"{phase}_s"] for phase in PHASES)
    np.testing.assert_allclose(total.values, data["step_s"].values, rtol=1e-12)
    np.testing.assert_allclose(data["end_s"].values, data["step_s"].values.cumsum(axis=1), rtol=1e-12)
    assert data["evaluated_step"].values.tolist() == [0, 5, 10, 12]
    np.testing.assert_array_equal(data["evaluation_s"].values[:, 1:], data["end_s"].values[:, [4, 9, 11]])
    assert (data["evaluation_s"].values[:, 0] == 0).all()
    assert data["sent_bytes"].sel(scheme="dense(dtype=native)").values.tolist() == [4 * 266_610] * 12
    assert all("units" in data[name].attrs for name in data if data[name].dtype == float)


def test_the_network_changes_times_and_nothing_that_is_learnt(tmp_path):
    base = ["training.steps=10", "training.evaluate_every=5"]
    slow = run(load_experiment("mnist", base, ["dense"]), Store(tmp_path))
    files = list(tmp_path.rglob("*.gz"))
    fast_experiment = load_experiment("mnist", [*base, "cluster.preset=ethernet-100g", "overhead.factor=3"], ["dense"])
    fast = run(fast_experiment, Store(tmp_path))
    assert list(tmp_path.rglob("*.gz")) == files
    slow_data, fast_data = slow.dataset(), fast.dataset()
    np.testing.assert_array_equal(slow_data["train_loss"], fast_data["train_loss"])
    assert (fast_data["step_s"] < slow_data["step_s"]).all()


def test_the_event_engine_gives_the_same_run(tmp_path):
    base = ["training.steps=6", "training.evaluate_every=3"]
    schemes = ["dense", "ef(topk(density=0.01))", "qsgd", "ef(powersgd(rank=2))"]
    closed = run(load_experiment("mnist", base, schemes), Store(tmp_path)).dataset()
    events = run(load_experiment("mnist", [*base, "timing.engine=events"], schemes), Store(tmp_path)).dataset()
    for name in ("step_s", "end_s", "communication_s", *(f"{phase}_s" for phase in PHASES)):
        np.testing.assert_allclose(events[name].values, closed[name].values, rtol=1e-9, atol=1e-15)


def test_a_cluster_of_ones_own_is_that_of_the_preset_with_its_numbers(tmp_path):
    base = {"schemes": ["dense"], "training": {"steps": 2, "evaluate_every": 2}}
    preset = validate_experiment({**base, "cluster": {"preset": "ethernet-10g"}})
    numbers = preset.cluster.complete().model_dump(mode="json", exclude={"preset"})
    own = validate_experiment({**base, "cluster": numbers})
    one, other = (run(experiment, Store(tmp_path)).dataset()["end_s"].values for experiment in (preset, own))
    np.testing.assert_array_equal(one, other)


def test_layer_times_of_ones_own(tmp_path):
    layers = [{"name": str(name), "forward": "1 ms", "backward": "2 ms"} for name in ("fc1", "fc2", "fc3")]
    names = _layer_names()
    for layer, name in zip(layers, names, strict=True):
        layer["name"] = name
    data = {
        "schemes": ["dense"],
        "training": {"steps": 3, "evaluate_every": 3},
        "workload": {"times": {"layers": layers, "optimizer": "5 ms"}},
    }
    result = run(validate_experiment(data), Store(tmp_path)).dataset()
    assert float(result["forward_s"][0, 0]) == pytest.approx(3e-3)
    assert float(result["backward_s"][0, 0]) == pytest.approx(6e-3)
    assert float(result["optimizer_s"][0, 0]) == pytest.approx(5e-3)


def _layer_names() -> list[str]:
    from gradwire.sim.tasks import make_task

    return sorted({name.rpartition(".")[0] for name, _ in make_task("mnist", {}).model().named_parameters()})


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_half_written_and_goes_on(tmp_path):
    environment = {**os.environ, "GRADWIRE_STORE": str(tmp_path / "store")}
    command = [sys.executable, "-m", "gradwire.cli", "run", *OPTIONS, "--out", "killed"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for_an_entry(tmp_path / "store", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stored = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.gz")}
    assert stored
    assert not (tmp_path / "killed").exists()
    gradwire(*command[3:], store=tmp_path / "store", cwd=tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.gz")}
    assert {name: after[name] for name in stored} == stored
    assert len(after) == 5
    assert json.loads((tmp_path / "killed" / "summary.json").read_text())["schemes"]


@pytest.mark.slow
def test_an_interrupt_is_one_line_and_status_130(tmp_path):
    environment = {**os.environ, "GRADWIRE_STORE": str(tmp_path / "store")}
    steps = ["--set", "training.steps=400"]  # of five schemes, the first of which is soon stored
    command = [sys.executable, "-m", "gradwire.cli", "run", *steps, "--out", "stopped"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_an_entry(tmp_path / "store", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip().splitlines() == [
        "gradwire: interrupted; what was trained is stored, and the same command goes on from there"
    ]
    assert not out
    assert not (tmp_path / "stopped").exists()


def test_nothing_stored_is_pickled(tmp_path):
    result = run(load_experiment("mnist", ["training.steps=5"], ["dense"]), Store(tmp_path))
    result.dataset().to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            head = path.read_bytes()[:4]
            assert head[:2] == b"\x1f\x8b" or head == b"\x89HDF", path  # gzip or HDF5
    again = xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf").load()
    assert again.identical(result.dataset())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"schemes": []}, "schemes"),
        ({}, "schemes: this key is needed"),
        ({"schemes": ["topk", "topk(density=0.01)"]}, "more than once"),
        ({"schemes": ["dense"], "cluster": {"bandwidth": "1 Gbit/s"}}, "also latency, launch"),
        ({"schemes": ["dense"], "overhead": {"factr": 2}}, "overhead.factr: unknown key; did you mean factor"),
    ],
)
def test_experiments_that_say_too_little_or_too_much(data, words):
    with pytest.raises(ExperimentError, match=words):
        validate_experiment(data)
