"""The columns of a comparison, for every table that shows one: titles, texts and the numbers behind them."""

from collections.abc import Callable
from dataclasses import dataclass

from .comparison import Comparison, Row
from .formatting import format_bytes, format_count, format_metric, format_ratio, format_seconds


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes
    ----------
    title, brief : str
        What heads it where there is room, and where there is not (in two lines).
    text : callable
        A row's entry as people read it.
    value : callable
        The number behind it, None or NaN where there is none.
    importance : int
        A table that is too narrow leaves out the least important first.
    """

    title: str
    brief: str
    text: Callable[[Row], str]
    value: Callable[[Row], float | None]
    importance: int


def columns(comparison: Comparison) -> tuple[Column, ...]:
    """Return the columns to the right of the schemes' names; without a target, those that speak of it are left out."""
    return (*_COSTS, *(_WITHOUT_TARGET if comparison.target is None else _WITH_TARGET), _final(comparison.metric))


def _final(metric: str) -> Column:
    def text(row: Row) -> str:
        return row.failure or format_metric(row.final_metric, metric)

    return Column(f"final test {metric}", f"final\n{metric}", text, lambda row: row.final_metric, importance=9)


def _seconds(title: str, brief: str, value: Callable[[Row], float | None], importance: int) -> Column:
    return Column(title, brief, lambda row: format_seconds(value(row)), value, importance)


def _time_to_target(row: Row) -> str:
    return "not reached" if row.time_to_target_s is None else format_seconds(row.time_to_target_s)


_COSTS = (
    Column(
        title="bytes a step and worker",
        brief="bytes\na step",
        text=lambda row: format_bytes(row.sent_bytes),
        value=lambda row: row.sent_bytes,
        importance=5,
    ),
    _seconds("compute", "\ncompute", lambda row: row.compute_s, importance=1),
    _seconds("encode + decode", "encode\n+decode", lambda row: row.codec_s, importance=2),
    _seconds("exposed communication", "exposed\ncomm.", lambda row: row.exposed_communication_s, importance=3),
    _seconds("step", "\nstep", lambda row: row.step_s, importance=6),
)
_WITH_TARGET = (
    Column(
        title="steps to target",
        brief="steps to\ntarget",
        text=lambda row: format_count(row.steps_to_target),
        value=lambda row: row.steps_to_target,
        importance=4,
    ),
    Column(
        title="time to target",
        brief="time to\ntarget",
        text=_time_to_target,
        value=lambda row: row.time_to_target_s,
        importance=8,
    ),
    Column(
        title="speed-up over best uncompressed",
        brief="speed-\nup",
        text=lambda row: format_ratio(row.speedup),
        value=lambda row: row.speedup,
        importance=7,
    ),
)
_WITHOUT_TARGET = (
    Column(
        title="step speed-up over best uncompressed",
        brief="step\nspeed-up",
        text=lambda row: format_ratio(row.step_speedup),
        value=lambda row: row.step_speedup,
        importance=7,
    ),
)
