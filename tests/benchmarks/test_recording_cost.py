"""What it costs to record: training steps with and without, of 8 workers, with top-k under error feedback.

A convex task's whole objective is measured at every step, that of a network at evaluations alone, together with its
curvature. Run with ``pytest tests/benchmarks/test_recording_cost.py -m benchmark -s``. Medians and their ratios are
printed and kept as ``extra_info``.
"""

import statistics
import time

import pytest

from gradwire.compressors.drivers import StackedDriver
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.tasks import make_task
from gradwire.sim.training.plan import Training
from gradwire.sim.training.train import _Trainer

WORKERS, BATCH, EVERY = 8, 32, 20
CASES = {
    "logistic": ("logistic", {}, 200),
    "mnist mlp": ("mnist", {"network": "mlp"}, 5 * EVERY),
    "mnist cnn": ("mnist", {"network": "cnn"}, 3 * EVERY),
}


def trainer(name: str, record: str) -> _Trainer:
    """Return what takes the steps."""
    task, options, _ = CASES[name]
    plan = Training(workers=WORKERS, batch_size=BATCH, steps=10**6, evaluate_every=EVERY, record=record)
    return _Trainer(make_task(task, options), parse_scheme("ef(topk(density=0.01))"), plan, StackedDriver(WORKERS))


def times_ms(name: str) -> dict[str, list[float]]:
    """Take steps with and without a record in turn, so that other load meets both; the first is left out."""
    plain, recorded = trainer(name, "none"), trainer(name, "theory")
    times: dict[str, list[float]] = {"plain": [], "recorded": [], "measured": []}
    for step in range(CASES[name][2] + 1):
        for kind, each in (("plain", plain), ("recorded" if step % EVERY else "measured", recorded)):
            start = time.perf_counter()
            assert each.step(step) is None
            if step:
                times[kind].append((time.perf_counter() - start) * 1e3)
    return times


@pytest.mark.benchmark
@pytest.mark.parametrize("name", CASES)
def test_recording_cost(benchmark, name):
    times = benchmark.pedantic(times_ms, args=(name,), rounds=1)
    plain, recorded, measured = (statistics.median(times[kind]) for kind in ("plain", "recorded", "measured"))
    ratio = (recorded * (EVERY - 1) + measured) / (plain * EVERY)
    benchmark.extra_info.update(plain_ms=plain, recorded_ms=recorded, measured_ms=measured, ratio=ratio)
    print(
        f"\n{name}: {plain:.2f} ms a step; recorded {recorded:.2f} ms ({recorded / plain:.1f}x), where the whole "
        f"objective is measured {measured:.1f} ms ({measured / plain:.0f}x); {ratio:.1f}x in all, measured every "
        f"{EVERY} steps"
    )
