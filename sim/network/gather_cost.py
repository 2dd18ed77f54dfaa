"""Gather cost: what gathering payloads costs on a cluster by their length, for schemes that adapt to it."""

import numpy as np
import simpy

from ...compressors.costs import Affine
from ...compressors.errors import InputError
from ...compressors.wirelog import Collective
from .costs import Batch, Costs
from .critical import ClosedFormError
from .engine import Network

_SHORT, _LONG = 1_000, 1_000_000
"""Payloads in bytes through whose durations the line is laid, where terms do not differ by size."""


def gather_line(costs: Costs) -> Affine:
    """Return the cost of a message whose payloads all workers gather, as a line.

    Parameters
    ----------
    costs : Costs

    Returns
    -------
    Affine
        In bytes: the fixed part is as many as a worker could have handed over in its time. Where terms differ by the
        size of a collective, they are those of a megabyte.

    Raises
    ------
    InputError
        If the piece of the cluster that a megabyte belongs to is too narrow for a line.
    """
    short, long = _sizes(costs)
    short_s, long_s = (_gather_s(costs, size) for size in (short, long))
    byte_s = (long_s - short_s) / (long - short)
    # Where what is slowest changes with the size, the line may meet 0 bytes below 0 seconds.
    fixed = max(round(short_s / byte_s - short, 3), 0.0) if byte_s > 0 else 0.0
    return Affine(fixed=fixed, per_packet=1.0, packet=1)


def _sizes(costs: Costs) -> tuple[int, int]:
    """Return two payloads that pay the same terms."""
    starts = [terms.from_bytes for terms in costs.cluster.all_terms("all-gather")]
    own = max(start for start in starts if start <= _LONG)
    after = min((start for start in starts if start > _LONG), default=None)
    short = max(_SHORT, own)
    long = _LONG // _SHORT * short if after is None else min(_LONG // _SHORT * short, after - 1)
    if long < 2 * short:
        raise InputError(
            f"cluster.pieces: from = {own} to {after} bytes: too narrow for a cost of gathering by length, as "
            "cost=cluster needs it; allowed: at least twice as large at its end"
        )
    return short, long


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
