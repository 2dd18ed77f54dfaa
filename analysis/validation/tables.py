"""A validation as tables and sentences for the terminal."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from ..formatting import format_seconds, significant
from ..measurement.tables import machine_line
from .errors import Compared, Summary, summary
from .grid import Subject
from .predict import PHASES
from .validate import Validation

TITLES = {
    "forward_s": "forward",
    "backward_s": "backward",
    "encode_s": "encode",
    "exposed_communication_s": "exposed comm.",
    "decode_s": "decode",
    "optimizer_s": "optimizer",
}
"""What tables and figures call the phases."""


def percent(share: float, signed: bool = False) -> str:
    """Write a share of 1."""
    return f"{100 * share:+.1f} %" if signed else f"{100 * share:.1f} %"


def link_text(link_bps: float | None) -> str:
    """Write the rate of a link."""
    return "as it is" if link_bps is None else f"{link_bps / 1e6:g} Mbit/s"


def subject_text(row: Compared) -> str:
    """Write what was trained."""
    record = row.record
    return Subject(task=record.task, options=record.options, batch_size=record.batch_size).label


def rows_table(rows: Sequence[Compared]) -> Table:
    """Return each configuration with both times of its step, and how far off its phases are."""
    table = _table()
    for name in ("trained", "link", "scheme"):
        table.add_column(name, overflow="fold")
    for name in ("measured", "predicted", "error", *TITLES.values()):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        scheme = row.record.scheme + (" *" if row.predicted.extrapolated else "")
        overlap = ", overlapped" if row.record.overlap else ""
        cells = format_seconds(row.measured_s), format_seconds(row.predicted.step_s), percent(row.error, signed=True)
        phases = (percent(row.phase_error(name), signed=True) for name in PHASES)
        link = link_text(row.record.link_bps) + overlap
        table.add_row(Text(subject_text(row)), link, Text(scheme), *cells, *phases)
    table.caption = Text(
        "Medians of measured steps; error: of the predicted step; of phases as a share of the measured step."
        + (" *: extrapolated." if any(row.predicted.extrapolated for row in rows) else "")
    )
    return table


def summary_table(rows: Sequence[Compared]) -> Table:
    """Return the errors of each link and subject, and of all."""
    table = _table()
    table.add_column("", overflow="fold")
    for name in ("steps", "median", "95th", "worst", "right order"):
        table.add_column(name, justify="right", no_wrap=True)
    groups: dict[str, list[Compared]] = {}
    for row in rows:
        groups.setdefault(f"{subject_text(row)}, {link_text(row.record.link_bps)}", []).append(row)
    for name, own in groups.items():
        table.add_row(Text(name), *_summary(summary(own)))
    table.add_row("all", *_summary(summary(rows)), style="bold")
    return table


def _summary(found: Summary) -> tuple[str, ...]:
    order = f"{found.order.right} of {found.order.pairs}"
    return (str(found.configurations), *map(percent, (found.median, found.p95, found.worst)), order)


def where_lines(validation: Validation) -> Iterator[str]:
    """Say where it was measured, and over which links."""
    yield machine_line(validation.machine, validation.grid.workers)
    for rate in validation.rates:
        yield (
            f"link of {rate.nominal_bps / 1e6:g} Mbit/s: TCP reaches {significant(rate.alone_bps / 1e6)} Mbit/s of "
            f"payload alone, {significant(rate.together_bps / 1e6)} while all hosts send"
        )
    for link, profile in validation.profiles.items():
        held = {name: error for name, error in profile.errors.items() if name.endswith(": median")}
        texts = ", ".join(f"{name.removesuffix(': median')} {percent(error)}" for name, error in held.items())
        if texts:
            yield f"median error on what was held out of the calibration, link {link_text(link)}: {texts}"


def verdict_line(found: Summary) -> str:
    """Say in one sentence how good the predictions are."""
    order = found.order
    pairs = f"; {percent(order.share)} of {order.pairs} pairs of schemes in the right order" if order.pairs else ""
    return (
        f"{found.configurations} predicted steps: median error {percent(found.median)}, 95th percentile "
        f"{percent(found.p95)}, worst {percent(found.worst)}{pairs}"
    )


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, caption_justify="left")
