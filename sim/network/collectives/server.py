"""The parameter server: workers push gradients to one server or several, and pull the result.

It is no operation of the wire log. Every server holds one shard of what is pushed; all transfers of a push run at once
and share the links.
"""

from collections.abc import Sequence

import numpy as np

from ....compressors.errors import InputError
from ..schedule import IntArray
from .direct import at_once, in_turn
from .moves import Moves, nothing


def parameter_server(push_bytes: Sequence[int], pull_bytes: Sequence[int], servers: Sequence[int] = ()) -> Moves:
    """Return a push followed by a pull.

    A server answers when it has all pushes, and a worker pulls when all of its own have arrived. Push and pull are cut
    into near-even shards, one a server. A worker that is a server too keeps its own shard.

    Parameters
    ----------
    push_bytes, pull_bytes : sequence of int, length N
        What each worker sends, and receives.
    servers : sequence of int
        Which ones serve: workers, or nodes of their own with numbers from N on. Default: one node N.

    Returns
    -------
    Moves
        The places in the buffer are those of the push where all workers push the same number of bytes, and of the pull.

    Raises
    ------
    InputError
        If a size is negative, the numbers of workers differ, or a server is named twice or is negative.
    """
    workers = len(push_bytes)
    nodes = np.array(servers or (workers,), np.int64)
    if len(pull_bytes) != workers:
        raise InputError(f"{workers} workers push and {len(pull_bytes)} pull; they must be the same")
    if (least := min((*push_bytes, *pull_bytes), default=0)) < 0:
        raise InputError(f"a worker pushes or pulls {least} bytes; allowed: 0 bytes or more")
    if len(set(nodes.tolist())) < len(nodes) or nodes.min() < 0:
        raise InputError(
            f"servers = {tuple(servers)} must name different nodes, workers from 0 to {workers - 1} or more"
        )
    worker, shard = (grid.ravel() for grid in np.meshgrid(np.arange(workers), np.arange(len(nodes)), indexing="ij"))
    server = nodes[shard]
    apart = worker != server
    push_size, push_start = _shards(push_bytes, len(nodes))
    pull_size, pull_start = _shards(pull_bytes, len(nodes))
    push = at_once(worker[apart], server[apart], push_start[apart], push_size[apart], reduces=True)
    pull = at_once(server[apart], worker[apart], pull_start[apart], pull_size[apart], reduces=False)
    moves = in_turn(push, np.union1d(np.arange(workers), nodes), pull)
    return moves if moves.bytes.any() else nothing()


def _shards(sizes: Sequence[int], count: int) -> tuple[IntArray, IntArray]:
    """Return the size of each worker's shards and where they start, worker by worker."""
    total = np.array(sizes, np.int64)[:, None]
    size = total // count + (np.arange(count) < total % count)
    return size.ravel(), (np.cumsum(size, axis=1) - size).ravel()
