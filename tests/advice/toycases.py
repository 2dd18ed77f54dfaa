"""What the tests of advice share: one layer of ten million values on eight workers, and each case's time by hand."""

from math import ceil

from gradwire.analysis.advice.cases import Case
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wirelog import Collective, MessageLog, Work
from gradwire.sim.cluster.cluster import make_cluster
from gradwire.sim.prediction import Inputs
from gradwire.sim.step.device import load_device
from gradwire.sim.step.options import StepOptions
from gradwire.sim.step.overhead import Overhead
from gradwire.sim.step.workload import Layer, Workload

ELEMENTS, WORKERS = 10_000_000, 8
FORWARD_S, BACKWARD_S, OPTIMIZER_S = 2e-3, 4e-3, 1e-3
NETWORK = {"bandwidth": "8 Gbit/s", "latency": "50 us", "launch": "20 us"}
BANDWIDTH, LATENCY_S, LAUNCH_S = 8e9, 50e-6, 20e-6
WORKLOAD = Workload((Layer("all", ("all",), ELEMENTS, FORWARD_S, BACKWARD_S),), OPTIMIZER_S, "by hand")
BLOCK = ELEMENTS // 100
"""Values that randomblock(density=0.01) sends of the layer."""
MEMORY, KERNEL_S = 900e9, 5e-6
"""Of a V100: bytes a second, and a kernel's launch."""


def dense_log(workers=WORKERS):
    exchange = Collective("all-reduce", 0, "float32", (4 * ELEMENTS,) * workers)
    return (MessageLog(0, (Work("dense(dtype=fp32)", (ELEMENTS,), 1),), (exchange,)),)


def block_log(workers=WORKERS):
    exchange = Collective("all-reduce", 0, "float32", (4 * BLOCK,) * workers)
    return (MessageLog(0, (Work("randomblock(density=0.01)", (ELEMENTS,), 1),), (exchange,)),)


def case(log, steps=1, cluster=None, overhead=None, by_step=True, **options):
    """Return a case in which nothing overlaps; ``steps`` is a number, or one for each seed."""
    scheme = log[0].work[0].scheme
    counts = (steps,) if isinstance(steps, int) else steps
    return Case(
        scheme=scheme,
        uncompressed=scheme.startswith("dense"),
        bucket_bytes=None,
        runs=tuple((log,) * count for count in counts),
        by_step=by_step,
        ready=(0,),
        workload=WORKLOAD,
        inputs=Inputs(cluster or make_cluster(NETWORK), load_device("v100"), overhead or Overhead()),
        options=StepOptions(overlap=False, **options),
    )


def ring_s(elements, bandwidth=1.0, latency=1.0, launch=1.0, workers=WORKERS):
    """Return how long a ring all-reduce of float32 values takes, with the network's numbers multiplied."""
    moves = 2 * (workers - 1)
    return launch * LAUNCH_S + moves * (
        latency * LATENCY_S + 8 * 4 * ceil(elements / workers) / (bandwidth * BANDWIDTH)
    )


def compute_s(factor=1.0):
    return factor * (FORWARD_S + BACKWARD_S + OPTIMIZER_S)


def dense_s(compute=1.0, **network):
    return compute_s(compute) + ring_s(ELEMENTS, **network)


def block_codec_s():
    """Return what the roofline says of a block: what the scheme says it touches, and a kernel a phase."""
    passes = parse_scheme("randomblock(density=0.01)").passes((ELEMENTS,))
    assert passes.encode > 0
    assert passes.decode > 0
    return (passes.encode + passes.decode) * ELEMENTS * 4 / MEMORY + 2 * KERNEL_S


def block_s(compute=1.0, cost=1.0, **network):
    return compute_s(compute) + cost * block_codec_s() + ring_s(BLOCK, **network)
