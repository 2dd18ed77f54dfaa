"""What commands that predict share: how they name a cluster, take a price, print, show progress and write numbers."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..analysis.predictions import Price
from ..compressors.errors import InputError
from ..sim.experiment import ClusterSection
from .show import PIPE_WIDTH


def cluster_keys(name: str) -> dict[str, str]:
    """Return the section that a preset or a file stands for."""
    return {"file": name} if name.endswith(".toml") or Path(name).is_file() else {"preset": name}


def check_price(price: float | None) -> None:
    """Refuse a price that is none."""
    if price is not None and not 0 < price < float("inf"):
        raise InputError(f"--price {price}: allowed: a number above 0")


def check_folder(option: str, path: Path | None) -> None:
    """Refuse a file whose folder is not there, and a folder in place of a file."""
    if path is not None and path.is_dir():
        raise InputError(f"{option} {path}: is a folder; give a file in it")
    if path is not None and not path.absolute().parent.is_dir():
        raise InputError(f"{option} {path}: the folder {path.parent} is not there")


def find_price(section: ClusterSection, price: float | None, steps: int | None) -> Price | None:
    """Return the price that is asked for, or else the cluster's."""
    if price is not None:
        return Price(price, "", steps)
    own = section.cluster().price
    if own is None and steps is not None:
        raise InputError(f"--steps {steps}: {section.label} has no price; give one with --price")
    return None if own is None else Price(own.per_gpu_hour, own.currency, steps)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write numbers to a file."""
    try:
        path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--json {path}: cannot be written: {error.strerror or error}") from error


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print a line as it is, however long."""
    console.print(text, markup=False, soft_wrap=True, style=style)


def open_console() -> Console:
    """Return the console; where nobody sees its width, it has room for tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


@contextmanager
def predicting(total: int) -> Iterator[Callable[[Any], Any]]:
    """Show a bar on a terminal, and nothing elsewhere; what it yields hands its argument on and advances the bar."""
    console = Console(stderr=True)
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=total)

        def advance(done: Any) -> Any:
            progress.advance(bar)
            return done

        yield advance
