"""Collectives alone: each operation as the driver does it, between all workers at once."""

import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from ...compressors.drivers import sum_rows
from ...compressors.errors import InputError
from ...compressors.processes import ALL_GATHER
from .group import Group
from .jobs import CollectiveJob
from .records import CollectiveRecord
from .walls import COMMUNICATION, Segment, totals

_WARMUP = 2


def measure_collective(job: CollectiveJob, group: Group) -> CollectiveRecord:
    """Measure a single job's collective; return its record, the same on every worker.

    Raises
    ------
    InputError
        If so many bytes cannot be cut into values and chunks.
    """
    (operation,), (size,) = job.operations, job.sizes
    run = _operation(operation, size, group)
    trials = [_timed(run, job.pause_s, group) for _ in range(_WARMUP)]
    (trial_s,) = _walls(group, trials[-1:])
    repeats = max(min(job.least, job.repeats), min(job.repeats, int(job.budget_s / max(trial_s + job.pause_s, 1e-9))))
    seconds = _walls(group, [_timed(run, job.pause_s, group) for _ in range(repeats)])
    return job.blank(group.size, group.link).model_copy(update={"seconds": seconds})


def _walls(group: Group, own: Sequence[list[Segment]]) -> tuple[float, ...]:
    """Return how long each repeat took from the last launch to the first landing."""
    return tuple(totals(one)[COMMUNICATION] for one in group.together(own))


def _timed(run: Callable[[], object], pause_s: float, group: Group) -> list[Segment]:
    """Run once, with all workers setting out together."""
    if pause_s:
        time.sleep(pause_s)
    group.barrier()
    start = group.clock.mark()
    run()
    stop = group.clock.mark()
    group.clock.settle()
    launched, landed = group.at(start, start), group.at(start, stop)
    return [
        Segment("before", launched, launched),
        Segment(COMMUNICATION, launched, landed),
        Segment("after", landed, landed),
    ]


def _operation(operation: str, size: int, group: Group) -> Callable[[], object]:
    """Return what does an operation to which each worker hands over so many bytes."""
    workers, device = group.size, group.device
    match operation:
        case "all-reduce":
            values = torch.zeros(_whole(operation, size, 4), device=device)
            return lambda: dist.all_reduce(values)
        case "all-gather" | "permute":  # the driver moves what is permuted by a gather
            sent, received = _of_bytes(size, device), _of_bytes(size * workers, device)
            return lambda: ALL_GATHER(received, sent)
        case "broadcast":
            told = _of_bytes(size, device)
            return lambda: dist.broadcast(told, src=0)
        case "all-to-all":
            chunks = _of_bytes(_whole(operation, size, workers) * workers, device)
            arrived = torch.empty_like(chunks)
            return lambda: dist.all_to_all_single(arrived, chunks)
        case "reduce-scatter":  # chunks are exchanged and summed in rank order
            parts = torch.zeros(workers, _whole(operation, size, 4 * workers), device=device)
            came = torch.empty_like(parts)
            return lambda: (dist.all_to_all_single(came, parts), sum_rows(came))
    raise InputError(f"operation = {operation!r}: it cannot be measured alone")


def _of_bytes(size: int, device: torch.device) -> Tensor:
    return torch.zeros(size, dtype=torch.uint8, device=device)


def _whole(operation: str, size: int, part: int) -> int:
    """Return how many parts there are in a size."""
    if size % part:
        raise InputError(f"sizes = {size}: {operation} needs a multiple of {part} bytes here")
    return size // part
