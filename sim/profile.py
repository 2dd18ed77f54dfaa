"""Profiles: what was measured on a machine, as a TOML file that experiments name in place of presets and estimates.

A profile has up to three parts, each of which stands in for a section of an experiment that does not fill it itself:
the cluster, times of tasks' models by layer, and what schemes cost.
"""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from ..compressors.errors import InputError
from .cluster.cluster import Cluster
from .faults import fault_lines
from .step.measured import MeasuredCodec
from .step.workload import WorkloadTimes
from .tasks import TASKS, make_task
from .training.plan import Training

_BATCH_SIZE = Training.model_fields["batch_size"].default


class ProfileError(InputError):
    """A profile that cannot be read, or has not what is asked for."""


class MeasuredWorkload(BaseModel):
    """How long a task's model took on each of several workers that computed at the same time.

    Attributes
    ----------
    task : str
        A listed task or model, or the import path of one's own.
    options : mapping
        Of the task, as in an experiment; those left out have their defaults.
    batch_size, workers : int
    times : WorkloadTimes
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    options: dict[str, str | int | float | bool] = {}
    batch_size: PositiveInt
    workers: PositiveInt
    times: WorkloadTimes

    @property
    def label(self) -> str:
        """What messages call it."""
        options = "".join(f", {key} = {value}" for key, value in self.options.items())
        return f"{self.task} with batch_size = {self.batch_size}{options}"


class Profile(BaseModel):
    """What was measured on a machine.

    Attributes
    ----------
    description : str
    machine : mapping of str to str
        What it was, in words.
    cluster : Cluster or None
    workloads : tuple of MeasuredWorkload
    codecs : tuple of MeasuredCodec
    errors : mapping of str to float
        Relative errors on measurements that were held out of the fits, by what they are of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    machine: dict[str, str] = {}
    cluster: Cluster | None = None
    workloads: tuple[MeasuredWorkload, ...] = ()
    codecs: tuple[MeasuredCodec, ...] = ()
    errors: dict[str, Annotated[float, Field(ge=0)]] = {}

    def to_toml(self) -> str:
        """Write the profile, so that :func:`load_profile` reads the same one."""
        return tomli_w.dumps(self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True))

    def workload(self, task: str, options: dict[str, Any], batch_size: int) -> MeasuredWorkload:
        """Return the times of a task's model.

        Raises
        ------
        ProfileError
            If they were not measured.
        """
        wanted = task, _complete(task, options), batch_size
        for measured in self.workloads:
            if (measured.task, _complete(measured.task, measured.options), measured.batch_size) == wanted:
                return measured
        asked = "".join(f", {key} = {value}" for key, value in options.items())
        known = "; ".join(measured.label for measured in self.workloads) or "none"
        raise ProfileError(f"no times of {task} with batch_size = {batch_size}{asked}; there are those of: {known}")


def _complete(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return a task's options with the defaults of those left out, if it is a listed one."""
    if task not in TASKS:
        return options
    made = make_task(task, options)
    return {field.name: getattr(made, field.name) for field in fields(made)}  # type: ignore[arg-type]


def load_profile(path: Path | str) -> Profile:
    """Read a profile's file.

    Raises
    ------
    ProfileError
        If it cannot be read; a line for each fault.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"profile {path} is no valid TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ProfileError(f"profile {path} cannot be read: {reason}") from error
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        lines = fault_lines(error.errors(), Profile)
        raise ProfileError("\n".join(f"profile {path}: {line}" for line in lines)) from error


def filled(data: dict[str, Any], profile: Profile) -> dict[str, Any]:
    """Return an experiment's data with what a profile has in the sections that the data leave to it.

    The cluster is taken if the data have none; layer times unless they name times, a model or a device; costs of
    schemes unless they give costs of their own.

    Raises
    ------
    ProfileError
        If the profile has layer times, but none of the experiment's task and batch.
    """
    whole = dict(data)
    if profile.cluster is not None and "cluster" not in data:
        whole["cluster"] = profile.cluster.model_dump(mode="json", by_alias=True, exclude_none=True)
    workload = data.get("workload", {})
    if profile.workloads and isinstance(workload, dict) and not workload.keys() & {"times", "model", "device"}:
        task, training = dict(data.get("task", {})), data.get("training", {})
        name, batch_size = task.pop("name", "mnist"), training.get("batch_size", _BATCH_SIZE)
        options = {key: value for key, value in task.items() if value is not None}
        measured = profile.workload(name, options, batch_size)
        whole["workload"] = {**workload, "times": measured.times.model_dump(mode="json", exclude_none=True)}
    overhead = data.get("overhead", {})
    if profile.codecs and isinstance(overhead, dict) and "codecs" not in overhead:
        codecs = [codec.model_dump(mode="json", exclude_none=True) for codec in profile.codecs]
        whole["overhead"] = {**overhead, "codecs": codecs}
    return whole
