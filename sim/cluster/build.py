"""From a cluster's description to its links: :func:`topology` lays them out, the NICs first and the fabric last."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ...compressors.errors import InputError
from .graph import Edge, GraphWays
from .sections import MOST
from .topology import NO_LINK, Changes, FloatArray, Flows, Hosts, IntArray, Topology, Ways, pack
from .ways import LeafSpineWays, SwitchWays

if TYPE_CHECKING:
    from .cluster import Cluster

ALL_NICS = "nics"


def topology(cluster: Cluster, workers: int) -> Topology:
    """Return the links of a cluster with so many workers; see :meth:`Cluster.topology`."""
    hosts = host_count(cluster, workers)
    ways = _ways(cluster, hosts)
    names: list[str] = []
    capacities: list[FloatArray] = []
    placed = {"nic": NO_LINK, "port": NO_LINK, "bus": NO_LINK}

    def place(kind: str, named: Sequence[str], capacity_bps: FloatArray) -> None:
        placed[kind] = len(names)
        names.extend(named)
        capacities.append(capacity_bps)

    if cluster.fabric.kind != "graph":
        up, down = nic_rates(cluster, hosts)
        named = [f"host{h} {way}" for way in ("up", "down") for h in range(hosts)]
        place("nic", named, np.concatenate([up, down]) * cluster.efficiency)
    if (intra := cluster.intra) is not None:
        payload_bps = intra.bandwidth * intra.efficiency
        if intra.shared:
            place("bus", [f"host{h} bus" for h in range(hosts)], np.full(hosts, payload_bps))
        else:
            gpus = [f"host{h}.gpu{g}" for h in range(hosts) for g in range(cluster.gpus)]
            named = [f"{gpu} {way}" for way in ("up", "down") for gpu in gpus]
            place("port", named, np.full(len(named), payload_bps))
    offset = len(names)
    all_names = (*names, *ways.names)
    return Topology(
        capacity_bps=np.concatenate([*capacities, ways.capacity_bps]),
        names=all_names,
        hosts=Hosts(workers, cluster.gpus, own_latencies(cluster, hosts), **placed),
        ways=ways,
        terms=cluster.terms(0),
        background=_background(cluster, ways, placed["nic"], hosts, offset),
        changes=_changes(cluster, all_names, hosts),
    )


def host_count(cluster: Cluster, workers: int) -> int:
    """Return how many hosts there are: as many as are given, or else as many as are needed.

    Raises
    ------
    InputError
        If there are fewer GPUs than workers, or more than can be laid out.
    """
    if workers < 1:
        raise InputError(f"workers = {workers}: allowed: 1 or more")
    if cluster.hosts is None:
        named = [node_number(cluster, end) for flow in cluster.background for end in (flow.src, flow.dst)]
        hosts = max(-(-workers // cluster.gpus), *(number + 1 for number in named), 1)
        if hosts * cluster.gpus > MOST:
            raise InputError(
                f"workers = {workers}: they need {hosts} hosts of {cluster.gpus} GPUs each; allowed: {MOST} GPUs in all"
            )
        return hosts
    gpus = cluster.hosts * cluster.gpus
    if workers > gpus:
        raise InputError(
            f"workers = {workers}: the cluster has {gpus} GPUs (hosts = {cluster.hosts}, gpus = {cluster.gpus}); "
            f"allowed: at most {gpus}"
        )
    return cluster.hosts


def nic_rates(cluster: Cluster, hosts: int) -> tuple[FloatArray, FloatArray]:
    """Return the bandwidth of each host's NIC outwards and inwards, headers included."""
    up = np.full(hosts, cluster.upload or cluster.bandwidth)
    down = np.full(hosts, cluster.download or cluster.bandwidth)
    for host in cluster.host:
        here = slice(host.numbers().start, host.numbers().stop)
        up[here] = host.upload or host.bandwidth or up[here]
        down[here] = host.download or host.bandwidth or down[here]
    return up, down


def own_latencies(cluster: Cluster, hosts: int) -> FloatArray:
    """Return the latency of each host that has one of its own; NaN for the others."""
    own = np.full(hosts, np.nan)
    for host in cluster.host:
        if host.latency is not None:
            own[host.numbers().start : host.numbers().stop] = host.latency
    return own


def uplink_bps(cluster: Cluster) -> float:
    """Return the bandwidth of one uplink of a leaf, headers included."""
    fabric = cluster.fabric
    if fabric.uplink is not None:
        return fabric.uplink
    assert fabric.hosts_per_leaf is not None
    assert fabric.spines is not None
    assert fabric.oversubscription is not None
    return fabric.hosts_per_leaf * cluster.bandwidth / (fabric.spines * fabric.oversubscription)


def node_number(cluster: Cluster, name: str) -> int:
    """Return the number of a node: hosts in order, then a graph's switches.

    Raises
    ------
    InputError
        If there is no such node.
    """
    digits = name.removeprefix("host")
    is_number = name.startswith("host") and digits.isascii() and digits.isdigit() and str(int(digits)) == digits
    if is_number and int(digits) < (MOST if cluster.hosts is None else cluster.hosts):
        return int(digits)
    switches = cluster.fabric.switches or ()
    if name in switches and cluster.hosts is not None:
        return cluster.hosts + switches.index(name)
    last = (MOST if cluster.hosts is None else cluster.hosts) - 1
    raise InputError(f"there is no node {name!r}; allowed: {', '.join([f'host0 to host{last}', *switches])}")


def graph_ways(cluster: Cluster, hosts: int) -> GraphWays:
    """Return the ways of a cluster whose fabric is a graph."""
    names, capacities, edges = [], [], []
    for cable in cluster.links:
        a, b = cable.between
        ends = node_number(cluster, a), node_number(cluster, b)
        directions = [(a, b, ends)] if cable.duplex == "one-way" else [(a, b, ends), (b, a, ends[::-1])]
        for src, dst, (src_number, dst_number) in directions:
            if cable.duplex != "half" or (src, dst) == cable.between:
                names.append(f"{src} - {dst}" if cable.duplex == "half" else f"{src} > {dst}")
                capacities.append((cable.bandwidth or cluster.bandwidth) * cluster.efficiency)
            edges.append(Edge(src_number, dst_number, len(names) - 1, cable.latency))
    present = {(edge.src, edge.dst) for edge in edges}
    fixed = []
    for route in cluster.routes:
        path = [node_number(cluster, name) for name in route.path]
        for i, step in enumerate(pairwise(path)):
            if step not in present:
                a, b = route.path[i : i + 2]
                raise InputError(f"routes: path = {list(route.path)}: there is no link from {a!r} to {b!r}")
        fixed.append(path)
    nodes = hosts + len(cluster.fabric.switches or ())
    return GraphWays(names, np.array(capacities, np.float64), nodes, edges, cluster.fabric.routing or "hops", fixed)


def _ways(cluster: Cluster, hosts: int) -> Ways:
    fabric = cluster.fabric
    if fabric.kind == "graph":
        return graph_ways(cluster, hosts)
    if fabric.kind == "switch":
        return SwitchWays(None if fabric.core is None else fabric.core * cluster.efficiency)
    assert fabric.hosts_per_leaf is not None
    assert fabric.spines is not None
    leaves = -(-hosts // fabric.hosts_per_leaf)
    if leaves * fabric.spines > MOST:
        raise InputError(f"fabric.spines = {fabric.spines}: with {leaves} leaves; allowed: at most {MOST} uplinks")
    return LeafSpineWays(
        fabric.hosts_per_leaf,
        leaves,
        fabric.spines,
        uplink_bps(cluster) * cluster.efficiency,
        fabric.ecmp or "hash",
        fabric.latency or 0.0,
    )


def _background(cluster: Cluster, ways: Ways, nic: int, hosts: int, offset: int) -> Flows:
    """Return the background flows, from NIC to NIC."""
    flows = cluster.background
    src, dst = _numbers(cluster, [f.src for f in flows]), _numbers(cluster, [f.dst for f in flows])
    fabric, _ = ways.between(src, dst)
    columns = [np.where(fabric == NO_LINK, NO_LINK, fabric + offset)]
    if nic != NO_LINK:
        columns = [nic + src[:, None], *columns, nic + hosts + dst[:, None]]
    return Flows(
        *pack(np.concatenate(columns, axis=1)),
        np.array([np.inf if f.rate is None else f.rate for f in flows], np.float64),
        np.array([f.start for f in flows], np.float64),
        np.array([np.inf if f.stop is None else f.stop for f in flows], np.float64),
    )


def _numbers(cluster: Cluster, names: Sequence[str]) -> IntArray:
    return np.array([node_number(cluster, name) for name in names], np.int64)


def _changes(cluster: Cluster, names: tuple[str, ...], hosts: int) -> Changes:
    """Return the changes of all profiles.

    Raises
    ------
    InputError
        If a profile's link does not exist, or a link has two profiles.
    """
    number = {name: i for i, name in enumerate(names)} if cluster.profile else {}
    changes: list[tuple[float, int, float]] = []
    taken: set[int] = set()
    for profile in cluster.profile:
        if profile.link == ALL_NICS and cluster.fabric.kind != "graph":
            links = list(range(2 * hosts))
        elif profile.link in number:
            links = [number[profile.link]]
        else:
            some = ", ".join(names[:3])
            raise InputError(
                f"profile: link = {profile.link!r}: there is no such link; allowed: {ALL_NICS}, {some}, ..."
            )
        if taken & set(links):
            raise InputError(f"profile: link = {profile.link!r}: this link has a profile already; allowed: one each")
        taken |= set(links)
        steps = list(zip(profile.times, profile.factors, strict=True))
        changes += [(time_s, link, factor) for time_s, factor in steps for link in links]
    changes.sort()
    return Changes(
        np.array([time_s for time_s, _, _ in changes], np.float64),
        np.array([link for _, link, _ in changes], np.int64),
        np.array([factor for _, _, factor in changes], np.float64),
    )
