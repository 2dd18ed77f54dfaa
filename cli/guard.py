"""What becomes of errors: the user's are one line and status 2, an interruption is status 130, ours a traceback."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec

import typer

from ..compressors.errors import InputError
from ..sim.training.store import StoreWarning

P = ParamSpec("P")

MISTAKE = 2
INTERRUPTED = 130


def say(message: str) -> None:
    """Print a message to standard error, each line marked as gradwire's."""
    for line in message.splitlines():
        typer.echo(f"gradwire: {line}", err=True)


def guarded(command: Callable[P, None], interrupted: str = "interrupted") -> Callable[P, None]:
    """Return a command that ends as the module's first line says, and what it says if it is interrupted."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except InputError as error:
            say(str(error))
            raise typer.Exit(MISTAKE) from error
        except KeyboardInterrupt as error:
            say(interrupted)
            raise typer.Exit(INTERRUPTED) from error

    return run


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print warnings about the store as lines like those about errors."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", StoreWarning)
        try:
            yield
        finally:
            for warning in caught:
                _show(warning)


def _show(warning: warnings.WarningMessage) -> None:
    """Print a warning about the store, and hand on any other."""
    if isinstance(warning.message, StoreWarning):
        say(str(warning.message))
    else:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
