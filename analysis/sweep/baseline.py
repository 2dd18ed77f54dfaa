"""The baseline of a sweep: at every point the best uncompressed scheme, by which the others are measured."""

from typing import Any

import numpy as np
import xarray as xr

from ...sim.units import format_size
from ..comparison import is_uncompressed


def with_baseline(data: xr.Dataset) -> xr.Dataset:
    """Return a sweep's dataset with the best uncompressed scheme at each point, and speed-ups over it.

    The best one is soonest at the target on average over the seeds, or, where none reaches it with every seed, has the
    shortest step. What diverged is nothing to measure others by. Speed-ups compare runs of the same seed.
    """
    dense = [i for i, label in enumerate(data["scheme"].values) if is_uncompressed(str(label))]
    if not dense:
        return data
    ours = data.isel(scheme=dense)
    trained = ours["status"] == "completed"
    target_s = _mean(ours["time_to_target_s"].where(trained))
    step_s = _mean(ours["step_s"].where(trained))
    anyone = target_s.notnull().any("scheme")
    rank = target_s.where(anyone, step_s).fillna(np.inf)
    best = rank.argmin("scheme")
    known = np.isfinite(rank.min("scheme"))
    new: dict[str, Any] = {}
    for name in ("step_s", "time_to_target_s", "run_s"):
        picked = ours[name].isel(scheme=best).where(known)
        new[f"baseline_{name}"] = picked.reset_coords(drop=True).assign_attrs(ours[name].attrs)
    new["baseline"] = _names(ours, best).where(known, "none")
    new["speedup"] = (new["baseline_time_to_target_s"] / data["time_to_target_s"]).transpose(*data["step_s"].dims)
    new["step_speedup"] = (new["baseline_step_s"] / data["step_s"]).transpose(*data["step_s"].dims)
    new["speedup"].attrs = {"units": "1", "long_name": "time to target of the best uncompressed scheme, over the own"}
    new["step_speedup"].attrs = {"units": "1", "long_name": "step of the best uncompressed scheme, over the own"}
    return data.assign(new)


def _mean(values: xr.DataArray) -> xr.DataArray:
    """Return the mean over seeds, NaN where one is missing."""
    return values.mean("seed", skipna=False) if "seed" in values.dims else values


def _names(ours: xr.Dataset, best: xr.DataArray) -> xr.DataArray:
    """Return what the best schemes are called, with the size of their buckets."""
    sizes = ours["bucket_bytes"]
    sizes = (sizes.isel(seed=0) if "seed" in sizes.dims else sizes).isel(scheme=best).reset_coords(drop=True)
    labels = ours["scheme"].isel(scheme=best).reset_coords(drop=True)

    def name(label: str, size: float) -> str:
        return label if np.isnan(size) else f"{label}, buckets of {format_size(int(size))}"

    text = np.vectorize(name, otypes=[object])(labels.values, sizes.transpose(*labels.dims).values)
    return xr.DataArray(text, dims=labels.dims, attrs={"long_name": "best uncompressed scheme"})
