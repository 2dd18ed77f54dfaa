"""Rounding at random so that the expectation is kept, from few random bits.

A probability p is compared with the 8 bits of a draw; only where these do not decide, once in 256 times, 44 more bits
are looked at. So a draw has 52 bits and costs 8: small probabilities are not lost, and few bits are made. The bits are
those of SplitMix64 [1]_: word j of a key is the mix of key + (j + 1) g. Each worker's keys come from its own stream
(:mod:`gradwire.compressors.keys`), and an entry's bits follow from key and position, wherever they are computed.

References
----------
.. [1] Steele, Lea, Flood. *Fast splittable pseudorandom number generators*, OOPSLA 2014,
   https://doi.org/10.1145/2660193.2660195
"""

import torch
from torch import Tensor

from ..base import Turn
from ..keys import Purpose, stream

Key = tuple[int, int]
"""What the first 8 bits, and the other 44, of all draws of a row follow from: two words of 64 bits."""

GOLDEN = 0x9E3779B97F4A7C15
MIX1, MIX2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def rounding_keys(turn: Turn) -> list[Key]:
    """Return the keys of this process's rows."""
    keys = []
    for rank in turn.ranks:
        words = stream(turn.seed, Purpose.ROUNDING, turn.step, turn.unit, rank).random_raw(2)
        keys.append((int(words[0]), int(words[1])))
    return keys


def rounds_up(p: Tensor, key: Key) -> Tensor:
    """Draw for each entry of a row whether it is rounded up.

    Parameters
    ----------
    p : Tensor, shape [n]
        Probabilities in [0, 1], float32 or float64.
    key : Key
        The row's.

    Returns
    -------
    Tensor of bool, shape [n]
        True with a probability of p, at most 2**-52 more.
    """
    count = p.numel()
    first, more = key
    words = _words(first, torch.arange((count + 7) // 8, device=p.device))
    scaled = p * 256
    whole = scaled.floor()
    coarse = words.view(torch.uint8)[:count].to(p.dtype)
    up = coarse < whole
    tied = (coarse == whole).nonzero()[:, 0]
    rest = (scaled[tied] - whole[tied]).double() * 2.0**44
    up[tied] = _shifted(_words(more, tied), 20).double() < rest
    return up


def _words(key: int, index: Tensor) -> Tensor:
    """Return the words of a key at some places, as int64."""
    z = (index + 1) * _signed(GOLDEN) + _signed(key)
    z = (z ^ _shifted(z, 30)) * _signed(MIX1)
    z = (z ^ _shifted(z, 27)) * _signed(MIX2)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, places: int) -> Tensor:
    """Shift words to the right; zeros come in from the left."""
    return (z >> places) & ((1 << (64 - places)) - 1)


def _signed(word: int) -> int:
    """Return the int64 of the same 64 bits."""
    return word - (1 << 64) if word >> 63 else word
