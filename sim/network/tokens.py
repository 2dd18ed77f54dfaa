"""Tokens: how long collectives take behind a shaper at every NIC, and what is left for the next ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..cluster.sections import Shaper
from .costs import Cost
from .critical import FloatArray


class TokenBucket:
    """The tokens of a shaper in the course of time, the same at all NICs.

    X bytes that find T tokens cross a NIC in the longer of what they take at its bandwidth and what their surplus over
    T takes at the shaper's rate, at which tokens also fill up while nothing is sent.

    Parameters
    ----------
    shaper : Shaper
    tokens : array, bytes
        At time 0.
    """

    def __init__(self, shaper: Shaper, tokens: ArrayLike) -> None:
        self._rate = shaper.rate / 8  # bytes/s
        self._burst = float(shaper.burst)
        self._tokens = np.asarray(tokens, np.float64)
        self._at_s = np.zeros(())

    def tokens(self, time_s: FloatArray) -> FloatArray:
        """Return how many there are at a time after the last collective, in bytes."""
        return np.asarray(np.minimum(self._burst, self._tokens + self._rate * (time_s - self._at_s)))

    def send(
        self,
        collectives: Sequence[Cost],
        start_s: FloatArray,
        bandwidth_bps: ArrayLike,
        latency_s: ArrayLike,
        launch_s: ArrayLike,
    ) -> FloatArray:
        """Do collectives one after the other; return how long they take."""
        time_s = start_s
        for cost in collectives:
            time_s = time_s + cost.before_s(launch_s)
            tokens = self.tokens(time_s)
            shaped_s = (cost.payload_bytes - tokens) / self._rate
            seconds = np.maximum(np.maximum(cost.across_s(bandwidth_bps, latency_s), shaped_s), cost.inside_s)
            self._tokens = np.minimum(self._burst, tokens + self._rate * seconds - cost.payload_bytes)
            self._at_s = time_s = time_s + seconds
        return time_s - start_s
