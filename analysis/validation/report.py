"""A validation's report: one page with its errors and figures, and the same numbers as JSON."""

from importlib.metadata import version
from typing import Any

from ..formatting import format_seconds
from ..report.frame import Cell, Section, TableRow, bullets, figures, hint, page, table
from .errors import Compared, summary
from .plots import agreement_figure, phases_figure
from .predict import PHASES
from .tables import TITLES, link_text, percent, subject_text, verdict_line, where_lines
from .validate import Validation


def validation_page(validation: Validation) -> str:
    """Return the report as HTML that loads nothing."""
    rows = validation.rows
    found = summary(rows)
    titles = ("measured", "predicted", "error", *TITLES.values())
    sections = [
        Section("verdict", "How far off are the predictions?", f"<p>{verdict_line(found)}.</p>", "verdict"),
        Section("where", "Where", bullets([f"{line}." for line in where_lines(validation)])),
        Section("figures", "Figures", figures([agreement_figure(rows), phases_figure(rows)])),
        Section(
            "steps",
            "Steps",
            hint("Errors of phases are shares of the measured step.")
            + table("steps", titles, [_row(row) for row in rows], ("trained", "link")),
        ),
    ]
    facts = {"workers": validation.grid.workers, "configurations": found.configurations}
    return page("Predictions and measurements", facts, sections, f"gradwire {version('gradwire')}")


def _row(row: Compared) -> TableRow:
    times = [Cell(format_seconds(value), value) for value in (row.measured_s, row.predicted.step_s)]
    errors = [row.error, *(row.phase_error(name) for name in PHASES)]
    cells = [*times, *(Cell(percent(value, signed=True), value) for value in errors)]
    return TableRow(row.record.scheme, cells, texts=(subject_text(row), link_text(row.record.link_bps)))


def validation_data(validation: Validation) -> dict[str, Any]:
    """Return all numbers, ready for JSON."""
    found = summary(validation.rows)
    return {
        "machine": validation.machine.model_dump(mode="json"),
        "grid": validation.grid.model_dump(mode="json"),
        "rates": [rate._asdict() for rate in validation.rates],
        "summary": {**found._asdict(), "order": found.order._asdict()},
        "steps": [_step(row) for row in validation.rows],
        "failed": [{"scheme": one.scheme, "error": one.error} for one in validation.failed],
    }


def _step(row: Compared) -> dict[str, Any]:
    record = row.record
    keys = ("task", "options", "batch_size", "workers", "scheme", "overlap", "link_bps", "burst_bytes")
    return {
        **{key: getattr(record, key) for key in keys},
        "measured_s": row.measured_s,
        "predicted_s": row.predicted.step_s,
        "error": row.error,
        "measured_phases_s": {name: row.phase_s(name) for name in PHASES},
        "predicted_phases_s": row.predicted.phases,
        "sent_bytes": row.predicted.sent_bytes,
        "extrapolated": list(row.predicted.extrapolated),
    }
