"""A sweep's answer as plain data and as a table."""

from dataclasses import asdict
from typing import Any

import xarray as xr
from rich import box
from rich.table import Table
from rich.text import Text

from ..comparison import proxy_of
from ..formatting import MISSING, format_bytes, format_count, format_metric, format_ratio
from ..summary import plain
from .answer import Achieved, Answer, axes_of, measured_by

_FACTS = ("title", "task", "metric", "higher_is_better", "target", "steps", "cluster", "device", "proxy")


def sweep_summary(data: xr.Dataset, found: Answer) -> dict[str, Any]:
    """Return what a program needs of a sweep, ready for ``json.dumps``; numbers are not rounded."""
    axes = {axis: data[axis].values.tolist() for axis in axes_of(data)}
    content = {
        **{name: data.attrs.get(name) for name in _FACTS},
        "answer": found.sentence,
        "axes": axes,
        "notes": found.notes,
        "pays": found.pays,
        "schemes": [{"name": row.name, **asdict(row)} for row in found.rows],
        "settings": found.settings,
        "versions": {name: data.attrs.get(name) for name in ("gradwire", "torch")},
    }
    result: dict[str, Any] = plain(content)
    return result


def columns(data: xr.Dataset) -> dict[str, Any]:
    """Return the columns of a sweep's table: each title with a function from a row to its text and number."""
    metric = str(data.attrs["metric"])
    by = "speed-up" if measured_by(data) == "speedup" else "step speed-up"
    shown: dict[str, Any] = {
        "bytes a step": lambda row: (format_bytes(row.sent_bytes), row.sent_bytes),
        "learning rate": lambda row: (f"{row.learning_rate:g}", row.learning_rate),
        "steps to target": lambda row: (_steps(row), row.steps_to_target),
        f"final {metric}": lambda row: (_metric(row, metric), row.final_metric),
        f"least {by}": lambda row: (format_ratio(row.slowest), row.slowest),
        f"greatest {by}": lambda row: (format_ratio(row.fastest), row.fastest),
        "settings where it pays": lambda row: (_pays(row), row.pays),
    }
    return shown if "target" in data.attrs else {k: v for k, v in shown.items() if k != "steps to target"}


def sweep_table(data: xr.Dataset, found: Answer) -> Table:
    """Return the table for a terminal: a row a scheme and point of what it learns."""
    proxy = proxy_of(data)
    caption = None if proxy is None else Text(f"{proxy}.")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("scheme", overflow="fold")
    shown = columns(data)
    for title in shown:
        table.add_column(title, justify="right")
    for row in found.rows:
        style = "bold" if row.uncompressed else "dim" if row.harms else ""
        table.add_row(Text(row.name, style=style), *(Text(cell(row)[0]) for cell in shown.values()))
    return table


def _steps(row: Achieved) -> str:
    if row.steps_to_target is not None:
        return format_count(round(row.steps_to_target))
    return "not reached" if not row.reached else f"reached by {row.reached:.0%}"


def _metric(row: Achieved, metric: str) -> str:
    text = format_metric(row.final_metric, metric)
    if row.final_metric is None or row.final_high is None:
        return text
    return f"{text} ± {format_metric(row.final_high - row.final_metric, metric)}"


def _pays(row: Achieved) -> str:
    return MISSING if row.uncompressed else f"{row.pays} of {row.settings}"
