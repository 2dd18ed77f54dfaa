"""Crossings in words: at one setting of a sweep, where each scheme breaks even and what it could afford."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ...sim.network.critical import FloatArray
from ...sim.units import format_bandwidth
from ..formatting import MISSING, format_ratio, format_seconds, significant
from ..sweep_plots.axes import describe
from .answer import axes_of, named, own_points
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
    """Yield a row for each compressing scheme at each point of its parameters and of other axes but the seed.

    Parameters
    ----------
    data : xarray.Dataset
        With break-even surfaces (:func:`gradwire.analysis.sweep.breakeven.with_break_even`).
    """
    by = BYS[0] if "target" in data.attrs else BYS[1]
    here = data.sel(by=by).isel(setting(data), missing_dims="ignore")
    slow = [str(dim) for dim in here["required_ratio"].dims if dim != "scheme"]
    for label in map(str, here["scheme"].values):
        for place, at in own_points(data, label, slow):
            one = here.sel(scheme=label).isel(place)
            if np.isfinite(one["break_even_cost_count"]):
                yield _crossing(named(label, at), one)


def lines(data: xr.Dataset) -> dict[tuple[str, str, str], list[tuple[FloatArray, FloatArray]]]:
    """Return the break-even lines in the planes of bandwidth and cost, and of bandwidth and density, by (scheme, x, y).

    Each is a list of branches, one for each crossing, where the other axes are as :func:`setting` says; a density that
    is not drawn is its middle one.
    """
    if "break_even_cost" not in data:
        return {}
    by = BYS[0] if "target" in data.attrs else BYS[1]
    places = setting(data) | {
        axis: data.sizes[axis] // 2 for axis in axes_of(data) if axis not in ("seed", *setting(data))
    }
    found = {}
    for label in map(str, data["break_even_cost"]["scheme"].values):
        one = data.sel(by=by, scheme=label)
        for name, along, x, y in (
            ("break_even_cost", "bandwidth", "bandwidth", "cost"),
            ("break_even_bandwidth", "density", "bandwidth", "density"),
        ):
            if along not in one[name].dims:
                continue
            fixed = {axis: place for axis, place in places.items() if axis != along}
            roots = one[name].isel(fixed, missing_dims="ignore").transpose("root", along).values
            values = data[along].values.astype(np.float64)
            crossed = [root for root in roots if np.isfinite(root).any()]
            found[label, x, y] = [(values, root) if along == x else (root, values) for root in crossed]
    return found


def _crossing(name: str, one: xr.Dataset) -> Crossing:
    affordable_s = float(one["affordable_cost_s"])
    sent = one["sent_bytes"]
    sent_bytes = float(sent.mean("seed") if "seed" in sent.dims else sent)
    return Crossing(
        name=name,
        bandwidth=_in_words(one, "break_even_bandwidth", format_bandwidth),
        cost=_in_words(one, "break_even_cost", lambda factor: f"{significant(factor)}x"),
        bandwidth_bps=_first(one["break_even_bandwidth"]),
        cost_factor=_first(one["break_even_cost"]),
        affordable_s=affordable_s if np.isfinite(affordable_s) else None,
        required_ratio=_number(one["required_ratio"]),
        own_ratio=4 * float(one.attrs["elements"]) / sent_bytes if sent_bytes else None,
    )


def _in_words(one: xr.Dataset, name: str, text: Callable[[float], str]) -> str:
    """Say on which sides of its crossings a scheme is faster.

    Three digits are enough for a reader; the dataset has them all.
    """
    number = int(one[f"{name}_count"])
    faster = bool(one[f"{name}_faster_first"])
    roots = one[name].values[np.isfinite(one[name].values)]
    ends = [text(float(f"{root:.3g}")) for root in roots]
    if not number:
        return "everywhere" if faster else "nowhere"
    parts = [] if not faster else [f"below {ends[0]}"]
    rest = ends[1:] if faster else ends
    for low, high in zip(rest[::2], [*rest[1::2], None], strict=False):
        last = f"above {low}" if number == len(ends) else f"from {low} to the next"
        parts.append(last if high is None else f"from {low} to {high}")
    more = f" ({number} crossings)" if number > len(ends) else ""
    return " and ".join(parts) + more


def _first(roots: xr.DataArray) -> float | None:
    return _number(roots.isel(root=0))


def _number(value: xr.DataArray) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None
