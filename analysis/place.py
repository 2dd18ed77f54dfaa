"""The place of results: folders that are written whole or not at all, and never over anything else."""

import os
import shutil
import tempfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import xarray as xr

from ..compressors.errors import InputError


class FolderError(InputError):
    """A folder that must not be written, or that is none of the kind that is wanted."""


class Kind(NamedTuple):
    """A kind of result.

    Attributes
    ----------
    name : str
        Such as "run".
    data : str
        The file with all numbers.
    always : frozenset of str
        Files that every such folder has.
    others : tuple of str
        Patterns of what it may have besides.
    variables : frozenset of str
        What the data have at least.
    """

    name: str
    data: str
    always: frozenset[str]
    others: tuple[str, ...]
    variables: frozenset[str]

    def owns(self, name: str) -> bool:
        """Return whether a file may belong to such a folder."""
        return name in self.always or any(fnmatch(name, pattern) for pattern in self.others)


def free_folder(parent: Path, name: str) -> Path:
    """Return ``parent/name``, or the first of ``parent/name-2``, ``-3``, ... that does not exist."""
    number = 1
    while (folder := parent / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder


def check_target(folder: Path, force: bool, kind: Kind) -> None:
    """Find out beforehand whether a folder may be written.

    Raises
    ------
    FolderError
        If it exists and ``force`` is off, it holds anything that does not belong to its kind, or its place is not
        writable.
    """
    parent = next(place for place in folder.absolute().parents if place.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise FolderError(f"--out {folder}: {parent} is no folder that can be written to")
    if not folder.exists():
        return
    if not force:
        raise FolderError(f"--out {folder}: exists already; give another name, or --force to replace it")
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if strange := sorted(name for name in found if not kind.owns(name)):
        raise FolderError(
            f"--out {folder}: holds {strange[0]}, which no {kind.name} writes, so --force does not replace it"
        )
    if found and not found >= kind.always:
        raise FolderError(f"--out {folder}: is no {kind.name} folder, so --force does not replace it")


def write_whole(folder: Path, force: bool, kind: Kind, fill: Callable[[Path], None]) -> None:
    """Write a folder: to a temporary one beside it, which is renamed at the end.

    Parameters
    ----------
    folder : Path
    force : bool
        Replace a folder of this kind that is there.
    kind : Kind
    fill : callable
        Writes the files into an empty folder.

    Raises
    ------
    FolderError
        As :func:`check_target`, or if the disk refuses.
    """
    check_target(folder, force, kind)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            fill(new)
            _put_in_place(new, folder)
    except OSError as error:
        raise FolderError(f"--out {folder}: cannot be written: {error.strerror or error}") from error


def write_data(data: xr.Dataset, path: Path) -> None:
    """Write a dataset as netCDF; raises ``OSError`` if the disk refuses.

    It is made in memory first, for HDF5 says of a disk that is full what nobody can catch.
    """
    path.write_bytes(data.to_netcdf(engine="h5netcdf"))


def read_data(folder: Path, kind: Kind) -> xr.Dataset:
    """Read a folder's dataset.

    Raises
    ------
    FolderError
        If the folder is not there, or holds nothing readable of this kind.
    """
    path = folder / kind.data
    if not path.is_file():
        if folder.is_file():
            raise FolderError(f"{folder} is a file; give the folder of a {kind.name}")
        what = f"is no {kind.name} folder: it has no" if folder.is_dir() else "is not there, so neither is its"
        raise FolderError(f"{folder} {what} {kind.data}")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            data = dataset.load()
    except (OSError, ValueError, KeyError) as error:
        raise FolderError(f"{path} cannot be read: {error}") from error
    if missing := kind.variables - set(map(str, data.variables)):
        raise FolderError(f"{path} is no {kind.name}: it has no {', '.join(sorted(missing))}")
    return data


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
