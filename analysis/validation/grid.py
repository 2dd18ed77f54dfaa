"""The grid: which training steps are predicted and measured, and what is measured to calibrate for them."""

import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from ...compressors.base import Shape
from ...compressors.errors import InputError
from ...compressors.spec import parse_scheme
from ...compressors.wirelog import Operation
from ...sim.faults import fault_lines
from ...sim.models.base import Model
from ...sim.step.measured import family
from ...sim.training.train import new_model
from ..measurement.jobs import CodecJob, CollectiveJob, ComputeJob, Job, StepJob
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
OPERATIONS: tuple[Operation, ...] = ("all-reduce", "all-gather")
"""What the schemes of a grid exchange by; others are measured where a scheme asks for them."""
_PER_DECADE = 2
_SMALLEST_BYTES = 4
_PAUSE_S = 0.02
"""Rest before each collective, as a step's computation is one."""
_UNITS = 4
"""Units of the messages that tell what a message costs besides its units."""


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

    def shapes(self) -> dict[str, Shape]:
        """Return the shapes of the parameters that are trained, by name."""
        found = find(self.task, dict(self.options))
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
    schemes: Annotated[tuple[str, ...], Field(min_length=1)] = SCHEMES
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


def codec_jobs(grid: Grid) -> list[Job]:
    """Return measurements of what each scheme costs, over the sizes and densities that the grid has.

    Schemes that differ in their density only are measured at each of the family's densities.
    """
    units = {shape for subject in grid.subjects for shape in subject.shapes().values()}
    jobs: list[Job] = []
    for scheme in grid.schemes:
        for dims in (1, 2):
            sizes = [math.prod(shape) for shape in units if min(len(shape), 2) == dims]
            ladder = spaced(min(sizes), max(sizes)) if sizes else []
            shapes = dict.fromkeys(_shape(size, dims) for size in ladder)
            jobs += [CodecJob(scheme=scheme, shape=shape, repeats=grid.repeats) for shape in shapes]
            if shapes:
                smallest = next(iter(shapes))
                jobs.append(CodecJob(scheme=scheme, shape=smallest, units=_UNITS, repeats=grid.repeats))
    return jobs


def collective_jobs(largest: int) -> list[Job]:
    """Return measurements of collectives up to a size in bytes, each after a rest, as after a step's computation."""
    sizes = tuple(size - size % 4 for size in spaced(_SMALLEST_BYTES, largest))
    return [CollectiveJob(operations=OPERATIONS, sizes=sizes, pause_s=_PAUSE_S, budget_s=3.0, repeats=30)]


def largest_bytes(grid: Grid) -> int:
    """Return the size of the largest message: all of a model's values in float32."""
    return max(4 * sum(map(math.prod, subject.shapes().values())) for subject in grid.subjects)


def densities(grid: Grid) -> dict[str, tuple[float, ...]]:
    """Return the densities of each family of schemes in the grid, rising."""
    found: dict[str, set[float]] = {}
    for scheme in grid.schemes:
        name, density = family(scheme)
        found.setdefault(name, set()).update(() if density is None else (density,))
    return {name: tuple(sorted(values)) for name, values in found.items()}


def spaced(smallest: int, largest: int) -> list[int]:
    """Return sizes from the smallest to the largest, spaced evenly in their logarithms.

    >>> spaced(10, 1000)
    [10, 32, 100, 316, 1000]
    """
    count = 1 + max(1, math.ceil(_PER_DECADE * math.log10(largest / smallest))) if largest > smallest else 1
    return list(dict.fromkeys(_between(smallest, largest, count)))


def _between(smallest: int, largest: int, count: int) -> Iterator[int]:
    for i in range(count):
        yield round(smallest * (largest / smallest) ** (i / max(1, count - 1)))


def _shape(size: int, dims: int) -> Shape:
    """Return a shape of about so many values: a vector, or a matrix as square as possible."""
    if dims == 1:
        return (size,)
    rows = max(1, round(math.sqrt(size)))
    return (rows, max(1, round(size / rows)))
