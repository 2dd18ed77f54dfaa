"""Random streams keyed by what they are for, never by how often they were used.

Each stream is a Philox counter-based generator [1]_ whose key is (seed, purpose) and whose counter starts at
(0, step, hash of the name, worker). So a draw depends on nothing but its key: not on other draws, on the order of the
workers, on how many processes share them, or on what ran before a restart.

References
----------
.. [1] Salmon, Moraes, Dror, Shaw. *Parallel random numbers: as easy as 1, 2, 3*, SC 2011,
   https://doi.org/10.1145/2063384.2063405
"""

from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SHARED = -1
"""In place of a worker's rank: the stream that all workers have in common."""


class Purpose(IntEnum):
    """What a stream is for; streams of different purposes are independent."""

    SELECTION = 1
    ROUNDING = 2
    START = 3
    SHUFFLING = 4
    DROPOUT = 5
    MODEL = 6
    SAMPLING = 7
    ATOMS = 8
    SERVER = 9
    NOISE = 10


@lru_cache(maxsize=4096)
def hash64(name: str) -> int:
    """Return 64 bits that depend on all of ``name``, the same on every machine."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def stream(seed: int, purpose: Purpose, step: int, name: str, worker: int = SHARED) -> np.random.Philox:
    """Return the bit generator of one key.

    Parameters
    ----------
    seed : int
        In [0, 2**64).
    worker : int
        A global rank, or :data:`SHARED`.
    """
    key = np.array([seed, purpose], dtype=np.uint64)
    counter = np.array([0, step, hash64(name), worker + 1], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter)


def below(bits: np.random.Philox, bound: int) -> int:
    """Return an integer uniform on [0, bound), to within bound / 2**64."""
    return int(bits.random_raw()) * bound >> 64


def words(bits: np.random.Philox, count: int) -> NDArray[np.uint32]:
    """Return ``count`` random words of 32 bits."""
    return bits.random_raw((count + 1) // 2).view(np.uint32)[:count]


def uniform(streams: list[np.random.Philox], count: int, like: Tensor) -> Tensor:
    """Return uniform draws in (0, 1), one row of ``count`` for each stream, on the device of ``like``.

    The draws are odd multiples of 2**-24, so that ``draw < p`` holds with a probability within 2**-24 of p. Fewer bits
    would lose small probabilities: with 8 bits, every p below 1/256 becomes 0 or 1/256. More would be rounded, to 1.0
    at the upper end.
    """
    rows = np.empty((len(streams), count), dtype=np.float32)
    for row, bits in zip(rows, streams, strict=True):
        np.multiply(words(bits, count) >> 9, np.float32(2.0**-23), out=row)
    rows += np.float32(2.0**-24)
    return torch.from_numpy(rows).to(like.device)
