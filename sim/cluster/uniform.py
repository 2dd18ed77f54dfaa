"""Uniform clusters: the few numbers that a closed form needs, or the reason why they do not describe the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...compressors.wirelog import Operation
from .build import host_count, nic_rates, own_latencies, uplink_bps
from .topology import Terms

if TYPE_CHECKING:
    from .cluster import Cluster


class Tier(NamedTuple):
    """The links of one kind: all alike, each way at once unless they are shared."""

    bandwidth_bps: float
    latency_s: float
    shared: bool = False


class Uniform(NamedTuple):
    """Equal hosts with equal numbers of workers, between which only NICs can be the bottleneck.

    Attributes
    ----------
    hosts, gpus : int
        Each of the hosts has so many workers, in rank order.
    bandwidth_bps : float
        Of payload, of a host's NIC, each way at once.
    latency_s, launch_s : float
        Of the smallest collectives; ``terms`` has those of larger ones.
    terms : tuple of Terms
        By rising ``from_bytes``, the first from 0; of operations that have no pieces of their own.
    own_terms : mapping of operation to tuple of Terms
        Of the others.
    intra : Tier or None
        What a GPU's port, or the bus of a host, carries; None: one GPU a host.
    reduce_bytes_s : float
        At which a device adds what has arrived; infinite if that is free.
    """

    hosts: int
    gpus: int
    bandwidth_bps: float
    latency_s: float
    launch_s: float
    terms: tuple[Terms, ...]
    intra: Tier | None
    reduce_bytes_s: float
    own_terms: Mapping[Operation, tuple[Terms, ...]] = MappingProxyType({})

    def terms_of(self, operation: Operation) -> tuple[Terms, ...]:
        """Return an operation's terms by rising size."""
        return self.own_terms.get(operation, self.terms)


def uniform(cluster: Cluster, workers: int) -> Uniform | str:
    """Return a cluster's numbers, or one sentence why it has more; see :meth:`Cluster.uniform`."""
    hosts = -(-workers // cluster.gpus)
    host_count(cluster, workers)
    if hosts > 1 and workers % cluster.gpus:
        return f"the last host has {workers % cluster.gpus} workers and the others {cluster.gpus}"
    if cluster.background:
        return "background flows take part of the network"
    if cluster.profile:
        return "the bandwidth of some links changes in the course of the run"
    reason = (_hosts_differ(cluster, hosts) or _fabric_binds(cluster, hosts)) if hosts > 1 else None
    if reason:
        return reason
    up, _ = nic_rates(cluster, hosts)
    own = float(own_latencies(cluster, hosts)[0])

    def terms_of(operation: Operation | None) -> tuple[Terms, ...]:
        found = cluster.all_terms(operation)
        return found if np.isnan(own) else tuple(terms._replace(latency_s=own) for terms in found)

    all_terms = terms_of(None)
    operations = {piece.operation for piece in cluster.pieces if piece.operation is not None}
    intra = cluster.intra
    return Uniform(
        hosts=hosts,
        gpus=min(cluster.gpus, workers),
        bandwidth_bps=float(up[0]) * cluster.efficiency,
        latency_s=all_terms[0].latency_s,
        launch_s=all_terms[0].launch_s,
        terms=all_terms,
        intra=None if intra is None else Tier(intra.bandwidth * intra.efficiency, intra.latency, intra.shared),
        reduce_bytes_s=float("inf") if cluster.reduce is None else cluster.reduce,
        own_terms={operation: terms_of(operation) for operation in operations},
    )


def _hosts_differ(cluster: Cluster, hosts: int) -> str | None:
    """Say in what the hosts that have workers differ."""
    up, down = nic_rates(cluster, hosts)
    own = own_latencies(cluster, hosts)
    if (up != up[0]).any() or (down != down[0]).any():
        return "hosts differ in bandwidth"
    if up[0] != down[0]:
        return "hosts upload and download at different rates"
    if not (np.isnan(own).all() or (own == own[0]).all()):
        return "hosts differ in latency"
    return None


def _fabric_binds(cluster: Cluster, hosts: int) -> str | None:
    """Say how the fabric sets some pairs of hosts, or some moments, apart from others."""
    fabric = cluster.fabric
    up, _ = nic_rates(cluster, hosts)
    if fabric.kind == "graph":
        return "the fabric is a graph"
    if fabric.kind == "switch":
        enough = fabric.core is None or fabric.core >= up.sum()
        return None if enough else "the core of the switch is slower than all hosts together"
    assert fabric.hosts_per_leaf is not None
    assert fabric.spines is not None
    if hosts <= fabric.hosts_per_leaf:
        return None
    if fabric.latency:
        return "hosts on different leaves are farther apart than those on one"
    ratio = float(up[: fabric.hosts_per_leaf].sum()) / (fabric.spines * uplink_bps(cluster))
    if ratio > 1 + 1e-9:  # not by rounding only
        return f"the leaf-spine is oversubscribed {ratio:g}:1"
    if fabric.ecmp != "spread" and fabric.spines > 1:
        return "the leaf-spine hashes flows to spines, so that some share an uplink"
    return None
