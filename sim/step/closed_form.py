"""A step in closed form: sums and maxima over its graph, vectorised over logs, clusters and compression costs."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from ..network.closed_form import FloatArray
from .graph import OVERHEAD, StepGraph
from .phases import EXCHANGE, WAIT, Activity, Phases, add_up


def step_times(
    graph: StepGraph, bandwidth_bps: ArrayLike, latency_s: ArrayLike, launch_s: ArrayLike, factor: ArrayLike
) -> Phases:
    """Return where the time of a graph's G steps goes.

    Parameters
    ----------
    graph : StepGraph
    bandwidth_bps, latency_s, launch_s : array
        As in :class:`gradwire.sim.cluster.Cluster`.
    factor : array
        The overhead's factor.

    Returns
    -------
    Phases
        In the shape to which ``[G]`` and the arguments broadcast: for P points and G > 1 logs pass ``[P, 1]``.
    """
    point = (bandwidth_bps, latency_s, launch_s, factor)
    shape = np.broadcast_shapes((len(graph.logs),), *(np.shape(value) for value in point))
    return add_up(activities(graph, *point), shape)


def activities(
    graph: StepGraph, bandwidth_bps: ArrayLike, latency_s: ArrayLike, launch_s: ArrayLike, factor: ArrayLike
) -> Iterator[Activity]:
    """Evaluate a graph; yield what a worker does, each resource's activities in order."""
    scale = np.asarray(factor, np.float64)
    compute: FloatArray = np.zeros(())
    network: FloatArray = np.zeros(())
    done: list[FloatArray] = []
    for task in graph.tasks:
        if task.after is not None:
            start = np.maximum(compute, done[task.after])
            yield Activity(0, WAIT, task.message, compute, start - compute)
            compute = start
        seconds = scale * task.seconds if task.kind in OVERHEAD else np.asarray(task.seconds)
        yield Activity(0, task.kind, task.message, compute, seconds)
        compute = compute + seconds
        if task.before is not None:
            exchange = graph.exchanges[task.before]
            start = np.maximum(network, compute)
            seconds = exchange.path.seconds(bandwidth_bps, latency_s, launch_s)
            yield Activity(0, EXCHANGE, exchange.message, start, seconds)
            network = start + seconds
            done.append(network)
