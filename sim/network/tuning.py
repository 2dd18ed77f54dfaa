"""Which algorithm NCCL would take: its tuning model, by size and topology.

Modelled is src/graph/tuning.cc of NCCL 2.18 (``ncclTopoTuneModel`` and ``ncclTopoGetAlgoTime``), whose tables are the
same up to 2.20. For ring and tree under each protocol, a latency and a bandwidth estimate a time, and the least time
wins. The protocols are LL (half of each 8-byte store is payload), LL128 (120 of 128 bytes; inside a host over NVLink
only) and Simple. The tables and rules are transcribed and were not run against NCCL.

Left out are what special hardware adds (CollNet, NVLS), the search for channels (their number is an argument, and all
of them together have the bandwidth of the slowest tier), and the user's ``NCCL_ALGO`` and ``NCCL_PROTO``. The estimates
only choose: how long the chosen algorithm takes, the engine and the closed forms say, which know nothing of protocols.
"""

from typing import Literal, NamedTuple

from ...compressors.errors import InputError
from ...compressors.wirelog import Operation

Generation = Literal["volta", "ampere", "hopper"]
Protocol = Literal["LL", "LL128", "Simple"]
_PROTOCOLS: tuple[Protocol, ...] = ("LL", "LL128", "Simple")
_GENERATIONS: tuple[Generation, ...] = ("volta", "ampere", "hopper")

# All numbers as in tuning.cc: microseconds by protocol, and GB/s by 1, 2, or more hosts.
_BASE_US = {"tree": (6.8, 14.0, 0.0), "ring": (6.6, 14.0, 8.4)}
_HOP_US = {
    "nvlink": {"tree": (0.6, 1.25, 28.0), "ring": (0.6, 1.9, 3.4)},
    "pci": {"tree": (1.0, 1.9, 28.0), "ring": (1.0, 2.5, 5.7)},
    "net": {"tree": (5.0, 8.5, 28.0), "ring": (2.7, 4.0, 14.0)},
}
_NET_OVERHEAD_US = 1.0
_LL_GB = ((39.0, 39.0, 20.4), (87.7, 22.5, 19.0), (87.7, 22.5, 19.0))
_RING_LL128_CHANNEL_GB = ((20.0, 20.0, 20.0), (20.0, 20.0, 20.0), (36.7, 36.7, 36.7))
_TREE_LL128_CHANNEL_GB = ((20.0, 20.0, 20.0), (20.0, 20.0, 20.0), (36.7, 36.7, 29.0))
_TREE_CHANNEL_GB = ((26.5, 18.5, 10.0), (24.0, 23.6, 17.8), (38.7, 41.4, 36.0))
# What is left of the tree's bandwidth, from 64 bytes on, at each doubling.
_TREE_CORRECTION = (
    (1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0, 1.0),
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9, 1.0, 1.0),
    (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, 0.9, 0.9),
)


class Estimate(NamedTuple):
    """What the tuning model thinks that an all-reduce takes."""

    algorithm: Literal["ring", "tree"]
    protocol: Protocol
    seconds: float


class Choice(NamedTuple):
    """An algorithm, under the name that it has in :data:`gradwire.sim.network.ALGORITHMS`, and why it was chosen."""

    algorithm: str
    reason: str


class Machine(NamedTuple):
    """What the tuning model knows of a cluster.

    Attributes
    ----------
    bandwidth_bps : float
        Of a host's network, or of a GPU's links inside where there is one host.
    nvlink : bool
        Whether the GPUs of a host are linked by NVLink; otherwise by PCIe.
    generation : str
        Of the GPUs.
    channels : int
        Over how many channels NCCL spreads a collective; some limits are for each of them.
    """

    bandwidth_bps: float
    nvlink: bool = False
    generation: Generation = "ampere"
    channels: int = 2


def choose(operation: Operation, size_bytes: int, workers: int, hosts: int, machine: Machine) -> Choice:
    """Return the algorithm that NCCL would take.

    Parameters
    ----------
    operation : str
        As in the wire log.
    size_bytes : int
        What a worker hands over.
    workers, hosts : int
        The workers fall into equal hosts.
    machine : Machine

    Raises
    ------
    InputError
        If hosts do not divide workers, or the machine has no bandwidth, no channel, or an unknown generation.
    """
    _check(workers, hosts, machine)
    match operation:
        case "all-gather" | "reduce-scatter":
            return Choice("ring", f"NCCL 2.18 has no other algorithm for {operation}")
        case "broadcast":
            return Choice("chain", "NCCL 2.18 sends broadcasts along its ring, in pieces")
        case "all-to-all" | "permute":
            return Choice("direct", f"NCCL runs {operation} as sends and receives in one group")
    if workers == 1:
        return Choice("ring", "a single worker has nothing to exchange")
    by_time = sorted(estimates(size_bytes, workers, hosts, machine), key=lambda estimate: estimate.seconds)
    best = by_time[0]
    other = next(estimate for estimate in by_time if estimate.algorithm != best.algorithm)
    reason = (
        f"NCCL 2.18 estimates {_text(best)}, {_text(other)}, "
        f"for {size_bytes} bytes on {workers} workers of {hosts} host{'s' * (hosts > 1)}, "
        f"assuming {machine.generation} GPUs and {machine.channels} channel{'s' * (machine.channels > 1)}"
    )
    return Choice("double-tree" if best.algorithm == "tree" else "ring", reason)


def estimates(size_bytes: int, workers: int, hosts: int, machine: Machine) -> list[Estimate]:
    """Return the tuning model's times of an all-reduce, for each algorithm under each protocol that is in use.

    ``workers`` must be at least 2.
    """
    result: list[Estimate] = []
    for p, protocol in enumerate(_PROTOCOLS):
        if protocol == "LL128" and not machine.nvlink and workers > hosts:
            continue
        ring = _latency_ring(p, size_bytes, workers, hosts, machine), _bandwidth_ring(p, workers, hosts, machine)
        tree = _latency_tree(p, workers, hosts, machine), _bandwidth_tree(p, size_bytes, hosts, machine)
        result.append(Estimate("ring", protocol, _seconds(size_bytes, *ring)))
        result.append(Estimate("tree", protocol, _seconds(size_bytes, *tree)))
    return result


def _latency_ring(p: int, size_bytes: int, workers: int, hosts: int, machine: Machine) -> float:
    """Return microseconds; steps between hosts are counted as NCCL does, 2 H of the 2 (N - 1)."""
    inside = _HOP_US["nvlink" if machine.nvlink else "pci"]["ring"][p]
    across_steps = 2 * hosts if hosts > 1 else 0
    if hosts > 1:
        inside = max(inside, _NET_OVERHEAD_US * (3 if p == 2 else 1))
    steps = 2 * (workers - 1)
    latency = _BASE_US["ring"][p] + (steps - across_steps) * inside + across_steps * _HOP_US["net"]["ring"][p]
    if p == 2 and hosts > 1 and size_bytes // (machine.channels * workers) >= 64:
        latency *= 1.9 if machine.generation == "volta" else 1.4  # "plateau effect of ring"
    return latency


def _bandwidth_ring(p: int, workers: int, hosts: int, machine: Machine) -> float:
    """Return GB/s of the payload."""
    bus = machine.bandwidth_bps / 8e9
    if p == 0:
        bus = min(_ll_limit(hosts, machine), bus / 4)
    elif p == 1:
        limit = machine.channels * _limit(_RING_LL128_CHANNEL_GB, hosts, machine)
        bus = min(bus * (0.7 if workers < 2 * hosts else 0.92), limit)
    return bus * workers / (2 * (workers - 1))


def _latency_tree(p: int, workers: int, hosts: int, machine: Machine) -> float:
    """Return microseconds: up and down the chain inside a host, and the tree across hosts."""
    inside = _HOP_US["nvlink" if machine.nvlink else "pci"]["tree"][p]
    levels = hosts.bit_length() - 1
    return _BASE_US["tree"][p] + 2 * ((workers // hosts - 1) * inside + levels * _HOP_US["net"]["tree"][p])


def _bandwidth_tree(p: int, size_bytes: int, hosts: int, machine: Machine) -> float:
    """Return GB/s of the payload."""
    bus = min(0.92 * machine.bandwidth_bps / 8e9, machine.channels * _limit(_TREE_CHANNEL_GB, hosts, machine))
    if p == 0:
        bus = min(bus / 3.8, _ll_limit(hosts, machine))
    elif p == 1:
        limit = machine.channels * _limit(_TREE_LL128_CHANNEL_GB, hosts, machine)
        bus = min(bus * (7 / 9 if hosts == 1 else 120 / 128), limit)
    doubling = max(0, (size_bytes >> 6).bit_length() - 1)
    return 0.5 * bus * (_TREE_CORRECTION[p][doubling] if doubling < len(_TREE_CORRECTION[p]) else 1.0)


def _limit(table: tuple[tuple[float, ...], ...], hosts: int, machine: Machine) -> float:
    return table[_GENERATIONS.index(machine.generation)][min(hosts, 3) - 1]


def _ll_limit(hosts: int, machine: Machine) -> float:
    """Return LL's most GB/s: by GPU in one host; in several the first row, of hosts with Intel processors."""
    return _limit(_LL_GB, hosts, machine) if hosts == 1 else _LL_GB[0][min(hosts, 3) - 1]


def _seconds(size_bytes: int, latency_us: float, bandwidth_gb: float) -> float:
    return latency_us * 1e-6 + size_bytes / (bandwidth_gb * 1e9)


def _text(estimate: Estimate) -> str:
    return f"{estimate.algorithm}/{estimate.protocol} {estimate.seconds * 1e6:.1f} us"


def _check(workers: int, hosts: int, machine: Machine) -> None:
    if hosts < 1 or workers < hosts or workers % hosts:
        raise InputError(f"workers = {workers} must fall into hosts = {hosts} of equally many")
    if machine.generation not in _GENERATIONS:
        raise InputError(f"generation = {machine.generation!r} must be one of {', '.join(_GENERATIONS)}")
    if not machine.bandwidth_bps > 0 or machine.channels < 1:
        raise InputError("NCCL's model needs a bandwidth above 0 and at least one channel")
