"""Synthetic sweeps of the shape that the sweep command writes, from a small model of a step."""

import numpy as np
import xarray as xr

DENSE, TOPK, QSGD = "dense(dtype=fp32)", "ef(topk(density))", "qsgd(bits=4)"
AXES = {
    "density": ([0.001, 0.003, 0.01, 0.03, 0.1], "1"),
    "cost": ([0.25, 0.5, 1.0, 2.0, 4.0], "1"),
    "bandwidth": (np.geomspace(1e8, 1e11, 12).tolist(), "bit/s"),
    "latency": ([10e-6, 100e-6], "s"),
    "workers": ([8], "1"),
    "seed": ([0, 1, 2], "1"),
}
LEARNT = ("density", "workers", "seed")
"""Axes that change what is learnt."""
DENSE_BYTES = 4e6
PHASES = ("forward_s", "backward_s", "encode_s", "decode_s", "optimizer_s", "exposed_communication_s")


def sweep(schemes=(DENSE, TOPK, QSGD), target=0.9, **axes):
    """Return a sweep over :data:`AXES`, those that are given as ``name=values`` replaced, or left out if None."""
    values = {name: axes.get(name, given) for name, (given, _) in AXES.items() if axes.get(name, given) is not None} | {
        name: given for name, given in axes.items() if name not in AXES
    }
    coordinates = {
        name: (name, np.asarray(given), {"units": AXES.get(name, (0, "1"))[1]}) for name, given in values.items()
    }
    grid = {name: xr.DataArray(np.asarray(given), dims=name) for name, given in values.items()}
    parts = [_one(scheme, grid, target) for scheme in schemes]
    data = {name: xr.concat([part[name] for part in parts], "scheme") for name in parts[0]}
    order = ["scheme", *values]
    data = {name: array.transpose(*[d for d in order if d in array.dims]) for name, array in data.items()}
    data |= _baseline(data)
    data["speedup"] = (data["baseline_time_to_target_s"] / data["time_to_target_s"]).transpose(*order)
    data["step_speedup"] = (data["baseline_step_s"] / data["step_s"]).transpose(*order)
    attrs = {"metric": "accuracy", "higher_is_better": 1, "title": "a sweep"} | (
        {} if target is None else {"target": target}
    )
    return xr.Dataset(data, {**coordinates, "scheme": np.array(schemes, dtype=object)}, attrs)


def _one(scheme, grid, target):
    """Return the variables of one scheme over its axes."""
    get = {
        name: grid.get(name, xr.DataArray(default))
        for name, default in {
            "density": 0.01,
            "cost": 1.0,
            "bandwidth": 1e10,
            "latency": 5e-5,
            "workers": 8,
            "seed": 0,
        }.items()
    }
    share, codec_s, slower = {
        DENSE: (1.0 + 0 * get["density"], 0.0, 1.0 + 0 * get["density"]),
        TOPK: (2 * get["density"], 8e-3, 1 + 0.08 * (get["density"] / 0.1) ** -0.45),
        QSGD: (0.14 + 0 * get["density"], 2e-3, 1.1 + 0 * get["density"]),
    }[scheme]
    noise = 1 + 0.04 * np.cos(2.1 * get["seed"] + len(scheme) + 300 * share)
    steps = np.round(200 * slower * noise / (1 + 0.02 * get["workers"]))
    reached = steps < 285
    size = DENSE_BYTES * share
    communication_s = 14 * get["latency"] + 2 * (1 - 1 / get["workers"]) * size * 8 / get["bandwidth"]
    full = sum((xr.DataArray(np.zeros(len(array)), dims=name) for name, array in grid.items()), start=xr.DataArray(0.0))
    data = {"forward_s": 4e-3 + full, "backward_s": 8e-3 + full, "optimizer_s": 1e-3 + full}
    data["encode_s"], data["decode_s"] = (part * codec_s * get["cost"] + full for part in (0.75, 0.25))
    data["communication_s"] = communication_s + full
    data["exposed_communication_s"] = np.maximum(communication_s - 5e-3, 0.1e-3) + full
    data["step_s"] = sum(data[name] for name in PHASES)
    data["run_s"] = 600 * data["step_s"]
    learnt = sum((0.0 * grid[name] for name in LEARNT if name in grid), start=xr.DataArray(0.0))
    data["sent_bytes"] = size + learnt
    data["completed_steps"] = 600 + learnt
    data["final_metric"] = 0.96 - 0.03 * (slower - 1) + 0.004 * np.sin(5.0 * get["seed"] + 7 * slower) + learnt
    data["steps_to_target"] = (steps.where(reached) if target is not None else np.nan) + learnt
    data["bytes_to_target"] = data["steps_to_target"] * size
    data["time_to_target_s"] = data["steps_to_target"] * data["step_s"]
    return data


def _baseline(data):
    """Return the best uncompressed step and time: dense training with buckets that hide a tenth of what is exposed."""
    saved_s = 0.1 * data["exposed_communication_s"].isel(scheme=0)
    step_s = data["step_s"].isel(scheme=0) - saved_s
    return {"baseline_step_s": step_s, "baseline_time_to_target_s": step_s * data["steps_to_target"].isel(scheme=0)}
