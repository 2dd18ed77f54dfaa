"""How fast timing is: points of a sweep, whole runs, ten thousand workers, and transfers in the flow engine.

Each test prints what it reached beside what the docs' page on scale states. Compiling the engine, once for an
installation, is not part of any figure.
"""

import numpy as np
import pytest
import simpy

from gradwire.compressors.wirelog import Collective, MessageLog, Work
from gradwire.sim.cluster import load_cluster
from gradwire.sim.cluster.cluster import make_cluster
from gradwire.sim.network import Network, schedule
from gradwire.sim.network.schedule import Schedule
from gradwire.sim.network.traffic import Traffic
from gradwire.sim.prediction import make_job, predict
from gradwire.sim.step.device import load_device
from gradwire.sim.step.overhead import Overhead
from gradwire.sim.step.timeline import plan_steps, timeline
from gradwire.sim.step.workload import Layer, Workload

pytestmark = pytest.mark.benchmark

WORKLOAD = Workload(tuple(Layer(f"{i}", (f"{i}",), 10**5, 1e-3, 2e-3) for i in range(20)), 1e-3, "given")
READY = tuple(range(1, 20, 2))
CLUSTER, DEVICE = load_cluster("ethernet-10g"), load_device("v100")


def step(scheme="ef(topk)", extra=0):
    """Ten buckets of a few parameters each; workers gather, or reduce where the scheme is dense."""
    works = (Work(scheme, (10**5,), 2), Work(scheme, (64,), 3), Work(scheme, (128, 64), 3))
    operation = "all-reduce" if scheme == "dense" else "all-gather"
    exchange = Collective(operation, 0, "bytes", (4 * 10**5 + extra,) * 16)
    return tuple(MessageLog(m, works, (exchange,)) for m in range(10))


def test_points_of_a_sweep(benchmark):
    """Clusters and compression costs for a step of ten buckets."""
    points = 20_000
    plan = plan_steps([step()], READY, WORKLOAD, Overhead(), DEVICE, CLUSTER)
    bandwidth, factor = np.geomspace(1e9, 1e11, points), np.linspace(0, 2, points)
    benchmark(plan.run_s, bandwidth, CLUSTER.latency, CLUSTER.launch, factor)
    report(benchmark, "points/s", points)


@pytest.mark.parametrize("equal", [True, False], ids=["equal steps", "different steps"])
def test_five_runs_of_two_thousand_steps(benchmark, equal):
    """The logs are separate objects, as if read from a file."""
    runs = [
        [step(scheme, 0 if equal else t) for t in range(2000)]
        for scheme in ("dense", "topk", "ef(topk)", "randomk", "qsgd")
    ]
    benchmark(lambda: [timeline(run, READY, WORKLOAD, CLUSTER, Overhead(), DEVICE) for run in runs])
    report(benchmark, "steps/s", 10_000)


@pytest.mark.parametrize("unequal", [0, 1], ids=["equal workers", "different workers"])
def test_a_step_of_ten_thousand_workers(benchmark, unequal):
    """Ten buckets, in closed form."""
    works = (Work("topk", (10**6,), 1),)
    sizes = [tuple(65_000 + message + unequal * worker for worker in range(10_000)) for message in range(10)]
    log = tuple(MessageLog(m, works, (Collective("all-gather", 0, "bytes", sizes[m]),)) for m in range(10))
    benchmark(timeline, [log], READY, WORKLOAD, CLUSTER, Overhead(), DEVICE)
    report(benchmark, "steps/s", 1)


def test_a_prediction_of_ten_thousand_workers(benchmark):
    """All that `gradwire time` does for a step but the table."""
    job = make_job({"model": "resnet50", "scheme": "ef(topk)", "training": {"workers": 10_000}})
    benchmark(predict, job)
    report(benchmark, "predictions/s", 1)


def test_a_ring_of_64_workers_on_unequal_hosts(benchmark):
    """8,064 transfers, from the collective's name to its duration."""
    hosts = [{"which": i, "bandwidth": f"{10 + i} Gbit/s", "latency": f"{20 + i} us"} for i in range(64)]
    cluster = make_cluster(
        CLUSTER.model_dump(mode="json", include={"bandwidth", "latency", "launch"}) | {"host": hosts}
    )

    def play():
        env = simpy.Environment()
        transfers = schedule("all-reduce", (10**7,) * 64)
        env.run(until=Network(env, cluster, 64).play(transfers, cluster.terms(10**7)))

    benchmark(play)
    report(benchmark, "transfers/s", 8064)


@pytest.mark.parametrize("concurrent", [16, 64, 256, 512])
def test_transfers_between_random_pairs(benchmark, concurrent):
    """64 hosts, equal links, random sizes: whenever a transfer ends, the next one begins.

    SimGrid's C++ engine was measured at 190,000 (16 or 64 at a time), 147,000 (256) and 6,800 (512) transfers a second.
    """
    draws, count = np.random.default_rng(1), 20_000
    src = draws.integers(0, 64, count)
    dst = (src + draws.integers(1, 64, count)) % 64
    first = np.concatenate([np.zeros(concurrent, np.int64), np.arange(count - concurrent + 1)])
    sizes, after = draws.integers(10**5, 10**7, count), np.arange(count - concurrent)
    transfers = Schedule(src, dst, sizes, first, after, np.zeros(count, np.bool_))
    topology = CLUSTER.topology(64)

    def play():
        road = Traffic(topology)
        road.add(transfers, 0.0, CLUSTER.terms(0))
        road.advance(np.inf)

    benchmark(play)
    report(benchmark, "transfers/s", count)


def report(benchmark, unit, count):
    """Print the median rate."""
    rate = count / benchmark.stats["median"]
    benchmark.extra_info[unit] = rate
    print(f"\n{benchmark.name}: {rate:,.0f} {unit}, {1e3 * benchmark.stats['median']:.3g} ms")
