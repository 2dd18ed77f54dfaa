"""Topology: a cluster as links with capacities, and the way from each worker to each other one."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...compressors.errors import InputError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

NO_LINK = -1


class Routes(NamedTuple):
    """The ways of P pairs of workers.

    Attributes
    ----------
    first, links : IntArray, shapes [P + 1] and [K]
        Pair p crosses ``links[first[p]:first[p + 1]]``; none if both ends are the same worker.
    latency_s : FloatArray, shape [P]
        From the sending of the first bit to its arrival.
    """

    first: IntArray
    links: IntArray
    latency_s: FloatArray


class Flows(NamedTuple):
    """Traffic of others: F flows that take their share of links, but for which nobody waits.

    Attributes
    ----------
    first, links : IntArray, shapes [F + 1] and [K]
        As in :class:`Routes`.
    rate_bps : FloatArray, shape [F]
        At most so much; infinite if greedy.
    start_s, stop_s : FloatArray, shape [F]
        Since the start of the run; a flow that never ends stops at infinity.
    """

    first: IntArray
    links: IntArray
    rate_bps: FloatArray
    start_s: FloatArray
    stop_s: FloatArray


class Changes(NamedTuple):
    """C changes of bandwidth in the order of time; three arrays of shape [C].

    Attributes
    ----------
    time_s : FloatArray
        Since the start of the run.
    link : IntArray
    factor : FloatArray
        From then on the link has so many times its capacity.
    """

    time_s: FloatArray
    link: IntArray
    factor: FloatArray

    def mean_factors(self, links: int, until_s: float) -> FloatArray:
        """Return the mean factor of each of so many links over the time from 0 to ``until_s``, shape [L]."""
        whole = np.ones(links)
        before = np.ones(links)
        for time_s, link, factor in zip(*(values.tolist() for values in self), strict=True):
            share = 1 - min(max(time_s, 0.0), until_s) / until_s
            whole[link] += share * (factor - before[link])
            before[link] = factor
        return whole


class Terms(NamedTuple):
    """What a collective pays besides the bandwidth, by its size.

    Attributes
    ----------
    from_bytes : int
        The least size that these hold for; the size is the largest number of bytes that a worker hands over.
    launch_s : float
        Once for each collective.
    latency_s, intra_latency_s : float
        Once for each transfer between hosts, and inside of one.
    efficiency : float
        Factor on every link's capacity: to a link of capacity C the collective's transfers are 1 / efficiency as large.
    """

    from_bytes: int
    launch_s: float
    latency_s: float
    intra_latency_s: float
    efficiency: float


class Ways(Protocol):
    """What connects hosts: links, and the way over them from host to host."""

    @property
    def names(self) -> tuple[str, ...]:
        """The links' names."""

    @property
    def capacity_bps(self) -> FloatArray:
        """The links' capacities, shape [F]."""

    def between(self, src: IntArray, dst: IntArray) -> tuple[IntArray, FloatArray]:
        """Return the ways of P pairs of different hosts.

        Returns
        -------
        links : IntArray, shape [P, C]
            In the order in which they are crossed; ``NO_LINK`` fills up.
        latency_s : FloatArray, shape [P]
            What they add to the hosts' own latency.
        """


@dataclass(frozen=True, eq=False)
class Hosts:
    """Where workers are, and the links that each host has for itself.

    Attributes
    ----------
    workers, gpus : int
        Worker w is on host ``w // gpus``.
    latency_s : FloatArray, shape [H]
        NaN where a host has the latency that the collective's size calls for.
    nic, port, bus : int
        Position of the first such link, or ``NO_LINK``: NICs (H outwards, then H inwards), ports of GPUs (H x gpus
        outwards, then as many inwards), shared buses (H).
    """

    workers: int
    gpus: int
    latency_s: FloatArray
    nic: int
    port: int
    bus: int

    def way_out(self, worker: IntArray) -> tuple[IntArray, IntArray]:
        """Return the link from a worker to its host's switch, and that into the fabric."""
        return self._local(worker, 0), self._nic(worker // self.gpus, 0)

    def way_in(self, worker: IntArray) -> tuple[IntArray, IntArray]:
        """Return the link from the fabric to a worker's host, and that to the worker."""
        return self._nic(worker // self.gpus, 1), self._local(worker, 1)

    def _nic(self, host: IntArray, inwards: int) -> IntArray:
        if self.nic == NO_LINK:
            return np.full(host.shape, NO_LINK)
        return self.nic + inwards * len(self.latency_s) + host

    def _local(self, worker: IntArray, inwards: int) -> IntArray:
        if self.bus != NO_LINK:
            return self.bus + worker // self.gpus
        if self.port != NO_LINK:
            return self.port + inwards * len(self.latency_s) * self.gpus + worker
        return np.full(worker.shape, NO_LINK)


@dataclass(frozen=True, eq=False)
class Topology:
    """The links of a cluster, each direction of a full-duplex cable one of its own.

    Attributes
    ----------
    capacity_bps : FloatArray, shape [L]
        Bits a second of payload that a link carries, shared by the transfers that cross it.
    names : tuple of str, length L
    hosts : Hosts
    ways : Ways
        Its links are the last ones.
    terms : Terms
        Of the smallest collectives.
    background : Flows
    changes : Changes
    """

    capacity_bps: FloatArray
    names: tuple[str, ...]
    hosts: Hosts
    ways: Ways
    terms: Terms
    background: Flows
    changes: Changes

    def routes(self, src: IntArray, dst: IntArray, terms: Terms | None = None) -> Routes:
        """Return the ways of pairs of workers.

        Parameters
        ----------
        src, dst : IntArray, shape [P]
            Workers.
        terms : Terms, optional
            What the collective's size calls for (:meth:`Cluster.terms`); by default what the smallest pay.

        Raises
        ------
        InputError
            If a worker is not on the cluster.
        """
        terms = terms or self.terms
        src, dst = np.asarray(src, np.int64), np.asarray(dst, np.int64)
        both = np.concatenate([src, dst])
        if both.size and not (both.min() >= 0 and both.max() < self.hosts.workers):
            worst = both.max() if both.max() >= self.hosts.workers else both.min()
            raise InputError(f"worker {worst} is not on the cluster; its workers are 0 to {self.hosts.workers - 1}")
        src_host, dst_host = src // self.hosts.gpus, dst // self.hosts.gpus
        far = np.flatnonzero(src_host != dst_host)
        fabric, added_s = self._between(src_host[far], dst_host[far])
        columns = np.full((len(src), fabric.shape[1] + 4), NO_LINK)
        out, nic_out = self.hosts.way_out(src)
        nic_in, home = self.hosts.way_in(dst)
        columns[:, 0], columns[:, -1] = out, home
        columns[far, 1], columns[far, 2:-2], columns[far, -2] = nic_out[far], fabric, nic_in[far]
        if self.hosts.bus != NO_LINK:  # a transfer inside a host crosses its bus once
            columns[src_host == dst_host, -1] = NO_LINK
        columns[src == dst] = NO_LINK
        own = self.hosts.latency_s
        host_s = np.where(np.isnan(own), terms.latency_s, own)
        latency_s = np.where(src == dst, 0.0, terms.intra_latency_s)
        latency_s[far] = (host_s[src_host[far]] + host_s[dst_host[far]]) / 2 + added_s
        return Routes(*pack(columns), latency_s)

    def _between(self, src_host: IntArray, dst_host: IntArray) -> tuple[IntArray, FloatArray]:
        """Return the fabric's ways, in positions among all links."""
        links, added_s = self.ways.between(src_host, dst_host)
        offset = len(self.names) - len(self.ways.names)
        return np.where(links == NO_LINK, NO_LINK, links + offset), added_s


def pack(columns: IntArray) -> tuple[IntArray, IntArray]:
    """Return rows of links, filled up with ``NO_LINK``, as (first, links)."""
    present = columns != NO_LINK
    first = np.zeros(len(columns) + 1, np.int64)
    np.cumsum(present.sum(axis=1), out=first[1:])
    return first, columns[present]
