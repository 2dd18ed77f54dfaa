"""Real processes: Ctrl-C ends a sweep in one line, and whatever ends it leaves no process of the pool behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli_w

from .small import BASE

SWEEP = {
    **BASE,
    "schemes": ["dense(dtype=fp32)", "ef(topk)"],
    "training": {**BASE["training"], "steps": 4000, "evaluate_every": 4000},
    "axes": {"density": [0.1, 0.4], "seed": list(range(100))},
}
"""Three hundred trainings, so that none of the signals comes after the end."""
MARK = "GRADWIRE_STORE"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked up in /proc"),
]


def begin(folder):
    """Start the sweep in a session of its own; its processes are known by their store's place."""
    (folder / "long.toml").write_text(tomli_w.dumps(SWEEP))
    environment = {**os.environ, MARK: str(folder / "store"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gradwire.cli", "sweep", "long.toml", "--out", "out", "--processes", "2"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    wait(lambda: list((folder / "store").rglob("*.gz")), 240, "nothing was stored")
    assert process.poll() is None
    return process


def wait(found, most_s, otherwise):
    deadline = time.monotonic() + most_s
    while not found():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def running(folder):
    """Return the numbers of the processes, alive, that have this store in their environment."""
    mark = f"{MARK}={folder / 'store'}".encode()
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and mark in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
        except OSError:  # it ended, or is another's
            continue
    return found


@pytest.fixture
def place(tmp_path):
    """A folder; what a test leaves running in it is ended."""
    yield tmp_path
    for number in running(tmp_path):
        os.kill(number, signal.SIGKILL)


@pytest.mark.parametrize("whom", ["the command", "all, as a terminal does"])
def test_an_interrupt_is_one_line_status_130_and_no_process_is_left(place, whom):
    process = begin(place)
    assert len(running(place)) > 1
    (os.kill if whom == "the command" else os.killpg)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip().splitlines() == [
        "gradwire: interrupted; what was trained is stored, and the same command goes on from there"
    ]
    assert not out
    assert not (place / "out").exists()
    assert not list(place.glob(".out*"))
    wait(lambda: not running(place), 30, "processes of the pool are left")


def test_killing_the_command_ends_the_pool_too(place):
    process = begin(place)
    assert len(running(place)) > 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait(lambda: not running(place), 30, "processes of the pool are left")
    process.communicate()
    assert not (place / "out").exists()


def test_a_killed_process_of_the_pool_is_told_and_the_rest_ends(place):
    process = begin(place)
    children = [n for n in running(place) if n != process.pid and b"spawn_main" in command_line(n)]
    os.kill(children[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode not in (0, 130)
    assert "a process of the sweep was ended from outside" in err
    wait(lambda: not running(place), 30, "processes of the pool are left")


def command_line(number):
    return Path(f"/proc/{number}/cmdline").read_bytes()
