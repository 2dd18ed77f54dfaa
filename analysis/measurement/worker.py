"""A worker: one process of a measurement, which joins the group, does the plan's jobs and keeps what was measured.

Started as ``python -m gradwire.analysis.measurement.worker PLAN RECORDS FOLDER`` with the environment that torchrun
sets, and ``GRADWIRE_PARENT`` for the process without which it must not live.
"""

import ctypes
import faulthandler
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from ...compressors.errors import InputError
from .codecs import measure_codec
from .collectives import measure_collective
from .compute import measure_compute
from .group import Group, join
from .jobs import CodecJob, CollectiveJob, ComputeJob, Job, Plan, StepJob
from .machine import this_machine
from .records import AnyRecord, append_record, open_file, read_records
from .steps import measure_steps

PARENT = "GRADWIRE_PARENT"
"""The environment's variable with the process that started this one."""
_PR_SET_PDEATHSIG = 1

Progress = Callable[[int, int, str], None]
"""Called with the number of jobs that are done, of all, and what comes next."""


def do_jobs(plan: Plan, group: Group, records: Path, progress: Progress) -> None:
    """Do a plan's single jobs in order; worker 0 adds each record to the file when it is done.

    Raises
    ------
    InputError
        If a job cannot be done as asked for. That a step cannot be taken is kept as its record's error instead.
    """
    for number, job in enumerate(plan.jobs):
        progress(number, len(plan.jobs), str(job))
        record = do_job(job, group)
        if group.rank == 0:
            append_record(records, record)
    progress(len(plan.jobs), len(plan.jobs), "")


def work(plan: Plan, records: Path, progress: Progress) -> list[AnyRecord] | None:
    """Do a plan as one of the processes that torchrun has started; worker 0 gets the file's records, no other any.

    Raises
    ------
    InputError
        If a job cannot be done as asked for, or the file is of another machine; on every worker alike.
    """
    group = join(plan)
    mistake: str | None = None
    left = plan
    if group.rank == 0:
        try:
            left = plan.left(open_file(records, this_machine(plan.backend, plan.threads)))
        except InputError as error:  # the others wait to be told
            mistake = str(error)
    left, mistake = group.everyones((left, mistake))[0]
    if mistake is not None:
        raise InputError(mistake)
    do_jobs(left, group, records, progress)
    dist.barrier()
    found = read_records(records)[1] if group.rank == 0 else None
    dist.destroy_process_group()
    return found


def do_job(job: Job, group: Group) -> AnyRecord:
    """Do a single job; return its record, the same on every worker."""
    match job:
        case CollectiveJob():
            return measure_collective(job, group)
        case ComputeJob():
            return measure_compute(job, group)
        case CodecJob():
            return measure_codec(job, group)
        case StepJob():
            try:
                return measure_steps(job, group)
            except InputError as error:  # it is raised by all workers alike
                return job.blank(group.size, group.link).model_copy(update={"error": str(error)})


class Folder:
    """The folder in which processes of a measurement tell their launcher how they are.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def progress(self) -> Path:
        """Return the file in which worker 0 says what it does: a line of JSON for each job that begins."""
        return self._path / "progress"

    def failure(self, rank: int) -> Path:
        """Return the file in which a worker says when and why it cannot go on."""
        return self._path / f"failure-{rank}"

    def said(self, rank: int) -> Path:
        """Return the file that holds what a worker wrote to its standard output and error."""
        return self._path / f"said-{rank}"

    def stacks(self, rank: int) -> Path:
        """Return the file in which a worker shows, when asked by SIGUSR1, where each of its threads is."""
        return self._path / f"stacks-{rank}"

    def tell_progress(self, done: int, total: int, label: str) -> None:
        """Add a line to the progress."""
        with self.progress().open("a", encoding="utf-8") as file:
            file.write(json.dumps([done, total, label]) + "\n")

    def tell_failure(self, rank: int, error: BaseException) -> None:
        """Write down a failure, whole at once."""
        kind = "input" if isinstance(error, InputError) else "error"
        text = str(error) if kind == "input" else "".join(traceback.format_exception(error))
        new = self._path / f"new-failure-{rank}"
        new.write_text(json.dumps({"time": time.time(), "kind": kind, "text": text}), encoding="utf-8")
        new.rename(self.failure(rank))


def _die_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, however that ends; here on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            os.kill(parent, 0)
        except ProcessLookupError:  # it ended before this process could ask
            os._exit(1)


def main(plan_file: str, records: str, folder_name: str) -> None:
    """Be one of the processes."""
    folder, rank = Folder(Path(folder_name)), int(os.environ["RANK"])
    _die_with(int(os.environ[PARENT]))
    with folder.stacks(rank).open("w") as stacks:
        faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
        try:
            plan = Plan.model_validate_json(Path(plan_file).read_text(encoding="utf-8"))
            tell: Progress = folder.tell_progress if rank == 0 else lambda *_: None
            group = join(plan)
            do_jobs(plan, group, Path(records), tell)
            dist.barrier()
        except BaseException as error:
            folder.tell_failure(rank, error)
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    # Leave at once: the threads of Gloo's connections, torn down while the other processes leave too, sometimes abort.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
