"""Supervision: who of the workers failed or hangs, and that none of them is left."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

from ...compressors.errors import InputError
from .jobs import Plan
from .worker import Folder, Progress

_POLL_S = 0.02
_AFTERMATH_S = 1.0
"""How long others may take to fail of a worker's end, before the first to fail is looked for."""
_GRACE_S = 2.0
"""How long a process may take to end when it is asked to."""
_ANSWER_S = 1.0
"""How long a process may take to show its threads."""
_LINES = 20
_KILLED = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTERM)
"""Signals of which a process does not die because another one has ended, as it may of SIGABRT."""
_WAITING = "torch/distributed/distributed_c10d.py"
"""Where a thread is that waits for other workers."""


class MeasurementError(RuntimeError):
    """A worker failed or hung, which has ended the measurement; the message says which, and shows its last lines.

    Parameters
    ----------
    message : str
    ranks : tuple of int
        The workers at fault.
    """

    def __init__(self, message: str, ranks: tuple[int, ...]) -> None:
        super().__init__(message, ranks)
        self.message, self.ranks = message, ranks

    def __str__(self) -> str:
        return self.message


class _Said(NamedTuple):
    """What a worker told of its failure."""

    time: float
    kind: str
    text: str


class Supervisor:
    """Sees the workers of a plan through to their end; leaving its context ends all that are left.

    Parameters
    ----------
    plan : Plan
    folder : Folder
    progress : callable, optional
    """

    def __init__(self, plan: Plan, folder: Folder, progress: Progress | None) -> None:
        self._plan, self._folder, self._progress = plan, folder, progress
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lines = 0
        self._doing = "start"
        self._deadline = time.monotonic() + plan.start_limit_s

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_all()

    def take(self, process: "subprocess.Popen[bytes]") -> None:
        """Take charge of the next worker's process."""
        self._processes.append(process)

    def see_through(self) -> None:
        """Wait until all workers are done.

        Raises
        ------
        InputError
            If a job cannot be done as asked for.
        MeasurementError
            If a worker fails or hangs.
        """
        while True:
            codes = [process.poll() for process in self._processes]
            self._follow()
            if all(code == 0 for code in codes):
                return
            if any(code not in (None, 0) for code in codes):
                self._explain_end()
            if time.monotonic() > self._deadline:
                self._explain_hang()
            time.sleep(_POLL_S)

    def _follow(self) -> None:
        """Read how far the workers are; each job has a time limit of its own."""
        with suppress(FileNotFoundError):
            lines = self._folder.progress().read_text(encoding="utf-8").splitlines(keepends=True)
            for line in lines[self._lines :]:
                if not line.endswith("\n"):
                    break
                self._lines += 1
                done, total, self._doing = json.loads(line)
                self._deadline = time.monotonic() + self._plan.job_limit_s
                if self._progress is not None:
                    self._progress(done, total, self._doing)

    # -------------------------------------------------------------------------------------------------- explanations

    def _explain_end(self) -> None:
        """Raise for the first worker that ended with a fault."""
        stop = time.monotonic() + _AFTERMATH_S
        while time.monotonic() < stop and any(process.poll() is None for process in self._processes):
            time.sleep(_POLL_S)
        codes = [process.poll() for process in self._processes]
        said = {rank: self._said(rank) for rank in range(len(codes))}
        told = {rank: one for rank, one in said.items() if one is not None}
        killed = [rank for rank, code in enumerate(codes) if code is not None and -code in _KILLED]
        if killed:
            raise self._ended(killed[0], codes[killed[0]])
        if told:
            rank = min(told, key=lambda rank: told[rank].time)
            if told[rank].kind == "input":
                raise InputError(told[rank].text)
            raise MeasurementError(self._failed(rank, told[rank].text), (rank,))
        rank = next(rank for rank, code in enumerate(codes) if code not in (None, 0))
        raise self._ended(rank, codes[rank])

    def _said(self, rank: int) -> _Said | None:
        try:
            return _Said(**json.loads(self._folder.failure(rank).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def _ended(self, rank: int, code: int | None) -> MeasurementError:
        """Say that a worker ended without telling why."""
        assert code is not None
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        heading = f"worker {rank} of {self._plan.workers} {how} during: {self._doing}"
        said = self._folder.said(rank).read_text(encoding="utf-8", errors="replace")
        return MeasurementError("\n".join([heading, *_last(said)]), (rank,))

    def _failed(self, rank: int, text: str) -> str:
        return "\n".join([f"worker {rank} of {self._plan.workers} failed during: {self._doing}", *_last(text)])

    def _explain_hang(self) -> None:
        """Raise for the workers that keep the others waiting, after all have been asked where they are."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGUSR1)
        time.sleep(_ANSWER_S)
        shown = [self._folder.stacks(rank) for rank in range(self._plan.workers)]
        stacks = [path.read_text(encoding="utf-8", errors="replace") if path.exists() else "" for path in shown]
        limit_s = self._plan.job_limit_s if self._lines else self._plan.start_limit_s
        hang = [rank for rank, stack in enumerate(stacks) if _WAITING not in stack.replace(os.sep, "/")]
        heading = f"nothing was done within {limit_s:g} s during: {self._doing}"
        if not hang:
            everyone = tuple(range(self._plan.workers))
            raise MeasurementError(
                "\n".join([f"{heading}; all workers wait for each other", *_last(stacks[0])]), everyone
            )
        who = ", ".join(map(str, hang))
        lines = [f"{heading}; worker {who} of {self._plan.workers} keeps the others waiting"]
        for rank in hang:
            own = stacks[rank] or self._folder.said(rank).read_text(encoding="utf-8", errors="replace")
            lines += [f"worker {rank}:", *(_last(own) or ["  it does not answer"])]
        raise MeasurementError("\n".join(lines), tuple(hang))

    # ------------------------------------------------------------------------------------------------------- the end

    def _end_all(self) -> None:
        """End all processes and all that they have started: first by asking, then by force."""
        for send in (signal.SIGTERM, signal.SIGKILL):
            stop = time.monotonic() + _GRACE_S
            for process in self._processes:
                if process.poll() is None or send == signal.SIGKILL:
                    _signal(process, send)
            while time.monotonic() < stop and any(process.poll() is None for process in self._processes):
                time.sleep(_POLL_S)
        for process in self._processes:
            process.wait()


def _signal(process: "subprocess.Popen[bytes]", send: signal.Signals) -> None:
    """Signal a process and all of its session, if it has one of its own."""
    try:
        os.killpg(process.pid, send)
    except ProcessLookupError:
        process.send_signal(send)  # which does nothing if it has ended


def _last(text: str) -> list[str]:
    """Return a text's last lines, indented."""
    return [f"  {line}" for line in text.rstrip().splitlines()[-_LINES:]]
