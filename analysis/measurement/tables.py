"""Measured steps as a table for the terminal."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from ..formatting import MISSING, significant, time_unit
from .records import Machine, StepRecord, median, spread

_COLUMNS = (
    ("forward", "forward_s"),
    ("backward", "backward_s"),
    ("encode", "encode_s"),
    ("comm.", "communication_s"),
    ("exposed", "exposed_communication_s"),
    ("decode", "decode_s"),
    ("optimizer", "optimizer_s"),
    ("step", "step_s"),
)


def steps_table(records: Sequence[StepRecord]) -> Table:
    """Return a table of measured steps, a row for each scheme: medians, and the distances between quartiles."""
    factor, unit = time_unit(max((median(record.step_s) for record in records if not record.error), default=0.0))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, caption_justify="left")
    table.add_column("scheme", overflow="fold", min_width=min(30, max(len(record.scheme) for record in records)))
    for title, _ in _COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for record in records:
        times = [getattr(record, field) for _, field in _COLUMNS]
        table.add_row(Text(record.scheme), *(Text(_cell(seconds, factor)) for seconds in times))
    table.caption = Text(
        f"Medians of {max(len(record.step_s) for record in records)} steps in {unit} ± the distance between their "
        "quartiles; comm.: from launch to landing; all phases but comm. add up to each step."
    )
    return table


def _cell(seconds: Sequence[float], factor: float) -> str:
    """Write a median with its spread."""
    if not seconds:
        return MISSING
    return f"{significant(median(seconds) / factor)} ±{significant(spread(seconds) / factor, 2)}"


def machine_line(machine: Machine, workers: int) -> str:
    """Say in one line where something was measured."""
    devices = ", ".join(dict.fromkeys(machine.devices))
    where = f"{machine.cpu}, {machine.cores} cores" + (f", {len(machine.devices)} x {devices}" if devices else "")
    threads = f"{machine.threads} thread" + ("s" if machine.threads > 1 else "")
    return f"{workers} processes over {machine.backend}, {threads} each, on {where}"
