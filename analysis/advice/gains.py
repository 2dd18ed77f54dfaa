"""Gains: how much faster a scheme is than the baseline, with a confidence interval over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ..sweep.seeds import CONFIDENCE


@dataclass(frozen=True)
class Gain:
    """A baseline's time over a scheme's own.

    Attributes
    ----------
    ratio : float
        The geometric mean over seeds.
    low, high : float or None
        The confidence interval of 95 %; None from a single seed.
    seeds : int
        How many seeds there are of both.
    """

    ratio: float
    low: float | None = None
    high: float | None = None
    seeds: int = 1

    @property
    def decided(self) -> bool:
        """Whether the interval leaves no doubt on which side of 1 the ratio is; True without an interval."""
        return self.low is None or self.high is None or self.low > 1 or self.high < 1


def paired_gain(baseline_s: Sequence[float], own_s: Sequence[float]) -> Gain:
    """Return the gain from times of the same seeds, in the same order.

    The logarithms of the ratios are taken to be normal; their mean has Student's t distribution.

    Examples
    --------
    >>> gain = paired_gain([4.0, 9.0, 6.0], [2.0, 4.5, 3.0])
    >>> round(gain.ratio, 12), round(gain.low, 12), gain.seeds
    (2.0, 2.0, 3)
    """
    logs = np.log(np.array(baseline_s, np.float64) / np.array(own_s, np.float64))
    count, centre = len(logs), float(logs.mean())
    if count < 2:
        return Gain(float(np.exp(centre)), seeds=count)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * float(logs.std(ddof=1)) / count**0.5
    ratio, low, high = np.exp([centre, centre - half, centre + half]).tolist()
    return Gain(ratio, low, high, count)
