"""`gradwire sweep`: an experiment at many points: densities, costs, networks, workers, seeds, or any of its keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..analysis.place import check_target, free_folder
from ..analysis.sweep.breakeven import with_break_even
from ..analysis.sweep.dataset import assemble
from ..analysis.sweep.executors import Dask, Executor, Pool
from ..analysis.sweep.folder import SWEEP, write_sweep
from ..analysis.sweep.grid import load_grid
from ..analysis.sweep.sweep import Progress as Report
from ..analysis.sweep.sweep import sweep as run_sweep
from ..compressors.errors import InputError
from ..sim.training.store import Store, default_folder
from .guard import warnings_as_lines
from .show import show_sweep


class Where(StrEnum):
    """Where trainings run."""

    POOL = "pool"
    DASK = "dask"


def sweep(
    file: Annotated[
        str, typer.Argument(help="An experiment file with a section called axes, or the name of a shipped sweep.")
    ] = "three-parameters",
    axes: Annotated[
        list[str] | None,
        typer.Option(
            "--axis", metavar="KEY=VALUES", help="Sweep this too, as in bandwidth=['1 Gbit/s', '10 Gbit/s']; repeats."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, as in training.steps=100; may be repeated."),
    ] = None,
    schemes: Annotated[
        list[str] | None,
        typer.Option("--scheme", metavar="TEXT", help="Sweep this scheme instead of the file's; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The sweep's folder; by default the next free one in ./runs.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing sweep's folder.")] = False,
    store: Annotated[
        Path | None, typer.Option(help="Where trajectories are kept; by default in the user's cache folder.")
    ] = None,
    executor: Annotated[
        Where, typer.Option(help="Where trainings run: in processes of this machine, or on a Dask cluster.")
    ] = Where.POOL,
    processes: Annotated[int | None, typer.Option(min=1, help="Of the pool; by default one a core.")] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Of the Dask cluster.")] = None,
) -> None:
    """Sweep an experiment: train each distinct trajectory once, time it everywhere, find where compression pays."""
    grid = load_grid(file, changes or (), schemes or (), axes or ())
    default = Path("runs"), Path(file).stem
    check_target(out or free_folder(*default), force, SWEEP)
    workers = _executor(executor, processes, scheduler)
    with _progress() as report, warnings_as_lines():
        found = run_sweep(grid, Store(store or default_folder()), workers, report, search=Path.cwd())
    data = with_break_even(assemble(found), found)
    folder = out or free_folder(*default)
    answer = write_sweep(data, found, folder, force)
    show_sweep(data, answer)
    typer.echo(f"Written to {folder}: report.html, summary.json, sweep.nc, plots.")


def _executor(where: Where, processes: int | None, scheduler: str | None) -> Executor:
    """Return what runs the trainings."""
    if where is Where.DASK:
        if scheduler is None:
            raise InputError("--executor dask needs --scheduler ADDRESS, such as tcp://10.0.0.1:8786")
        if processes is not None:
            raise InputError(f"--processes {processes}: a Dask cluster has workers of its own; leave it out")
        return Dask(scheduler)
    if scheduler is not None:
        raise InputError(f"--scheduler {scheduler}: only with --executor dask")
    return Pool(processes)


@contextmanager
def _progress() -> Iterator[Report]:
    """Show a bar for what is trained and one for what is played, on a terminal, and nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total)
            progress.update(bars[stage], completed=done, total=total)

        yield report
