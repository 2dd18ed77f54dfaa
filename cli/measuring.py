"""What commands that measure share: the task's options, the processes and their failures, and a bar."""

import os
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..analysis.measurement.group import in_group
from ..analysis.measurement.jobs import Job
from ..analysis.measurement.launch import measure as launch
from ..analysis.measurement.launch import plan_of
from ..analysis.measurement.records import AnyRecord
from ..analysis.measurement.supervise import MeasurementError
from ..analysis.measurement.worker import Progress as Report
from ..analysis.measurement.worker import work
from ..compressors.errors import InputError
from .guard import say

T = TypeVar("T")

FAILED = 1
"""The exit status where a worker failed or hung."""


class Backends(StrEnum):
    """What connects the workers."""

    GLOO = "gloo"
    NCCL = "nccl"


def measured(
    jobs: Sequence[Job],
    workers: int,
    out: Path,
    backend: Backends,
    threads: int | None,
    limit_s: float,
    force: bool,
) -> list[AnyRecord] | None:
    """Measure between processes of one's own, or as one of those that torchrun has started; only one gets records.

    Raises
    ------
    InputError
        If a job cannot be done as asked for.
    typer.Exit
        If a worker failed or hung, once that is said.
    """
    options: Any = {"backend": backend.value, "threads": threads, "time_limit_s": limit_s, "search": Path.cwd()}
    first = os.environ.get("RANK", "0") == "0"
    if force and first:
        out.unlink(missing_ok=True)
    with _progress(shown=first) as report:
        if in_group():
            return work(plan_of(jobs, workers, **options), out, report)
        try:
            return launch(jobs, workers, out, **options, progress=report)
        except MeasurementError as error:
            failure = error
    say(str(failure))
    say(f"what was measured until then is in {out}, and the same command goes on from there")
    raise typer.Exit(FAILED)


def read_option(option: str, parse: Callable[[str], T], text: str) -> T:
    """Read an option's text with a unit.

    Raises
    ------
    InputError
        If it cannot be read; the line begins with the option.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error


def task_options(texts: Sequence[str]) -> dict[str, Any]:
    """Return the task's options; a value is TOML, or else plain text.

    Raises
    ------
    InputError
        If one is not of the form KEY=VALUE.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--task-option {text!r}: must be KEY=VALUE, as in network=cnn")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


@contextmanager
def _progress(shown: bool) -> Iterator[Report]:
    """Show a bar on a terminal, and nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        bar = progress.add_task("starting", total=None)
        yield lambda done, total, label: progress.update(bar, completed=done, total=total, description=label)
