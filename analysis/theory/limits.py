"""Confidence limits of means over independent draws, for values that are near normal and for values that are not."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

NEAR_NORMAL = 0.02
"""Up to so much skewness over the root of the number of draws, the chance that Student's t misses is off by less than a
factor of two at the levels used here: to first order it is off by exp(t^3 / 3 times that), t being about 4 to 5."""
LOPSIDED = 0.36
"""Beyond so much skewness over the root of the number of draws Student's t says nothing on the side of the longer tail:
it is passed where fewer than five of 30 draws, or eight of many, differ from all others."""
_HALVINGS = 60


def student(values: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the one-sided limits of the means of each column of ``[R, K]``, as if means were normal."""
    mean, runs = values.mean(axis=0), len(values)
    reach = stats.t.isf(level, runs - 1) * values.std(axis=0, ddof=1) / np.sqrt(runs)
    return mean - reach, mean + reach


def of_runs(values: Floats, level: float) -> tuple[Floats, Floats]:
    """Return Student's limits of each column of ``[R, K]``; none, infinity, where the tail on a side may be unseen.

    Of values that are nearly always the same and rarely far below, a sample has too small a spread or none, so a lower
    limit of Student's would be above the expectation in far more than ``level`` of all cases; upwards likewise.
    """
    low, high = student(values, level)
    skewness, most, same = _skewness(values), LOPSIDED * np.sqrt(len(values)), _constant(values)
    return np.where(same | (skewness < -most), -np.inf, low), np.where(same | (skewness > most), np.inf, high)


def hoeffding(values: Floats, level: float, least: Floats, most: Floats) -> tuple[Floats, Floats]:
    """Return the one-sided limits of the means of values that lie between two numbers, of whatever distribution.

    Those are the expectations p, on the scale from ``least`` to ``most``, for which R times the relative entropy of
    the mean and p is log(1 / level) [1]_.

    Parameters
    ----------
    values : array, shape [R, K]
    level : float
        The probability that a limit is on the wrong side, at most.
    least, most : array, shape [K]

    References
    ----------
    .. [1] Hoeffding. *Probability inequalities for sums of bounded random variables*, JASA 58(301), 1963, Theorem 1,
       https://doi.org/10.1080/01621459.1963.10500830
    """
    width = most - least
    scale = np.where(width > 0, width, 1.0)
    mean = np.clip((values.mean(axis=0) - least) / scale, 0.0, 1.0)
    allowed = np.log(1 / level) / len(values)
    low = _far(mean, np.zeros_like(mean), allowed)
    high = _far(mean, np.ones_like(mean), allowed)
    return least + width * low, least + width * high


def of_draws(values: Floats, level: float, least: Floats, most: Floats) -> tuple[Floats, Floats]:
    """Return Student's limits of each column, or Hoeffding's where the sample is too skewed for them."""
    low, high = student(values, level)
    lowest, highest = hoeffding(values, level, least, most)
    normal = ~skewed(values)
    return np.where(normal, low, lowest), np.where(normal, high, highest)


def skewed(values: Floats) -> NDArray[np.bool_]:
    """Return whether a column's mean hangs on few of its draws, or they are all the same; shape [K]."""
    result: NDArray[np.bool_] = np.abs(_skewness(values)) > NEAR_NORMAL * np.sqrt(len(values))
    return result | _constant(values)


def _constant(values: Floats) -> NDArray[np.bool_]:
    """Return whether all draws of a column are the same, whatever rounding makes of their mean."""
    result: NDArray[np.bool_] = (values == values[0]).all(axis=0)
    return result


def _skewness(values: Floats) -> Floats:
    """Return the skewness of each column of ``[R, K]``; 0 of one that is constant."""
    off = values - values.mean(axis=0)
    variance = np.square(off).mean(axis=0)
    result: Floats = (off**3).mean(axis=0) / np.where(variance > 0, variance, 1.0) ** 1.5
    return result


def _far(mean: Floats, end: Floats, allowed: float) -> Floats:
    """Return the number between the mean and an end that is as far from the mean as is allowed."""
    near, far = mean.copy(), end.copy()
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        inside = _entropy(mean, middle) <= allowed
        near, far = np.where(inside, middle, near), np.where(inside, far, middle)
    return far


def _entropy(q: Floats, p: Floats) -> Floats:
    """Return the relative entropy of two-valued variables of means q and p."""
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(q > 0, q * np.log(q / p), 0.0)
        other = np.where(q < 1, (1 - q) * np.log((1 - q) / (1 - p)), 0.0)
    return own + other
