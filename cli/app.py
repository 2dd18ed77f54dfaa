"""The application: its commands, one file each."""

from importlib.metadata import version
from typing import Annotated

import typer

from .advise import advise
from .calibrate import calibrate
from .cp import cp
from .guard import guarded
from .ls import ls
from .measure import measure
from .run import keys_help, run
from .show import show
from .sweep import sweep
from .theory import run as theory_run
from .theory import scheme, suite
from .time import time
from .validate import validate
from .validate_published import published

app = typer.Typer(
    name="gradwire",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # a fault of gradwire shows a plain traceback
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"gradwire {version('gradwire')}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Find out whether compressing gradients makes a training job finish sooner, without hurting its accuracy."""


_STORED = "interrupted; what was trained is stored, and the same command goes on from there"

app.command(epilog=keys_help())(guarded(run, _STORED))
app.command()(guarded(sweep, _STORED))
app.command()(guarded(advise, _STORED))
_MEASURED = "interrupted; what was measured is kept, and the same command goes on from there"
app.command()(guarded(measure, _MEASURED))
app.command()(guarded(calibrate, _MEASURED))
for command in (time, ls, cp, show):
    app.command()(guarded(command))

theory = typer.Typer(
    help="Check convergence results: on a scheme, on a recorded run, on everything.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
_KEPT = "interrupted; what was checked is stored, and the same command goes on from there"
theory.command("scheme")(guarded(scheme, _KEPT))
theory.command("run")(guarded(theory_run))
theory.command("suite")(guarded(suite, _KEPT))
app.add_typer(theory, name="theory")

validations = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")
validations.callback()(guarded(validate, _MEASURED))
validations.command("published")(guarded(published))
app.add_typer(validations, name="validate")
