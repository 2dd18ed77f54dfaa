"""The report of a run: verdict, tables, figures, explorer and caveats on one page with nothing to load."""

import xarray as xr

from .. import plots
from ..columns import columns
from ..comparison import PHASES, Comparison, mean
from ..formatting import MISSING, format_seconds, format_target
from ..verdict import verdict
from .frame import Cell, Section, TableRow, bullets, experiment_section, figures, hint, page, table, verdict_section

REAL = "Losses and metrics come from real training; times come from a simulated cluster, not from this machine's clock."


def report_html(dataset: xr.Dataset, comparison: Comparison, explorer: str | None = None) -> str:
    """Return a run's report as one HTML page that loads nothing, over the network or otherwise.

    Parameters
    ----------
    dataset : xarray.Dataset
        The run.
    comparison : Comparison
        What :func:`gradwire.analysis.comparison.compare` makes of it.
    explorer : str, optional
        What :func:`gradwire.analysis.report.explorer.explorer_html` makes of it.
    """
    attrs = dataset.attrs
    sections = [
        verdict_section(verdict(comparison)),
        Section(
            "comparison",
            "Schemes compared",
            f"{hint('Means over the completed steps. Select a heading to sort by it.')}\n{_comparison(comparison)}",
        ),
        *([] if explorer is None else [explorer_section(explorer)]),
        _training(dataset),
        _step(dataset, comparison),
        Section("caveats", "What to keep in mind", bullets([REAL, *comparison.notes])),
        experiment_section(str(attrs["experiment"])),
    ]
    title = attrs.get("title") or f"{attrs['task']} on {attrs['workers']} workers, {attrs['cluster']}"
    title += f" ({comparison.proxy})" if comparison.proxy else ""
    versions = f"gradwire {attrs['gradwire']}, torch {attrs['torch']}"
    return page(title, _facts(dataset, comparison), sections, versions)


def explorer_section(explorer: str) -> Section:
    """Return the explorer as a part of a page."""
    return Section("explorer", "What if it were otherwise?", explorer)


def _facts(dataset: xr.Dataset, comparison: Comparison) -> dict[str, object]:
    """Return what was run as terms and descriptions."""
    attrs, target = dataset.attrs, comparison.target
    return {
        "task": attrs["task"],
        "model": f"{attrs['parameters']:,} parameters",
        "workers": f"{attrs['workers']:,}",
        "device": attrs["device"],
        "cluster": attrs["cluster"],
        "steps": f"{comparison.steps:,}",
        "target": "none"
        if target is None
        else f"validation {comparison.metric} {format_target(target, comparison.metric)}",
    }


def _training(dataset: xr.Dataset) -> Section:
    drawn = (
        plots.metric_against_time,
        plots.metric_against_steps,
        plots.loss_against_time,
        plots.loss_against_steps,
    )
    return Section("training", "What is learnt, and when", figures([draw(dataset) for draw in drawn]))


def _step(dataset: xr.Dataset, comparison: Comparison) -> Section:
    parts = (
        figures([plots.phase_bars(dataset), plots.bytes_bars(dataset)]),
        _phases(dataset, comparison),
        hint("Hidden communication runs behind computation and adds nothing to the step."),
    )
    return Section("step", "Where a step's time goes", "\n".join(parts))


def _comparison(comparison: Comparison) -> str:
    """Return the comparison, a row a scheme."""
    shown = columns(comparison)
    cells = [[Cell(column.text(row), column.value(row)) for column in shown] for row in comparison.rows]
    rows = [
        TableRow(row.scheme, own, _badge(comparison, index))
        for index, (row, own) in enumerate(zip(comparison.rows, cells, strict=True))
    ]
    return table("Schemes compared", [column.title for column in shown], rows)


def _phases(dataset: xr.Dataset, comparison: Comparison) -> str:
    """Return the mean phases of a step, a row a scheme."""
    rows = []
    for index, row in enumerate(comparison.rows):
        one = dataset.isel(scheme=index)
        phases_s = [mean(one, variable) for variable in PHASES.values()]
        hidden_s = mean(one, "communication_s") - mean(one, "exposed_communication_s")
        cells = [Cell(format_seconds(value), value) for value in (*phases_s, mean(one, "step_s"), hidden_s)]
        source = row.cost_source if row.codec_s > 0 else MISSING
        rows.append(TableRow(row.scheme, cells, _badge(comparison, index), [source]))
    titles = [*PHASES, "step", "hidden communication"]
    return table("Phases of a step", titles, rows, ["source of encode + decode"])


def _badge(comparison: Comparison, index: int) -> str:
    return "baseline" if comparison.rows[index] == comparison.baseline else ""
