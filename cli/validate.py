"""`gradwire validate`: predict real steps from a calibration that has not seen them, and show how far off that is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..analysis.laboratory import check_lab
from ..analysis.measurement.supervise import MeasurementError
from ..analysis.style import save_figure
from ..analysis.validation.errors import summary
from ..analysis.validation.grid import SCHEMES, SUBJECTS, Grid, Subject, make_grid
from ..analysis.validation.plots import agreement_figure, phases_figure
from ..analysis.validation.report import validation_data, validation_page
from ..analysis.validation.site import open_site
from ..analysis.validation.tables import rows_table, summary_table, verdict_line, where_lines
from ..analysis.validation.validate import Progress as Report
from ..analysis.validation.validate import Runner, Validation
from ..compressors.errors import InputError
from ..sim.units import parse_bandwidth, parse_duration
from .guard import say
from .measuring import FAILED, Backends, read_option, task_options
from .output import open_console, print_line, write_json

LAB_RATES = ("100 Mbit/s", "300 Mbit/s", "1 Gbit/s")


def validate(
    context: typer.Context,
    lab: Annotated[
        bool, typer.Option("--lab", help="Put each worker in a host of a laboratory whose links are shaped.")
    ] = False,
    rates: Annotated[
        list[str] | None,
        typer.Option("--rate", metavar="RATE", help="Of the laboratory's links; may be repeated."),
    ] = None,
    workers: Annotated[int, typer.Option(min=2, help="How many processes.")] = 4,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="What is trained; by default two networks on MNIST.")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--task-option", metavar="KEY=VALUE", help="An option of the task; may be repeated."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples of one worker's batch.")] = 32,
    schemes: Annotated[
        list[str] | None, typer.Option("--scheme", metavar="TEXT", help="Predict and measure it; may be repeated.")
    ] = None,
    overlap: Annotated[
        bool, typer.Option("--overlap", help="Also by a hook of DistributedDataParallel, during the backward pass.")
    ] = False,
    steps: Annotated[int, typer.Option(min=3, help="How many steps of each are measured.")] = 20,
    profile: Annotated[
        Path | None, typer.Option("--from-profile", help="Predict from this profile, in place of calibrating.")
    ] = None,
    backend: Annotated[
        Backends, typer.Option(help="Gloo between CPUs, or NCCL with a GPU for each worker.")
    ] = Backends.GLOO,
    time_limit: Annotated[
        str, typer.Option(metavar="TIME", help="After which a single measurement counts as hanging.")
    ] = "10 min",
    out: Annotated[Path, typer.Option(help="The folder that keeps everything; what it has is not done again.")] = Path(
        "validation"
    ),
) -> None:
    """Calibrate, freeze predictions of real training steps, measure these, and show the errors, phase by phase."""
    if context.invoked_subcommand is not None:
        return
    grid = _grid(lab, rates, workers, task, options, batch, schemes, overlap, steps)
    limit_s = read_option("--time-limit", parse_duration, time_limit)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    if lab:
        check_lab()
    with open_site(grid.workers, lab) as site, _progress() as report:
        try:
            found = Runner(grid, out, site, backend.value, limit_s, report, Path.cwd()).run(profile)
        except MeasurementError as error:
            failure: MeasurementError | None = error
        else:
            failure = None
    if failure is not None:
        say(str(failure))
        say(f"what was measured until then is in {out}, and the same command goes on from there")
        raise typer.Exit(FAILED)
    for record in found.failed:
        say(f"{record.scheme} on {record.task}: {record.error}")
    if not found.rows:
        raise typer.Exit(FAILED)
    _write(found, out)
    _show(found, out, lab)


def _grid(
    lab: bool,
    rates: list[str] | None,
    workers: int,
    task: str | None,
    options: list[str] | None,
    batch: int,
    schemes: list[str] | None,
    overlap: bool,
    steps: int,
) -> Grid:
    """Return what is asked for."""
    if rates and not lab:
        raise InputError(f"--rate {rates[0]}: links can be shaped in a laboratory only; add --lab")
    if options and task is None:
        raise InputError(f"--task-option {options[0]}: needs --task")
    links = [read_option("--rate", parse_bandwidth, rate) for rate in rates or LAB_RATES] if lab else [None]
    own = [Subject(task=task, options=task_options(options or ()), batch_size=batch)] if task else None
    return make_grid(
        {
            "workers": workers,
            "subjects": own or [subject.model_copy(update={"batch_size": batch}) for subject in SUBJECTS],
            "schemes": schemes or SCHEMES,
            "links_bps": links,
            "overlap": [False, True] if overlap else [False],
            "repeats": steps,
        }
    )


def _write(found: Validation, out: Path) -> None:
    """Write report, numbers and figures."""
    (out / "report.html").write_text(validation_page(found), encoding="utf-8")
    write_json(out / "validation.json", validation_data(found))
    for link, profile in found.profiles.items():
        name = "profile" if link is None else f"profile-{link / 1e6:g}-mbit"
        (out / f"{name}.toml").write_text(profile.to_toml(), encoding="utf-8")
    save_figure(agreement_figure(found.rows), "--out", out / "agreement.png")
    save_figure(phases_figure(found.rows), "--out", out / "phases.png")


def _show(found: Validation, out: Path, lab: bool) -> None:
    """Print tables and what they come to."""
    console = open_console()
    for line in where_lines(found):
        print_line(console, f"{line}.")
    if not lab:
        print_line(console, "Links are as they are: to shape them, add --lab, which needs root on Linux.")
    console.print(rows_table(found.rows))
    console.print(summary_table(found.rows))
    print_line(console, f"{verdict_line(summary(found.rows))}.", style="bold")
    print_line(console, f"Written to {out}: report.html, validation.json, profiles, records, figures.")


@contextmanager
def _progress() -> Iterator[Report]:
    """Show a bar on a terminal, and nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("starting", total=None)

        def report(part: str, done: int, of: int, label: str) -> None:
            progress.update(bar, completed=done, total=of, description=f"{part}: {label}")

        yield report
