"""Calibrated collectives: from measured durations to a cluster, with its shaper, and how far off it is.

Every operation gets terms of its own by size. They are fitted to collectives that no token bucket held up: those over
links that were not shaped, and those after a rest whose bytes the bucket held. What went beyond it says how fast the
bucket fills, and how large it is.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import numpy as np

from ...compressors.errors import InputError
from ...compressors.wirelog import Operation
from ...sim.cluster.cluster import Cluster, make_cluster
from ...sim.cluster.sections import Shaper
from ...sim.network.critical import FloatArray
from ...sim.units import format_bandwidth, format_duration, format_size
from ..measurement.records import CollectiveRecord
from .heldout import Errors
from .pieces import Pieces, Points, fit_pieces, paths, predict_held_out
from .shaper import Shaped, fit_shaper, predict_shaped, predict_shaped_held_out

_HELD = 0.8
"""Of a bucket's nominal bytes so much surely passes unhindered: headers and the barrier before take some."""
_DRAINED = 4.0
"""So many times its bytes empty a bucket for good, if collectives follow each other without a rest."""
_FITTED = "fitted to collectives of this profile's machine"


class Link(NamedTuple):
    """A shaped link as it was asked for."""

    rate_bps: float
    burst_bytes: int

    @property
    def rest_s(self) -> float:
        """How long the bucket takes to fill."""
        return 8 * self.burst_bytes / self.rate_bps

    @property
    def shaper(self) -> Shaper:
        """The shaper that delivers just this."""
        return Shaper.model_validate({"rate": format_bandwidth(self.rate_bps), "burst": format_size(self.burst_bytes)})


class NetworkFit(NamedTuple):
    """A calibrated cluster.

    Attributes
    ----------
    cluster : Cluster
        Of N equal hosts of one worker each.
    pieces : dict
        The fitted terms of each operation.
    errors : dict
        Of held-out predictions, by what they are of.
    unused : int
        Measurements that say neither what the network does on its own nor what the shaper does: those that found a
        bucket that was partly filled.
    """

    cluster: Cluster
    pieces: dict[Operation, Pieces]
    errors: dict[str, Errors]
    unused: int


def fit_network(
    records: Sequence[CollectiveRecord],
    link: Link | None = None,
    shaper: Shaper | None = None,
    latency_s: float = 0.0,
) -> NetworkFit:
    """Return the cluster that fits measured collectives best.

    Parameters
    ----------
    records : sequence of CollectiveRecord
        Of any links; those that were shaped say something of the network too.
    link : Link, optional
        The shaped link that the cluster shall have; by default the records must be of none.
    shaper : Shaper, optional
        What ``link`` is known to deliver; by default that is fitted.
    latency_s : float
        Of a hop, where all were measured on one number of workers, so that it cannot be told from the launch.

    Raises
    ------
    InputError
        If there are no times of collectives over unhindered links, or none that say what the shaped link delivers.
    """
    free, shaped, unused = _sort(records, link)
    if not free:
        raise InputError(
            "no times of collectives that no shaper held up: measure some without, or small ones after a rest"
        )
    fitted = {points.operation: fit_pieces(points, latency_s) for points in free}
    errors: dict[str, Errors] = {}
    for points in free:
        predicted, held = predict_held_out(points, latency_s)
        errors[points.operation] = Errors.of(predicted[held] / points.seconds[held] - 1)
        errors.update(_other_workers(points, latency_s))
    if link is not None:
        if shaper is None:
            held_out = predict_shaped_held_out(shaped, fitted, link.shaper)
            shaper = fit_shaper(shaped, fitted, link.shaper)
        else:
            held_out = predict_shaped(shaped, fitted, shaper)
        errors |= {f"{operation}, shaped": Errors.of(differences) for operation, differences in held_out.items()}
    return NetworkFit(_cluster(fitted, [*free, *(s.points for s in shaped)], shaper), fitted, errors, unused)


def points_of(records: Iterable[CollectiveRecord]) -> list[Points]:
    """Return the medians over repeats, by operation; records of one number of workers and one size are repeats."""
    times: dict[Operation, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.workers > 1 and record.bytes > 0 and record.seconds:
            times[record.operation][record.workers, record.bytes] += record.seconds
    return [_points(operation, of_size) for operation, of_size in times.items()]


def _points(operation: Operation, times: dict[tuple[int, int], list[float]]) -> Points:
    places = sorted(times)
    workers, sizes = np.array(places, np.int64).T
    seconds = np.array([np.median(times[place]) for place in places])
    if not (seconds > 0).all():
        place = places[int(seconds.argmin())]
        raise InputError(f"{operation} of {place[1]} bytes on {place[0]} workers: takes 0 s; allowed: times above 0 s")
    return Points(operation, workers, sizes, seconds)


def _sort(records: Sequence[CollectiveRecord], link: Link | None) -> tuple[list[Points], list[Shaped], int]:
    """Return what was not held up, what says something of the shaper, and how many records are neither."""
    free, rested, pressed, unused = [], [], [], 0
    for record in records:
        if record.link_bps is None:
            free.append(record)
            continue
        own = Link(record.link_bps, record.burst_bytes or 1)
        (carried,) = paths(record.operation, np.array([record.workers]), np.array([record.bytes]))[1].tolist()
        after_rest = record.pause_s >= own.rest_s
        if after_rest and carried <= _HELD * own.burst_bytes:
            free.append(record)
        elif own != link:
            continue
        elif after_rest:
            rested.append(record)
        elif carried >= _DRAINED * own.burst_bytes:
            pressed.append(record)
        else:
            unused += 1
    shaped = [Shaped(points, True) for points in points_of(rested)]
    shaped += [Shaped(points, False) for points in points_of(pressed)]
    return points_of(free), shaped, unused


def _other_workers(points: Points, latency_s: float) -> dict[str, Errors]:
    """Return the errors on a number of workers that was left out, where there are two others at least."""
    counts = np.unique(points.workers)
    differences: list[FloatArray] = []
    for count in counts[1:-1].tolist():
        out = points.workers == count
        fitted, left = fit_pieces(points.where(~out), latency_s), points.where(out)
        differences.append(fitted.seconds(left.workers, left.sizes) / left.seconds - 1)
    if not differences:
        return {}
    return {f"{points.operation}, other workers": Errors.of(np.concatenate(differences))}


def _cluster(fitted: dict[Operation, Pieces], measured: Sequence[Points], shaper: Shaper | None) -> Cluster:
    """Return the cluster whose bandwidth is that of the fastest piece."""
    fastest_s = min(min(pieces.byte_s) for pieces in fitted.values())
    common = fitted.get("all-reduce") or next(iter(fitted.values()))
    keys = {
        "description": "fitted to measured collectives, as N equal hosts of one worker each",
        "bandwidth": format_bandwidth(8 / fastest_s),
        "latency": format_duration(common.latency_s[0]),
        "launch": format_duration(common.launch_s[0]),
        "pieces": [piece for pieces in fitted.values() for piece in _piece_keys(pieces, fastest_s)],
        "measured": _ranges(measured),
        "source": dict.fromkeys(("bandwidth", "latency", "launch", "pieces"), _FITTED),
    }
    if shaper is not None:
        keys["shaper"] = shaper.model_dump(mode="json")
        cast(dict[str, str], keys["source"])["shaper"] = _FITTED
    return make_cluster(keys)


def _piece_keys(pieces: Pieces, fastest_s: float) -> list[dict[str, object]]:
    """Return an operation's pieces as keys of a cluster's file."""
    return [
        {
            "from": format_size(start),
            "operation": pieces.operation,
            "launch": format_duration(launch_s),
            "latency": format_duration(latency_s),
            "efficiency": min(1.0, fastest_s / byte_s),
        }
        for start, launch_s, latency_s, byte_s in zip(*pieces[1:], strict=True)
    ]


def _ranges(measured: Sequence[Points]) -> list[dict[str, object]]:
    """Return from where to where each operation was measured, with or without a shaper."""
    by_operation: dict[Operation, list[Points]] = defaultdict(list)
    for points in measured:
        by_operation[points.operation].append(points)
    found: list[dict[str, object]] = []
    for operation, several in by_operation.items():
        sizes, workers = (np.concatenate([getattr(points, key) for points in several]) for key in ("sizes", "workers"))
        ends = {"from": format_size(int(sizes.min())), "to": format_size(int(sizes.max()))}
        found.append({"operation": operation, **ends, "workers": [int(workers.min()), int(workers.max())]})
    return found
