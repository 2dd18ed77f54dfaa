"""`gradwire cp`: a shipped experiment or sweep as a file to edit."""

from pathlib import Path
from typing import Annotated

import typer

from ..analysis.sweep.grid import SWEEPS, shipped_text
from ..compressors.errors import InputError


def cp(
    preset: Annotated[str, typer.Argument(help="The name of a shipped experiment or sweep.")],
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
) -> None:
    """Copy a shipped experiment or sweep to a file, to edit and run."""
    command, text = "sweep" if preset in SWEEPS else "run", shipped_text(preset)
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except OSError as error:
        reason = "exists already" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(f"{file}: {reason}; give another name") from error
    typer.echo(f"Written to {file}; run it with: gradwire {command} {file}")
