"""`gradwire run`: compare schemes on one task, cluster and device."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..analysis.comparison import Comparison, compare
from ..analysis.folder import RUN, write_run
from ..analysis.place import check_target, free_folder
from ..analysis.sweep.grid import SWEEPS
from ..compressors.errors import InputError
from ..sim.experiment import DEFAULT_EXPERIMENT, Experiment, describe_keys, load_experiment
from ..sim.run import Progress as Report
from ..sim.run import run as run_experiment
from ..sim.training.order import candidates
from ..sim.training.store import Store, default_folder
from .guard import MISTAKE, say, warnings_as_lines
from .show import show_comparison


def run(
    file: Annotated[
        str, typer.Argument(help="An experiment file (TOML), or the name of a shipped experiment.")
    ] = DEFAULT_EXPERIMENT,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, as in training.steps=100; may be repeated."),
    ] = None,
    schemes: Annotated[
        list[str] | None,
        typer.Option("--scheme", metavar="TEXT", help="Compare this scheme instead of the file's; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; by default the next free one in ./runs.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run folder.")] = False,
    store: Annotated[
        Path | None, typer.Option(help="Where trajectories are kept; by default in the user's cache folder.")
    ] = None,
) -> None:
    """Compare compression schemes: train with each, time each on the cluster, say which is first and why."""
    if file in SWEEPS:
        raise InputError(f"{file} is a sweep; run it with: gradwire sweep {file}")
    experiment = load_experiment(file, changes or (), schemes or ())
    default = Path("runs"), Path(file).stem
    check_target(out or free_folder(*default), force, RUN)
    with _progress(experiment) as report, warnings_as_lines():
        result = run_experiment(experiment, Store(store or default_folder()), report, search=Path.cwd())
    dataset = result.dataset()
    folder = out or free_folder(*default)
    write_run(result, dataset, folder, force)
    comparison = compare(dataset)
    show_comparison(comparison)
    typer.echo(f"Written to {folder}: report.html, summary.json, run.nc, trace.json, plots.")
    _end(comparison)


def keys_help() -> str:
    """Return the help's last part: the keys of an experiment file, a paragraph a section."""
    return "Keys of an experiment file, and of --set:\n\n" + escape(describe_keys())


def _end(comparison: Comparison) -> None:
    """End with status 2 if a training diverged or nobody reached the target: the question is not answered."""
    faults = [f"{row.scheme} {row.status}" for row in comparison.rows if not row.completed]
    if comparison.target is not None and all(row.steps_to_target is None for row in comparison.rows):
        faults.append(
            f"training.target = {comparison.target}: no scheme reached it in {comparison.steps} steps; "
            f"ask for less, or raise training.steps"
        )
    for fault in faults:
        say(fault)
    if faults:
        raise typer.Exit(MISTAKE)


@contextmanager
def _progress(experiment: Experiment) -> Iterator[Report]:
    """Show a bar for each scheme on a terminal, and nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        trainings = 1 + len(list(candidates(experiment.training, experiment.tune)))
        total = trainings * experiment.training.steps
        bars = {scheme: progress.add_task(scheme, total=total) for scheme in experiment.schemes}
        yield lambda scheme, steps: progress.update(bars[scheme], completed=steps)
