"""Gather cost: what gathering payloads costs on a cluster by their length, for schemes that adapt to it."""

import numpy as np
import simpy

from ...compressors.costs import Affine
from ...compressors.wirelog import Collective
from .costs import Batch, Costs
from .critical import ClosedFormError
from .engine import Network

_SHORT, _LONG = 1_000, 1_000_000
"""Payloads in bytes through whose durations the line is laid."""


def gather_line(costs: Costs) -> Affine:
    """Return the cost of a message whose payloads all workers gather, as a line.

    Parameters
    ----------
    costs : Costs

    Returns
    -------
    Affine
        In bytes: the fixed part is as many as a worker could have handed over in its time.
    """
    short_s, long_s = (_gather_s(costs, size) for size in (_SHORT, _LONG))
    byte_s = (long_s - short_s) / (_LONG - _SHORT)
    return Affine(fixed=round(short_s / byte_s - _SHORT, 3) if byte_s else 0.0, per_packet=1.0, packet=1)


def _gather_s(costs: Costs, size: int) -> float:
    """Return how long it takes to gather payloads of so many bytes from everybody."""
    sent = (size,) * costs.workers
    try:
        uniform = costs.check_uniform()
        cost = costs.cost(Batch("all-gather", (), np.array([sent])))
    except ClosedFormError:
        env = simpy.Environment()
        network = Network(env, costs.cluster, costs.workers)
        env.run(until=network.play(*costs.schedule(Collective("all-gather", 0, "bytes", sent))))
        return float(env.now)
    return float(cost.seconds(uniform.bandwidth_bps, uniform.latency_s, uniform.launch_s)[0])
