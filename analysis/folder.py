"""The run folder: everything about a run as files, written whole or not at all."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import xarray as xr

from ..compressors.errors import InputError
from ..sim.run import Run
from ..sim.step.trace import chrome_trace
from .comparison import compare
from .plots import FIGURES, save_plots
from .report import report_html
from .report.explorer import run_explorer
from .summary import summary

DATA = "run.nc"
_ALWAYS = {"experiment.toml", "summary.json", DATA}
_FILES = _ALWAYS | {"report.html", "trace.json"} | {f"{name}.png" for name in FIGURES}


class FolderError(InputError):
    """A run folder that must not be written, or that is none."""


def free_folder(parent: Path, name: str) -> Path:
    """Return ``parent/name``, or the first of ``parent/name-2``, ``-3``, ... that does not exist."""
    number = 1
    while (folder := parent / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder


def check_target(folder: Path, force: bool) -> None:
    """Find out before a run whether its folder may be written.

    Raises
    ------
    FolderError
        If it exists and ``force`` is off, it holds anything that a run does not write, or its place is not writable.
    """
    parent = next(place for place in folder.absolute().parents if place.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise FolderError(f"--out {folder}: {parent} is no folder that can be written to")
    if not folder.exists():
        return
    if not force:
        raise FolderError(f"--out {folder}: exists already; give another name, or --force to replace it")
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if strange := sorted(found - _FILES):
        raise FolderError(f"--out {folder}: holds {strange[0]}, which no run writes, so --force does not replace it")
    if found and not found >= _ALWAYS:
        raise FolderError(f"--out {folder}: is no run folder, so --force does not replace it")


def write_run(run: Run, dataset: xr.Dataset, folder: Path, force: bool = False) -> None:
    """Write ``experiment.toml``, ``summary.json``, ``run.nc``, plots, ``report.html`` and ``trace.json``.

    Everything is written to a temporary folder beside, which is renamed at the end.

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
        As :func:`check_target`, or if the disk refuses.
    """
    check_target(folder, force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            _write_files(run, dataset, new)
            _put_in_place(new, folder)
    except OSError as error:
        raise FolderError(f"--out {folder}: cannot be written: {error.strerror or error}") from error


def _put_in_place(new: Path, folder: Path) -> None:
    """Rename a folder to its final name; what was there before is deleted last, or put back."""
    if not folder.exists():
        new.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent)) / folder.name
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        old.parent.rmdir()
        raise
    shutil.rmtree(old.parent)


def _write_files(run: Run, dataset: xr.Dataset, folder: Path) -> None:
    """Fill an empty folder."""
    comparison = compare(dataset)
    (folder / "experiment.toml").write_text(dataset.attrs["experiment"], encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(summary(comparison, dataset), indent=2) + "\n", encoding="utf-8")
    dataset.to_netcdf(folder / DATA, engine="h5netcdf")
    save_plots(dataset, folder)
    report = report_html(dataset, comparison, run_explorer(run, comparison))
    (folder / "report.html").write_text(report, encoding="utf-8")
    trace = chrome_trace({name: row.timeline for name, row in run.schemes.items()})
    (folder / "trace.json").write_text(json.dumps(trace) + "\n", encoding="utf-8")


def read_run(folder: Path) -> xr.Dataset:
    """Read a run's dataset.

    Raises
    ------
    FolderError
        If the folder is not there, or holds no readable run.
    """
    path = folder / DATA
    if not path.is_file():
        what = "is no run folder: it has no" if folder.is_dir() else "is not there, so neither is its"
        raise FolderError(f"{folder} {what} {DATA}")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            data = dataset.load()
    except (OSError, ValueError, KeyError) as error:
        raise FolderError(f"{path} cannot be read: {error}") from error
    if missing := {"scheme", "step_s", "status", "test_metric"} - set(data.variables):
        raise FolderError(f"{path} is no run: it has no {', '.join(sorted(missing))}")
    return data
