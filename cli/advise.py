"""`gradwire advise`: compress or not, with what, how sure that is and what it hangs on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..analysis.advice.advice import Advice
from ..analysis.advice.data import advice_data
from ..analysis.advice.models import advise_model
from ..analysis.advice.sentence import sentence
from ..analysis.advice.tasks import advise_task, with_baselines
from ..analysis.advice.text import advice_table, lines
from ..compressors.errors import InputError
from ..sim.cluster.cluster import unknown_name
from ..sim.experiment import EXPERIMENTS, Experiment, load_experiment, set_key
from ..sim.models import MODELS
from ..sim.prediction import make_job
from ..sim.run import Progress as Report
from ..sim.training.store import Store, default_folder
from .guard import MISTAKE, say, warnings_as_lines
from .output import (
    check_folder,
    check_price,
    cluster_keys,
    find_price,
    open_console,
    print_line,
    write_json,
)

CLUSTER = "ethernet-10g"
SEEDS = 3


def advise(
    subject: Annotated[
        str,
        typer.Argument(metavar="SUBJECT", help="A listed model, an experiment file (TOML), or a shipped experiment."),
    ],
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A listed cluster, or a cluster's TOML file; by default the experiment's, or ethernet-10g.",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="How many workers; by default the experiment's, or 8.")] = None,
    schemes: Annotated[
        list[str] | None,
        typer.Option(
            "--scheme",
            metavar="TEXT",
            help="Consider this scheme; may be repeated. By default the experiment's, or a list of common ones.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="A listed device.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples of one worker's batch.")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Train each scheme from so many seeds; by default 3. Not for a listed model."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of a run whose cost is asked for.")] = None,
    price: Annotated[
        float | None, typer.Option(help="Of one GPU for one hour; by default the cluster's, if it has one.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all numbers to this file.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, as in timing.overlap=false; may be repeated."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Where trajectories are kept; by default in the user's cache folder.")
    ] = None,
    no_sensitivity: Annotated[
        bool,
        typer.Option(
            "--no-sensitivity", help="Do not change inputs to find out what the answer hangs on: it is faster."
        ),
    ] = False,
) -> None:
    """Advise on compression: whether, with what, the gain and how sure it is, and what the answer hangs on."""
    check_folder("--json", json)
    check_price(price)
    sections: dict[str, Any] = {
        "cluster": None if cluster is None else cluster_keys(cluster),
        "training.workers": workers,
        "workload.device": device,
        "training.batch_size": batch,
    }
    given = {key: value for key, value in sections.items() if value is not None}
    asked = _Asked(given, changes or [], schemes or [], price, steps, not no_sensitivity)
    if subject in MODELS:
        _refuse_training(subject, seeds, store)
        advice = _on_model(subject, asked)
    else:
        advice = _on_task(subject, asked, seeds or SEEDS, store)
    _show(advice)
    if json is not None:
        write_json(json, advice_data(advice))
    if advice.answer == "cannot say":
        say(f"training.target = {advice.target}: no scheme reached it from every seed; ask for less, or more steps")
        raise typer.Exit(MISTAKE)


def _refuse_training(model: str, seeds: int | None, store: Path | None) -> None:
    """Refuse options of a training where there is none."""
    for option, value in (("--seeds", seeds), ("--store", store)):
        if value is not None:
            raise InputError(f"{option} {value}: {model} is a listed model, which is not trained; leave it out")


class _Asked(NamedTuple):
    """What is asked of an advice besides its subject."""

    keys: dict[str, Any]
    changes: list[str]
    schemes: list[str]
    price: float | None
    steps: int | None
    sensitivity: bool


def _on_model(name: str, asked: _Asked) -> Advice:
    """Advise on a listed model."""
    data: dict[str, Any] = {"model": name, "cluster": {"preset": CLUSTER}}
    for key, value in asked.keys.items():
        set_key(data, f"{key}={_toml(value)}")
    for change in asked.changes:
        set_key(data, change)
    if "scheme" in data:
        raise InputError(f"--set scheme={data['scheme']}: name candidates with --scheme")
    job = make_job(data)
    price = find_price(job.cluster, asked.price, asked.steps)
    with _status() as report:
        return advise_model(job, asked.schemes, price, asked.sensitivity, report)


def _on_task(file: str, asked: _Asked, seeds: int, store: Path | None) -> Advice:
    """Advise on an experiment."""
    if not Path(file).suffix and not Path(file).exists() and file not in EXPERIMENTS:
        raise unknown_name("model or experiment", file, (*MODELS, *EXPERIMENTS))
    keys = [f"{key}={_toml(value)}" for key, value in asked.keys.items()]
    experiment = with_baselines(load_experiment(file, [*keys, *asked.changes], asked.schemes))
    price = find_price(experiment.cluster, asked.price, asked.steps)
    with _training(experiment, seeds) as report, warnings_as_lines():
        return advise_task(
            experiment, Store(store or default_folder()), seeds, price, asked.sensitivity, report, search=Path.cwd()
        )


def _toml(value: str | float | dict[str, str]) -> str:
    """Write a value as ``--set`` reads it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + "}"
    return dumps(value)


def _show(advice: Advice) -> None:
    console = open_console()
    print_line(console, f"{advice.subject}\n")
    print_line(console, sentence(advice), style="bold")
    console.print(advice_table(advice, console.width))
    for name, text in lines(advice):
        print_line(console, f"{name}: {text}")
    for note in advice.notes:
        print_line(console, f"Note: {note}")


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Show on a terminal what has been done, and nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("predicting") as status:
        yield lambda done: status.update(f"predicting: {escape(done)}")


@contextmanager
def _training(experiment: Experiment, seeds: int) -> Iterator[Report]:
    """Show a bar for each scheme, over all seeds, on a terminal, and nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    total = seeds * experiment.training.steps
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bars = {scheme: progress.add_task(scheme, total=total) for scheme in experiment.schemes}
        yield lambda scheme, steps: progress.update(bars[scheme], completed=steps)
