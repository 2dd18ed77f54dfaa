"""Means and confidence bands over seeds, from single seeds or from what was made of them before."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.stats import t as student_t

CONFIDENCE = 0.95


class Band(NamedTuple):
    """A variable's mean over the seeds, and its 95 % confidence limits.

    A mean is NaN where a single seed did not reach the target, since that of the others would flatter. Limits are NaN
    where there are fewer than two seeds.
    """

    mean: xr.DataArray
    low: xr.DataArray
    high: xr.DataArray


def band(dataset: xr.Dataset, name: str) -> Band:
    """Return a variable's mean and confidence limits (Student's t).

    Parameters
    ----------
    dataset : xarray.Dataset
        A sweep with the dimension ``seed``; or with means in place of its seeds, limits as ``<name>_low`` and
        ``<name>_high``, and in ``reached`` the share of seeds that reached the target; or with neither.
    name : str
        A variable of numbers.
    """
    values = dataset[name]
    if "seed" in values.dims:
        return _over_seeds(values)
    if "reached" in dataset and name in _OF_TARGET:
        values = values.where(dataset["reached"] >= 1)
    low, high = (dataset.get(f"{name}_{end}", xr.full_like(values, np.nan)) for end in ("low", "high"))
    return Band(values, low, high)


_OF_TARGET = ("steps_to_target", "bytes_to_target", "time_to_target_s", "speedup")
"""What only seeds have that reached the target."""


def _over_seeds(values: xr.DataArray) -> Band:
    """Return the mean and the limits of a variable with the dimension ``seed``."""
    mean, seeds = values.mean("seed", skipna=False), values.sizes["seed"]
    if seeds < 2:
        return Band(mean, xr.full_like(mean, np.nan), xr.full_like(mean, np.nan))
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, seeds - 1)) * values.std("seed", ddof=1, skipna=False) / seeds**0.5
    return Band(mean, mean - half, mean + half)
