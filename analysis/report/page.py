"""The report's page: verdict, tables, figures and caveats of a run, filled into one template with nothing to load."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from io import BytesIO
from math import isfinite
from string import Template
from typing import NamedTuple

import matplotlib as mpl
import xarray as xr
from matplotlib.figure import Figure

from .. import plots
from ..columns import columns
from ..comparison import PHASES, Comparison, mean
from ..formatting import MISSING, format_seconds, format_target
from ..verdict import verdict


class _Cell(NamedTuple):
    """A number as text, and the value that it is sorted by."""

    text: str
    value: float | None


def report_html(dataset: xr.Dataset, comparison: Comparison) -> str:
    """Return a run's report as one HTML page that loads nothing, over the network or otherwise.

    Parameters
    ----------
    dataset : xarray.Dataset
        The run.
    comparison : Comparison
        What :func:`gradwire.analysis.comparison.compare` makes of it.
    """
    attrs = dataset.attrs
    training = (
        plots.metric_against_time,
        plots.metric_against_steps,
        plots.loss_against_time,
        plots.loss_against_steps,
    )
    return Template(_resource("page.html")).substitute(
        title=escape(attrs.get("title") or f"{attrs['task']} on {attrs['workers']} workers, {attrs['cluster']}"),
        style=_resource("style.css"),
        script=_resource("sort.js"),
        facts=_facts(dataset, comparison),
        verdict=_verdict(comparison),
        comparison=_comparison_table(comparison),
        training_figures="\n".join(_figure(draw(dataset)) for draw in training),
        step_figures="\n".join(_figure(draw(dataset)) for draw in (plots.phase_bars, plots.bytes_bars)),
        phases=_phase_table(dataset, comparison),
        notes="\n".join(f"<li>{escape(note)}</li>" for note in comparison.notes),
        experiment=escape(str(attrs["experiment"])),
        versions=escape(f"gradwire {attrs['gradwire']}, torch {attrs['torch']}"),
    )


def _resource(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8").rstrip("\n")


def _facts(dataset: xr.Dataset, comparison: Comparison) -> str:
    """Return what was run as terms and descriptions."""
    attrs, target = dataset.attrs, comparison.target
    facts = {
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
    return "\n".join(f"<div><dt>{term}</dt><dd>{escape(str(fact))}</dd></div>" for term, fact in facts.items())


def _verdict(comparison: Comparison) -> str:
    """Return the verdict, with what it advises in bold."""
    advice, colon, reason = verdict(comparison).partition(": ")
    return f"<strong>{escape(advice)}{colon}</strong>{escape(reason)}" if colon else escape(advice)


def _comparison_table(comparison: Comparison) -> str:
    """Return the comparison, a row a scheme."""
    shown = columns(comparison)
    cells = [[_Cell(column.text(row), column.value(row)) for column in shown] for row in comparison.rows]
    return _table("Schemes compared", comparison, [column.title for column in shown], cells)


def _phase_table(dataset: xr.Dataset, comparison: Comparison) -> str:
    """Return the mean phases of a step, a row a scheme."""
    cells = []
    for index in range(dataset.sizes["scheme"]):
        one = dataset.isel(scheme=index)
        phases_s = [mean(one, variable) for variable in PHASES.values()]
        hidden_s = mean(one, "communication_s") - mean(one, "exposed_communication_s")
        cells.append([_Cell(format_seconds(value), value) for value in (*phases_s, mean(one, "step_s"), hidden_s)])
    sources = [row.cost_source if row.codec_s > 0 else MISSING for row in comparison.rows]
    return _table("Phases of a step", comparison, [*PHASES, "step", "hidden communication"], cells, sources)


def _table(
    label: str,
    comparison: Comparison,
    titles: Sequence[str],
    cells: Sequence[Sequence[_Cell]],
    sources: Sequence[str] | None = None,
) -> str:
    """Return a sortable table with a row a scheme, and where the cost of its codec comes from if that is given."""
    heads = [_heading("scheme"), *(_heading(title, "number") for title in titles)]
    heads += [] if sources is None else [_heading("source of encode + decode")]
    rows = []
    for index, row in enumerate(comparison.rows):
        badge = ' <span class="badge">baseline</span>' if row == comparison.baseline else ""
        entries = [f'<th scope="row">{_name(row.scheme)}{badge}</th>', *map(_number, cells[index])]
        entries += [] if sources is None else [f"<td>{escape(sources[index])}</td>"]
        rows.append(f"<tr>{''.join(entries)}</tr>")
    body = "\n".join(rows)
    return (
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">\n<table class="sortable">\n'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _name(scheme: str) -> str:
    """Return a scheme's name, which a narrow table may break between its parts."""
    return f"<code>{escape(scheme).replace('(', '(<wbr>')}</code>"


def _heading(title: str, kind: str = "text") -> str:
    return f'<th scope="col" class="{kind}" aria-sort="none"><button type="button">{escape(title)}</button></th>'


def _number(cell: _Cell) -> str:
    if cell.value is None or not isfinite(cell.value):
        return f'<td class="number missing">{escape(cell.text)}</td>'
    return f'<td class="number" data-value="{float(cell.value)!r}">{escape(cell.text)}</td>'


def _figure(figure: Figure) -> str:
    """Return a figure as SVG inside a data URI: sharp at any size, and its ids cannot clash with another figure's."""
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "gradwire", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    title = escape(figure.axes[0].get_title(loc="left"))
    data = b64encode(buffer.getvalue()).decode("ascii")
    return f'<figure><img alt="{title}" src="data:image/svg+xml;base64,{data}"></figure>'
