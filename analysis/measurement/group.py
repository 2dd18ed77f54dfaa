"""The group: this process among those of a measurement, as torchrun or the launcher has set its environment."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from ...compressors.errors import InputError
from .clock import Clock
from .jobs import Link, Plan
from .records import Backend

ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The variables by which torchrun tells a process where it belongs."""


@dataclass(frozen=True)
class Group:
    """A process's place among the workers.

    Attributes
    ----------
    rank, size : int
    device : torch.device
    clock : Clock
    link : Link
    search : str or None
        A folder in which import paths are looked up first.
    """

    rank: int
    size: int
    device: torch.device
    clock: Clock
    link: Link
    search: str | None = None

    def barrier(self) -> None:
        """Wait for all workers, and for the device."""
        self.clock.settle()
        dist.barrier()
        self.clock.settle()

    def everyones(self, own: Any) -> list[Any]:
        """Return what all workers pass, in the order of their ranks."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, own)
        return found

    def slowest(self, own: Sequence[float]) -> tuple[float, ...]:
        """Return the largest of all workers' values, at each place."""
        return tuple(self._table(own).max(0).tolist())

    def mean(self, own: Sequence[float]) -> tuple[float, ...]:
        """Return the mean of all workers' values, at each place."""
        return tuple(self._table(own).mean(0).tolist())

    def _table(self, own: Sequence[float]) -> NDArray[np.float64]:
        return np.array(self.everyones(list(own)), dtype=np.float64)


def in_group() -> bool:
    """Return whether this process was started as one of a group."""
    return all(name in os.environ for name in ENVIRONMENT)


def device_of(backend: Backend) -> torch.device:
    """Return this process's device: a GPU of its own under NCCL.

    Raises
    ------
    InputError
        If there is none.
    """
    if backend == "gloo":
        return torch.device("cpu")
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local >= count:
        raise InputError(f"backend = 'nccl': worker {local} of this machine needs a GPU, and torch finds {count}")
    return torch.device("cuda", local)


def join(plan: Plan) -> Group:
    """Join the group that the environment names, and wait for the others.

    Raises
    ------
    InputError
        If the group has another size than the plan, or a device is missing.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if size != plan.workers:
        raise InputError(f"workers = {plan.workers}: this group has {size} processes; start as many")
    device = device_of(plan.backend)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(plan.threads)
    dist.init_process_group(plan.backend, timeout=timedelta(seconds=plan.start_limit_s + plan.job_limit_s))
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)  # the first optimizer imports much: now, not in a job
    group = Group(rank, size, device, Clock(device), plan.link, plan.search)
    group.barrier()
    return group
