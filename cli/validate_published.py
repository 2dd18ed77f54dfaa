"""`gradwire validate published`: predict runs that others measured, and show how far off the predictions are."""

from pathlib import Path
from typing import Annotated

import typer

from ..analysis.published.data import published_data
from ..analysis.published.plots import published_figure
from ..analysis.published.tables import (
    calibration_lines,
    order_lines,
    rows_table,
    summary_table,
    trivial_line,
    unknown_lines,
)
from ..analysis.published.validation import validate
from ..analysis.style import check_format, save_figure
from .output import check_folder, open_console, print_line, write_json


def published(
    rows: Annotated[bool, typer.Option("--rows", help="Show every run: measured, predicted, error.")] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw predicted against measured to this file: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Calibrate on a few runs that others published, predict the others, and show the errors."""
    check_format("--plot", plot)
    check_folder("--plot", plot)
    check_folder("--json", json)
    parts = validate()
    console = open_console()
    print_line(console, "Calibration", style="bold")
    for line in calibration_lines(parts):
        print_line(console, line)
    if rows:
        print_line(console, "\nRuns: a step, measured and predicted", style="bold")
        console.print(rows_table(parts))
    print_line(console, "\nErrors of what is predicted, by set", style="bold")
    console.print(summary_table(parts))
    print_line(console, f"{trivial_line(parts)}.")
    for line in unknown_lines(parts):
        print_line(console, f"{line}.")
    for line in order_lines(parts):
        print_line(console, f"{line}.", style="bold")
    if json is not None:
        write_json(json, published_data(parts))
    if plot is not None:
        save_figure(published_figure(parts), "--plot", plot)
