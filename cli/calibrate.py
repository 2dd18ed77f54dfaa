"""`gradwire calibrate`: from measured, published or given times to a profile, with its errors on what was held out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..analysis.calibration.collectives import Link
from ..analysis.calibration.plan import plan_calibration
from ..analysis.calibration.profile import Evidence, fit_profile, read_evidence
from ..analysis.calibration.tables import errors_table, pieces_table, summary
from ..analysis.measurement.jobs import CodecJob, CollectiveJob, ComputeJob, Job
from ..analysis.measurement.records import CodecRecord, CollectiveRecord, ComputeRecord, read_records
from ..compressors.errors import InputError
from ..sim.units import parse_bandwidth, parse_duration, parse_size
from .measuring import Backends, measured, read_option, task_options
from .output import check_folder, open_console, print_line

SCHEMES = ("dense", "ef(topk(density=0.01))")
_PARTS = (
    (CollectiveJob, CollectiveRecord),
    (ComputeJob, ComputeRecord),
    (CodecJob, CodecRecord),
)


def calibrate(
    out: Annotated[Path, typer.Option(help="The profile that is written.")] = Path("profile.toml"),
    records: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE", help="Records that were measured before; may be repeated."),
    ] = None,
    nccl_tests: Annotated[
        list[Path] | None,
        typer.Option("--nccl-tests", metavar="FILE", help="What nccl-tests printed; may be repeated."),
    ] = None,
    given: Annotated[
        list[Path] | None, typer.Option("--given", metavar="FILE", help="Times given by hand (TOML); may be repeated.")
    ] = None,
    workers: Annotated[int, typer.Option(min=2, help="How many processes measure.")] = 4,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Measure what this task needs, or listed model, or import path; by default mnist."
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--task-option", metavar="KEY=VALUE", help="An option of the task; may be repeated."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples of one worker's batch.")] = 32,
    schemes: Annotated[
        list[str] | None, typer.Option("--scheme", metavar="TEXT", help="Measure what this needs; may be repeated.")
    ] = None,
    backend: Annotated[
        Backends, typer.Option(help="Gloo between CPUs, or NCCL with a GPU for each worker.")
    ] = Backends.GLOO,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of each process; by default its share of the cores.")
    ] = None,
    time_limit: Annotated[
        str, typer.Option(metavar="TIME", help="After which a single measurement counts as hanging.")
    ] = "10 min",
    kept: Annotated[
        Path, typer.Option("--records", metavar="FILE", help="Where what is measured is kept, and taken up again.")
    ] = Path("calibration.jsonl"),
    force: Annotated[bool, typer.Option("--force", help="Begin that file anew.")] = False,
    rate: Annotated[
        str | None,
        typer.Option("--link", metavar="RATE", help="Fit the shaper of links that were measured at this nominal rate."),
    ] = None,
    burst: Annotated[str | None, typer.Option(metavar="SIZE", help="The nominal burst of these links.")] = None,
    latency: Annotated[
        str, typer.Option(metavar="TIME", help="Of a hop, where one number of workers cannot tell it from the launch.")
    ] = "0 s",
) -> None:
    """Fit a profile to times of collectives, layers and codecs, and say how far off it is on what was held out."""
    check_folder("--out", out)
    check_folder("--records", kept)
    link = _link(rate, burst)
    latency_s = read_option("--latency", parse_duration, latency)
    evidence = read_evidence(records or (), nccl_tests or (), given or ())
    if not evidence or task is not None or schemes:
        own = task_options(options or ())
        plan = plan_calibration(task or "mnist", own, schemes or SCHEMES, workers, batch, search=Path.cwd())
        jobs = _missing(plan, evidence)
        limit_s = read_option("--time-limit", parse_duration, time_limit)
        found = measured(jobs, workers, kept, backend, threads, limit_s, force)
        if found is None:
            return  # one of torchrun's other processes
        evidence.append(Evidence(found, "measured", read_records(kept)[0]))
    profile, report = fit_profile(evidence, "", link, latency_s=latency_s)
    try:
        out.write_text(profile.to_toml(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror or error}") from error
    console = open_console()
    for line in summary(profile, report):
        print_line(console, line)
    if profile.cluster is not None:
        console.print(pieces_table(profile.cluster))
    if report.errors:
        console.print(errors_table(report))
    print_line(console, f"Written to {out}.")


def _link(rate: str | None, burst: str | None) -> Link | None:
    """Return the shaped link that is asked for."""
    if rate is None and burst is None:
        return None
    if rate is None or burst is None:
        missing, given = ("--link", "--burst") if rate is None else ("--burst", "--link")
        raise InputError(f"{given} {rate or burst}: needs {missing} too")
    return Link(read_option("--link", parse_bandwidth, rate), read_option("--burst", parse_size, burst))


def _missing(plan: Sequence[Job], evidence: Sequence[Evidence]) -> list[Job]:
    """Return the jobs of those parts of a profile that the files say nothing of."""
    given = {type(record) for part in evidence for record in part.records}
    return [job for job in plan if not any(isinstance(job, kind) and record in given for kind, record in _PARTS)]
