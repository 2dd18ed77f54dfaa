"""The run folder: everything about a run as files, written whole or not at all."""

import json
from pathlib import Path

import xarray as xr

from ..sim.run import Run
from ..sim.step.trace import chrome_trace
from .comparison import compare
from .place import Kind, read_data, write_data, write_whole
from .plots import FIGURES, save_plots
from .report import report_html
from .report.explorer import run_explorer
from .summary import summary

_ALWAYS = frozenset({"experiment.toml", "summary.json", "run.nc"})
RUN = Kind(
    "run",
    "run.nc",
    _ALWAYS,
    ("report.html", "trace.json", *(f"{name}.png" for name in FIGURES)),
    frozenset({"scheme", "step_s", "status", "test_metric"}),
)
"""What a run folder consists of."""


def write_run(run: Run, dataset: xr.Dataset, folder: Path, force: bool = False) -> None:
    """Write ``experiment.toml``, ``summary.json``, ``run.nc``, plots, ``report.html`` and ``trace.json``.

    Parameters
    ----------
    run : Run
    dataset : xarray.Dataset
        ``run.dataset()``.
    folder : Path
    force : bool
        Replace a run folder that is there.

    Raises
    ------
    FolderError
        As :func:`gradwire.analysis.place.write_whole`.
    """
    write_whole(folder, force, RUN, lambda new: _write_files(run, dataset, new))


def read_run(folder: Path) -> xr.Dataset:
    """Read a run's dataset; raises as :func:`gradwire.analysis.place.read_data`."""
    return read_data(folder, RUN)


def _write_files(run: Run, dataset: xr.Dataset, folder: Path) -> None:
    """Fill an empty folder."""
    comparison = compare(dataset)
    (folder / "experiment.toml").write_text(dataset.attrs["experiment"], encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(summary(comparison, dataset), indent=2) + "\n", encoding="utf-8")
    write_data(dataset, folder / RUN.data)
    save_plots(dataset, folder)
    report = report_html(dataset, comparison, run_explorer(run, comparison))
    (folder / "report.html").write_text(report, encoding="utf-8")
    trace = chrome_trace({name: row.timeline for name, row in run.schemes.items()})
    (folder / "trace.json").write_text(json.dumps(trace) + "\n", encoding="utf-8")
