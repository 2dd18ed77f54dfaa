"""A training step of 16 workers on the MNIST MLP: virtual workers against real processes and against a plain loop.

Three ways to do the same step (gradients of 16 batches of 32, exchange, SGD update), dense and with top-k 1 % under
error feedback, measured one after the other in the same run:

- stacked: gradwire's virtual workers in this process, with all cores;
- processes: 16 real DistributedDataParallel processes over Gloo, one thread each; top-k as a communication hook;
- loop: one worker after the other with ordinary autograd in one thread.

Run with ``pytest tests/benchmarks -m benchmark -s``. Medians and ratios are printed and kept as ``extra_info``.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKERS, BATCH = 16, 32
SCHEMES = {"dense": "dense", "top-k 1 %": "ef(topk(density=0.01))"}
HERE = Path(__file__).resolve().parent


def stacked_step(scheme: str, mode: str):
    """Return a function that takes one step of 16 virtual workers."""
    from gradwire.compressors.drivers import StackedDriver
    from gradwire.compressors.spec import parse_scheme
    from gradwire.sim.tasks import make_task
    from gradwire.sim.training.plan import Training
    from gradwire.sim.training.train import _Trainer

    plan = Training(workers=WORKERS, batch_size=BATCH, steps=10**6, gradients=mode)
    trainer = _Trainer(make_task("mnist", {}), parse_scheme(scheme), plan, StackedDriver(WORKERS))
    steps = iter(range(10**6))
    return lambda: trainer.step(next(steps))


def median_ms(step, warm_up: int, steps: int) -> float:
    """Return the median duration of a step."""
    times = []
    for i in range(warm_up + steps):
        start = time.perf_counter()
        step()
        if i >= warm_up:
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def in_own_process(*arguments: str, threads: int) -> float:
    """Run this file as a program and return the milliseconds that it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, str(HERE / "test_training_speed.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout.split()[-1])


@pytest.mark.benchmark
@pytest.mark.parametrize("name", SCHEMES)
def test_training_step(benchmark, name):
    scheme = SCHEMES[name]
    cores = os.cpu_count() or 1
    benchmark.pedantic(stacked_step(scheme, "batched"), rounds=30, warmup_rounds=5)
    stacked_ms = in_own_process("stacked", scheme, threads=cores)
    processes_ms = in_own_process("processes", scheme, threads=1)
    loop_ms = in_own_process("loop", scheme, threads=1)
    benchmark.extra_info.update(
        stacked_ms=stacked_ms,
        processes_ms=processes_ms,
        loop_ms=loop_ms,
        processes_over_stacked=processes_ms / stacked_ms,
        loop_over_stacked=loop_ms / stacked_ms,
    )
    print(
        f"\n{name}, 16 workers, {cores} cores: stacked {stacked_ms:.1f} ms, 16 Gloo processes {processes_ms:.1f} ms "
        f"({processes_ms / stacked_ms:.1f}x), one-thread loop {loop_ms:.1f} ms ({loop_ms / stacked_ms:.2f}x)"
    )


# ------------------------------------------------------------------------------------------- run as a program


def _ddp(rank: int, folder: str, scheme: str, results) -> None:
    """Be one of 16 real data-parallel processes."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from gradwire.compressors.base import State, Turn
    from gradwire.compressors.drivers import Item
    from gradwire.compressors.processes import ProcessGroupDriver
    from gradwire.compressors.spec import parse_scheme
    from gradwire.sim.tasks import make_task
    from gradwire.sim.training.batches import Batches
    from gradwire.sim.training.plan import Training
    from gradwire.sim.training.train import new_model

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(Path(folder) / "store").as_uri(), rank=rank, world_size=WORKERS)
    task = make_task("mnist", {})
    plan = Training(workers=WORKERS, batch_size=BATCH)
    model = DistributedDataParallel(new_model(task, plan))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    split = task.splits().train
    data = Batches(len(split), WORKERS, BATCH, 0)
    driver, compressor, states = ProcessGroupDriver(), parse_scheme(scheme), dict[str, State]()
    names = {id(p): name for name, p in model.module.named_parameters()}
    steps = iter(range(10**6))
    step = 0

    def hook(_, bucket):  # type: ignore[no-untyped-def]
        items = []
        for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
            name = names[id(parameter)]
            state = states.get(name) or compressor.init(tuple(gradient.shape), 1, gradient)
            items.append(Item(gradient[None], compressor, state, Turn(0, step, name, driver.ranks, WORKERS, 0.1)))
        outcomes, _ = driver.exchange(items)
        for item, gradient, outcome in zip(items, bucket.gradients(), outcomes, strict=True):
            states[item.turn.unit] = outcome.state
            gradient.copy_(outcome.mean)
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    if scheme != "dense":
        model.register_comm_hook(None, hook)

    def take() -> None:
        nonlocal step
        step = next(steps)
        batch = split.take(data.indices(step, (rank,))[0])
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()

    result = median_ms(take, warm_up=5, steps=20)
    if rank == 0:
        results.value = result
    dist.barrier()
    dist.destroy_process_group()


def _main(what: str, scheme: str) -> float:
    import tempfile

    import torch.multiprocessing as mp

    if what == "processes":
        results = mp.get_context("spawn").Value("d", 0.0)
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(_ddp, (folder, scheme, results), nprocs=WORKERS)
        return results.value
    return median_ms(stacked_step(scheme, "looped" if what == "loop" else "batched"), warm_up=5, steps=40)


if __name__ == "__main__":
    print(_main(*sys.argv[1:]))
