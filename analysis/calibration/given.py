"""Times given by hand: a TOML file of collectives, layers and codecs, read into records."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from ...compressors.errors import InputError
from ...compressors.spec import parse_scheme
from ...compressors.wirelog import Operation
from ...sim.faults import fault_lines
from ...sim.step.workload import WorkloadTimes
from ...sim.tasks.registry import make_task
from ...sim.units import Duration, Size
from ..measurement.records import AnyRecord, CodecRecord, CollectiveRecord, ComputeRecord, LayerRecord


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GivenCollective(_Section):
    """How long one operation takes, by size."""

    operation: Annotated[Operation, Field(description="as the wire log names it")]
    workers: Annotated[PositiveInt, Field(description="how many take part")]
    sizes: Annotated[tuple[Size, ...], Field(min_length=1, description="what each worker hands over")]
    seconds: Annotated[tuple[Duration, ...], Field(min_length=1, description="how long that takes, for each size")]

    def records(self, source: str) -> list[CollectiveRecord]:
        """Return a record for each size."""
        if len(self.sizes) != len(self.seconds):
            raise InputError(
                f"{source}: collective {self.operation}: there are {len(self.sizes)} sizes and {len(self.seconds)} "
                "seconds; each size needs one time"
            )
        shared = {"operation": self.operation, "workers": self.workers, "source": source}
        pairs = zip(self.sizes, self.seconds, strict=True)
        return [CollectiveRecord(**shared, bytes=size, seconds=(seconds,)) for size, seconds in pairs]


class GivenWorkload(_Section):
    """How long a task's model computes, by layer."""

    task: str
    options: dict[str, str | int | float | bool] = {}
    batch_size: PositiveInt
    workers: PositiveInt
    times: WorkloadTimes

    def record(self) -> ComputeRecord:
        """Return the record; layers get the parameters that their names stand for."""
        shapes = {name: tuple(p.shape) for name, p in make_task(self.task, self.options).model().named_parameters()}
        workload = self.times.workload(shapes)
        layers = tuple(
            LayerRecord(
                name=layer.name,
                parameters=layer.parameters,
                elements=layer.elements,
                forward_s=layer.forward_s,
                backward_s=layer.backward_s,
            )
            for layer in workload.layers
        )
        return ComputeRecord(
            task=self.task,
            options=self.options,
            batch_size=self.batch_size,
            workers=self.workers,
            forward_s=(workload.forward_s,),
            backward_s=(workload.backward_s,),
            optimizer_s=(workload.optimizer_s,),
            layers=layers,
        )


class GivenCodec(_Section):
    """How long a scheme encodes and decodes one unit."""

    scheme: str
    shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1, description="of the unit")]
    workers: PositiveInt
    encode: Duration
    between: Annotated[Duration, Field(description="all work between rounds")] = 0.0
    decode: Annotated[Duration, Field(description="of the payloads of all workers together")]

    @field_validator("scheme")
    @classmethod
    def _whole(cls, text: str) -> str:
        return str(parse_scheme(text))

    def record(self) -> CodecRecord:
        """Return the record."""
        return CodecRecord(
            scheme=self.scheme,
            shape=self.shape,
            units=1,
            workers=self.workers,
            encode_s=(self.encode,),
            between_s=(self.between,),
            decode_s=(self.decode,),
        )


class Given(_Section):
    """A file of times given by hand."""

    collective: tuple[GivenCollective, ...] = ()
    workload: tuple[GivenWorkload, ...] = ()
    codec: tuple[GivenCodec, ...] = ()


def read_given(path: Path) -> list[AnyRecord]:
    """Read a file of times given by hand.

    Raises
    ------
    InputError
        If it cannot be read, holds no times, or says something that is not allowed; a line for each fault.
    """
    given = _read(path)
    records: list[AnyRecord] = []
    for collective in given.collective:
        records += collective.records(f"given: {path.name}")
    records += [workload.record() for workload in given.workload]
    records += [codec.record() for codec in given.codec]
    if not records:
        raise InputError(f"{path}: holds no times; there are the tables collective, workload and codec")
    return records


def _read(path: Path) -> Given:
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is no valid TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        return Given.model_validate(data)
    except ValidationError as error:
        raise InputError("\n".join(f"{path}: {line}" for line in fault_lines(error.errors(), Given))) from error
