"""Crossings in words: at one setting of a sweep, where each scheme breaks even and what it could afford."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import xarray as xr

from ...sim.units import format_bandwidth
from ..formatting import MISSING, format_ratio, format_seconds, significant
from ..sweep_plots.axes import describe
from .answer import axes_of, fills, named
from .breakeven import BYS

TITLES = (
    "pays at bandwidths",
    "pays at cost factors",
    "affordable encode + decode",
    "required ratio",
    "own ratio",
)


@dataclass(frozen=True)
class Crossing:
    """Where one scheme with its parameters breaks even at a setting.

    Attributes
    ----------
    name : str
    bandwidth, cost : str
        At which it is faster, in words: "below 1.29 Gbit/s", "everywhere", "nowhere".
    bandwidth_bps, cost_factor : float or None
        The first crossing.
    affordable_s : float or None
        What encoding and decoding of a step may take; None if anything.
    required_ratio, own_ratio : float or None
        Compression ratios over float32 gradients: needed to be even, and had.
    """

    name: str
    bandwidth: str
    cost: str
    bandwidth_bps: float | None
    cost_factor: float | None
    affordable_s: float | None
    required_ratio: float | None
    own_ratio: float | None

    def cells(self) -> list[tuple[str, float | None]]:
        """Return text and number of each column of :data:`TITLES`."""
        afford = "any" if self.affordable_s is None else format_seconds(self.affordable_s)
        return [
            (self.bandwidth, self.bandwidth_bps),
            (self.cost, self.cost_factor),
            (afford, self.affordable_s),
            (MISSING if self.required_ratio is None else format_ratio(self.required_ratio), self.required_ratio),
            (MISSING if self.own_ratio is None else format_ratio(self.own_ratio), self.own_ratio),
        ]


def setting(data: xr.Dataset) -> dict[str, int]:
    """Return the place on each axis of the network and the cost at which crossings are told: the plainest one.

    Factor 1 of the cost, and the middle of the others.
    """
    found = {}
    for axis in ("cost", "bandwidth", "latency", "launch"):
        if axis in data.dims:
            values = data[axis].values
            found[axis] = int(np.argmin(np.abs(values - 1))) if axis == "cost" else len(values) // 2
    return found


def setting_in_words(data: xr.Dataset) -> str:
    """Say where that is."""
    return ", ".join(describe(data, axis, data[axis].values[place]) for axis, place in setting(data).items())


def crossings(data: xr.Dataset) -> Iterator[Crossing]:
    """Yield a row for each compressing scheme at each point of its parameters and of other axes but the seed."""
    by = BYS[0] if "target" in data.attrs else BYS[1]
    here = data.sel(by=by).isel(setting(data), missing_dims="ignore")
    elements = data.attrs["elements"]
    slow = [str(dim) for dim in here["required_ratio"].dims if dim != "scheme"]
    for scheme in here["scheme"].values[~np.isnan(here["break_even_cost_count"]).values.all(axis=tuple(range(1, 1 + len(slow)))) if slow else slice(None)]:
        own = [dim for dim in slow if dim not in axes_of(data) or fills(dim, str(scheme)) or not str(data[dim].attrs["key"]).startswith("scheme.")]
        ...
