"""Topology: a cluster as links with capacities, and the way from each worker to each other one."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class Routes(NamedTuple):
    """The ways of P pairs of workers.

    Attributes
    ----------
    first, links : IntArray, shapes [P + 1] and [K]
        Pair p crosses ``links[first[p]:first[p + 1]]``; none if both ends are the same worker.
    latency_s : FloatArray, shape [P]
        From the sending of the first bit to its arrival.
    """

    first: IntArray
    links: IntArray
    latency_s: FloatArray


@dataclass(frozen=True, eq=False)
class Topology:
    """The links of a cluster, each direction of a full-duplex cable one of its own.

    Attributes
    ----------
    capacity_bps : FloatArray, shape [L]
        Bits a second of payload that a link carries, shared by the transfers that cross it.
    names : tuple of str, length L
    """

    capacity_bps: FloatArray
    names: tuple[str, ...]
