"""The critical path: the chain of transfers that a collective's duration consists of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...compressors.errors import InputError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class ClosedFormError(Exception):
    """No closed form is exact for this collective; the message says why. The event engine plays it."""


class CriticalPath(NamedTuple):
    """The chain of transfers that a collective's duration consists of; four arrays of one shape.

    Attributes
    ----------
    launches : IntArray
        How many operations are launched: 1, or 0 where no byte moves.
    hops : IntArray
        How many transfers follow each other, each paying the latency.
    bytes : IntArray
        What crosses the links one after the other: the chain's transfers, or all that share the busiest link.
    reduced : IntArray
        What the chain's receivers add to what they have, in bytes.
    """

    launches: IntArray
    hops: IntArray
    bytes: IntArray
    reduced: IntArray

    @classmethod
    def moving(cls, hops: ArrayLike, carried: ArrayLike, reduced: ArrayLike, moves: ArrayLike) -> "CriticalPath":
        """Return the path of one operation, all zero where ``moves`` is false."""
        launches = np.asarray(moves, np.bool_).astype(np.int64)
        parts = (launches * np.asarray(part, np.int64) for part in (1, hops, carried, reduced))
        return cls(*(np.asarray(part) for part in np.broadcast_arrays(*parts)))

    def seconds(
        self,
        bandwidth_bps: ArrayLike,
        latency_s: ArrayLike,
        launch_s: ArrayLike,
        reduce_bytes_per_s: ArrayLike = np.inf,
    ) -> FloatArray:
        """Return the duration in seconds on clusters whose numbers broadcast against this path's shape."""
        latencies = self.hops * np.asarray(latency_s, np.float64)
        serial = 8 * self.bytes / np.asarray(bandwidth_bps, np.float64)
        adding = self.reduced / np.asarray(reduce_bytes_per_s, np.float64)
        return np.asarray(self.launches * np.asarray(launch_s, np.float64) + latencies + serial + adding)

    def then(self, other: "CriticalPath") -> "CriticalPath":
        """Return the path of two collectives, one after the other."""
        return CriticalPath(*(a + b for a, b in zip(self, other, strict=True)))


def check_sizes(sizes: Sequence[ArrayLike], counts: Sequence[ArrayLike]) -> None:
    """Refuse sizes below 0, and numbers of workers or servers below 1."""
    for least, kind, arrays in ((0, "a size", sizes), (1, "a number of workers or servers", counts)):
        for values in arrays:
            if (low := np.asarray(values).min(initial=least)) < least:
                raise InputError(f"{kind} is {low}; allowed: {least} or more")


def check_numbers(**numbers: ArrayLike) -> None:
    """Refuse numbers of a cluster, by name, that no cluster has: bandwidths must be above 0, all others 0 or more."""
    for name, values in numbers.items():
        array = np.asarray(values, np.float64)
        good = array > 0 if name == "bandwidth_bps" else (array >= 0) & (array < np.inf)
        if not good.all():
            allowed = "above 0" if name == "bandwidth_bps" else "finite numbers of 0 or more"
            raise InputError(f"{name} = {array[~good].flat[0]:g}; allowed: {allowed}")
