"""The training section of an experiment: all that decides what is learnt, besides the task and the scheme."""

import hashlib
import json
import math
import platform
import re
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from ...compressors.partition import Granularity
from ..units import Size
from .gradients import Mode


class Schedule(BaseModel):
    """One phase of the learning rate: a scheduler of ``torch.optim.lr_scheduler``, stepped after every update."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(description="class in torch.optim.lr_scheduler, e.g. CosineAnnealingLR")]
    options: Annotated[dict[str, Any], Field(description="its keyword arguments; counts are steps")] = {}
    until: Annotated[int | None, Field(gt=0, description="step at which the next phase begins; none for the last")] = (
        None
    )


class Training(BaseModel):
    """How N virtual workers train a task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: Annotated[int, Field(strict=True, ge=1, description="N, the number of workers")] = 8
    batch_size: Annotated[int, Field(strict=True, ge=1, description="examples of a worker and step")] = 32
    steps: Annotated[int, Field(strict=True, ge=1, description="optimizer steps")] = 400
    seed: Annotated[
        int, Field(strict=True, ge=0, lt=2**63, description="of model, data order, and every random draw")
    ] = 0
    optimizer: Annotated[str, Field(description="class in torch.optim")] = "SGD"
    learning_rate: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False, description="the optimizer's lr")] = (
        0.1
    )
    optimizer_options: Annotated[dict[str, Any], Field(description="its other keyword arguments")] = {}
    schedule: Annotated[tuple[Schedule, ...], Field(description="phases of the learning rate; none: constant")] = ()
    evaluate_every: Annotated[int, Field(strict=True, ge=1, description="steps between evaluations")] = 20
    target: Annotated[
        float | None,
        Field(
            strict=True,
            allow_inf_nan=False,
            description="value of the task's metric on the validation split that is to be reached",
        ),
    ] = None
    unit: Annotated[Granularity, Field(description="what a scheme sees as one tensor")] = "layer"
    message: Annotated[Granularity, Field(description="what one exchange carries; at least a unit")] = "bucket"
    bucket: Annotated[Size, Field(description="size at which a bucket is closed")] = 25 * 2**20
    first_bucket: Annotated[Size, Field(description="the same for the first bucket")] = 2**20
    dtype: Annotated[Literal["float32", "float64"], Field(description="of parameters and gradients")] = "float32"
    device: Annotated[str, Field(description="auto (CUDA where there is one), cpu, cuda or cuda:N")] = "auto"
    gradients: Annotated[
        Mode, Field(description="batched over workers by torch.func.vmap, looped, or auto: batched where it works")
    ] = "auto"
    processes: Annotated[int, Field(strict=True, ge=1, description="processes that share the workers evenly")] = 1
    record: Annotated[
        Literal["none", "theory"], Field(description="at every step, what convergence theory speaks of, or nothing")
    ] = "none"

    @field_validator("optimizer_options", "schedule")
    @classmethod
    def _finite(cls, options: Any) -> Any:
        if not _finite(options):
            raise ValueError("holds a number that is not finite")
        return options

    @field_validator("device")
    @classmethod
    def _device(cls, name: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
            raise ValueError("must be auto, cpu, cuda or cuda:N")
        return name

    @field_validator("record")
    @classmethod
    def _in_one_process(cls, record: str, info: ValidationInfo) -> str:
        processes = info.data.get("processes", 1)
        if record != "none" and processes > 1:
            raise ValueError(f"needs all workers in one process, and training.processes = {processes}; set that to 1")
        return record


def _finite(value: Any) -> bool:
    """Return whether all numbers in nested options are finite."""
    if isinstance(value, Schedule):
        return _finite(value.options)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def fingerprint(task_digest: str, scheme: str, plan: Training, device: torch.device) -> str:
    """Return a sha256 over all that a trajectory depends on, under which it is stored.

    That is the task (data, options, source), the scheme, the plan without the target (which only reads the
    trajectory), the kind of device, the versions of gradwire, torch, numpy and Python, and gradwire's own source of
    compressors and training, so that no result outlives the code that computed it.
    """
    parts = {
        "task": task_digest,
        "scheme": scheme,
        "plan": plan.model_dump(mode="json", exclude={"target", "device"}),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": [version("gradwire"), torch.__version__, np.__version__, platform.python_version()],
        "source": source_digest("compressors", "sim/training"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@lru_cache
def source_digest(*folders: str) -> str:
    """Return a sha256 over gradwire's own source in some of its folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in _sources(files("gradwire").joinpath(folder)):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _sources(folder: Traversable) -> list[Traversable]:
    """Return the Python files below a folder, in order."""
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _sources(entry)
        elif entry.name.endswith(".py"):
            found.append(entry)
    return found
