"""Means over seeds and their confidence intervals, against scipy's."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from gradwire.analysis.sweep.seeds import over_seeds


def dataset(times, speedups=None):
    """Return a dataset of two schemes and some seeds."""
    data = xr.Dataset(
        {
            "time_to_target_s": (("scheme", "seed"), times, {"units": "s"}),
            "steps_to_target": (("scheme", "seed"), np.asarray(times) * 10),
            "speedup": (("scheme", "seed"), np.ones_like(times) if speedups is None else speedups),
            "status": (("scheme", "seed"), np.full(np.shape(times), "completed", dtype=object)),
            "sent_bytes": ("scheme", [4.0, 5.0]),
        },
        coords={"scheme": ["a", "b"], "seed": range(np.shape(times)[1])},
    )
    data["status"][1, 1] = "diverged at step 3"
    return data


def test_intervals_are_those_of_student():
    times = np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 3.5]])
    found = over_seeds(dataset(times))
    for i, row in enumerate(times):
        low, high = stats.t.interval(0.95, 2, loc=row.mean(), scale=stats.sem(row))
        assert float(found["time_to_target_s"][i]) == pytest.approx(row.mean())
        assert float(found["time_to_target_s_low"][i]) == pytest.approx(low)
        assert float(found["time_to_target_s_high"][i]) == pytest.approx(high)
    assert found["time_to_target_s_low"].attrs == {"units": "s"}
    assert "seed" not in found.dims
    assert found["sent_bytes"].values.tolist() == [4, 5]


def test_ratios_are_averaged_as_logarithms():
    ratios = np.array([[2.0, 0.5, 1.0], [4.0, 4.0, 4.0]])
    found, inverse = (over_seeds(dataset(np.ones((2, 3)), r)) for r in (ratios, 1 / ratios))
    assert found["speedup"].values.tolist() == pytest.approx([1.0, 4.0])
    assert found["speedup_low"].values == pytest.approx(1 / inverse["speedup_high"].values)
    assert found["speedup_high"][1] == pytest.approx(4.0)


def test_who_misses_the_target_with_one_seed_has_no_mean_time():
    found = over_seeds(dataset([[1.0, np.nan, 3.0], [1.0, 2.0, 3.0]]))
    assert np.isnan(found["time_to_target_s"].values).tolist() == [True, False]
    assert found["reached"].values.tolist() == pytest.approx([2 / 3, 1])
    assert found["status"].values.tolist() == ["completed", "diverged at step 3"]


def test_one_seed_has_no_interval():
    one = dataset([[1.0, 2.0], [3.0, 4.0]]).isel(seed=[0])
    for data in (one, one.isel(seed=0, drop=True)):
        found = over_seeds(data)
        assert found["time_to_target_s"].values.tolist() == [1, 3]
        assert np.isnan(found["time_to_target_s_low"].values).all()
        assert found["reached"].values.tolist() == [1, 1]
