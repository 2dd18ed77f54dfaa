"""The machine on which something is measured: what of it the times depend on."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from .records import Backend, Machine

_CPUS = Path("/proc/cpuinfo")


def usable_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_machine(backend: Backend, threads: int) -> Machine:
    """Describe this machine, on which each process computes with so many threads."""
    count = torch.cuda.device_count() if backend == "nccl" else 0
    return Machine(
        cpu=_cpu(),
        cores=usable_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()}",
        devices=tuple(torch.cuda.get_device_name(index) for index in range(count)),
        backend=backend,
        threads=threads,
        torch=torch.__version__,
        gradwire=version("gradwire"),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _cpu() -> str:
    """Return the processor's name."""
    if _CPUS.exists():
        for line in _CPUS.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
