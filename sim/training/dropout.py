"""Dropout whose masks are a function of a key, so that every way of computing a gradient drops the same values."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ...compressors.keys import Purpose, stream

_MIX = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)  # splitmix64's multipliers as signed 64-bit integers
_STEP = -0x61C8864680B583EB  # and its increment


class KeyedDropout(nn.Module):
    """A stand-in for ``nn.Dropout`` and its channel-wise forms.

    ``nn.Dropout`` draws from torch's global generator: its masks depend on everything drawn before, and differ between
    a batched and a looped computation. Here the mask is a hash of the buffer ``key`` and the position, computed with
    tensor operations, so that it works inside ``torch.func.vmap`` with a key for each worker.

    Parameters
    ----------
    probability : float
        Of dropping a value, in [0, 1].
    channel_dims : int or None
        How many trailing dimensions share a draw (1 for ``Dropout1d``, ...); None: each value has its own.

    Notes
    -----
    The hash is the finaliser of splitmix64 (Steele, Lea, Flood 2014, https://doi.org/10.1145/2660193.2660195).
    A module that is called several times in one forward pass drops the same positions each time.
    """

    key: Tensor
    KINDS: ClassVar[dict[type[nn.Module], int | None]] = {
        nn.Dropout: None,
        nn.Dropout1d: 1,
        nn.Dropout2d: 2,
        nn.Dropout3d: 3,
    }

    def __init__(self, probability: float, channel_dims: int | None) -> None:
        super().__init__()
        self.probability = probability
        self.channel_dims = channel_dims
        self.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of ``x`` in training mode, scaling the others by 1 / (1 - probability)."""
        if not self.training or self.probability == 0:
            return x
        if self.probability == 1:
            return x * 0
        dims = self.channel_dims or 0
        shape = (*x.shape[: x.ndim - dims], *(1,) * dims)
        count = torch.Size(shape).numel()
        positions = torch.arange(1, count + 1, device=x.device)
        draws = _mixed(self.key + positions * _STEP) >> 40 & 0xFFFFFF  # 24 random bits
        keep = (draws >= int(self.probability * 2**24)).view(shape)
        return x * keep / (1 - self.probability)


def _mixed(z: Tensor) -> Tensor:
    """Return splitmix64's finaliser of each integer; ``>>`` is arithmetic, so the sign bits are masked off."""
    z = (z ^ (z >> 30 & (1 << 34) - 1)) * _MIX[0]
    z = (z ^ (z >> 27 & (1 << 37) - 1)) * _MIX[1]
    return z ^ (z >> 31 & (1 << 33) - 1)


def key_dropout(model: nn.Module) -> list[str]:
    """Replace a model's dropout modules by keyed ones, in place.

    Returns
    -------
    list of str
        The names of the replaced modules.
    """
    names = [name for name, module in model.named_modules() if type(module) in KeyedDropout.KINDS]
    for name in names:
        old = model.get_submodule(name)
        new = KeyedDropout(float(old.p), KeyedDropout.KINDS[type(old)])  # type: ignore[arg-type]
        model.set_submodule(name, new)
    return names


def dropout_key(seed: int, step: int, name: str, rank: int) -> int:
    """Return the key of a dropout module for one worker and step, a signed 64-bit integer."""
    raw = int(stream(seed, Purpose.DROPOUT, step, name, rank).random_raw())
    return raw - (1 << 64) if raw >> 63 else raw
