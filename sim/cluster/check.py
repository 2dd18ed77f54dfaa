"""What is refused in a cluster as a whole: keys that do not go together, names that stand for nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from ...compressors.errors import InputError
from .build import graph_ways, node_number, topology
from .sections import MOST

if TYPE_CHECKING:
    from .cluster import Cluster

T = TypeVar("T")


def check(cluster: Cluster) -> None:
    """Refuse a cluster that cannot be built.

    Raises
    ------
    InputError
        One line with the key, the value and what is allowed.
    """
    _check_hosts(cluster)
    _check_pieces(cluster)
    for flow in cluster.background:
        for key, name in (("from", flow.src), ("to", flow.dst)):
            _named(cluster, f"background: {key} = {name!r}", name)
    if cluster.fabric.kind == "graph":
        _check_graph(cluster)
    else:
        for key in ("links", "routes"):
            if getattr(cluster, key):
                raise InputError(f"{key}: fabric.kind is {cluster.fabric.kind!r}; allowed only with 'graph'")
    if cluster.hosts is not None and (cluster.profile or cluster.background):
        topology(cluster, 1)


def _check_hosts(cluster: Cluster) -> None:
    if (cluster.hosts or 1) * cluster.gpus > MOST:
        raise InputError(f"hosts = {cluster.hosts}: with gpus = {cluster.gpus} a host; allowed: at most {MOST} GPUs")
    if cluster.gpus > 1 and cluster.intra is None:
        raise InputError(f"gpus = {cluster.gpus}: needs the table intra, which says what connects the GPUs of a host")
    if cluster.gpus == 1 and cluster.intra is not None:
        raise InputError("intra: gpus is 1; allowed only with more GPUs a host")
    ranges = sorted((host.numbers() for host in cluster.host), key=lambda numbers: numbers.start)
    for former, latter in pairwise(ranges):
        if latter.start < former.stop:
            raise InputError(f"host: host{latter.start} is in more than one table; allowed: one")
    last = max((numbers[-1] for numbers in ranges), default=0)
    hosts = MOST if cluster.hosts is None else cluster.hosts
    if last >= hosts:
        raise InputError(f"host: host{last} is not there; allowed: host0 to host{hosts - 1}")


def _check_pieces(cluster: Cluster) -> None:
    for operation in dict.fromkeys(piece.operation for piece in cluster.pieces):
        of = "" if operation is None else f" of {operation}"
        starts = [piece.from_bytes for piece in cluster.pieces if piece.operation == operation]
        if starts[0] != 0:
            raise InputError(f"pieces: the first{of} is from {starts[0]} B; allowed: 0 B")
        if any(later <= earlier for earlier, later in pairwise(starts)):
            found = ", ".join(f"{start} B" for start in starts)
            raise InputError(f"pieces: those{of} are from {found}; allowed: rising sizes")
    if cluster.gpus == 1 and any(piece.intra_latency is not None for piece in cluster.pieces):
        raise InputError("pieces: intra_latency: gpus is 1; allowed only with more GPUs a host")


def _check_graph(cluster: Cluster) -> None:
    if cluster.hosts is None:
        raise InputError("fabric: kind = 'graph' needs hosts, the number of hosts")
    for key in ("upload", "download"):
        if getattr(cluster, key) is not None:
            raise InputError(f"{key}: not with fabric.kind = 'graph', where links have bandwidths")
    if any(host.bandwidth or host.upload or host.download for host in cluster.host):
        raise InputError(
            "host: bandwidth, upload, download: not with fabric.kind = 'graph', where links have bandwidths"
        )
    _check_links(cluster, cluster.hosts)
    _check_routes(cluster)
    ways = graph_ways(cluster, cluster.hosts)
    ends = [name for flow in cluster.background for name in (flow.src, flow.dst)]
    needed = {f"host{h}": h for h in range(cluster.hosts)} | {name: node_number(cluster, name) for name in ends}
    cut_off = set(ways.cut_off(needed.values(), 0))
    if names := [name for name, number in needed.items() if number in cut_off]:
        raise InputError(f"links: there is no way between host0 and {names[0]}, there and back")


def _check_links(cluster: Cluster, hosts: int) -> None:
    names = [*(f"host{h}" for h in range(hosts)), *(cluster.fabric.switches or ())]
    if twice := _twice(names):
        raise InputError(f"fabric: switches: {twice[0]!r} is the name of another node; allowed: each name once")
    taken: set[tuple[str, str]] = set()
    for link in cluster.links:
        a, b = link.between
        for name in link.between:
            _named(cluster, f"links: between = {[a, b]}", name)
        if a == b:
            raise InputError(f"links: between = {[a, b]}: allowed: two different nodes")
        ends = {(a, b)} if link.duplex == "one-way" else {(a, b), (b, a)}
        if taken & ends:
            raise InputError(f"links: between = {[a, b]}: these are linked already; allowed: one link each way")
        taken |= ends


def _check_routes(cluster: Cluster) -> None:
    for route in cluster.routes:
        for name in route.path:
            _named(cluster, f"routes: path = {list(route.path)}", name)
        if _twice(route.path):
            raise InputError(f"routes: path = {list(route.path)}: allowed: each node once")
    if twice := _twice((route.path[0], route.path[-1]) for route in cluster.routes):
        raise InputError(f"routes: there are two ways from {twice[0][0]!r} to {twice[0][1]!r}; allowed: one")


def _named(cluster: Cluster, where: str, name: str) -> None:
    """Refuse a name that is no node's."""
    try:
        node_number(cluster, name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _twice(values: Iterable[T]) -> list[T]:
    """Return what stands there more than once."""
    return [value for value, count in Counter(values).items() if count > 1]
