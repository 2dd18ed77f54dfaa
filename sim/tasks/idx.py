"""Reads IDX files, the format of MNIST and its like, strictly.

An IDX file is two zero bytes, a byte for the type of its values, a byte for the number of its dimensions, each
dimension as a big-endian 32-bit integer, and the values in row-major order.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...compressors.errors import InputError

Bytes = npt.NDArray[np.uint8]

_UNSIGNED_BYTE = 0x08


class IdxError(InputError):
    """A file that is missing or is not the IDX file it should be; the message names it, in one line."""


def read_idx(path: Path, dimensions: int) -> Bytes:
    """Read an IDX file of unsigned bytes.

    Parameters
    ----------
    path : Path
        The file; decompressed if its name ends in ``.gz``.
    dimensions : int
        How many dimensions the array must have: 3 for images, 1 for labels.

    Returns
    -------
    ndarray of uint8
        The values; read-only.

    Raises
    ------
    IdxError
        If the file cannot be read, or its header or its length is not what it should be.
    """
    data = _contents(path)
    header = 4 + 4 * dimensions
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if data[:4] != magic:
        raise IdxError(
            f"{path}: starts with bytes {data[:4].hex(' ') or '(none)'}, expected {magic.hex(' ')} "
            f"(IDX, unsigned bytes, {dimensions} dimensions)"
        )
    if len(data) < header:
        raise IdxError(f"{path}: ends within its header, after {len(data)} bytes; expected at least {header}")
    shape = struct.unpack_from(f">{dimensions}I", data, 4)
    expected = header + math.prod(shape)
    if len(data) != expected:
        raise IdxError(f"{path}: has {len(data)} bytes, expected {expected} for the shape {shape} in its header")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_labelled(folder: Path, part: str) -> tuple[Bytes, Bytes]:
    """Read the images and the labels of one part of a data set.

    Parameters
    ----------
    folder : Path
        Where the files are: ``PART-images-idx3-ubyte`` and ``PART-labels-idx1-ubyte``, or the same with a dot before
        ``idx``, plain or with ``.gz`` added.
    part : str
        ``"train"`` or ``"t10k"`` in MNIST and its like.

    Returns
    -------
    images : ndarray of uint8, [m, height, width]
    labels : ndarray of uint8, [m]

    Raises
    ------
    IdxError
        If a file is missing or wrong, or the two differ in their number of examples.
    """
    images_path, labels_path = _find(folder, f"{part}-images", 3), _find(folder, f"{part}-labels", 1)
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise IdxError(
            f"{labels_path}: has {len(labels)} labels, expected {len(images)}, one for each image in {images_path.name}"
        )
    return images, labels


def _contents(path: Path) -> bytes:
    """Return a file's bytes, decompressed if need be."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IdxError(f"{path}: cannot be read: {error.strerror or error}") from error
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise IdxError(f"{path}: is not a whole gzip file: {error}") from error


def _find(folder: Path, stem: str, dimensions: int) -> Path:
    """Return the first file there is among the spellings of a name."""
    names = [f"{stem}{mark}idx{dimensions}-ubyte{suffix}" for mark in "-." for suffix in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    found = "that is not a folder" if not folder.is_dir() else "none of these is there"
    raise IdxError(f"{folder}: {found}; looked for {', '.join(names)}")
