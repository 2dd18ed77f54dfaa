"""Handwritten digits (MNIST) or articles of clothing (Fashion-MNIST): 28 x 28 grey pixels, ten classes."""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from .base import Split, Splits, TaskError
from .classification import Classification
from .idx import Bytes, IdxError, read_labelled

PACKAGED = Path(__file__).with_name("data")
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
CLASSES = 10
SIDE = 28
HIDDEN = "300,100"


@dataclass(frozen=True)
class Mnist(Classification):
    """Ten classes of images; a batch is inputs [B, 1, 28, 28] (float32) and labels [B] (int64, 0 to 9).

    Inputs are standardised with the mean and the standard deviation of all pixels of the training split.

    Parameters
    ----------
    network : {"mlp", "cnn"}
        ``"mlp"``: fully connected with ReLU, by default 784-300-100-10 with 266,610 parameters. ``"cnn"``: two 5 x 5
        convolutions (16 and 32 channels), each with ReLU and 2 x 2 max-pooling, and a linear layer; 28,938 parameters.
    hidden : str or int
        The widths of the hidden layers of ``"mlp"``, as in ``"2048,2048"``, which has 5,824,522 parameters.
    source : {"packaged", "mnist", "fashion-mnist"}
        ``"packaged"``: 5,000 digits of MNIST that come with gradwire; 4,000 train, 500 validate and 500 test, the same
        number of each class in each. The other two are read from a folder of IDX files, whose last 5,000 training
        images validate (55,000 / 5,000 / 10,000).
    folder : str, optional
        The folder of ``"mnist"`` or ``"fashion-mnist"``, seen from the current one; ``~`` is one's home. Debian's
        package ``dataset-fashion-mnist`` is found by itself.

    Raises
    ------
    TaskError
        If the source needs a folder and there is none, or takes none and there is one; or the widths are none.
    """

    network: Literal["mlp", "cnn"] = "mlp"
    source: Literal["packaged", "mnist", "fashion-mnist"] = "packaged"
    folder: str | None = None
    hidden: str | int = HIDDEN

    def __post_init__(self) -> None:
        if self.network != "mlp" and self.hidden != HIDDEN:
            raise TaskError("hidden", self.hidden, f"network {self.network!r} takes no widths; give network 'mlp'")
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", str(self.hidden)):
            raise TaskError("hidden", self.hidden, "must be widths of at least 1 with commas between, as in '300,100'")
        if self.source == "packaged" and self.folder is not None:
            raise TaskError("folder", self.folder, "source 'packaged' takes no folder; give a source that does")
        if self.source == "mnist" and self.folder is None:
            raise TaskError("folder", None, "source 'mnist' needs the folder of its IDX files")
        if self.source == "fashion-mnist" and self.folder is None and not DEBIAN_FASHION.is_dir():
            allowed = (
                f"source 'fashion-mnist' needs the folder of its IDX files, as {DEBIAN_FASHION} is not there "
                "(Debian: apt install dataset-fashion-mnist)"
            )
            raise TaskError("folder", None, allowed)

    def splits(self) -> Splits:
        """Read the data.

        Raises
        ------
        IdxError
            If a file is missing or wrong, or there are too few training images.
        """
        if self.source == "packaged":
            return _read(PACKAGED, held_out=500)
        return _read(DEBIAN_FASHION if self.folder is None else Path(self.folder).expanduser(), held_out=5000)

    def model(self) -> nn.Module:
        """Return a new network: inputs [B, 1, 28, 28] to scores [B, 10]."""
        return _mlp([int(width) for width in str(self.hidden).split(",")]) if self.network == "mlp" else _cnn()


def _read(folder: Path, held_out: int) -> Splits:
    """Read a folder of IDX files; the last `held_out` training images validate."""
    images, labels = _checked(folder, "train")
    if len(images) <= held_out:
        raise IdxError(f"{folder}: has {len(images)} training images, expected more than the {held_out} that validate")
    # In blocks, since bincount makes eight bytes of each pixel.
    blocks = np.array_split(images[:-held_out], 50)
    pixels = np.sum([np.bincount(block.reshape(-1), minlength=256) for block in blocks], axis=0)
    # Over the 256 values that a pixel can have, the statistics are sums of few terms: the same on every machine.
    values = np.arange(256.0)
    mean = pixels @ values / pixels.sum()
    deviation = np.sqrt(pixels @ (values - mean) ** 2 / pixels.sum())
    if deviation == 0:
        raise IdxError(f"{folder}: has the same value in all pixels of its training images")
    standardised = ((values - mean) / deviation).astype(np.float32)

    def split(images: Bytes, labels: Bytes) -> Split:
        inputs = torch.from_numpy(standardised[images]).unsqueeze(1)
        return Split((inputs, torch.from_numpy(labels.astype(np.int64))))

    train, validation = slice(None, -held_out), slice(-held_out, None)
    return Splits(
        split(images[train], labels[train]),
        split(images[validation], labels[validation]),
        split(*_checked(folder, "t10k")),
    )


def _checked(folder: Path, part: str) -> tuple[Bytes, Bytes]:
    """Read one part and check that it can be this task's."""
    images, labels = read_labelled(folder, part)
    if len(images) == 0 or images.shape[1:] != (SIDE, SIDE):
        raise IdxError(f"{folder}: {part} images have shape {images.shape}, expected (1 or more, {SIDE}, {SIDE})")
    if labels.max() >= CLASSES:
        raise IdxError(f"{folder}: {part} labels go up to {labels.max()}, expected 0 to {CLASSES - 1}")
    return images, labels


def _mlp(hidden: list[int]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise([SIDE * SIDE, *hidden]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], CLASSES))


def _cnn() -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(1, 16), *block(16, 32), nn.Flatten(), nn.Linear(32 * (SIDE // 4) ** 2, CLASSES))
