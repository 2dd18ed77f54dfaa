"""The hook for DistributedDataParallel in four real processes: it equals the simulation, and survives what jobs do."""

import math
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gradwire.compressors.base import NonFiniteError
from gradwire.compressors.drivers import StackedDriver
from gradwire.sim.training.train import _Trainer

pytestmark = pytest.mark.slow

SECONDS = 300
"""After which a group counts as hanging."""
N = 4
FIRST = (
    "equal straight disagreements mistakes scaled skipping overflowing remembering_too_much half accumulated rates "
    "buckets unused static broken mistaken_alone failing"
)
SECOND = "resumed refused"


@pytest.fixture(scope="module")
def jobs() -> ModuleType:
    """The module beside this file that the tests share with the processes that they start."""
    sys.path.insert(0, str(Path(__file__).parent))  # where the script's own imports are found when it is a process
    spec = spec_from_file_location("ddp_jobs", Path(__file__).with_name("ddp_jobs.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["ddp_jobs"] = module
    spec.loader.exec_module(module)
    return module


def run(folder: Path, words: list[str]) -> list[dict[str, Any]]:
    """Run jobs in a group of processes to its end; return what each process found."""
    script = [sys.executable, "-W", "error", str(Path(__file__).with_name("ddp_jobs.py"))]
    started = []
    for rank in range(N):
        with (folder / f"errors{rank}").open("w") as errors:
            arguments = [str(rank), str(N), str(folder / f"store-{words[0]}"), str(folder), *words]
            started.append(subprocess.Popen([*script, *arguments], stdout=errors, stderr=errors))
    try:
        deadline = time.monotonic() + SECONDS
        codes = [process.wait(max(0.0, deadline - time.monotonic())) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    said = "\n".join((folder / f"errors{rank}").read_text()[-3000:] for rank in range(N))
    assert codes == [0] * N, said
    return [torch.load(folder / f"result{rank}-{words[0]}", weights_only=False) for rank in range(N)]


Found = Callable[[str], list[Any]]


@pytest.fixture(scope="module")
def found(jobs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each rank's job left; all jobs run in one group, but those that need new processes."""
    assert jobs.ddp_task.cases(rounded=False)  # fails here rather than in every process
    folder = tmp_path_factory.mktemp("ddp")
    ranks = [a | b for a, b in zip(run(folder, FIRST.split()), run(folder, SECOND.split()), strict=True)]
    return lambda job: [rank[job] for rank in ranks]


def largest(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Return the largest difference between two sets of parameters."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


# ------------------------------------------------------------------------------------------------- the simulation


@pytest.fixture(scope="module")
def simulated(jobs: ModuleType) -> list[dict[str, Any]]:
    """What the simulator makes of the same trainings, with all workers stacked in one process."""
    results = []
    for task, scheme, plan in jobs.ddp_task.trainings():
        trainer = _Trainer(task, scheme, plan, StackedDriver(N))
        for step in range(plan.steps):
            assert trainer.step(step) is None
        parameters = {name: p.detach() for name, p in trainer._model.named_parameters()}
        results.append({"parameters": parameters, "losses": trainer._losses, "logs": trainer._logs})
    return results


@pytest.mark.parametrize("rounded", [False, True])
def test_every_scheme_trains_as_in_the_simulation(rounded, jobs, found, simulated):
    """In float64 sums differ by their order alone, about 1e-16 a step; rounded ones are added in rank order."""
    texts = jobs.ddp_task.cases(rounded)
    assert texts
    for rank in found("equal"):
        for i, text in enumerate(texts):
            own, expected = (net(run[rounded]["parameters"], i) for run in (rank, simulated))
            assert largest(own, expected) <= 1e-9, text


def net(parameters: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """Return the parameters of one of the networks that are trained together."""
    found = {name: p for name, p in parameters.items() if name.startswith(f"nets.{number}.")}
    assert len(found) == 6
    return found


def test_the_networks_that_are_compared_have_learnt(jobs, simulated):
    assert {
        name: tuple(p.shape) for name, p in jobs.ddp_task.Points().model().named_parameters()
    } == jobs.ddp_task.SHAPES
    start = dict(jobs.new_model(jobs.ddp_task.Together(), jobs.ddp_task.plan_of("layer")).named_parameters())
    numbers: dict[str, list[float]] = {}
    for name, end in simulated[0]["parameters"].items():
        numbers.setdefault(name.split(".")[1], []).append(float((end - start[name].detach()).abs().max()))
    assert min(map(max, numbers.values())) > 1e-4  # of single layers a scheme may send nothing
    assert len(numbers) == len(jobs.ddp_task.cases(rounded=False))


def test_schemes_train_as_in_the_simulation_on_the_whole_model_too(jobs, found, simulated):
    for rank in found("equal"):
        for case, (own, expected) in enumerate(zip(rank, simulated, strict=True)):
            if jobs.ddp_task.trainings()[case][2].unit == "model":
                assert largest(own["parameters"], expected["parameters"]) <= 1e-9, case


def test_1_bit_adam_trains_as_in_the_simulation_with_its_optimizer(jobs, found, simulated):
    """Before its freeze and after it, on layers and on the whole model."""
    plans = [plan for _, _, plan in jobs.ddp_task.trainings()]
    numbers = [i for i, plan in enumerate(plans) if plan.optimizer == "OneBitAdam"]
    assert {plans[i].unit for i in numbers} == {"layer", "model"}
    for rank in found("equal"):
        for i in numbers:
            assert largest(rank[i]["parameters"], simulated[i]["parameters"]) <= 1e-9


def test_in_float32_they_train_as_in_the_simulation_to_rounding(jobs, found, simulated):
    """Twenty steps of parameters of about 1, each with errors of some 1e-7, times the growth of differences."""
    for rank in found("equal"):
        for case, (own, expected) in enumerate(zip(rank, simulated, strict=True)):
            if jobs.ddp_task.trainings()[case][2].dtype == "float32":
                assert largest(own["parameters"], expected["parameters"]) <= 1e-5, case


def test_losses_are_those_of_the_simulation(found, simulated):
    ranks = found("equal")
    for case, expected in enumerate(simulated):
        losses = np.mean([rank[case]["losses"] for rank in ranks], axis=0)
        np.testing.assert_allclose(losses, expected["losses"], rtol=1e-6)


def test_the_wire_log_has_the_simulations_bytes_and_the_flags(found, simulated):
    """Buckets are cut in other places, which moves bytes between messages; each has a flag of 4 bytes."""
    for rank in found("equal"):
        for own, expected in zip(rank, simulated, strict=True):
            assert len(own["logs"]) == len(expected["logs"])
            for step, (mine, theirs) in enumerate(zip(own["logs"], expected["logs"], strict=True)):
                assert [log.message for log in mine] == list(range(len(mine)))
                flags = [log.collectives[0] for log in mine]
                assert {(flag.operation, flag.sent_bytes) for flag in flags} == {("all-gather", (4,) * N)}
                assert traffic(mine) - 4 * len(mine) == traffic(theirs), step


def traffic(logs: Any) -> int:
    return sum(collective.sent_bytes[0] for log in logs for collective in log.collectives)


def test_there_are_several_buckets_after_the_first_step(found):
    logs = found("equal")[0][0]["logs"]
    assert len(logs[0]) == 1
    assert all(len(log) > 2 for log in logs[1:])


def test_a_static_graph_and_gradients_that_are_views_change_nothing(found):
    """The same scheme, alone: the straight run's first case."""
    for rank, (straight, *_) in zip(found("static"), found("straight"), strict=True):
        assert largest(rank, straight[0]) == 0


# ------------------------------------------------------------------------------------------------------ checkpoints


def test_a_resumed_training_equals_one_without_a_break(found):
    """To the last bit, in new processes: these schemes are gathered, so no order of additions matters."""
    for straight, resumed in zip(found("straight"), found("resumed"), strict=True):
        for (parameters, memories), (again, memories_again) in zip(straight, resumed, strict=True):
            assert largest(parameters, again) == 0
            assert len(memories) == len(memories_again)
            for one, other in zip(memories, memories_again, strict=True):
                same(one, other)


def same(one: Any, other: Any) -> None:
    """Two nested states are equal to the last bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_a_checkpoint_of_something_else_is_refused(found):
    for rank, told in enumerate(found("refused")):
        starts, ends = zip(*(line.split(" its ") for line in told), strict=True)
        assert set(starts) == {"HookError: ddp_hook: this checkpoint is not of this hook:"}
        assert ends == (
            "scheme is 'ef(topk(density=0.1))', here 'ef(topk(density=0.2))'",
            "unit is 'layer', here 'model'",
            "seed is 3, here 4",
            f"worker is {(rank + 1) % N}, here {rank}",
        )


# ------------------------------------------------------------------------------------------------------- refusals


def test_workers_that_disagree_are_told_so_on_every_rank_before_the_first_step(found):
    for rank, (scheme, seed, unit) in enumerate(found("disagreements")):
        here = "dense(dtype=native)" if rank == 0 else "ef(topk(density=0.25))"
        start, end = "HookError: ddp_hook: ", ": all workers must pass the same"
        assert scheme == f"{start}scheme of worker 1, 2, 3 differs from worker 0's (here it is {here}){end}"
        assert seed == f"{start}seed of worker 2 differs from worker 0's (here it is {int(rank == 2)}){end}"
        own = "model" if rank in (1, 3) else "layer"
        assert unit == f"{start}unit of worker 1, 3 differs from worker 0's (here it is {own}){end}"


def test_mistakes_are_told_in_one_line(found):
    for told in found("mistakes"):
        assert told["model"] == "HookError: ddp_hook: model must be a DistributedDataParallel, not a Linear"
        assert told["unit"].endswith("unit = 'row' is not allowed: it must be one of layer, bucket, model")
        assert told["on_nonfinite"].endswith("'ignore' is not allowed: it must be one of raise, skip, pass")
        assert told["scheme"].startswith("SchemeError: topk: density = 2 is out of range")
        assert told["group"].endswith("parameter weight is in no group of the optimizer, so it has no rate")


def test_regression_a_mistake_on_one_rank_does_not_hang_the_others(found):
    for rank, (scheme, unit, optimizer, scaler, rates, right) in enumerate(found("mistaken_alone")):
        if rank == 2:
            assert scheme.startswith("SchemeError: topk: density = 2 is out of range")
            assert unit.startswith("HookError: ddp_hook: unit = 'row' is not allowed")
        else:
            cause = "HookError: ddp_hook: worker 2 cannot make its hook, so nobody can; its own error says why"
            assert (scheme, unit) == (cause, cause)
        end = ": all workers must pass the same"
        for key, told, here in (
            ("optimizer", optimizer, f" (here it is {'Adam' if rank == 2 else 'SGD'})"),
            ("scaler", scaler, f" (here it is {'one' if rank == 2 else 'none'})"),
            ("learning rates", rates, ""),
        ):
            assert told == f"HookError: ddp_hook: {key} of worker 2 differs from worker 0's{here}{end}"
        assert right == "nothing"


# ------------------------------------------------------------------------------------------- values that are not finite


def test_a_loss_scaler_skips_a_step_on_all_ranks(jobs, found):
    """Buckets that were exchanged before the infinity came are undone too."""
    for rank in found("scaled"):
        assert all(bool(mean.isnan().all()) for mean in rank["means"])
        same(rank["before"], rank["after"])
        assert rank["scales"][jobs.BAD] == rank["scales"][jobs.BAD - 1] / 2
        assert rank["skipped"] == 1
        assert rank["step"] == 11


def test_regression_a_changing_loss_scale_does_not_distort_the_memory(found):
    """Scales are powers of two, so the run with them and a skipped step equals one without either, bit for bit."""
    for rank in found("scaled"):
        assert len(set(rank["scales"])) > 2
        assert largest(rank["end"], rank["plain"]) == 0


def test_skip_gives_zeros_and_leaves_the_memory(found):
    for rank in found("skipping"):
        said, before, after, means, skipped = rank["skip"]
        assert said == "nothing"
        same(before, after)
        assert not any(bool(mean.any()) for mean in means)
        assert skipped == 1
        assert all(bool(p.isfinite().all()) for p in rank["skip", "after"].values())


def test_raise_raises_the_same_on_all_ranks_and_the_next_step_works(jobs, found):
    for rank in found("skipping"):
        said, _, _, means, _ = rank["raise"]
        assert said == (
            f"NonFiniteError: step {jobs.BAD}: the gradient of 0.weight holds an infinity or a NaN on worker 1"
        )
        assert all(bool(mean.isnan().all()) for mean in means)
        assert all(bool(p.isfinite().all()) for p in rank["raise", "after"].values())


def test_a_mean_that_overflows_is_seen_too(found):
    for rank in found("overflowing"):
        said, means, skipped = rank["skip"]
        assert (said, skipped) == ("nothing", 1)
        assert not any(bool(mean.any()) for mean in means)
        assert rank["raise"][0] == (
            "NonFiniteError: step 1: the mean of 4.weight overflows, though every gradient is finite"
        )


def test_regression_a_memory_that_overflows_on_one_rank_does_not_hang_the_others(found):
    for rank in found("remembering_too_much"):
        cause = "ef(topk(density=0.25)) makes an infinity or a NaN of the gradient of 0.bias"
        assert rank == ["nothing", f"NonFiniteError: step 1: {cause} on worker 1"]


def test_regression_a_failure_to_encode_on_one_rank_does_not_hang_the_others(found):
    for number, rank in enumerate(found("failing")):
        told = "WorkerError: step 1: worker 2 failed to encode; its own error says why"
        assert rank == ["nothing", "RuntimeError: no memory is left" if number == 2 else told, "nothing"]


def test_a_failure_of_the_exchange_reaches_the_backward_pass(found):
    for rank in found("broken"):
        assert rank == ("RuntimeError: the cable is cut", "nothing")


# --------------------------------------------------------------------------------- against the definition, in numpy


def topk_ef(
    gradients: list[np.ndarray], residuals: list[np.ndarray], ratio: np.ndarray | float, density: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the mean and the new residuals of one step of top-k with error feedback, by its definition."""
    mean, rest = np.zeros_like(gradients[0]), []
    for gradient, residual in zip(gradients, residuals, strict=True):
        p = gradient + residual * ratio
        kept = np.argsort(-np.abs(p), kind="stable")[: int(np.ceil(density * p.size))]
        sent = np.zeros_like(p)
        sent[kept] = p[kept]
        mean += sent
        rest.append(p - sent)
    return mean / len(gradients), rest


def check_topk_ef(steps: list[Any], tolerance: float, low: torch.dtype | None = None) -> list[list[np.ndarray]]:
    """Compare exchanged means, layer by layer at a constant rate, with the definition; return the residuals."""
    residuals = [[np.zeros(g[0].numel())] * N for g in steps[0][0]]
    for gradients, means in steps:
        for i, (gradient, mean) in enumerate(zip(gradients, means, strict=True)):
            rows = [row.double().numpy().reshape(-1) for row in gradient]
            expected, residuals[i] = topk_ef(rows, residuals[i], 1.0, 0.25)
            limit = tolerance * max(np.abs(expected).max(), 1e-30)
            assert mean.dtype == (low or torch.float64)
            np.testing.assert_allclose(mean.double().numpy().reshape(-1), expected, rtol=0, atol=limit)
    return residuals


def by_name(memories: list[Any]) -> dict[str, Any]:
    return {"+".join(entry["parameters"]): entry["state"] for entry in memories}


@pytest.mark.parametrize(("dtype", "ulp"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_half_precision_gradients_have_memories_in_float32(dtype, ulp, jobs, found):
    """The mean has one rounding to the gradient's dtype; the residual has those of float32 alone."""
    for r, rank in enumerate(found("half")):
        steps, memories = rank[dtype]
        residuals = check_topk_ef(steps, ulp, dtype)
        for name, expected in zip(jobs.ddp_task.SHAPES, residuals, strict=True):
            residual = by_name(memories)[name]["elements"]["residual"]
            assert residual.dtype == torch.float32
            np.testing.assert_allclose(residual[0].numpy(), expected[r], rtol=1e-6, atol=1e-7)


def test_gradients_that_were_accumulated_are_exchanged_once(found):
    for rank in found("accumulated"):
        check_topk_ef(rank["steps"], 1e-12)
        assert rank["count"] == 3


@pytest.mark.parametrize("unit", ["layer", "model"])
def test_rates_are_those_of_the_parameters_groups(unit, jobs, found):
    """Where a parameter's rate is zero, nothing of it is sent and its residual and rate stay."""
    for r, rank in enumerate(found("rates")):
        steps, memories = rank[unit]
        layers = [0, 0, 1, 1, 2, 2]
        sizes = [mean.numel() for mean in steps[0][1]]
        # Of layers, each is a unit; the whole model lists its parameters in reverse order.
        units = [[i] for i in range(6)] if unit == "layer" else [list(reversed(range(6)))]
        residuals = [[np.zeros(sum(sizes[i] for i in parts))] * N for parts in units]
        last = [np.ones(len(residual[0])) for residual in residuals]
        for step, (gradients, means, _) in enumerate(steps):
            now = jobs.rates_at(step)
            for u, parts in enumerate(units):
                lr = np.concatenate([np.full(sizes[i], now[layers[i]]) for i in parts])
                moving = lr != 0
                rows = [np.concatenate([gradients[i][w].reshape(-1).numpy() for i in parts]) for w in range(N)]
                rows = [np.where(moving, row, 0) for row in rows]
                waiting = [np.where(moving, 0, residual) for residual in residuals[u]]
                ratio = np.where(moving, last[u] / np.where(moving, lr, 1), 0)
                mean, rest = topk_ef(rows, residuals[u], ratio, 0.25)
                residuals[u] = [a + b for a, b in zip(rest, waiting, strict=True)] if unit == "model" else rest
                if unit == "layer" and not moving.any():
                    mean, residuals[u] = np.zeros_like(mean), waiting
                last[u] = np.where(moving, lr, last[u])
                own = np.concatenate([means[i].reshape(-1).numpy() for i in parts])
                np.testing.assert_allclose(own, mean, rtol=0, atol=1e-12)
        if unit == "model":
            (memory,) = memories
            np.testing.assert_allclose(memory["state"]["elements"]["residual"][0].numpy(), residuals[0][r], atol=1e-12)


@pytest.mark.parametrize("job", ["rates", "buckets"])
def test_nothing_is_lost_when_buckets_change(job, jobs, found):
    """What all steps gave and what is still remembered add up to all gradients, each weighed by its rate."""
    ranks = [rank["bucket"] if job == "rates" else (rank["steps"], rank["memories"]) for rank in found(job)]
    for i, name in enumerate(jobs.ddp_task.SHAPES):
        layer = i // 2
        rates = [jobs.rates_at(s)[layer] if job == "rates" else 0.05 for s in range(len(ranks[0][0]))]
        steps = ranks[0][0]
        came = sum(rate * means[i] for rate, (_, means, _) in zip(rates, steps, strict=True))
        asked = sum(rate * gradients[i].mean(0) for rate, (gradients, _, _) in zip(rates, steps, strict=True))
        waits = torch.stack([remembered(memories, name, jobs.ddp_task.SHAPES) for _, memories in ranks]).mean(0)
        torch.testing.assert_close(came + waits, asked, rtol=0, atol=1e-12)
        assert waits.abs().max() > 1e-4


def remembered(memories: list[Any], name: str, shapes: dict[str, tuple[int, ...]]) -> Tensor:
    """Return a parameter's residual times the rate in which it is measured, from the unit that holds it."""
    (entry,) = [entry for entry in memories if name in entry["parameters"]]
    rate = entry["state"]["shared"]["lr"]
    residual = entry["state"]["elements"]["residual"][0] * (rate.reshape(-1) if isinstance(rate, Tensor) else rate)
    pieces = torch.split(residual, [math.prod(shapes[other]) for other in entry["parameters"]])
    return pieces[entry["parameters"].index(name)].view(shapes[name])


def test_buckets_become_units_of_their_own(found):
    for rank in found("buckets"):
        units = [[tuple(unit) for unit in units] for _, _, units in rank["steps"]]
        assert len(units[0]) == 1
        assert len(units[1]) > 1
        assert sorted(name for unit in units[1] for name in unit) == sorted(units[0][0])
        assert units[1] == units[2] == units[3]


def test_parameters_that_not_everybody_uses(found):
    """Worker r's inputs are two rows of r + 1, so its own gradient of every weight is 2 (r + 1), and of a bias 2."""
    for dense, sparse in found("unused"):
        used, own = 2 * (1 + 2 + 3 + 4) / N, 2 * 1 / N
        assert torch.equal(dense["used.weight"], torch.full((2, 3), used))
        assert torch.equal(dense["own.weight"], torch.full((2, 3), own))
        assert torch.equal(dense["own.bias"], torch.full((2,), 2 / N))
        for name in ("idle.weight", "idle.bias"):
            assert dense[name] is None or not dense[name].any()
            assert sparse[name] is None or not sparse[name].any()
        assert torch.equal(sparse["own.weight"].reshape(-1), torch.tensor([own] * 3 + [0.0] * 3))


def test_an_error_about_values_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(NonFiniteError("step 1: worker 2", (2,))))
    assert (str(error), error.ranks) == ("step 1: worker 2", (2,))


def test_the_hook_is_imported_on_demand():
    code = "import sys, gradwire.compressors as c; assert 'torch' not in sys.modules; print(c.ddp_hook.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "gradwire.compressors.ddp"
