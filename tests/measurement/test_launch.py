"""Real processes of a measurement: who is named when one fails, that nobody is left, and what is kept."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest

from gradwire.analysis.measurement.jobs import CollectiveJob, ComputeJob, Job, StepJob
from gradwire.analysis.measurement.launch import Loopback, measure
from gradwire.analysis.measurement.records import read_records
from gradwire.analysis.measurement.supervise import MeasurementError
from gradwire.compressors.errors import InputError

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
FIRST = CollectiveJob(operations=("all-reduce",), sizes=(64,), repeats=3)
"""Is done before anything fails."""


class Remembering(Loopback):
    """Starts workers as usual, and remembers their processes."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []

    def start(
        self, rank: int, command: Sequence[str], env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes]
    ) -> "subprocess.Popen[bytes]":
        self.started.append(super().start(rank, command, env, stdout, stderr))
        return self.started[-1]


def faulty(fault: str) -> Job:
    return ComputeJob(task="faulty:Faulty", options={"fault": fault}, batch_size=4, repeats=2)


def alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and is not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def fails(fault: str, out: Path, **limits: float) -> MeasurementError:
    """Measure what fails at worker 1; check that nobody is left and that the first record is kept."""
    place = Remembering()
    with pytest.raises(MeasurementError) as caught:
        measure([FIRST, faulty(fault)], 3, out, place=place, search=HERE, **limits)
    assert len(place.started) == 3
    assert not [process.pid for process in place.started if alive(process.pid)]
    assert [record.kind for record in read_records(out)[1]] == ["collective"]
    return caught.value


def test_a_worker_that_raises_is_named_with_its_last_lines(tmp_path):
    error = fails("raise", tmp_path / "records")
    assert error.ranks == (1,)
    first, *lines = str(error).splitlines()
    assert first == "worker 1 of 3 failed during: computation of faulty:Faulty"
    assert lines[-1].strip() == "RuntimeError: the disk is full of water"
    assert any("faulty.py" in line for line in lines)


def test_a_worker_that_is_killed_is_named_and_not_those_that_lost_it(tmp_path):
    error = fails("kill", tmp_path / "records")
    assert error.ranks == (1,)
    assert str(error).splitlines()[0] == "worker 1 of 3 was killed by SIGKILL during: computation of faulty:Faulty"


def test_a_worker_that_hangs_is_named_with_where_it_is(tmp_path):
    start = time.monotonic()
    error = fails("hang", tmp_path / "records", time_limit_s=15.0)
    assert time.monotonic() - start < 120  # it sleeps for an hour
    assert error.ranks == (1,)
    first, *lines = str(error).splitlines()
    assert first == (
        "nothing was done within 15 s during: computation of faulty:Faulty; worker 1 of 3 keeps the others waiting"
    )
    assert any("faulty.py" in line and "_fail" in line for line in lines)


def test_a_worker_that_is_stopped_is_named_and_ended(tmp_path):
    error = fails("stop", tmp_path / "records", time_limit_s=15.0)
    assert error.ranks == (1,)
    assert "it does not answer" in str(error)


def test_workers_that_never_meet_end_at_the_limit_of_the_start(tmp_path):
    class Lonely(Remembering):
        def start(self, rank: int, command: Sequence[str], env: Mapping[str, str], *files: IO[bytes]):  # type: ignore[no-untyped-def]
            own = [sys.executable, "-c", "import time; time.sleep(3600)"] if rank == 1 else command
            return super().start(rank, own, env, *files)

    place = Lonely()
    with pytest.raises(MeasurementError, match=r"^nothing was done within 15 s during: start; worker 1 of 2") as caught:
        measure([FIRST], 2, tmp_path / "records", place=place, start_limit_s=15.0)
    assert caught.value.ranks == (1,)
    assert not [process.pid for process in place.started if alive(process.pid)]


def test_what_was_measured_is_not_measured_again(tmp_path):
    out, done = tmp_path / "records", []
    step = StepJob(task="faulty:Faulty", batch_size=4, repeats=2, agree=False)
    before = measure([FIRST], 3, out)
    with out.open("ab") as file:
        file.write(b'{"kind": "collec')  # as a process leaves it that is killed while it writes
    records = measure([FIRST, step], 3, out, search=HERE, progress=lambda n, of, label: done.append((n, of, label)))
    assert records[:1] == before
    assert [record.kind for record in records] == ["collective", "step"]
    assert done == [(0, 1, "steps of faulty:Faulty with dense(dtype=native)"), (1, 1, "")]
    assert measure([step, FIRST], 3, out, search=HERE, place=Unused()) == records


class Unused(Loopback):
    """Must not be asked for anything."""

    def start(self, *_: object) -> "subprocess.Popen[bytes]":  # type: ignore[override]
        raise AssertionError("a worker was started though nothing is left to measure")


def test_what_a_job_cannot_do_is_an_input_error_or_an_error_in_its_record(tmp_path):
    refused = StepJob(task="mnist", scheme="onebitadam", repeats=1, agree=False)
    no_such = ComputeJob(task="mnist", options={"hidden": "wide"})
    place = Remembering()
    with pytest.raises(InputError, match=r"^task\.hidden = 'wide': must be widths of at least 1"):
        measure([refused, no_such], 2, tmp_path / "records", place=place)
    (record,) = read_records(tmp_path / "records")[1]
    assert record.error.startswith("onebitadam(freeze_step=1000): the optimizer must be OneBitAdam")
    assert record.step_s == ()
    assert not [process.pid for process in place.started if alive(process.pid)]


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import test_launch as own
class Telling(own.Loopback):
    def start(self, *arguments):
        process = super().start(*arguments)
        print(process.pid, flush=True)
        return process
def say(done, total, label):
    if done:
        print("hangs", flush=True)
own.measure([own.FIRST, own.faulty("hang")], 2, Path({out!r}), place=Telling(), search=own.HERE, progress=say)
"""


@pytest.mark.parametrize(("send", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_an_interrupted_or_killed_parent_leaves_nobody(send, code, tmp_path):
    script = PARENT.format(here=str(HERE), out=str(tmp_path / "records"))
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    assert parent.stdout.readline() == "hangs\n"
    assert all(map(alive, workers))
    os.kill(parent.pid, send)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode in (code, -send)
    if send == signal.SIGINT:
        assert "KeyboardInterrupt" in said
    stop = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < stop:
        time.sleep(0.05)
    assert not [pid for pid in workers if alive(pid)]
    assert [record.kind for record in read_records(tmp_path / "records")[1]] == ["collective"]
