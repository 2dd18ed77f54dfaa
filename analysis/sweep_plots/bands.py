"""Means over seeds and their confidence limits, as figures draw them."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from ..sweep.seeds import over_seeds


class Band(NamedTuple):
    """A variable's mean over the seeds, and its 95 % confidence limits, NaN where there are none."""

    mean: xr.DataArray
    low: xr.DataArray
    high: xr.DataArray


def reduced(dataset: xr.Dataset) -> xr.Dataset:
    """Return a sweep with means and limits in place of its seeds, as one that has no seeds is already."""
    return over_seeds(dataset) if "seed" in dataset.dims else dataset


def band(dataset: xr.Dataset, name: str) -> Band:
    """Return a variable of numbers of a sweep without seeds, with its limits."""
    values = dataset[name]
    low, high = (dataset.get(f"{name}_{end}", xr.full_like(values, np.nan)) for end in ("low", "high"))
    return Band(values, low, high)
