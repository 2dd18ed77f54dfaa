"""Collectives of several workers a host in closed form: two tiers of links, those inside hosts and those across.

Workers stand in rank order, N / H of them in each of H hosts.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ...compressors.errors import InputError
from .critical import ClosedFormError, CriticalPath, IntArray


def hierarchical_paths(
    size_bytes: ArrayLike, workers: ArrayLike, hosts: ArrayLike, shared: bool = False
) -> tuple[CriticalPath, CriticalPath]:
    """Return what a hierarchical all-reduce spends inside hosts, and across them; the first one has the launch.

    The duration is the sum, each part at its own bandwidth and latency.

    Parameters
    ----------
    size_bytes, workers, hosts : array of int
        N workers in H equal hosts.
    shared : bool
        Whether a host's workers share its one link to the others; otherwise each has its own.

    Raises
    ------
    InputError
        If hosts do not divide workers.
    ClosedFormError
        If a shared link carries parts of different sizes, that is if N does not divide the size.
    """
    size, count, groups = _placed(size_bytes, workers, hosts)
    local = count // groups
    if shared and ((size % count > 0) & (groups > 1) & (local > 1)).any():
        raise ClosedFormError("workers of a host share its link with chunks of different sizes")
    chunk = -(-size // local)
    part = -(-chunk // groups)
    moving = (size > 0) & (count > 1)
    inside = CriticalPath.moving(2 * (local - 1), 2 * (local - 1) * chunk, (local - 1) * chunk, moving)
    flows = local if shared else 1
    across = CriticalPath.moving(2 * (groups - 1), 2 * (groups - 1) * part * flows, (groups - 1) * part, moving)
    return inside, across._replace(launches=np.zeros_like(across.launches))


def ring_across_hosts(
    operation: Literal["all-reduce", "reduce-scatter", "all-gather"],
    size_bytes: ArrayLike,
    workers: ArrayLike,
    hosts: ArrayLike,
) -> CriticalPath:
    """Return the path of a ring through the hosts, to be paid at the bandwidth and latency of the links across.

    In each round one transfer crosses each host's link, and the rounds of the link that is spared the smallest chunks
    follow each other without a pause. This is exact if a transfer across lasts longer than one inside by what two bytes
    take to be sent and added, or more; then no chain gains by leaving that link for larger chunks.

    Parameters
    ----------
    operation : str
        What each worker hands over is of one size, in an all-gather too.
    size_bytes, workers, hosts : array of int
        With two hosts or more, of two workers or more each.

    Raises
    ------
    InputError
        If hosts do not divide workers, or there are not two hosts of two workers.
    """
    size, count, groups = _placed(size_bytes, workers, hosts)
    local = count // groups
    if (groups < 2).any() or (local < 2).any():
        raise InputError("a ring across hosts needs 2 hosts or more, of 2 workers or more each")
    even, rest = np.divmod(size, count)
    spared = even + (count - local < rest)  # the first chunk of the last host's workers
    match operation:
        case "all-reduce":
            hops, reduced = 2 * (count - 1), size - spared
            carried = 2 * size - spared - even - (count - local + 1 < rest)
        case "reduce-scatter":
            hops, reduced = count - 1, size - even
            carried = reduced
        case "all-gather":
            hops, carried, reduced = count - 1, (count - 1) * size, np.zeros_like(size)
    return CriticalPath.moving(hops, carried, reduced, size > 0)


def _placed(size_bytes: ArrayLike, workers: ArrayLike, hosts: ArrayLike) -> tuple[IntArray, IntArray, IntArray]:
    """Return the arguments as arrays of one shape, after having refused hosts that differ."""
    size, count, groups = np.broadcast_arrays(*(np.asarray(v, np.int64) for v in (size_bytes, workers, hosts)))
    if (groups < 1).any() or (count % groups).any():
        raise InputError("hosts must be of equally many workers: their number must divide that of the workers")
    return size, count, groups
