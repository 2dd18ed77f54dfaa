"""The report of a sweep: its answer, its schemes, where they break even, the explorer and the figures, on one page."""

from collections.abc import Iterator, Mapping

import xarray as xr
from matplotlib.figure import Figure

from ..comparison import proxy_of
from ..formatting import format_target
from ..report.explorer import explorer_html, no_explorer
from ..report.frame import (
    Cell,
    Section,
    TableRow,
    bullets,
    experiment_section,
    figures,
    hint,
    page,
    table,
    verdict_section,
)
from ..report.page import REAL, explorer_section
from ..sweep_plots.axes import describe
from .answer import Answer, axes_of
from .crossings import TITLES, crossings, setting_in_words
from .explore import candidates, start_point
from .summary import columns
from .sweep import Sweep


def sweep_html(data: xr.Dataset, sweep: Sweep, found: Answer, drawn: Mapping[str, Figure], file: str) -> str:
    """Return a sweep's report as one HTML page that loads nothing, over the network or otherwise.

    Parameters
    ----------
    data : xarray.Dataset
        With break-even surfaces, where there are some.
    sweep : Sweep
    found : Answer
    drawn : mapping of str to Figure
    file : str
        The TOML text that repeats the sweep.
    """
    sections = [
        verdict_section(found.sentence),
        Section("schemes", "Schemes swept", f"{hint(_SCHEMES)}\n{_schemes(data, found)}"),
        explorer_section(_explorer(data, sweep)),
        *_break_even(data),
        Section("figures", "Where it pays", figures(list(drawn.values()))),
        Section("caveats", "What to keep in mind", bullets([REAL, *found.notes])),
        experiment_section(file),
    ]
    return page(
        f"{data.attrs['title']}{_mark(data)}",
        _facts(data),
        sections,
        f"gradwire {data.attrs['gradwire']}, torch {data.attrs['torch']}",
    )


def _mark(data: xr.Dataset) -> str:
    """Return what stands behind a title if the sweep is a proxy."""
    proxy = proxy_of(data)
    return f" ({proxy})" if proxy else ""


_SCHEMES = (
    "Means over the seeds, with 95 % confidence intervals. Speed-ups are over the best uncompressed scheme at each "
    "setting, whose buckets are tuned. Select a heading to sort by it."
)


def _facts(data: xr.Dataset) -> dict[str, object]:
    """Return what was swept as terms and descriptions."""
    attrs = data.attrs
    facts: dict[str, object] = {
        "task": attrs["task"],
        "steps": f"{attrs['steps']:,}",
        "device": attrs["device"],
        "cluster": attrs["cluster"],
    }
    if "target" in attrs:
        facts["target"] = f"validation {attrs['metric']} {format_target(float(attrs['target']), str(attrs['metric']))}"
    for axis in axes_of(data):
        values = data[axis].values
        ends = [describe(data, axis, values[i]) for i in (0, -1)]
        facts[axis] = ends[0] if len(values) == 1 else f"{len(values)}: {ends[0]} to {ends[1]}"
    return facts


def _schemes(data: xr.Dataset, found: Answer) -> str:
    """Return the table of schemes, a row for each point of what they learn."""
    shown = columns(data)
    rows = [
        TableRow(
            row.name,
            [Cell(*cell(row)) for cell in shown.values()],
            "baseline" if row.uncompressed else "harms" if row.harms else "",
        )
        for row in found.rows
    ]
    return table(f"Schemes swept{_mark(data)}", list(shown), rows)


def _explorer(data: xr.Dataset, sweep: Sweep) -> str:
    """Return the explorer, or why there is none."""
    start = start_point(sweep)
    if start is None:
        return no_explorer("the event engine played every transfer")
    return explorer_html(
        candidates(sweep),
        metric=str(data.attrs["metric"]),
        higher_is_better=bool(data.attrs["higher_is_better"]),
        target=float(data.attrs["target"]) if "target" in data.attrs else None,
        start=start,
        proxy=proxy_of(data),
    )


def _break_even(data: xr.Dataset) -> Iterator[Section]:
    """Yield the table of crossings, if any were looked for."""
    if "break_even_bandwidth" not in data:
        return
    rows = [TableRow(row.name, [Cell(*cell) for cell in row.cells()]) for row in crossings(data)]
    where = setting_in_words(data)
    told = hint(f"{_CROSSINGS} Where an axis is not asked for: {where or 'the cluster as it is'}.")
    yield Section("break-even", "Where it breaks even", f"{told}\n{table(f'Break-even{_mark(data)}', TITLES, rows)}")


_CROSSINGS = (
    "Found by root finding on the model that times the steps. Cost factors multiply the time of encoding and decoding; "
    "the affordable time is that of a step on one worker; ratios are of bytes over float32 gradients."
)
