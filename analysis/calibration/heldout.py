"""What was held out: which measurements a fit does not see, and how far off it is on them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...sim.network.critical import FloatArray
from ...sim.network.schedule import BoolArray

FOLDS = 3
"""Every third measurement is held out, three times over, so that each is held out once."""


class Errors(NamedTuple):
    """Relative errors of predictions, by their size.

    Attributes
    ----------
    cases : int
        Of predictions.
    median, p95, worst : float
        NaN without predictions.
    """

    cases: int
    median: float
    p95: float
    worst: float

    @classmethod
    def of(cls, errors: FloatArray) -> "Errors":
        """Summarise errors, whatever their signs."""
        sizes = np.abs(errors)
        if not len(sizes):
            return cls(0, *(float("nan"),) * 3)
        return cls(len(sizes), float(np.median(sizes)), float(np.quantile(sizes, 0.95)), float(sizes.max()))


def folds(values: NDArray[np.int64]) -> Iterator[BoolArray]:
    """Yield, for each fold, which measurements are held out: those at every third value, the two ends excepted.

    Parameters
    ----------
    values : array of int, shape [M]
        By which measurements are ordered, such as sizes; those of the same value are held out together.

    Yields
    ------
    BoolArray, shape [M]
        At least one of them true.
    """
    inner = np.unique(values)[1:-1]
    for first in range(min(FOLDS, len(inner))):
        yield np.isin(values, inner[first::FOLDS])
