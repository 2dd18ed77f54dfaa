"""Launching: the processes of a measurement are started, watched and ended; what was measured is kept."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from .jobs import Job, Link, Plan
from .machine import this_machine, usable_cores
from .records import AnyRecord, Backend, open_file, read_records
from .supervise import Supervisor
from .worker import PARENT, Folder, Progress


class Place(Protocol):
    """Where workers live: how a process of each is started, and how they reach each other."""

    @property
    def interface(self) -> str:
        """The network interface's name, as each worker sees it."""

    def address(self, rank: int) -> str:
        """Return a worker's address."""

    def start(
        self, rank: int, command: Sequence[str], env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes]
    ) -> "subprocess.Popen[bytes]":
        """Start a worker's process in a session of its own."""


class Loopback:
    """All workers on this machine, over its loopback interface."""

    interface = "lo"

    def address(self, rank: int) -> str:
        """Return the address of all workers."""
        return "127.0.0.1"

    def start(
        self, rank: int, command: Sequence[str], env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes]
    ) -> "subprocess.Popen[bytes]":
        """Start a worker's process in a session of its own."""
        return subprocess.Popen(  # noqa: S603 - the command is ours
            list(command), env=dict(env), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
        )


def measure(
    jobs: Sequence[Job],
    workers: int,
    out: Path,
    *,
    backend: Backend = "gloo",
    place: Place | None = None,
    link: Link | None = None,
    threads: int | None = None,
    time_limit_s: float = 600.0,
    start_limit_s: float = 120.0,
    search: Path | None = None,
    progress: Progress | None = None,
) -> list[AnyRecord]:
    """Measure jobs between processes, and add their records to a file.

    What the file holds already is not measured again.

    Parameters
    ----------
    jobs : sequence of Job
    workers : int
    out : Path
    backend : {"gloo", "nccl"}
        NCCL gives each worker a GPU of its own.
    place : Place, optional
        Where workers are started; by default on this machine, over its loopback interface.
    link : Link, optional
        How their links are shaped, which the records take down; by default as they are.
    threads : int, optional
        Of each process; by default its share of this machine's cores, at least 1.
    time_limit_s, start_limit_s : float
        Within which each single job must be done, and within which all workers must have joined.
    search : Path, optional
        A folder in which import paths of tasks and models are looked up first.
    progress : callable, optional

    Returns
    -------
    list of Record
        All of the file's, in its order.

    Raises
    ------
    InputError
        If a job cannot be done as asked for, or the file is of another machine.
    MeasurementError
        If a worker fails, or hangs beyond the limit; all processes have ended then, and finished records are kept.
    """
    plan = plan_of(
        jobs,
        workers,
        backend=backend,
        link=link,
        threads=threads,
        time_limit_s=time_limit_s,
        start_limit_s=start_limit_s,
        search=search,
    )
    plan = plan.left(open_file(out, this_machine(backend, plan.threads)))
    if plan.jobs:
        _run(plan, out, place or Loopback(), progress)
    return read_records(out)[1]


def plan_of(
    jobs: Sequence[Job],
    workers: int,
    *,
    backend: Backend = "gloo",
    link: Link | None = None,
    threads: int | None = None,
    time_limit_s: float = 600.0,
    start_limit_s: float = 120.0,
    search: Path | None = None,
) -> Plan:
    """Return the plan of a measurement; parameters are those of :func:`measure`."""
    return Plan(
        workers=workers,
        backend=backend,
        threads=max(1, usable_cores() // workers) if threads is None else threads,
        link=link or Link(),
        job_limit_s=time_limit_s,
        start_limit_s=start_limit_s,
        jobs=tuple(jobs),
        search=None if search is None else str(search.resolve()),
    )


def _run(plan: Plan, out: Path, place: Place, progress: Progress | None) -> None:
    """Start all workers and see them through."""
    with tempfile.TemporaryDirectory(prefix="gradwire-") as name:
        folder = Folder(Path(name))
        plan_file = Path(name) / "plan.json"
        plan_file.write_text(plan.model_dump_json(), encoding="utf-8")
        module = "gradwire.analysis.measurement.worker"
        command = [sys.executable, "-m", module, str(plan_file), str(out.resolve()), name]
        shared = _environment(plan, place)
        with Supervisor(plan, folder, progress) as supervisor:
            for rank in range(plan.workers):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                with folder.said(rank).open("wb") as said:
                    supervisor.take(place.start(rank, command, {**shared, **own}, said, said))
            supervisor.see_through()


def _environment(plan: Plan, place: Place) -> dict[str, str]:
    """Return the environment that all workers share."""
    threads = {name: str(plan.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
    return {
        "OMP_WAIT_POLICY": "PASSIVE",  # on a busy machine, threads that spin make a step many times slower
        **os.environ,
        **threads,
        "WORLD_SIZE": str(plan.workers),
        "LOCAL_WORLD_SIZE": str(plan.workers),
        "MASTER_ADDR": place.address(0),
        "MASTER_PORT": str(_free_port()),
        "GLOO_SOCKET_IFNAME": place.interface,
        "NCCL_SOCKET_IFNAME": place.interface,
        PARENT: str(os.getpid()),
    }


def _free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("", 0))
        port: int = found.getsockname()[1]
        return port
