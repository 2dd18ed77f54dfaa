"""Break-even: where a scheme stops paying, found by root finding on the model that times it, not read off a grid.

For each scheme, at each point of the axes that change what is learnt, the time to target (and the mean step) is a
function of bandwidth, latency, launch and the factor on the cost of compression. So is that of the best uncompressed
scheme. Where their difference is 0 is found in the factor, at each bandwidth, and in the bandwidth, at each factor.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.optimize import elementwise

from ...sim.network.critical import FloatArray, IntArray
from ...sim.network.schedule import BoolArray
from ...sim.training.tuning import first_at_target
from ..comparison import is_uncompressed
from .grid import AT_ONCE, Index
from .played import Played, Points
from .sweep import Cell, Sweep

By = Literal["time to target", "step"]
BYS: tuple[By, ...] = ("time to target", "step")

COSTS: FloatArray = np.concatenate([[0.0], np.geomspace(1e-3, 1e4, 281)])
"""Where a change of sign is looked for along the factor on the cost of compression."""
BANDWIDTHS_BPS: FloatArray = np.geomspace(1e5, 1e14, 361)
"""The same along the bandwidth."""
_WIDEST_BPS = (1.0, 1e18)
"""Between which the bandwidth is sought that a scheme would need for itself alone."""
MOST_ROOTS = 4
"""So many crossings are kept at most; what there are more is counted."""


@dataclass(frozen=True, eq=False)
class Rival:
    """A scheme with its parameters, on one number of workers: its trainings with every seed.

    Attributes
    ----------
    runs : sequence of Played
        One a seed.
    reached : sequence of int, or None
        Steps to the target with each seed; None if it was not reached with all of them.
    """

    runs: Sequence[Played]
    reached: Sequence[int] | None

    @property
    def sent_bytes(self) -> float:
        """Mean bytes that a worker hands over in a step."""
        return float(np.mean([run.plans[0][1].sent_bytes().mean() for run in self.runs]))

    def seconds(self, by: By, points: Points) -> FloatArray | None:
        """Return the mean over seeds of the time to target, or of a step; None if there is none.

        Parameters
        ----------
        by : {"time to target", "step"}
        points : Points
        """
        if by == "time to target" and self.reached is None:
            return None
        steps = self.reached if by == "time to target" and self.reached else self._completed
        if not all(self._completed):
            return None
        alike: dict[int, list[int]] = {}  # seeds whose steps cost the same are evaluated at once
        for i, run in enumerate(self.runs):
            alike.setdefault(id(run.plans), []).append(i)
        total: FloatArray = np.zeros(())
        for members in alike.values():
            found = self.runs[members[0]].seconds([steps[i] for i in members], points)
            shares = [1.0 if by == "time to target" else 1 / steps[i] for i in members]
            total = total + found @ np.array(shares)
        return total / len(self.runs)

    @property
    def _completed(self) -> list[int]:
        return [len(run.trajectory.logs) for run in self.runs]


def best_seconds(dense: Sequence[Rival], by: By, points: Points) -> FloatArray | None:
    """Return the time of the best uncompressed scheme at each point; None if none was on target, or completed."""
    found = [seconds for rival in dense if (seconds := rival.seconds(by, points)) is not None]
    return np.asarray(np.min(found, axis=0)) if found else None


class Roots(NamedTuple):
    """Crossings along one axis; arrays in the shape of the other axes.

    Attributes
    ----------
    values : FloatArray, shape [..., MOST_ROOTS]
        By rising value; NaN where there are fewer.
    number : IntArray
        How many crossings there are.
    faster_first : BoolArray
        Whether the scheme is faster than the baseline at the lowest value that was looked at: with no crossing, at all
        of them.
    """

    values: FloatArray
    number: IntArray
    faster_first: BoolArray


def find_roots(difference: Callable[..., FloatArray], scan: FloatArray, others: Sequence[ArrayLike]) -> Roots:
    """Return where a continuous function of one number changes its sign, at many values of other numbers.

    Parameters
    ----------
    difference : callable
        Takes arrays of one shape: the number and the others.
    scan : FloatArray, shape [n]
        Rising numbers. Between two neighbours with different signs there is a root, which is then found to rounding;
        two roots between neighbours are missed.
    others : sequence of array
        Of one shape.
    """
    shape = np.shape(others[0])
    flat = [np.ravel(np.asarray(other, np.float64)) for other in others]
    values = difference(scan, *(other[:, None] for other in flat))
    slower = values >= 0
    rows, places = np.nonzero(slower[:, 1:] != slower[:, :-1])
    count = np.bincount(rows, minlength=flat[0].size)
    found = np.full((flat[0].size, MOST_ROOTS), np.nan)
    if rows.size:
        bracket = scan[places], scan[places + 1]
        result = elementwise.find_root(difference, bracket, args=tuple(other[rows] for other in flat))
        order = np.arange(rows.size) - np.searchsorted(rows, rows)
        kept = order < MOST_ROOTS
        found[rows[kept], order[kept]] = np.asarray(result.x)[kept]
    return Roots(found.reshape(*shape, MOST_ROOTS), count.reshape(shape), ~slower[:, 0].reshape(shape))


def with_break_even(data: xr.Dataset, sweep: Sweep) -> xr.Dataset:
    """Return a sweep's dataset with break-even surfaces, required ratios, affordable costs and the winner.

    Parameters
    ----------
    data : xarray.Dataset
        Of the sweep.
    sweep : Sweep

    Returns
    -------
    xarray.Dataset
        With a dimension ``by`` (time to target, or step) and one for the ``root``: ``break_even_cost`` (a factor),
        ``break_even_bandwidth`` (bit/s, of payload), each with ``..._count`` and ``..._faster_first``;
        ``affordable_cost_s``: what encoding and decoding may take in a step until the first crossing, 0 if the scheme
        is slower even where they are free; ``required_ratio``: how many times fewer bytes than float32 gradients the
        scheme must send to be even at its cost. Nothing of it where the closed form does not hold, or there is no
        uncompressed scheme.
    """
    data = data.assign(winner=_winner(data))
    grid = sweep.grid
    dense = [i for i, label in enumerate(grid.labels) if is_uncompressed(label)]
    others = [i for i in range(len(grid.labels)) if i not in dense]
    if not (dense and others) or any(not cell.whole for cell in sweep.cells):
        return data
    rivals = _rivals(sweep)
    slow = [i for i, axis in enumerate(grid.axes) if axis.key not in AT_ONCE and axis.name != "seed"]
    fast = [axis.name for axis in grid.axes if axis.key in AT_ONCE]
    arrays: dict[str, _Filled] = {}
    for index in grid.indices(slow):
        baselines = [rivals[label, index] for label in dense]
        for (row, label), (column, by) in product(enumerate(others), enumerate(BYS)):
            place = (row, column, *(index[i] for i in slow))
            pair = _Pair(rivals[label, index], baselines, by, sweep.points[index], fast)
            for name, dims, values in pair.surfaces():
                array = arrays.setdefault(name, _Filled(dims, (len(others), 2, *(grid.shape[i] for i in slow)), values))
                array.values[place] = values
    leading = ("scheme", "by", *(grid.axes[i].name for i in slow))
    new = xr.Dataset(
        {name: ((*leading, *array.dims), array.values, _MEANINGS[name]) for name, array in arrays.items()},
        coords={"scheme": data["scheme"].values[others], "by": np.array(BYS, dtype=object)},
    )
    return xr.merge([data, new], join="left", combine_attrs="override")


_MEANINGS = {
    "break_even_cost": {"units": "1", "long_name": "factor on the cost of compression at which it is even"},
    "break_even_cost_count": {"units": "1", "long_name": "crossings along the factor, 0 to 10,000"},
    "break_even_cost_faster_first": {"long_name": "whether the scheme is faster where compression is free"},
    "break_even_bandwidth": {"units": "bit/s", "long_name": "payload bandwidth at which it is even"},
    "break_even_bandwidth_count": {
        "units": "1",
        "long_name": "crossings from 100 kbit/s to 100 Tbit/s",
    },
    "break_even_bandwidth_faster_first": {"long_name": "whether the scheme is faster at the lowest bandwidth"},
    "affordable_cost_s": {"units": "s", "long_name": "encoding and decoding of a step that the scheme can afford"},
    "required_ratio": {"units": "1", "long_name": "compression ratio needed to be even, over float32 gradients"},
}


class _Filled:
    """An array to be filled part by part, and what its last dimensions are called."""

    def __init__(self, dims: tuple[str, ...], leading: tuple[int, ...], part: FloatArray) -> None:
        self.dims = dims
        self.values = np.full((*leading, *part.shape), np.nan)


class _Pair:
    """A scheme and the uncompressed ones, compared by one kind of time, around the points of a sweep."""

    def __init__(self, rival: Rival, dense: Sequence[Rival], by: By, points: Points, fast: Sequence[str]) -> None:
        self.rival, self.dense, self.by, self.points, self.fast = rival, dense, by, points, tuple(fast)

    def surfaces(self) -> Iterator[tuple[str, tuple[str, ...], FloatArray]]:
        """Yield names, dimensions and values; nothing if one of the two has no such time."""
        own = self.rival.seconds(self.by, self.points)
        best = best_seconds(self.dense, self.by, self.points)
        if own is None or best is None:
            return
        without = tuple(name for name in self.fast if name != "cost")
        at = self._points_without("cost")
        roots = find_roots(
            lambda cost, bandwidth, latency, launch: self._difference(Points(bandwidth, latency, launch, cost)),
            COSTS,
            at[:3],
        )
        yield from _told("break_even_cost", without, roots)
        factor = np.where(roots.faster_first, _first(roots), 0.0)
        yield "affordable_cost_s", without, factor * self._codec_s(at)
        without = tuple(name for name in self.fast if name != "bandwidth")
        at = self._points_without("bandwidth")
        roots = find_roots(
            lambda *point: self._difference(Points(*point)),
            BANDWIDTHS_BPS,
            at[1:],
        )
        yield from _told("break_even_bandwidth", without, roots)
        yield "required_ratio", self.fast, self._required_ratio(best)

    def _difference(self, points: Points) -> FloatArray:
        """Return by how much the scheme takes longer."""
        own, best = self.rival.seconds(self.by, points), best_seconds(self.dense, self.by, points)
        assert own is not None
        assert best is not None
        return own - best

    def _points_without(self, name: str) -> Points:
        """Return the points without an axis, at its first value, which a root takes the place of."""
        if name not in self.fast:
            return Points(*(np.asarray(value, np.float64) for value in self.points))
        place = self.fast.index(name)
        return Points(*(np.take(np.asarray(value, np.float64), 0, axis=place) for value in self.points))

    def _codec_s(self, points: Points) -> FloatArray:
        """Return the time of encoding and decoding in a step, at a factor of 1."""
        parts = []
        for run in self.rival.runs:
            completed = len(run.trajectory.logs)
            elapsed = run.plans[0][1].elapsed([completed], *points._replace(factor=np.ones_like(points.factor)))
            parts.append((elapsed.encode_s + elapsed.decode_s)[..., 0] / completed)
        return np.asarray(np.mean(parts, axis=0))

    def _required_ratio(self, best: FloatArray) -> FloatArray:
        """Return how many times fewer bytes than float32 gradients would do, by what bandwidth would do for the scheme.

        To send s times the bytes is to have an s-th of the bandwidth. Where the scheme is faster or slower however
        many bytes it sends, there is no such ratio.
        """
        arrays = [np.ravel(np.asarray(value, np.float64)) for value in self.points]
        bandwidth, *rest = arrays
        wanted = np.ravel(best)

        def difference(exponent: FloatArray, wanted_s: FloatArray, *rest: FloatArray) -> FloatArray:
            own = self.rival.seconds(self.by, Points(10.0**exponent, *rest))
            assert own is not None
            return own - wanted_s

        low, high = (np.full(wanted.shape, np.log10(end)) for end in _WIDEST_BPS)
        crosses = (difference(low, wanted, *rest) > 0) & (difference(high, wanted, *rest) < 0)
        ratio = np.full(wanted.shape, np.nan)
        if crosses.any():
            args = (wanted[crosses], *(value[crosses] for value in rest))
            result = elementwise.find_root(difference, (low[crosses], high[crosses]), args=args)
            more = bandwidth[crosses] / 10.0 ** np.asarray(result.x)
            ratio[crosses] = 4 * self.rival.runs[0].elements / (more * self.rival.sent_bytes)
        return ratio.reshape(np.shape(best))


def _told(name: str, dims: tuple[str, ...], roots: Roots) -> Iterator[tuple[str, tuple[str, ...], FloatArray]]:
    yield name, (*dims, "root"), roots.values
    yield f"{name}_count", dims, roots.number.astype(np.float64)
    yield f"{name}_faster_first", dims, roots.faster_first.astype(np.float64)


def _first(roots: Roots) -> FloatArray:
    """Return the first crossing, from faster to slower where the scheme begins as the faster; infinite without any."""
    return np.asarray(np.where(roots.number > 0, roots.values[..., 0], np.inf))


def _rivals(sweep: Sweep) -> Mapping[tuple[int, Index], Rival]:
    """Return each scheme at each point of the axes that are not evaluated at once, seeds together."""
    seed = next((i for i, axis in enumerate(sweep.grid.axes) if axis.name == "seed"), None)
    groups: dict[tuple[int, Index], list[Cell]] = {}
    for cell in sweep.cells:
        index = tuple(0 if i == seed else own for i, own in enumerate(cell.index))
        groups.setdefault((cell.label, index), []).append(cell)
    return {key: _rival(sweep, cells) for key, cells in groups.items()}


def _rival(sweep: Sweep, cells: Sequence[Cell]) -> Rival:
    steps = []
    for cell in cells:
        evaluations = sweep.trajectories[cell.order.key].evaluations
        target = cell.experiment.training.target
        reached = first_at_target(evaluations, target, sweep.task.higher_is_better)
        if reached is not None:
            steps.append(int(evaluations.steps[reached]))
    return Rival([sweep.played[cell] for cell in cells], steps if len(steps) == len(cells) else None)


def _winner(data: xr.Dataset) -> xr.DataArray:
    """Return the scheme that is on target first on average over the seeds, or where none is, "none"."""
    time_s = data["time_to_target_s"]
    time_s = time_s.mean("seed", skipna=False) if "seed" in time_s.dims else time_s
    best = time_s.fillna(np.inf).argmin("scheme")
    names = data["scheme"].isel(scheme=best).reset_coords(drop=True)
    found = names.where(time_s.notnull().any("scheme"), "none")
    return found.assign_attrs(long_name="scheme that is on target first")
