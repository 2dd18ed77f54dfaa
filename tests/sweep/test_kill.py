"""A sweep that is killed at any moment goes on where it was, and ends as if nothing had happened."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tomli_w
import xarray as xr

from gradwire.analysis.sweep.folder import read_sweep

SWEEP = {
    "schemes": ["dense(dtype=fp32)", "ef(topk)"],
    "task": {"name": "logistic"},
    "training": {"workers": 4, "batch_size": 8, "steps": 300, "evaluate_every": 10, "target": 0.9},
    "cluster": {
        "preset": "ethernet-1g",
        "fabric": {"kind": "switch", "core": "1.5 Gbit/s"},
    },
    "axes": {"density": [0.1, 0.4], "bandwidth": ["1 Gbit/s", "2 Gbit/s"], "seed": [0, 1]},
}
"""Six trainings, and twelve points that the event engine plays one by one."""
KILLS = 20


def begin(folder, store, out):
    environment = {**os.environ, "GRADWIRE_STORE": str(store), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gradwire.cli", "sweep", "sweep.toml", "--out", out, "--processes", "1"]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_killed_sweep_ends_as_an_uninterrupted_one(tmp_path):
    """Killed with SIGKILL at moments spread over the time that the whole takes, and begun again each time."""
    (tmp_path / "sweep.toml").write_text(tomli_w.dumps(SWEEP))
    start = time.monotonic()
    whole = begin(tmp_path, tmp_path / "one", "whole")
    _, errors = whole.communicate(timeout=300)
    assert whole.returncode == 0, errors
    duration_s = time.monotonic() - start
    expected = read_sweep(tmp_path / "whole")
    draws = random.Random(0)
    killed, store = 0, tmp_path / "two"
    while killed < KILLS:
        process = begin(tmp_path, store, "resumed")
        try:
            _, errors = process.communicate(timeout=draws.uniform(0.2, 0.7) * duration_s)
            assert process.returncode == 0, errors
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += 1
        if (tmp_path / "resumed").exists():  # it was done, so there is nothing left to kill: from nothing again
            xr.testing.assert_identical(read_sweep(tmp_path / "resumed"), expected)
            shutil.rmtree(tmp_path / "resumed")
            store = tmp_path / f"store after {killed} kills"
    last = begin(tmp_path, store, "resumed")
    _, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors
    xr.testing.assert_identical(read_sweep(tmp_path / "resumed"), expected)
