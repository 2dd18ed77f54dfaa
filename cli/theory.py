"""`gradwire theory`: convergence results, checked on a scheme, on a recorded run, or on everything."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..analysis.style import check_format, save_figure
from ..analysis.sweep.executors import Pool
from ..analysis.theory.cases import Case, ProbeCase, Result, cases_of, result_of
from ..analysis.theory.check import Verdict, judge
from ..analysis.theory.constants import constants
from ..analysis.theory.data import assumptions_data, checks_data, constants_data, landscape_data, rates_data
from ..analysis.theory.plots import checks_figure
from ..analysis.theory.recorded import evidence_of, landscapes_of
from ..analysis.theory.suite import examine, suite_cases
from ..analysis.theory.tables import (
    assumptions_table,
    checks_table,
    constants_table,
    constants_title,
    gravest,
    landscape_table,
    left_out,
    outlook,
    rates_table,
    tally,
)
from ..compressors.spec import parse_scheme
from ..sim.training.store import Store, default_folder
from .guard import warnings_as_lines
from .output import check_folder, open_console, print_line, write_json

VIOLATED = 1
"""The exit status where a bound whose conditions hold is violated."""

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")]
PlotFile = Annotated[
    Path | None, typer.Option("--plot", help="Draw both sides of each check to this file: .png, .svg or .pdf.")
]
StoreFolder = Annotated[
    Path | None, typer.Option("--store", help="Where findings are kept; by default in the user's cache folder.")
]
Processes = Annotated[int | None, typer.Option(min=1, help="Processes that share the work; by default one a core.")]


def scheme(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="A scheme's text form, as in 'ef(topk(density=0.01))'.")],
    json: JsonFile = None,
    plot: PlotFile = None,
    store: StoreFolder = None,
    processes: Processes = None,
) -> None:
    """Say which convergence results apply to a scheme, and check them on its operator and in the laboratory."""
    _check_files(json, plot)
    text = str(parse_scheme(spec))
    cases = cases_of(text)
    results = _examine(cases, store, processes)
    (found,) = [constants(case.probe()) for case in cases if isinstance(case, ProbeCase)]
    _print(open_console(), constants_title(found), constants_table(found))
    _finish({text: results}, json, plot, constants_data(found))


def run(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs with training.record = theory that differ in seeds."),
    ],
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Check convergence results on finished runs that were recorded for them."""
    _check_files(json, plot)
    lands = landscapes_of(*folders)
    _print(open_console(), "Constants of the problem, as the workers met it", landscape_table(lands))
    found = {evidence.subject: [result_of(evidence)] for evidence in evidence_of(*folders)}
    _finish(found, json, plot, landscape_data(lands))


def suite(
    every: Annotated[bool, typer.Option("--all", help="Show every instance, not only each check's gravest.")] = False,
    json: JsonFile = None,
    plot: PlotFile = None,
    store: StoreFolder = None,
    processes: Processes = None,
) -> None:
    """Run every check on the convex task and on quadratics, for schemes of every kind."""
    _check_files(json, plot)
    _finish({"": _examine(suite_cases(), store, processes)}, json, plot, brief=not every)


def _check_files(json: Path | None, plot: Path | None) -> None:
    """Refuse files that cannot be written, before any work."""
    check_format("--plot", plot)
    check_folder("--plot", plot)
    check_folder("--json", json)


def _examine(cases: Sequence[Case], store: Path | None, processes: int | None) -> list[Result]:
    """Make all checks, with a bar on a terminal."""
    folder = Store((store or default_folder()) / "theory")
    with _progress(len(cases)) as report, warnings_as_lines():
        return examine(cases, folder, Pool(processes), report)


def _finish(
    subjects: Mapping[str, Sequence[Result]],
    json: Path | None,
    plot: Path | None,
    more: dict[str, Any] | None = None,
    brief: bool = False,
) -> None:
    """Print the tables, write what was asked for, and end with status 1 if something is violated.

    What ``subjects`` are named gets a sentence on its guarantees. Where it is to be ``brief``, each check's gravest
    instance stands for all.
    """
    results = [result for own in subjects.values() for result in own]
    judged = judge([finding for result in results for finding in result.findings])
    rates = [rate for result in results for rate in result.rates]
    met = [assumption for result in results for assumption in result.assumptions]
    shown = gravest(judged) if brief else judged
    applicable = [one for one in shown if one.verdict != Verdict.NOT_APPLICABLE]
    console = open_console()
    if met and not brief:
        _print(console, "Assumptions: what was met, over runs and steps", assumptions_table(met))
    _print(console, "Checks: both sides where they are nearest", checks_table(applicable))
    if rates:
        title = "Fitted rates: c T^-p, or geometric c exp(-p T), with 95 % intervals over runs"
        _print(console, title, rates_table(rates))
    for line in left_out(judged):
        print_line(console, line)
    print_line(console, f"\n{tally(judged)}", style="bold")
    ahead = iter(judged)
    for subject, own in subjects.items():
        of_subject = list(islice(ahead, sum(len(result.findings) for result in own)))
        if subject:
            print_line(console, outlook(subject, of_subject), style="bold")
    if json is not None:
        data = {"checks": checks_data(judged), "rates": rates_data(rates), "assumptions": assumptions_data(met)}
        write_json(json, data | (more or {}))
    if plot is not None:
        save_figure(checks_figure(applicable), "--plot", plot)
    if any(one.verdict == Verdict.VIOLATED for one in judged):
        raise typer.Exit(VIOLATED)


def _print(console: Console, title: str, table: Table) -> None:
    """Print a table with what it shows."""
    print_line(console, title, style="bold")
    console.print(table)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("checking"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=total)
        yield lambda done: progress.update(bar, completed=done)
