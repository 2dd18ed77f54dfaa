"""Spreading: the same training with its workers shared out over several processes, one GPU each where there are GPUs.

All-reduces are summed in rank order, so that a scheme's exchange gives bit for bit what stacking all workers in one
process gives. Gradients are then computed for W rows at a time instead of N, which may change their last bits.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import ProcessRaisedException, start_processes

from ...compressors.base import NonFiniteError, Scheme
from ...compressors.errors import InputError
from ...compressors.processes import ProcessGroupDriver
from ..tasks.base import Task
from .plan import Training
from .train import Progress, find_device, train
from .trajectory import Trajectory

_POLL_S = 0.1
_MISTAKE = "mistake.txt"


def train_spread(task: Task, scheme: Scheme, plan: Training, progress: Progress | None = None) -> Trajectory:
    """Train in ``plan.processes`` processes of this machine, or in this one if it is one.

    Parameters are those of :func:`gradwire.sim.training.train.train`. An exception in a process ends the others and is
    raised here: as an ``InputError`` if it is one, otherwise with that process's traceback.
    """
    if plan.processes == 1:
        return train(task, scheme, plan, progress=progress)
    with tempfile.TemporaryDirectory() as folder:
        counter = mp.get_context("spawn").Value("q", 0)
        arguments = (Path(folder), task, scheme, plan, counter)
        processes: Any = start_processes(  # type: ignore[no-untyped-call]
            _run, arguments, nprocs=plan.processes, join=False, start_method="spawn"
        )
        try:
            while not processes.join(timeout=_POLL_S):
                if progress is not None:
                    progress(counter.value)
        except ProcessRaisedException as error:
            if (Path(folder) / _MISTAKE).exists():
                raise InputError((Path(folder) / _MISTAKE).read_text(encoding="utf-8")) from error
            raise
        finally:
            for process in processes.processes:
                if process.is_alive():
                    process.terminate()
                process.join()
        return Trajectory.from_json((Path(folder) / "trajectory.json").read_text(encoding="utf-8"))


def _run(process: int, folder: Path, task: Task, scheme: Scheme, plan: Training, counter: Any) -> None:
    """Be one of the processes."""
    device = find_device(plan.device, process)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // plan.processes))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=(folder / "rendezvous").as_uri(),
        rank=process,
        world_size=plan.processes,
    )
    try:
        driver = ProcessGroupDriver(plan.workers // plan.processes, exact=True, agree=False)

        def report(done: int) -> None:
            counter.value = done

        trajectory = train(task, scheme, plan, driver, report if process == 0 else None)
        if process == 0:
            (folder / "trajectory.json").write_text(trajectory.to_json(), encoding="utf-8")
        dist.barrier()
    except (InputError, NonFiniteError) as error:
        (folder / _MISTAKE).write_text(str(error), encoding="utf-8")
        raise
    # Leave at once: the threads of Gloo's connections, torn down while the other processes leave too, sometimes abort.
    os._exit(0)
