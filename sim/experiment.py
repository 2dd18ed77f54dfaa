"""The experiment as data: what is asked, complete, as a TOML file holds it.

Unknown keys, wrong types and values out of range are refused before anything runs, with the key, the value and what is
allowed. Sections and keys are documented by their field descriptions, which ``gradwire run --help`` shows too.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from ..compressors.base import Scheme
from ..compressors.costs import on_cluster
from ..compressors.errors import InputError
from ..compressors.spec import parse_scheme
from .cluster.cluster import (
    Cluster,
    Details,
    Sources,
    file_keys,
    load_cluster,
    make_cluster,
    preset_keys,
    unknown_name,
)
from .faults import fault_lines
from .models import load_model
from .network.costs import Costs
from .network.gather_cost import gather_line
from .profile import filled, load_profile
from .step.device import Device, load_device
from .step.options import StepOptions
from .step.overhead import Overhead
from .step.workload import WorkloadTimes
from .tasks import Task, TaskError, make_task
from .training.plan import Training
from .training.tuning import Tuning
from .units import Bandwidth, Duration, Size

_PRESETS = files("gradwire.sim") / "experiments"
EXPERIMENTS: tuple[str, ...] = tuple(
    sorted(entry.name.removesuffix(".toml") for entry in _PRESETS.iterdir() if entry.name.endswith(".toml"))
)
"""The names of the shipped experiments."""
DEFAULT_EXPERIMENT = "mnist"

_NUMBERS = ("bandwidth", "latency", "launch")


class ExperimentError(InputError):
    """An experiment that cannot be run as written; the message is one line for each fault."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskSection(BaseModel):
    """What is learnt; keys besides ``name`` are the task's own options."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Annotated[str, Field(description="a listed task, or package.module:Task of one's own")] = "mnist"


class ClusterSection(Details):
    """The network: a preset, a file, numbers of one's own, or one of the former with some of its keys replaced."""

    preset: Annotated[str | None, Field(description="a listed cluster")] = None
    file: Annotated[
        str | None, Field(description="a cluster's TOML file, seen from this file or the working directory")
    ] = None
    bandwidth: Annotated[Bandwidth | None, Field(description="payload rate of a host's NIC, each way")] = None
    latency: Annotated[Duration | None, Field(description="one way from host to host, for each transfer")] = None
    launch: Annotated[Duration | None, Field(description="of each collective operation")] = None

    @model_validator(mode="before")
    @classmethod
    def _with_file(cls, data: Any) -> Any:
        """Take the keys of the file in, so that it is read once."""
        if not (isinstance(data, dict) and isinstance(data.get("file"), str)):
            return data
        keys = file_keys(data["file"])
        if "file" in keys:
            raise ValueError(f"cluster file {data['file']!r}: file: not in a cluster's file")
        return {**keys, **data}

    @field_validator("preset")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None:
            load_cluster(name)
        return name

    @model_validator(mode="after")
    def _describes_a_cluster(self) -> "ClusterSection":
        missing = [key for key in _NUMBERS if getattr(self, key) is None]
        if self.preset is None and missing:
            raise ValueError(f"needs a preset, or else also {', '.join(missing)}")
        try:
            self.cluster()
        except InputError as error:
            raise ValueError(str(error).replace("\n", "; ")) from error
        return self

    @property
    def label(self) -> str:
        """What results call the cluster."""
        return self.preset or (Path(self.file).stem if self.file else "given")

    def cluster(self) -> Cluster:
        """Return the cluster that is meant."""
        keys: dict[str, Any] = {} if self.preset is None else preset_keys(self.preset)
        own = self.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude_none=True, exclude={"preset", "file"}
        )
        if self.preset is not None and "source" not in own:
            preset = load_cluster(self.preset)
            replaced = (
                key for key in own if key in Sources.model_fields and getattr(self, key) != getattr(preset, key)
            )
            keys["source"] = keys["source"] | dict.fromkeys(replaced, "given")
        return make_cluster(keys | own)

    def complete(self) -> "ClusterSection":
        """Return the section with everything that the preset or the file holds."""
        keys = self.cluster().model_dump(mode="json", by_alias=True, exclude_none=True)
        return ClusterSection.model_validate({**keys, "preset": self.preset})


class WorkloadSection(_Section):
    """How long a worker computes: estimated for a device, or times of one's own."""

    device: Annotated[str, Field(description="a listed device; also prices compression")] = "v100"
    times: Annotated[WorkloadTimes | None, Field(description="layer times of one's own instead of an estimate")] = None
    model: Annotated[
        str | None,
        Field(description="a listed model whose shapes and times stand in for the task's: steps are timed as its own"),
    ] = None
    batch: Annotated[
        int | None, Field(strict=True, ge=1, description="of such a model, on a worker; by default its customary one")
    ] = None

    @field_validator("device")
    @classmethod
    def _known(cls, name: str) -> str:
        load_device(name)
        return name

    @field_validator("model")
    @classmethod
    def _listed(cls, name: str | None) -> str | None:
        if name is not None:
            load_model(name)
        return name

    @model_validator(mode="after")
    def _of_one_kind(self) -> "WorkloadSection":
        if self.model is not None and self.times is not None:
            raise ValueError("times and model exclude each other; give one of them")
        if self.model is None and self.batch is not None:
            raise ValueError(f"batch = {self.batch} is that of a model; the task's own is training.batch_size")
        return self

    def device_model(self) -> Device:
        """Return the device that is meant."""
        return load_device(self.device)


class BaselineSection(_Section):
    """What an uncompressed scheme may choose before others are measured by it."""

    buckets: Annotated[
        tuple[Size, ...], Field(description="sizes tried besides training.bucket; the fastest counts")
    ] = (2**20, 5 * 2**20, 25 * 2**20, 100 * 2**20)


class Experiment(_Section):
    """A comparison of schemes on one task, cluster and device."""

    title: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", description="shown in the report")] = (
        "Compression schemes compared"
    )
    profile: Annotated[
        str | None,
        Field(description="a file of gradwire calibrate, for cluster, workload and overhead where they are not given"),
    ] = None
    schemes: Annotated[tuple[str, ...], Field(min_length=1, description="text forms, compared with each other")]
    task: TaskSection = TaskSection()
    training: Training = Training()
    tune: Tuning = Tuning()
    baseline: BaselineSection = BaselineSection()
    cluster: ClusterSection = ClusterSection(preset="ethernet-1g")
    workload: WorkloadSection = WorkloadSection()
    overhead: Overhead = Overhead()
    timing: StepOptions = StepOptions()

    @model_validator(mode="before")
    @classmethod
    def _with_profile(cls, data: Any) -> Any:
        """Take in what the profile holds, so that it is read once."""
        if not (isinstance(data, dict) and isinstance(data.get("profile"), str)):
            return data
        return filled(data, load_profile(data["profile"]))

    @field_validator("schemes")
    @classmethod
    def _readable(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        canonical = tuple(str(parse_scheme(text)) for text in texts)
        twice = sorted({text for text in canonical if canonical.count(text) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands there more than once")
        return canonical

    @model_validator(mode="after")
    def _task_exists(self) -> "Experiment":
        if ":" not in self.task.name:  # a task of one's own is imported when it is needed
            self.make_task()
        return self

    @model_validator(mode="after")
    def _workers_fit(self) -> "Experiment":
        self.cluster.cluster().topology(self.training.workers)
        return self

    def make_task(self, search: Path | None = None) -> Task:
        """Return the task; ``search`` is where import paths are looked up first."""
        return make_task(self.task.name, self.task.model_extra or {}, search)

    def resolved(self) -> "Experiment":
        """Return the experiment with the cluster's own cost in the schemes that adapt to it."""
        if not any("cost=cluster" in text for text in self.schemes):
            return self
        costs = Costs(self.cluster.cluster(), self.training.workers, self.timing.algorithms, self.timing.gathers)
        line = gather_line(costs)
        return self.model_copy(update={"schemes": tuple(on_cluster(text, line) for text in self.schemes)})

    def parsed_schemes(self) -> list[Scheme]:
        """Return the schemes in order."""
        return [parse_scheme(text) for text in self.schemes]

    def to_toml(self, task: Task) -> str:
        """Write the experiment completely, all defaults and presets filled in, so that it can be read back.

        Parameters
        ----------
        task : Task
            What :meth:`make_task` made, for its options.
        """
        complete = self.model_copy(update={"cluster": self.cluster.complete(), "profile": None})
        data = complete.model_dump(mode="json", by_alias=True, exclude_none=True)
        options = {f.name: getattr(task, f.name) for f in fields(task)}  # type: ignore[arg-type]
        data["task"] = {"name": self.task.name} | {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
        data["task"] = {key: value for key, value in data["task"].items() if value is not None}
        return tomli_w.dumps(data)


def load_experiment(source: Path | str, overrides: Sequence[str] = (), schemes: Sequence[str] = ()) -> Experiment:
    """Read an experiment.

    Parameters
    ----------
    source : Path or str
        A TOML file, or the name of a shipped experiment.
    overrides : sequence of str
        ``key=value`` with dotted keys, as in ``training.steps=100``; the value is TOML, or else plain text.
    schemes : sequence of str
        Replace the experiment's schemes, if any are given.

    Raises
    ------
    ExperimentError
        If it cannot be found, read or run; a line for each fault.
    """
    shipped = preset_text(str(source)) if str(source) in EXPERIMENTS else None
    data = read_data(source, overrides, shipped)
    if "axes" in data:
        raise ExperimentError(f"{source}: axes are those of a sweep; run it with: gradwire sweep {source}")
    if schemes:
        data["schemes"] = list(schemes)
    return validate_experiment(data)


def read_data(source: Path | str, overrides: Sequence[str] = (), shipped: str | None = None) -> dict[str, Any]:
    """Read an experiment's data, not yet checked.

    Parameters
    ----------
    source : Path or str
        A TOML file, or what a shipped experiment is called.
    overrides : sequence of str
        As in :func:`load_experiment`.
    shipped : str, optional
        The text of a shipped experiment, in place of a file's.

    Raises
    ------
    ExperimentError
        If it cannot be found or read.
    """
    text = _file_text(source) if shipped is None else shipped
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ExperimentError(f"{source} is no valid TOML: {error}") from error
    for override in overrides:
        set_key(data, override)
    _find_files(data, Path(source).parent)
    return data


def _file_text(source: Path | str) -> str:
    """Return the text of an experiment's file."""
    path = Path(source)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ExperimentError(f"{source} cannot be read as UTF-8 text: {error}") from error
    if path.suffix or path.exists():
        raise ExperimentError(f"experiment file {str(source)!r} is not there or is no file")
    raise ExperimentError(str(unknown_name("experiment", str(source), EXPERIMENTS)))


def preset_text(name: str) -> str:
    """Return a shipped experiment's file, comments included."""
    if name not in EXPERIMENTS:
        raise ExperimentError(str(unknown_name("experiment", name, EXPERIMENTS)))
    return (_PRESETS / f"{name}.toml").read_text(encoding="utf-8")


def describe_keys() -> str:
    """Return what an experiment file may hold, one line a key, with its meaning and default."""
    lines = []
    for name, section in Experiment.model_fields.items():
        model = section.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            lines.append(_describe(name, section))
            continue
        lines += ["", f"[{name}]", *(_describe(key, field) for key, field in model.model_fields.items())]
    return "\n".join(lines)


def _describe(key: str, field: FieldInfo) -> str:
    """Return one key's line."""
    default = field.get_default(call_default_factory=True)
    known = default not in (None, (), {}) and not field.is_required() and not isinstance(default, BaseModel)
    return f"{key}: {field.description}" + (f" (default: {default})" if known else "")


def validate_experiment(data: dict[str, Any]) -> Experiment:
    """Return the experiment that data describe.

    Raises
    ------
    ExperimentError
        A line for each fault, with its key, value and what is allowed.
    """
    try:
        return Experiment.model_validate(data).resolved()
    except ValidationError as error:
        raise ExperimentError("\n".join(fault_lines(error.errors(), Experiment))) from error
    except TaskError as error:
        raise ExperimentError(str(error)) from error


def _find_files(data: dict[str, Any], folder: Path) -> None:
    """Take a cluster's file and a profile beside the experiment's, where they are, before the working directory's."""
    cluster = data.get("cluster")
    for section, key in ((cluster, "file"), (data, "profile")):
        if isinstance(section, dict) and isinstance(file := section.get(key), str) and (folder / file).is_file():
            section[key] = str(folder / file)


def set_key(data: dict[str, Any], override: str, option: str = "--set", example: str = "training.steps=100") -> None:
    """Set a dotted key, as ``training.steps=100`` says; raises ``ExperimentError`` if it says nothing of the kind."""
    dotted, separator, text = override.partition("=")
    if not separator or not all(dotted.strip().split(".")):
        raise ExperimentError(f"{option} {override!r}: write key=value, as in {example}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    set_value(data, dotted.strip(), value, f"{option} {override!r}")


def set_value(data: dict[str, Any], dotted: str, value: object, where: str) -> None:
    """Set a dotted key to a value; raises ``ExperimentError``, beginning with ``where``, if a part is no section."""
    *sections, last = dotted.split(".")
    section = data
    for key in sections:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise ExperimentError(f"{where}: {key} is no section")
    section[last] = value
