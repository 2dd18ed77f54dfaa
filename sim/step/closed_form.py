"""A step in closed form: sums and maxima over its graph, vectorised over logs, clusters and compression costs."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..cluster.sections import Shaper
from ..network.costs import Batch, Cost, Costs
from ..network.critical import ClosedFormError, FloatArray
from ..network.tokens import TokenBucket
from .graph import OVERHEAD, Resource, StepGraph
from .options import StepOptions
from .phases import EXCHANGE, WAIT, Activity, Phases, add_up

Priced = tuple[tuple[Cost, ...], ...]
"""The costs of each exchange's collectives."""
_Point = tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]
"""Bandwidth in bit/s, latency and launch in seconds, the overhead's factor."""


def price(graph: StepGraph, costs: Costs | None, options: StepOptions) -> Priced:
    """Return what a graph's exchanges cost on a cluster.

    Parameters
    ----------
    costs : Costs or None
        None where the step has no exchange.

    Raises
    ------
    ClosedFormError
        If there is no closed form; the message says why.
    """
    if options.streams > 1 and len(graph.exchanges) > 1:
        raise ClosedFormError(f"{options.streams} communication streams share the links")
    if costs is None:
        return ()
    known: dict[tuple[object, ...], Cost] = {}
    return tuple(tuple(_cost(batch, costs, known) for batch in exchange.batches) for exchange in graph.exchanges)


def _cost(batch: Batch, costs: Costs, known: dict[tuple[object, ...], Cost]) -> Cost:
    """Return what a collective costs; those in which all workers send as much are computed once for each size.

    A deep model has hundreds of tensors, but few sizes of them.
    """
    if len(batch.sent_bytes) > 1 or batch.sent_bytes.strides[-1] or batch.chunks:
        return costs.cost(batch)
    key = batch.operation, batch.peers, batch.sent_bytes.shape[-1], int(batch.sent_bytes[0, 0])
    if key not in known:
        known[key] = costs.cost(batch)
    return known[key]


def step_times(
    graph: StepGraph,
    priced: Priced,
    bandwidth_bps: ArrayLike,
    latency_s: ArrayLike,
    launch_s: ArrayLike,
    factor: ArrayLike,
    shaper: Shaper | None = None,
) -> Phases:
    """Return where the time of a graph's G steps goes.

    Parameters
    ----------
    graph : StepGraph
    priced : Priced
    bandwidth_bps, latency_s, launch_s : array
        As in :class:`gradwire.sim.cluster.Uniform`.
    factor : array
        The overhead's factor.
    shaper : Shaper, optional
        At every NIC. Then a step is one of many that are alike: it finds as many tokens as it leaves.

    Returns
    -------
    Phases
        In the shape to which ``[G]`` and the arguments broadcast: for P points and G > 1 logs pass ``[P, 1]``.
    """
    point = (bandwidth_bps, latency_s, launch_s, factor)
    shape = np.broadcast_shapes((len(graph.logs),), *(np.shape(value) for value in point))
    return add_up(activities(graph, priced, *point, shaper), shape)


def activities(
    graph: StepGraph,
    priced: Priced,
    bandwidth_bps: ArrayLike,
    latency_s: ArrayLike,
    launch_s: ArrayLike,
    factor: ArrayLike,
    shaper: Shaper | None = None,
) -> Iterator[Activity]:
    """Evaluate a graph; yield what a worker does, each resource's activities in order."""
    point: _Point = (bandwidth_bps, latency_s, launch_s, factor)
    if shaper is None:
        return _activities(graph, priced, *point, None)
    return _activities(graph, priced, *point, TokenBucket(shaper, _steady(graph, priced, point, shaper)))


def _steady(graph: StepGraph, priced: Priced, point: _Point, shaper: Shaper) -> FloatArray:
    """Return with how many tokens a step begins after many that are alike.

    From a full bucket on the number falls from step to step, or stays.
    """
    tokens: FloatArray = np.asarray(float(shaper.burst))
    while True:
        bucket = TokenBucket(shaper, tokens)
        (*_, last) = _activities(graph, priced, *point, bucket)
        left = bucket.tokens(np.asarray(last.start_s, np.float64) + np.asarray(last.seconds, np.float64))
        if np.all(tokens - left <= 1):  # a byte
            return left
        tokens = left


def _activities(
    graph: StepGraph,
    priced: Priced,
    bandwidth_bps: ArrayLike,
    latency_s: ArrayLike,
    launch_s: ArrayLike,
    factor: ArrayLike,
    bucket: TokenBucket | None,
) -> Iterator[Activity]:
    """Yield what a worker does in one step."""
    scale = np.asarray(factor, np.float64)
    free: dict[Resource, FloatArray] = {name: np.zeros(()) for name in ("compute", "codec", "network")}
    exchanged: list[FloatArray] = []
    ended: list[FloatArray] = []
    for task in graph.tasks:
        start = free[task.resource]
        for other in _waits(task.after, exchanged) + _waits(task.needs, ended):
            start = np.maximum(start, other)
        if start is not free[task.resource]:
            yield Activity(0, task.resource, WAIT, task.message, free[task.resource], start - free[task.resource])
        seconds = scale * task.seconds if task.kind in OVERHEAD else np.asarray(task.seconds)
        yield Activity(0, task.resource, task.kind, task.message, start, seconds)
        free[task.resource] = start + seconds
        ended.append(start + seconds)
        if task.before is not None:
            start = np.maximum(free["network"], ended[-1])
            network = (bandwidth_bps, latency_s, launch_s)
            if bucket is None:
                seconds = sum((cost.seconds(*network) for cost in priced[task.before]), start=np.zeros(()))
            else:
                seconds = bucket.send(priced[task.before], start, *network)
            yield Activity(0, "network", EXCHANGE, graph.exchanges[task.before].message, start, seconds)
            free["network"] = start + seconds
            exchanged.append(free["network"])


def _waits(place: int | None, times: Sequence[FloatArray]) -> list[FloatArray]:
    """Return what must be over before a task starts."""
    return [] if place is None else [times[place]]
