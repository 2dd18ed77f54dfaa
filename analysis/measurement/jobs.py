"""Jobs: what is to be measured, as data that can be kept in a file; each single job leaves one record."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from ...compressors.base import Shape
from ...compressors.partition import BUCKET_BYTES, FIRST_BUCKET_BYTES, ORDER, Granularity
from ...compressors.spec import parse_scheme
from ...compressors.wirelog import Operation
from .records import AnyRecord, Backend, CodecRecord, CollectiveRecord, ComputeRecord, StepRecord

Count = Annotated[int, Field(strict=True, ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Link(BaseModel):
    """How the workers' links are shaped while a plan is measured; None: as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    link_bps: float | None = None
    burst_bytes: int | None = None


class _Job(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Training(_Job):
    """What computation depends on."""

    task: str
    options: dict[str, JsonValue] = {}
    batch_size: Count = 32
    optimizer: str = "SGD"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    optimizer_options: dict[str, JsonValue] = {"momentum": 0.9}
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    warmup: Annotated[int, Field(strict=True, ge=3)] = 3
    repeats: Count = 20

    def _shared(self, workers: int) -> dict[str, Any]:
        """Return the fields that records have too."""
        names = ("task", "options", "batch_size", "optimizer", "optimizer_options")
        return {name: getattr(self, name) for name in names} | {"workers": workers}


class CollectiveJob(_Job):
    """Collectives alone, of each operation and size.

    Attributes
    ----------
    operations : tuple of str
    sizes : tuple of int
        Bytes that each worker hands over.
    repeats, least : int
        How often at most and, where the budget does not last, at least.
    budget_s : float
        For all repeats of one operation and size together, by a first trial's time.
    pause_s : float
        Rest before each repeat.
    """

    kind: Literal["collective"] = "collective"
    operations: Annotated[tuple[Operation, ...], Field(min_length=1)]
    sizes: Annotated[tuple[Count, ...], Field(min_length=1)]
    repeats: Count = 20
    least: Count = 5
    budget_s: Seconds = 5.0
    pause_s: Seconds = 0.0

    def singles(self) -> "Iterator[CollectiveJob]":
        """Yield a job for each operation and size."""
        for operation in self.operations:
            for size in self.sizes:
                yield self.model_copy(update={"operations": (operation,), "sizes": (size,)})

    def blank(self, workers: int, link: Link) -> CollectiveRecord:
        """Return the record of a single job, without times."""
        (operation,), (size,) = self.operations, self.sizes
        where = link.model_dump()
        return CollectiveRecord(operation=operation, workers=workers, bytes=size, pause_s=self.pause_s, **where)

    def __str__(self) -> str:
        sizes = f"{self.sizes[0]} B" if len(self.sizes) == 1 else f"{len(self.sizes)} sizes"
        return f"{', '.join(self.operations)} of {sizes}"


class ComputeJob(_Training):
    """A step's computation, in all workers at the same time: whole passes, and each layer's share of them.

    Attributes
    ----------
    task : str
        A listed task or model, or an import path of a task or model of one's own.
    """

    kind: Literal["compute"] = "compute"

    def singles(self) -> "Iterator[ComputeJob]":
        """Yield the job itself."""
        yield self

    def blank(self, workers: int, link: Link) -> ComputeRecord:
        """Return the record of the job, without times."""
        return ComputeRecord(**self._shared(workers))

    def __str__(self) -> str:
        return f"computation of {self.task}"


class CodecJob(_Job):
    """Encoding and decoding of a message of equal units, on normal draws that change at every repeat."""

    kind: Literal["codec"] = "codec"
    scheme: str
    shape: Annotated[Shape, Field(min_length=1)]
    units: Count = 1
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    warmup: Count = 3
    repeats: Count = 20

    @field_validator("scheme")
    @classmethod
    def _whole(cls, text: str) -> str:
        return str(parse_scheme(text))

    def singles(self) -> "Iterator[CodecJob]":
        """Yield the job itself."""
        yield self

    def blank(self, workers: int, link: Link) -> CodecRecord:
        """Return the record of the job, without times."""
        return CodecRecord(scheme=self.scheme, shape=self.shape, units=self.units, workers=workers)

    def __str__(self) -> str:
        return f"codec of {self.scheme} on {self.units} x {'x'.join(map(str, self.shape))}"


class StepJob(_Training):
    """Training steps of a task under a scheme.

    Attributes
    ----------
    scheme : str
    unit, message : {"layer", "bucket", "model"}
    bucket_bytes, first_bucket_bytes : int
        At which a bucket is closed. With overlap DistributedDataParallel takes a first bucket of its own only beside
        its default of 25 MiB.
    overlap : bool
        Exchange by a hook of DistributedDataParallel during the backward pass, or after it.
    agree : bool
        Whether workers first tell each other that all values are finite, as the hook always does.
    """

    kind: Literal["step"] = "step"
    scheme: Annotated[str, Field(validate_default=True)] = "dense"
    unit: Granularity = "layer"
    message: Granularity = "bucket"
    bucket_bytes: Count = BUCKET_BYTES
    first_bucket_bytes: Count = FIRST_BUCKET_BYTES
    overlap: bool = False
    agree: bool = True

    @field_validator("scheme")
    @classmethod
    def _whole(cls, text: str) -> str:
        return str(parse_scheme(text))

    @model_validator(mode="after")
    def _possible(self) -> "StepJob":
        if ORDER.index(self.unit) > ORDER.index(self.message):
            raise ValueError(f"unit = {self.unit!r} is larger than message = {self.message!r}: it must lie within it")
        if self.overlap and not self.agree:
            raise ValueError("overlap = true needs agree = true: the hook always lets the workers agree")
        own = (self.bucket_bytes, self.first_bucket_bytes) != (BUCKET_BYTES, FIRST_BUCKET_BYTES)
        if self.overlap and self.message == "bucket" and own and self.first_bucket_bytes != self.bucket_bytes:
            raise ValueError(
                f"first_bucket_bytes = {self.first_bucket_bytes}: with overlap it must be bucket_bytes = "
                f"{self.bucket_bytes}, unless both are the defaults of DistributedDataParallel"
            )
        return self

    def singles(self) -> "Iterator[StepJob]":
        """Yield the job itself."""
        yield self

    def blank(self, workers: int, link: Link) -> StepRecord:
        """Return the record of the job, without times."""
        names = ("scheme", "unit", "message", "bucket_bytes", "first_bucket_bytes", "overlap", "agree")
        own = {name: getattr(self, name) for name in names}
        return StepRecord(**self._shared(workers), **own, **link.model_dump())

    def __str__(self) -> str:
        return f"steps of {self.task} with {self.scheme}"


Job = CollectiveJob | ComputeJob | CodecJob | StepJob


class Plan(BaseModel):
    """Everything that the processes of a measurement need to know, as a file.

    Attributes
    ----------
    workers : int
    backend : {"gloo", "nccl"}
    threads : int
        Of each process.
    link : Link
    start_limit_s, job_limit_s : float
        Within which all workers must have joined, and within which a single job must be done.
    jobs : tuple of Job
    search : str or None
        A folder in which import paths are looked up first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: Count
    backend: Backend = "gloo"
    threads: Count = 1
    link: Link = Link()
    start_limit_s: Seconds = 120.0
    job_limit_s: Seconds = 600.0
    jobs: tuple[Annotated[Job, Field(discriminator="kind")], ...] = ()
    search: str | None = None

    def left(self, records: list[AnyRecord]) -> "Plan":
        """Return the plan with single jobs only, without those whose records are there."""
        done = {record.key for record in records}
        singles = [single for job in self.jobs for single in job.singles()]
        missing = tuple(single for single in singles if single.blank(self.workers, self.link).key not in done)
        return self.model_copy(update={"jobs": missing})
