"""`gradwire measure`: real training steps between processes, phase by phase."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from ..analysis.measurement.jobs import StepJob
from ..analysis.measurement.launch import plan_of
from ..analysis.measurement.records import AnyRecord, StepRecord, read_records
from ..analysis.measurement.steps import check_step
from ..analysis.measurement.tables import machine_line, steps_table
from ..compressors.errors import InputError
from ..compressors.partition import BUCKET_BYTES, FIRST_BUCKET_BYTES
from ..sim.faults import fault_lines
from ..sim.units import parse_duration, parse_size
from .guard import say
from .measuring import Backends, measured, read_option, task_options
from .output import check_folder, open_console, print_line

SCHEMES = ("dense", "ef(topk(density=0.01))")


class Size(StrEnum):
    """What a unit or a message is."""

    LAYER = "layer"
    BUCKET = "bucket"
    MODEL = "model"


def measure(
    workers: Annotated[int, typer.Option(min=1, help="How many processes; under torchrun, as many as it starts.")] = 4,
    task: Annotated[
        str, typer.Option(metavar="NAME", help="A listed task or model, or an import path of one's own.")
    ] = "mnist",
    options: Annotated[
        list[str] | None,
        typer.Option("--task-option", metavar="KEY=VALUE", help="An option of the task; may be repeated."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples of one worker's batch.")] = 32,
    schemes: Annotated[
        list[str] | None, typer.Option("--scheme", metavar="TEXT", help="Measure this scheme; may be repeated.")
    ] = None,
    overlap: Annotated[
        bool, typer.Option(help="Exchange by a hook of DistributedDataParallel during the backward pass, or after it.")
    ] = True,
    unit: Annotated[Size, typer.Option(help="What a scheme sees as one tensor.")] = Size.LAYER,
    message: Annotated[Size, typer.Option(help="What one exchange carries.")] = Size.BUCKET,
    bucket: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="At which a bucket is closed; by default 25 MiB, the first 1 MiB."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="How many steps are measured.")] = 20,
    warmup: Annotated[int, typer.Option(min=3, help="How many steps are taken before.")] = 3,
    backend: Annotated[
        Backends, typer.Option(help="Gloo between CPUs, or NCCL with a GPU for each worker.")
    ] = Backends.GLOO,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of each process; by default its share of the cores.")
    ] = None,
    time_limit: Annotated[
        str, typer.Option(metavar="TIME", help="After which a scheme's measurement counts as hanging.")
    ] = "10 min",
    out: Annotated[Path, typer.Option(help="The file of records, to which what it lacks is added.")] = Path(
        "measured.jsonl"
    ),
    force: Annotated[bool, typer.Option("--force", help="Begin the file anew.")] = False,
) -> None:
    """Measure real training steps between processes: where each scheme's time goes, with the same compressors."""
    check_folder("--out", out)
    size = None if bucket is None else read_option("--bucket", parse_size, bucket)
    limit_s = read_option("--time-limit", parse_duration, time_limit)
    shared = {
        "task": task,
        "options": task_options(options or ()),
        "batch_size": batch,
        "overlap": overlap,
        "agree": overlap,
        "unit": unit.value,
        "message": message.value,
        "bucket_bytes": size or BUCKET_BYTES,
        "first_bucket_bytes": size or FIRST_BUCKET_BYTES,
        "warmup": warmup,
        "repeats": steps,
    }
    jobs = [_job({**shared, "scheme": scheme}) for scheme in dict.fromkeys(schemes or SCHEMES)]
    for job in jobs:
        check_step(job, workers, Path.cwd())
    records = measured(jobs, workers, out, backend, threads, limit_s, force)
    if records is not None:
        _show(jobs, workers, out, records)


def _job(data: dict[str, Any]) -> StepJob:
    """Return a job, or say in lines what is wrong with it."""
    try:
        return StepJob.model_validate(data)
    except ValidationError as error:
        raise InputError("\n".join(fault_lines(error.errors(), StepJob))) from error


def _show(jobs: Sequence[StepJob], workers: int, out: Path, records: Sequence[AnyRecord]) -> None:
    """Print what was asked for, whether or not it was measured just now."""
    machine = read_records(out)[0]
    found = {record.key: record for record in records if isinstance(record, StepRecord)}
    own = [found[job.blank(workers, plan_of(jobs, workers).link).key] for job in jobs]
    console = open_console()
    print_line(console, machine_line(machine, workers))
    console.print(steps_table(own))
    for record in own:
        if record.error:
            say(f"{record.scheme}: {record.error}")
    print_line(console, f"Written to {out}.")
