"""What collectives cost on a cluster: the algorithm that serves them, in closed form, or as a schedule to be played."""

from collections.abc import Mapping
from functools import cached_property
from typing import Literal, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike

from ...compressors.errors import InputError
from ...compressors.wirelog import Collective, Operation
from ..cluster import Cluster
from ..cluster.build import nic_rates
from ..cluster.topology import Terms
from ..cluster.uniform import Uniform
from .closed_form import all_reduce_path, critical_path, hierarchical_paths, ring_across_hosts
from .collectives import ALGORITHMS, equal, schedule
from .critical import ClosedFormError, CriticalPath, FloatArray, IntArray
from .schedule import BoolArray, Schedule
from .tuning import Choice, Generation, Machine, choose

AUTO = "auto"
"""In place of an algorithm: the one that NCCL would take for this size on this cluster."""

MOST_PLAYED = 2048
"""Workers up to which the event engine plays algorithms whose transfers grow as the square of the workers."""
_QUADRATIC = {"ring", "direct", "pairwise"}

Gathers = Literal["padded", "exact"]
_Ringed = Literal["all-reduce", "reduce-scatter", "all-gather"]
_PCIE_BPS = 256e9
"""The rate of 16 lanes of PCIe 4.0, which a link must exceed to be taken for NVLink."""


class Batch(NamedTuple):
    """The same collective in G step logs.

    Attributes
    ----------
    operation, peers
        As in the wire log.
    sent_bytes : IntArray, shape [G, N]
    chunks : tuple of G matrices, or empty
    """

    operation: Operation
    peers: tuple[int, ...]
    sent_bytes: IntArray
    chunks: tuple[tuple[tuple[int, ...], ...], ...] = ()


class Cost(NamedTuple):
    """A duration as a function of three numbers of a cluster; arrays of shape [G].

    ``fixed_s + launches * launch + max(hops * latency + 8 * bytes / bandwidth, inside_s)``: what does not depend on
    these numbers, such as links inside hosts, terms that differ by size, and additions, is in ``fixed_s`` and
    ``inside_s``. ``bytes`` cross a NIC, and ``inside_bytes``, which are in the other two already, a GPU's port.
    ``payload_bytes`` are what crosses a NIC without the efficiency of its size: what spends a shaper's tokens.
    """

    launches: FloatArray
    hops: FloatArray
    bytes: FloatArray
    fixed_s: FloatArray
    inside_s: FloatArray
    inside_bytes: FloatArray
    payload_bytes: FloatArray

    def seconds(self, bandwidth_bps: ArrayLike, latency_s: ArrayLike, launch_s: ArrayLike) -> FloatArray:
        """Return the duration on clusters whose numbers broadcast against this cost's shape."""
        slower = np.maximum(self.across_s(bandwidth_bps, latency_s), self.inside_s)
        return np.asarray(self.before_s(launch_s) + slower)

    def before_s(self, launch_s: ArrayLike) -> FloatArray:
        """Return what a collective takes besides moving bytes."""
        return np.asarray(self.fixed_s + self.launches * np.asarray(launch_s, np.float64))

    def across_s(self, bandwidth_bps: ArrayLike, latency_s: ArrayLike) -> FloatArray:
        """Return how long bytes cross NICs."""
        carried = 8 * self.bytes / np.asarray(bandwidth_bps, np.float64)
        return np.asarray(self.hops * np.asarray(latency_s, np.float64) + carried)


class Costs:
    """Prices collectives on a cluster.

    Parameters
    ----------
    cluster : Cluster
    workers : int
        N.
    algorithms : mapping of operation to str
        The algorithm of each operation, or ``auto``; without an entry, the first of :data:`ALGORITHMS`.
    gathers : {"padded", "exact"}
        Whether the payloads of an all-gather are padded to the largest, as backends without an all-gatherv need it.
    generation : {"volta", "ampere", "hopper"}
        Of the GPUs, for NCCL's model.

    Raises
    ------
    InputError
        If there are more workers than GPUs, or an algorithm is unknown.
    """

    def __init__(
        self,
        cluster: Cluster,
        workers: int,
        algorithms: Mapping[Operation, str] | None = None,
        gathers: Gathers = "padded",
        generation: Generation = "ampere",
    ) -> None:
        self.cluster = cluster
        self.workers = workers
        self.algorithms = dict(algorithms or {})
        for operation, name in self.algorithms.items():
            if name not in (AUTO, *ALGORITHMS[operation]):
                allowed = ", ".join((AUTO, *ALGORITHMS[operation]))
                raise InputError(f"algorithm {name!r} of {operation} is unknown; allowed: {allowed}")
        self.gathers = gathers
        self.generation: Generation = generation
        self.uniform = cluster.uniform(workers)
        self.choices: dict[tuple[Operation, int], Choice] = {}
        """What was chosen by NCCL's model, by operation and size in bytes."""
        self.extrapolated: dict[Operation, str] = {}
        """Why the cost of an operation is extrapolated, where the cluster says what was measured."""

    def check_uniform(self) -> Uniform:
        """Return the cluster's few numbers.

        Raises
        ------
        ClosedFormError
            If there are more to it; the message says which.
        """
        if isinstance(self.uniform, str):
            raise ClosedFormError(self.uniform)
        return self.uniform

    # --------------------------------------------------------------------------------------------- what is launched

    def sent(self, operation: Operation, sent_bytes: IntArray) -> IntArray:
        """Return what workers hand over, of shape [..., N], padded where the backend pads."""
        if operation == "all-gather" and self.gathers == "padded":
            return np.broadcast_to(sent_bytes.max(axis=-1, keepdims=True), sent_bytes.shape)
        return sent_bytes

    def algorithm(self, operation: Operation, size_bytes: int) -> str:
        """Return the algorithm for a collective to which a worker hands over at most so many bytes.

        Raises
        ------
        InputError
            If the one that is asked for does not take this number of workers.
        """
        name = self.algorithms.get(operation, ALGORITHMS[operation][0])
        if name != AUTO:
            self._check_workers(name)
            return name
        if (operation, size_bytes) not in self.choices:
            self.choices[operation, size_bytes] = self._choose(operation, size_bytes)
        return self.choices[operation, size_bytes].algorithm

    def _mark(self, operation: Operation, sizes: IntArray) -> None:
        """Note if collectives of these sizes are outside of what the cluster's numbers were measured for."""
        if not self.cluster.measured or operation in self.extrapolated or not sizes.size:
            return
        ranges = [known for known in self.cluster.measured if known.operation == operation]
        if not ranges:
            self.extrapolated[operation] = f"{operation} was not measured"
            return
        least, most = int(sizes.min()), int(sizes.max())
        for known in ranges:
            fewest, highest = known.workers
            if known.from_bytes <= least and most <= known.to_bytes and fewest <= self.workers <= highest:
                return
        measured = "; ".join(
            f"{known.from_bytes} to {known.to_bytes} B among {known.workers[0]} to {known.workers[1]} workers"
            for known in ranges
        )
        found = f"{least} to {most} B among {self.workers}"
        self.extrapolated[operation] = f"{operation} of {found} workers was measured for {measured}"

    def _check_workers(self, name: str) -> None:
        """Refuse algorithms that need other numbers of workers."""
        workers, gpus = self.workers, self.cluster.gpus
        if name == "hierarchical" and self._hosts > 1 and workers % gpus:
            allowed = f"a multiple of {gpus} workers, all GPUs of each host, or another algorithm"
            raise InputError(f"timing.all_reduce = {name!r} with workers = {workers}; allowed: {allowed}")
        if name == "halving" and workers & (workers - 1):
            allowed = "1, 2, 4, 8, ... workers, or another algorithm"
            raise InputError(f"timing.reduce_scatter = {name!r} with workers = {workers}; allowed: {allowed}")

    def _choose(self, operation: Operation, size_bytes: int) -> Choice:
        if self._hosts > 1 and self.workers % self.cluster.gpus:
            reason = "hosts have different numbers of workers, which NCCL's model does not cover"
            return Choice(ALGORITHMS[operation][0], reason)
        return choose(operation, size_bytes, self.workers, self._hosts, self._machine)

    @cached_property
    def _hosts(self) -> int:
        return -(-self.workers // self.cluster.gpus)

    @cached_property
    def _machine(self) -> Machine:
        """What NCCL's model knows of the cluster: its slowest links; NVLink is told from PCIe by its rate."""
        intra = self.cluster.intra
        tiers = [] if intra is None else [intra.bandwidth]
        if self._hosts > 1 or intra is None:
            tiers += [float(rates.min()) for rates in nic_rates(self.cluster, self._hosts)]
        nvlink = intra is not None and intra.bandwidth > _PCIE_BPS
        return Machine(min(tiers), nvlink, self.generation)

    def groups(self) -> list[list[int]]:
        """Return the workers of each host."""
        gpus = self.cluster.gpus
        return [list(range(first, min(first + gpus, self.workers))) for first in range(0, self.workers, gpus)]

    def schedule(self, collective: Collective) -> tuple[Schedule, Terms]:
        """Return a collective's transfers, and what they pay besides sharing links.

        Raises
        ------
        InputError
            If there are more transfers than can be played.
        """
        sent = self.sent(collective.operation, np.array(collective.sent_bytes, np.int64))
        size = int(sent.max(initial=0))
        self._mark(collective.operation, sent)
        name = self.algorithm(collective.operation, size)
        if self.workers > MOST_PLAYED and name in _QUADRATIC:
            raise InputError(
                f"workers = {self.workers}: the event engine has to play {collective.operation} ({name}), transfer by "
                f"transfer; allowed: at most {MOST_PLAYED}, or an algorithm of fewer transfers"
            )
        transfers = schedule(
            collective.operation,
            sent.tolist(),
            collective.peers,
            name,
            groups=self.groups(),
            chunks=collective.chunks or None,
        )
        return transfers, self.cluster.terms(size, collective.operation)

    # ---------------------------------------------------------------------------------------------- in closed form

    def cost(self, batch: Batch) -> Cost:
        """Return the cost of a collective in G logs.

        Raises
        ------
        ClosedFormError
            If no closed form is exact; the message says why.
        """
        uniform = self.check_uniform()
        sent = self.sent(batch.operation, batch.sent_bytes)
        sizes = sent.max(axis=-1)
        self._mark(batch.operation, sizes)
        names = {size: self.algorithm(batch.operation, size) for size in np.unique(sizes).tolist()}
        cost = Cost(*(np.zeros(len(sizes)) for _ in Cost._fields))
        for name in dict.fromkeys(names.values()):
            rows = np.array([names[size] == name for size in sizes.tolist()])
            part = self._cost(batch, sent[rows], rows, name, uniform)
            for whole, own in zip(cost, part, strict=True):
                whole[rows] = own
        return cost

    def _cost(self, batch: Batch, sent: IntArray, rows: BoolArray, name: str, uniform: Uniform) -> Cost:
        """Return the cost under one algorithm."""
        terms = _Terms.of(uniform, batch.operation, sent.max(axis=-1))
        if uniform.hosts == 1 and uniform.intra is not None:
            return self._inside(self._path(batch, sent, rows, name), uniform, terms)
        if uniform.gpus == 1:
            return terms.across(self._path(batch, sent, rows, name), uniform)
        if batch.operation == "all-reduce" and name == "hierarchical":
            return _hierarchical(sent[:, 0], uniform, terms)
        if name == "ring" and (sent == sent[:, :1]).all():
            return _ring(cast(_Ringed, batch.operation), sent[:, 0], uniform, terms)
        raise ClosedFormError(f"{batch.operation} ({name}) shares the links of hosts with several GPUs")

    def _path(self, batch: Batch, sent: IntArray, rows: BoolArray, name: str) -> CriticalPath:
        """Return the critical path where all workers are alike."""
        if name == "hierarchical":
            return all_reduce_path(name, equal(sent, batch.operation), self.workers, self._hosts)
        if not batch.chunks:
            return critical_path(batch.operation, sent, batch.peers, name)
        logs = [
            critical_path(batch.operation, sent[i], batch.peers, name, chunks=batch.chunks[row])
            for i, row in enumerate(np.flatnonzero(rows))
        ]
        return CriticalPath(*(np.array(values) for values in zip(*logs, strict=True)))

    def _inside(self, path: CriticalPath, uniform: Uniform, terms: "_Terms") -> Cost:
        """Return the cost within one host, on which its NIC has no influence."""
        assert uniform.intra is not None
        if uniform.intra.shared:
            raise ClosedFormError("the GPUs of a host share one bus")
        return terms.within(path, uniform)


class _Terms(NamedTuple):
    """What a collective pays besides the bandwidth in each of G logs; ``by_size``: whether that depends on its size."""

    launch_s: FloatArray
    latency_s: FloatArray
    inside_latency_s: FloatArray
    efficiency: FloatArray
    by_size: bool

    @classmethod
    def of(cls, uniform: Uniform, operation: Operation, sizes: IntArray) -> "_Terms":
        known = uniform.terms_of(operation)
        starts = np.array([terms.from_bytes for terms in known])
        place = np.searchsorted(starts, sizes, side="right") - 1

        def column(key: str) -> FloatArray:
            return np.array([getattr(terms, key) for terms in known], np.float64)[place]

        keys = ("launch_s", "latency_s", "intra_latency_s", "efficiency")
        launch, latency, inside_latency, efficiency = map(column, keys)
        return cls(launch, latency, inside_latency, efficiency, len(known) > 1 or operation in uniform.own_terms)

    def across(
        self,
        path: CriticalPath,
        uniform: Uniform,
        inside_s: float | FloatArray = 0.0,
        fixed_s: float | FloatArray = 0.0,
        inside_bytes: float | FloatArray = 0.0,
    ) -> Cost:
        """Return the cost of a path over NICs, which goes on at the same time as ``inside_s`` takes inside of hosts."""
        rest_s: FloatArray = path.reduced / uniform.reduce_bytes_s + fixed_s
        carried: FloatArray = path.bytes / self.efficiency
        none = np.zeros(rest_s.shape)
        ports = none + inside_bytes
        payload = none + path.bytes
        if not self.by_size:
            launches, hops = path.launches.astype(float), path.hops.astype(float)
            return Cost(launches, hops, carried, rest_s, none + inside_s, ports, payload)
        # Terms by size are the cluster's own; only the bandwidth is left to vary. The latency counts as 0 bytes would,
        # so that the comparison with what happens inside of hosts stays exact.
        own_s = path.launches * self.launch_s + path.hops * self.latency_s
        left_s = np.maximum(inside_s - path.hops * self.latency_s, 0)
        return Cost(none, none, carried, rest_s + own_s, none + left_s, ports, payload)

    def within(self, path: CriticalPath, uniform: Uniform) -> Cost:
        """Return the cost of a path over the ports of GPUs; but for the launch, the NICs' numbers do not matter."""
        assert uniform.intra is not None
        inside_s = self.inside_s(path, uniform)
        fixed_s = path.reduced / uniform.reduce_bytes_s
        none = np.zeros(inside_s.shape)
        ports = path.bytes / self.efficiency
        if self.by_size:
            return Cost(none, none, none, fixed_s + path.launches * self.launch_s, inside_s, ports, none)
        return Cost(path.launches.astype(float), none, none, fixed_s + none, inside_s, ports, none)

    def inside_s(self, path: CriticalPath, uniform: Uniform) -> FloatArray:
        """Return how long a path takes over the ports of GPUs, launch and additions aside."""
        assert uniform.intra is not None
        carried = path.bytes / self.efficiency
        return np.asarray(path.hops * self.inside_latency_s + 8 * carried / uniform.intra.bandwidth_bps)


def _hierarchical(size: IntArray, uniform: Uniform, terms: _Terms) -> Cost:
    """Return the cost of reducing inside hosts, then across them, and gathering inside."""
    assert uniform.intra is not None
    if uniform.intra.shared:
        raise ClosedFormError("the GPUs of a host share one bus")
    workers = uniform.hosts * uniform.gpus
    inside, across = hierarchical_paths(size, workers, uniform.hosts, shared=True)
    if uniform.gpus * uniform.intra.bandwidth_bps < uniform.bandwidth_bps:
        raise ClosedFormError("the ports of a host's GPUs are slower than its NIC")
    within_s = terms.inside_s(inside, uniform) + inside.reduced / uniform.reduce_bytes_s
    ports = (inside.bytes + across.bytes / uniform.gpus) / terms.efficiency
    return terms.across(across._replace(launches=inside.launches), uniform, fixed_s=within_s, inside_bytes=ports)


def _ring(operation: _Ringed, size: IntArray, uniform: Uniform, terms: _Terms) -> Cost:
    """Return the cost of a ring through all GPUs, in which NICs carry one transfer a round each way."""
    assert uniform.intra is not None
    if uniform.intra.shared:
        raise ClosedFormError("the GPUs of a host share one bus")
    if uniform.intra.bandwidth_bps < uniform.bandwidth_bps:
        raise ClosedFormError("the port of a GPU is slower than its host's NIC")
    workers = uniform.hosts * uniform.gpus
    across = ring_across_hosts(operation, size, workers, uniform.hosts)
    sent = np.repeat(size[:, None], workers, axis=1)
    inside = critical_path(operation, sent)
    inside_s = terms.inside_s(inside, uniform)
    cost = terms.across(across, uniform, inside_s, inside_bytes=inside.bytes / terms.efficiency)
    even, more = (size // workers, -(-size // workers)) if operation != "all-gather" else (size, size)
    hop_s = terms.latency_s + 8 * even / terms.efficiency / uniform.bandwidth_bps
    inside_hop_s = terms.inside_latency_s + 8 * more / terms.efficiency / uniform.intra.bandwidth_bps
    a_byte_s = 8 / terms.efficiency * (1 / uniform.bandwidth_bps + 1 / uniform.intra.bandwidth_bps)
    if (hop_s < inside_hop_s + 2 * (a_byte_s + 1 / uniform.reduce_bytes_s)).any():
        raise ClosedFormError("a ring's transfers take as long inside of hosts as between them")
    return cost
