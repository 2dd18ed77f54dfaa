"""How fast timing is: points of a sweep, whole runs, and transfers in the event engine."""

import numpy as np
import pytest
import simpy

from gradwire.compressors.wirelog import Collective, MessageLog, Work
from gradwire.sim.cluster import load_cluster
from gradwire.sim.network import Network, schedule
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
    """Ten buckets of a few parameters each; 16 workers gather, or reduce where the scheme is dense."""
    works = (Work(scheme, (10**5,), 2), Work(scheme, (64,), 3), Work(scheme, (128, 64), 3))
    operation = "all-reduce" if scheme == "dense" else "all-gather"
    exchange = Collective(operation, 0, "bytes", (4 * 10**5 + extra,) * 16)
    return tuple(MessageLog(m, works, (exchange,)) for m in range(10))


def test_points_of_a_sweep(benchmark):
    """At least 500,000 points a second for a step of ten buckets."""
    points = 20_000
    plan = plan_steps([step()], READY, WORKLOAD, Overhead(), DEVICE, CLUSTER)
    bandwidth, factor = np.geomspace(1e9, 1e11, points), np.linspace(0, 2, points)
    benchmark(plan.run_s, bandwidth, CLUSTER.latency, CLUSTER.launch, factor)
    benchmark.extra_info["points_per_s"] = points / benchmark.stats["median"]
    assert benchmark.extra_info["points_per_s"] > 500_000


@pytest.mark.parametrize("equal", [True, False], ids=["equal steps", "different steps"])
def test_five_runs_of_two_thousand_steps(benchmark, equal):
    """Well under a second; the logs are separate objects, as if read from a file."""
    runs = [
        [step(scheme, 0 if equal else t) for t in range(2000)]
        for scheme in ("dense", "topk", "ef(topk)", "randomk", "qsgd")
    ]
    benchmark(lambda: [timeline(run, READY, WORKLOAD, CLUSTER, Overhead(), DEVICE) for run in runs])
    assert benchmark.stats["median"] < 1


@pytest.mark.parametrize("unequal", [0, 1], ids=["equal workers", "different workers"])
def test_a_step_of_ten_thousand_workers(benchmark, unequal):
    """At most 10 ms, in ten buckets."""
    log = tuple(
        MessageLog(m, (Work("topk", (10**6,), 1),), (Collective("all-gather", 0, "bytes", sizes(m, unequal)),))
        for m in range(10)
    )
    benchmark(timeline, [log], READY, WORKLOAD, CLUSTER, Overhead(), DEVICE)
    assert benchmark.stats["median"] < 0.01


def sizes(message, unequal):
    return tuple(65_000 + message + unequal * worker for worker in range(10_000))


def test_a_prediction_of_ten_thousand_workers(benchmark):
    """Under a second in all, once torch is warm."""
    job = make_job({"model": "resnet50", "scheme": "ef(topk)", "training": {"workers": 10_000}})
    benchmark(predict, job)
    assert benchmark.stats["median"] < 1


def test_a_ring_of_64_workers_in_the_event_engine(benchmark):
    """8,064 transfers."""
    transfers = schedule("all-reduce", (10**7,) * 64)

    def play():
        env = simpy.Environment()
        Network(env, CLUSTER, 64).play(transfers, CLUSTER.terms(10**7))
        env.run()

    benchmark(play)
    benchmark.extra_info["transfers_per_s"] = len(transfers) / benchmark.stats["median"]
