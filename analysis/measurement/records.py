"""Records: what was measured, where, and how long it took each time; as lines of JSON in a file.

The first line of a file says on which machine; every other line is one record. Times are in seconds, one for each
repeat, not aggregated: :func:`median` and :func:`spread` are for readers. All that a record's times depend on is in it
or in the machine, so that two records with the same :attr:`Record.key` are repeats of one measurement.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from ...compressors.base import Shape
from ...compressors.errors import InputError
from ...compressors.partition import Granularity
from ...compressors.wirelog import Operation
from ...sim.faults import fault_lines

Backend = Literal["gloo", "nccl"]
Times = tuple[float, ...]
"""Seconds, one for each repeat."""


class _Model(BaseModel):
    """Records do not change, and hold nothing that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Model):
    """Where something was measured; no names of hosts, no paths.

    Attributes
    ----------
    cpu : str
    cores : int
        That the processes may use.
    memory_bytes : int
    system : str
        Kernel and release.
    devices : tuple of str
        Names of the GPUs that were used; empty on CPUs.
    backend : {"gloo", "nccl"}
    threads : int
        That each process computes with.
    torch, gradwire : str
        Versions.
    started : str
        ISO time, which no result depends on.
    """

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    devices: tuple[str, ...]
    backend: Backend
    threads: int
    torch: str
    gradwire: str
    started: str

    @property
    def key(self) -> str:
        """All but the time, as text: what must agree for records to be of one file."""
        return json.dumps(self.model_dump(mode="json", exclude={"started"}), sort_keys=True)


class Record(_Model):
    """What all records share; ``times`` names the fields that were measured, all others are the key."""

    times: ClassVar[frozenset[str]]

    @property
    def key(self) -> str:
        """All that the times depend on, as text; records of one key are repeats."""
        return json.dumps(self.model_dump(mode="json", exclude={*self.times, "error"}), sort_keys=True)


class CollectiveRecord(Record):
    """One collective between all workers.

    Attributes
    ----------
    operation : str
        As the wire log names it.
    workers : int
    bytes : int
        What each worker hands over, as in the wire log; of a broadcast, the root.
    pause_s : float
        Rest before each repeat; 0: back to back.
    link_bps : float or None
        The nominal rate of each worker's link; None: as it is.
    burst_bytes : int or None
        Of the token bucket that shapes it.
    seconds : tuple of float
        From the last worker's launch to the first one's landing, at each repeat.
    source : str
        ``measured``, or whose figures these are.
    """

    times = frozenset({"seconds"})

    kind: Literal["collective"] = "collective"
    operation: Operation
    workers: int
    bytes: int
    pause_s: float = 0.0
    link_bps: float | None = None
    burst_bytes: int | None = None
    seconds: Times = ()
    source: str = "measured"


class LayerRecord(_Model):
    """A module that owns parameters; its times are scaled so that all layers' add up to the medians of whole passes."""

    name: str
    parameters: tuple[str, ...]
    elements: int
    forward_s: float
    backward_s: float


class ComputeRecord(Record):
    """What a step's computation takes while all workers compute at the same time.

    Attributes
    ----------
    task : str
        ``mnist`` or another listed task or model, or an import path.
    options : dict
        The task's.
    batch_size : int
        Of one worker.
    workers : int
    optimizer : str
    optimizer_options : dict
    forward_s, backward_s, optimizer_s : tuple of float
        Whole passes without hooks, of all workers together at each repeat.
    layers : tuple of LayerRecord
        In forward order.
    """

    times = frozenset({"forward_s", "backward_s", "optimizer_s", "layers"})

    kind: Literal["compute"] = "compute"
    task: str
    options: dict[str, JsonValue] = {}
    batch_size: int
    workers: int
    optimizer: str = "SGD"
    optimizer_options: dict[str, JsonValue] = {"momentum": 0.9}
    forward_s: Times = ()
    backward_s: Times = ()
    optimizer_s: Times = ()
    layers: tuple[LayerRecord, ...] = ()


class CodecRecord(Record):
    """What a message costs besides its collectives, as the driver of a process runs it.

    Attributes
    ----------
    scheme : str
        Its whole text form.
    shape : tuple of int
        Of a unit.
    units : int
        How many equal units the message holds.
    workers : int
    encode_s, between_s, decode_s : tuple of float
        Of the whole message; before the first round's exchange, between rounds, and after the last one. Of all
        workers together at each repeat.
    """

    times = frozenset({"encode_s", "between_s", "decode_s"})

    kind: Literal["codec"] = "codec"
    scheme: str
    shape: Shape
    units: int
    workers: int
    encode_s: Times = ()
    between_s: Times = ()
    decode_s: Times = ()


class CollectiveUse(_Model):
    """A collective of a measured step, as the wire log has it.

    Attributes
    ----------
    operation : str
    message, round : int
    bytes : float
        What a worker hands over, the mean over workers and repeats; of a broadcast, the root.
    seconds : float
        From launch to landing; the median over repeats of the mean over workers.
    """

    operation: Operation
    message: int
    round: int
    bytes: float
    seconds: float


class StepRecord(Record):
    """A training step.

    Attributes
    ----------
    task, options, batch_size, workers, optimizer, optimizer_options
        As in :class:`ComputeRecord`.
    scheme : str
    unit, message : {"layer", "bucket", "model"}
    bucket_bytes, first_bucket_bytes : int
    overlap : bool
        Exchanged by a hook of DistributedDataParallel during the backward pass, or after it.
    agree : bool
        Whether the workers first told each other that all values are finite.
    link_bps, burst_bytes
        As in :class:`CollectiveRecord`.
    forward_s, backward_s, encode_s, exposed_communication_s, decode_s, optimizer_s : tuple of float
        At each repeat; they add up to ``step_s``. Decoding holds the work between rounds. Those of all workers together
        (:mod:`gradwire.analysis.measurement.walls`); with overlap means over workers, and what is encoded and decoded
        during the backward pass is taken off it.
    communication_s : tuple of float
        From launch to landing, over all collectives; with overlap the mean over workers.
    step_s : tuple of float
        From when the first worker set out until the last was done; with overlap, of the slowest worker.
    ready_s : tuple of float
        When each message's gradients were ready, since the step's start; medians over repeats of means over workers.
    collectives : tuple of CollectiveUse
    error : str or None
        Why this step could not be taken; the times are empty then.
    """

    times = frozenset(
        {
            "forward_s",
            "backward_s",
            "encode_s",
            "communication_s",
            "exposed_communication_s",
            "decode_s",
            "optimizer_s",
            "step_s",
            "ready_s",
            "collectives",
        }
    )

    kind: Literal["step"] = "step"
    task: str
    options: dict[str, JsonValue] = {}
    batch_size: int
    workers: int
    optimizer: str = "SGD"
    optimizer_options: dict[str, JsonValue] = {"momentum": 0.9}
    scheme: str
    unit: Granularity
    message: Granularity
    bucket_bytes: int
    first_bucket_bytes: int
    overlap: bool
    agree: bool
    link_bps: float | None = None
    burst_bytes: int | None = None
    forward_s: Times = ()
    backward_s: Times = ()
    encode_s: Times = ()
    communication_s: Times = ()
    exposed_communication_s: Times = ()
    decode_s: Times = ()
    optimizer_s: Times = ()
    step_s: Times = ()
    ready_s: Times = ()
    collectives: tuple[CollectiveUse, ...] = ()
    error: str | None = None


AnyRecord = CollectiveRecord | ComputeRecord | CodecRecord | StepRecord
_RECORD: TypeAdapter[Any] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="kind")])

# ------------------------------------------------------------------------------------------------------------- readers


def median(seconds: Sequence[float]) -> float:
    """Return the median over repeats; NaN if there are none."""
    return float(np.median(seconds)) if seconds else float("nan")


def spread(seconds: Sequence[float]) -> float:
    """Return the distance between the quartiles over repeats; NaN if there are none."""
    if not seconds:
        return float("nan")
    low, high = np.quantile(seconds, (0.25, 0.75))
    return float(high - low)


# --------------------------------------------------------------------------------------------------------------- files


def read_records(path: Path) -> tuple[Machine, list[AnyRecord]]:
    """Read a file of records.

    A last line without an end, as a killed measurement leaves it, is left out.

    Raises
    ------
    InputError
        If there is no such file, or a line is not a machine or a record; the message names file and line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    if not lines:
        raise InputError(f"{path}: holds no records; the first line must be the machine")
    machine: Machine = _read(path, 1, lines[0], TypeAdapter(Machine), Machine)
    kinds = {"collective": CollectiveRecord, "compute": ComputeRecord, "codec": CodecRecord, "step": StepRecord}
    records = []
    for number, line in enumerate(lines[1:], start=2):
        records.append(_read(path, number, line, _RECORD, kinds))
    return machine, records


def _read(path: Path, number: int, line: bytes, kind: TypeAdapter[Any], model: Any) -> Any:
    """Read one line, whose faults are of that line."""
    try:
        return kind.validate_json(line)
    except ValidationError as error:
        faults: list[Any] = [dict(fault) for fault in error.errors()]
        if isinstance(model, dict):
            model = next((model[fault["loc"][0]] for fault in faults if fault["loc"]), Record)
            for fault in faults:
                fault["loc"] = fault["loc"][1:]
        what = "the machine: " if model is Machine else ""
        raise InputError(f"{path}, line {number}: {what}{fault_lines(faults, model)[0]}") from error


def open_file(out: Path, machine: Machine) -> list[AnyRecord]:
    """Make a file ready for records of a machine; return those that it has.

    Raises
    ------
    InputError
        If it is of another machine, no file of records, or cannot be written.
    """
    try:
        data = out.read_bytes() if out.exists() else b""
        with out.open("ab") as file:
            file.truncate(data.rfind(b"\n") + 1)  # without what a killed measurement began to write
            if not file.tell():
                _write(file, machine)
                return []
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from error
    found, records = read_records(out)
    if found.key != machine.key:
        own, other = machine.model_dump(exclude={"started"}), found.model_dump(exclude={"started"})
        key = next(key for key in own if own[key] != other[key])
        raise InputError(f"{out}: was measured with {key} = {other[key]!r}, here it is {own[key]!r}; give another file")
    return records


def append_record(path: Path, record: AnyRecord) -> None:
    """Add a record to a file; when this returns it is on the disk, whatever becomes of the process."""
    with path.open("ab") as file:
        _write(file, record)


def _write(file: Any, model: BaseModel) -> None:
    file.write(model.model_dump_json().encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())
