"""The sweep folder: everything about a sweep as files, written whole or not at all."""

import json
import tomllib
from pathlib import Path

import tomli_w
import xarray as xr

from ..place import Kind, read_data, write_data, write_whole
from ..plots import save_figures
from ..sweep_plots import sweep_figures
from .answer import Answer, answer
from .crossings import lines
from .grid import Grid
from .report import sweep_html
from .seeds import over_seeds
from .summary import sweep_summary
from .sweep import Sweep

SWEEP = Kind(
    "sweep",
    "sweep.nc",
    frozenset({"sweep.toml", "summary.json", "sweep.nc"}),
    ("report.html", "*.png"),
    frozenset({"scheme", "step_s", "run_s", "status", "final_metric"}),
)
"""What a sweep folder consists of."""
_DPI = 100
"""Of the many figures of a sweep, so that writing them takes less time than everything else."""
MEANS = "means"
"""The group of the data file that has means over the seeds and their confidence intervals."""


_WHOLE = {"cluster.preset": "cluster", "cluster.file": "cluster", "task.name": "task"}
"""Keys that decide what the others in their section are, if these are not given."""


def sweep_toml(data: xr.Dataset, grid: Grid) -> str:
    """Write the sweep completely, all defaults and presets filled in, so that it can be read back."""
    experiment = tomllib.loads(str(data.attrs["experiment"]))
    for axis in grid.axes:
        if axis.key in _WHOLE:  # other keys of its section follow from it, and would hold at the first value alone
            section = _WHOLE[axis.key]
            experiment[section] = grid.data.get(section, {})
    axes = {axis.name: list(axis.values) for axis in grid.axes}
    return tomli_w.dumps({**experiment, "schemes": list(grid.schemes), "axes": axes})


def write_sweep(data: xr.Dataset, sweep: Sweep, folder: Path, force: bool = False) -> Answer:
    """Write ``sweep.toml``, ``summary.json``, ``sweep.nc``, plots and ``report.html``; return the answer.

    Raises
    ------
    FolderError
        As :func:`gradwire.analysis.place.write_whole`.
    """
    found = answer(data)

    def fill(new: Path) -> None:
        (new / "sweep.toml").write_text(sweep_toml(data, sweep.grid), encoding="utf-8")
        text = json.dumps(sweep_summary(data, found), indent=2) + "\n"
        (new / "summary.json").write_text(text, encoding="utf-8")
        write_data(data, new, SWEEP, {MEANS: over_seeds(data)})
        drawn = sweep_figures(data, break_even=lines(data))
        save_figures(drawn, new, dpi=_DPI)
        page = sweep_html(data, sweep, found, drawn, sweep_toml(data, sweep.grid))
        (new / "report.html").write_text(page, encoding="utf-8")

    write_whole(folder, force, SWEEP, fill)
    return found


def read_sweep(folder: Path) -> xr.Dataset:
    """Read a sweep's dataset; raises as :func:`gradwire.analysis.place.read_data`."""
    return read_data(folder, SWEEP)
