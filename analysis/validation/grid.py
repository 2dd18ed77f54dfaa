"""The grid: which training steps are predicted and measured, and what is measured to calibrate for them."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from ...compressors.base import Shape
from ...compressors.errors import InputError
from ...compressors.partition import Partition, partition
from ...compressors.spec import parse_scheme
from ...compressors.wirelog import Collective, Operation, StepLog
from ...sim.faults import fault_lines
from ...sim.models.base import Model
from ...sim.step.synthetic import synthetic_log
from ...sim.training.train import new_model
from ..calibration.plan import codec_plan
from ..measurement.jobs import CollectiveJob, ComputeJob, Job, StepJob
from ..measurement.subject import find, training_of

SCHEMES = (
    "dense",
    "topk(density=0.001)",
    "topk(density=0.01)",
    "topk(density=0.1)",
    "ef(topk(density=0.01))",
    "randomblock(density=0.01)",
    "randomblock(density=0.1)",
    "qsgd(bits=4)",
    "qsgd(bits=8)",
    "scaledsign",
    "powersgd(rank=2)",
)
_PER_DECADE = 2
_SMALLEST_BYTES = 4
_AGREEMENT_BYTES = 4
_RESTED = {"pause_s": 0.02, "budget_s": 3.0, "repeats": 30}
"""How collectives are measured."""


class Subject(BaseModel):
    """What is trained: a listed task or model, or one of one's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = "mnist"
    options: dict[str, JsonValue] = {}
    batch_size: Annotated[int, Field(strict=True, ge=1)] = 32

    @property
    def label(self) -> str:
        """What tables call it."""
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.task}({options})" if options else self.task

    def shapes(self, search: Path | None = None) -> dict[str, Shape]:
        """Return the shapes of the parameters that are trained, by name; import paths are looked up there first."""
        found = find(self.task, dict(self.options), search)
        if isinstance(found, Model):
            module = found.build()
        else:
            job = StepJob(task=self.task, options=self.options, batch_size=self.batch_size)
            module = new_model(found, training_of(job, 1))
        return {name: tuple(p.shape) for name, p in module.named_parameters() if p.requires_grad}


SUBJECTS = (Subject(), Subject(options={"hidden": "2048,2048"}))
"""The MNIST network, and one of 5.8 million parameters."""


class Grid(BaseModel):
    """Configurations to be predicted and measured: all combinations of what it lists.

    Attributes
    ----------
    workers : int
    subjects : tuple of Subject
    schemes : tuple of str
    links_bps : tuple of float or None
        Nominal rates of the workers' links; None: as they are.
    overlap : tuple of bool
    repeats, warmup : int
        Steps of each configuration that count, and those before them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: Annotated[int, Field(strict=True, ge=2)] = 4
    subjects: Annotated[tuple[Subject, ...], Field(min_length=1)] = SUBJECTS
    schemes: Annotated[tuple[str, ...], Field(min_length=1, validate_default=True)] = SCHEMES
    links_bps: Annotated[tuple[float | None, ...], Field(min_length=1)] = (None,)
    overlap: Annotated[tuple[bool, ...], Field(min_length=1)] = (False,)
    repeats: Annotated[int, Field(strict=True, ge=3)] = 20
    warmup: Annotated[int, Field(strict=True, ge=3)] = 3

    @field_validator("schemes")
    @classmethod
    def _whole(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(parse_scheme(text)) for text in texts))

    def steps(self) -> list[StepJob]:
        """Return what is measured on each link, in an order that spreads schemes over time."""
        return [
            StepJob(
                task=subject.task,
                options=subject.options,
                batch_size=subject.batch_size,
                scheme=scheme,
                overlap=overlap,
                repeats=self.repeats,
                warmup=self.warmup,
            )
            for overlap in self.overlap
            for subject in self.subjects
            for scheme in self.schemes
        ]

    def size(self) -> int:
        """Return the number of configurations."""
        return len(self.links_bps) * len(self.steps())


def make_grid(data: dict[str, Any]) -> Grid:
    """Return the grid that data describe.

    Raises
    ------
    InputError
        A line for each fault, with its key, value and what is allowed.
    """
    try:
        return Grid.model_validate(data)
    except ValidationError as error:
        raise InputError("\n".join(fault_lines(error.errors(), Grid))) from error


def compute_jobs(grid: Grid) -> list[Job]:
    """Return the measurements of each subject's computation."""
    return [ComputeJob(**subject.model_dump(), repeats=2 * grid.repeats) for subject in grid.subjects]


def codec_jobs(grid: Grid, search: Path | None = None) -> list[Job]:
    """Return measurements of what each scheme costs, over the sizes and densities that the grid has."""
    shapes = [shape for subject in grid.subjects for shape in subject.shapes(search).values()]
    return [job.model_copy(update={"repeats": grid.repeats}) for job in codec_plan(grid.schemes, shapes)]


def collective_jobs(grid: Grid, search: Path | None = None) -> list[Job]:
    """Return measurements of the collectives that the grid's steps need, over their sizes.

    Each is done after a rest, as after a step's computation.
    """
    largest: dict[Operation, int] = {"all-reduce": _SMALLEST_BYTES, "all-gather": _SMALLEST_BYTES}
    for job in grid.steps():
        shapes = Subject(task=job.task, options=job.options, batch_size=job.batch_size).shapes(search)
        for message in wire_log(job, shapes, grid.workers):
            for collective in message.collectives:
                own = largest.get(collective.operation, _SMALLEST_BYTES)
                largest[collective.operation] = max(own, *collective.sent_bytes)
    return [
        CollectiveJob(operations=(operation,), sizes=_spaced(most, _multiple(operation, grid.workers)), **_RESTED)
        for operation, most in largest.items()
    ]


def wire_log(job: StepJob, shapes: dict[str, Shape], workers: int) -> StepLog:
    """Return what a step is to put on the wire."""
    scheme = parse_scheme(job.scheme)
    log = synthetic_log(partition_of(job, shapes), scheme, workers, step=job.warmup)
    if not job.agree:
        return log
    told = Collective("all-gather", 0, "bytes", (_AGREEMENT_BYTES,) * workers)
    return tuple(replace(message, collectives=(told, *message.collectives)) for message in log)


def partition_of(job: StepJob, shapes: dict[str, Shape]) -> Partition:
    """Return how a step's gradients are cut."""
    return partition(list(shapes.items()), job.unit, job.message, job.bucket_bytes, job.first_bucket_bytes)


def _multiple(operation: Operation, workers: int) -> int:
    """Return of what sizes must be multiples: of whole values of each worker's chunk where some are summed or cut."""
    return 1 if operation in ("all-gather", "broadcast", "permute") else 4 * workers


def _spaced(largest: int, multiple: int) -> tuple[int, ...]:
    """Return sizes up to the largest, spaced evenly in their logarithms, as multiples."""
    count = 2 + math.ceil(_PER_DECADE * math.log10(largest / _SMALLEST_BYTES))
    found = np.geomspace(_SMALLEST_BYTES, largest, count)
    return tuple(dict.fromkeys(multiple * max(1, math.ceil(size / multiple)) for size in found.tolist()))
