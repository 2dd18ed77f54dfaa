"""Seeds: a sweep's numbers as means over its seeds, with confidence intervals."""

import numpy as np
import xarray as xr
from scipy import stats

CONFIDENCE = 0.95
_RATIOS = {"speedup", "step_speedup"}
"""Averaged as logarithms, so that a ratio and its inverse agree."""


def over_seeds(data: xr.Dataset) -> xr.Dataset:
    """Reduce a sweep's dataset along ``seed``.

    Parameters
    ----------
    data : xarray.Dataset
        As :func:`gradwire.analysis.sweep.dataset.assemble` returns it.

    Returns
    -------
    xarray.Dataset
        Each number that varies by seed becomes its mean, and gets ``NAME_low`` and ``NAME_high``: the 95 % confidence
        interval of the mean by Student's t, NaN where there is one seed only. Speed-ups are averaged as logarithms. The
        mean of a time to target is NaN if any seed did not get there; ``reached`` is the share of seeds that did.
        ``status`` is the first that is not "completed", if any.
    """
    seeded = data if "seed" in data.dims else data.expand_dims(seed=1)
    new: dict[str, xr.DataArray] = {}
    for key, values in seeded.data_vars.items():
        name = str(key)
        if "seed" not in values.dims:
            new[name] = values
        elif values.dtype.kind in "OU":  # texts, from memory or from a file
            new[name] = _first_fault(values) if name == "status" else values.isel(seed=0, drop=True)
        else:
            new.update(_interval(name, values))
    reached = seeded["steps_to_target"].notnull().mean("seed")
    new["reached"] = reached.assign_attrs(units="1", long_name="share of seeds that reach the target")
    return xr.Dataset(new, attrs=data.attrs).drop_vars("seed", errors="ignore")


def _interval(name: str, values: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return the mean of a variable over seeds and the ends of its confidence interval."""
    ratio = name in _RATIOS
    numbers = xr.apply_ufunc(np.log, values) if ratio else values
    count = values.sizes["seed"]
    mean = numbers.mean("seed", skipna=False)
    half = xr.full_like(mean, np.nan)
    if count > 1:
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
        half = quantile / np.sqrt(count) * numbers.std("seed", ddof=1, skipna=False)
    parts = {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
    parts = {key: xr.apply_ufunc(np.exp, part) if ratio else part for key, part in parts.items()}
    return {key: part.assign_attrs(values.attrs) for key, part in parts.items()}


def _first_fault(status: xr.DataArray) -> xr.DataArray:
    """Return the first status over seeds that is not "completed"."""
    found = status.isel(seed=0, drop=True)
    for i in range(1, status.sizes["seed"]):
        found = found.where(found != "completed", status.isel(seed=i, drop=True))
    return found
