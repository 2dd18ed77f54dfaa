"""What the tests of the DistributedDataParallel hook do in real processes, and the task that the simulator trains too.

As a script it is one process of a group: ``python ddp_jobs.py RANK PROCESSES STORE FOLDER JOB...``. It writes what came
out of each job to the file ``result{RANK}`` in FOLDER.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ddp_task
import torch
import torch.distributed as dist
from ddp_task import PLAN, STEPS, WORKERS, EachItsOwn, Points
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradwire.compressors import ddp_hook
from gradwire.compressors.base import Scheme, Shape, State, Turn
from gradwire.compressors.ddp import DDPHook
from gradwire.compressors.partition import Granularity
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wirelog import StepLog
from gradwire.sim.tasks.base import Task
from gradwire.sim.training.batches import Batches
from gradwire.sim.training.optimizers import make_optimizer, make_schedule
from gradwire.sim.training.plan import Training
from gradwire.sim.training.train import new_model

# ------------------------------------------------------------------------------------------------------ one training


class Job:
    """A model in DistributedDataParallel with its hook, on the batches of the simulator's worker."""

    def __init__(
        self,
        scheme: str | Scheme,
        plan: Training = PLAN,
        *,
        task: Task | None = None,
        dtype: torch.dtype | None = None,
        groups: Callable[[nn.Module], Any] = nn.Module.parameters,
        ddp: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.task, self.plan, self.rank = task or Points(), plan, dist.get_rank()
        self.dtype = dtype or getattr(torch, plan.dtype)
        self.model = new_model(self.task, plan).to(self.dtype)
        quarter = sum(p.nbytes for p in self.model.parameters()) / 4 / 2**20  # so that there are several buckets
        self.ddp = DistributedDataParallel(self.model, bucket_cap_mb=quarter, **(ddp or {}))
        self.optimizer = make_optimizer(plan, groups(self.model))
        self.schedule = make_schedule(plan, self.optimizer)
        self.hook: DDPHook = ddp_hook(scheme, self.ddp, self.optimizer, seed=plan.seed, **options)
        self.ddp.register_comm_hook(None, self.hook)
        self.data = self.task.splits().train.to(dtype=self.dtype)
        self.batches = Batches(len(self.data), plan.workers, plan.batch_size, plan.seed)

    def loss(self, step: int, model: nn.Module | None = None) -> Tensor:
        batch = self.data.take(self.batches.indices(step, (self.rank,))[0])
        return self.task.loss(model or self.ddp, batch)

    def gradients(self, step: int, factor: float = 1.0) -> list[Tensor]:
        """Return everybody's own gradients, each [N, ...], past DistributedDataParallel."""
        own = torch.autograd.grad(self.loss(step, self.model) * factor, list(self.model.parameters()))
        return [everyones(gradient) for gradient in own]

    def backward(self, step: int) -> float:
        self.optimizer.zero_grad()
        loss = self.loss(step)
        loss.backward()
        return float(loss.detach())

    def update(self) -> None:
        self.optimizer.step()
        self.schedule.step()

    def run(self, steps: range) -> tuple[list[float], list[StepLog]]:
        losses, logs = [], []
        for step in steps:
            losses.append(self.backward(step))
            logs.append(self.hook.log)
            self.update()
        return losses, logs

    def parameters(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def means(self) -> list[Tensor]:
        return [p.grad.clone() for p in self.model.parameters() if p.grad is not None]

    def memories(self) -> list[Any]:
        return list(self.hook.state_dict()["states"])


def everyones(own: Tensor) -> Tensor:
    rows = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, own.contiguous())
    return torch.stack(rows)


# ---------------------------------------------------------------------------------------------------------- the jobs


def equal() -> list[dict[str, Any]]:
    """Train under every scheme."""
    found = []
    for task, scheme, plan in ddp_task.trainings():
        exact = scheme == EachItsOwn(rounded=True)
        job = Job(scheme, plan, task=task, unit=plan.unit, exact=exact)
        losses, logs = job.run(range(STEPS))
        found.append({"parameters": job.parameters(), "losses": losses, "logs": logs})
        job.hook.close()
    return found


RESUMED: tuple[tuple[str, Granularity], ...] = (
    ("ef(topk(density=0.1))", "layer"),
    ("ef(randomk(density=0.2))", "model"),
    ("qsgd(bits=4)", "layer"),
)


def straight(folder: Path) -> list[Any]:
    """Train without a break, and leave checkpoints half-way."""
    found = []
    for i, (text, unit) in enumerate(RESUMED):
        job = Job(text, unit=unit)
        job.run(range(STEPS // 2))
        parts = {part: getattr(job, part).state_dict() for part in ("model", "optimizer", "schedule", "hook")}
        torch.save(parts, folder / f"checkpoint{i}-{job.rank}")
        job.run(range(STEPS // 2, STEPS))
        found.append((job.parameters(), job.memories()))
    return found


def resumed(folder: Path) -> list[Any]:
    """Train the second half from the checkpoints."""
    found = []
    for i, (text, unit) in enumerate(RESUMED):
        job = Job(text, unit=unit)
        parts = torch.load(folder / f"checkpoint{i}-{job.rank}")  # with weights_only, torch's default
        for part, state in parts.items():
            getattr(job, part).load_state_dict(state)
        job.run(range(STEPS // 2, STEPS))
        found.append((job.parameters(), job.memories()))
    return found


def refused_checkpoints(folder: Path) -> list[str]:
    saved = torch.load(folder / f"checkpoint0-{dist.get_rank()}")["hook"]
    other = torch.load(folder / f"checkpoint0-{(dist.get_rank() + 1) % WORKERS}")["hook"]
    hooks = {
        "scheme": (Job("ef(topk(density=0.2))").hook, saved),
        "unit": (Job("ef(topk(density=0.1))", unit="model").hook, saved),
        "seed": (Job("ef(topk(density=0.1))", PLAN.model_copy(update={"seed": 4})).hook, saved),
        "worker": (Job("ef(topk(density=0.1))").hook, other),
    }
    return [said(hook.load_state_dict, data) for hook, data in hooks.values()]


def said(act: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Return the kind and the words of what is raised."""
    try:
        act(*arguments, **options)
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return "nothing"


def disagreements() -> list[str]:
    """Make hooks to which not all workers give the same."""
    rank = dist.get_rank()
    given = [
        ("dense" if rank == 0 else "ef(topk(density=0.25))", {}),
        ("dense", {"seed": 1 if rank == 2 else 0}),
        ("dense", {"unit": "model" if rank in (1, 3) else "layer"}),
    ]
    found = []
    for text, options in given:
        model = DistributedDataParallel(nn.Linear(3, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        found.append(said(ddp_hook, text, model, optimizer, **options))
    return found


def mistaken_alone() -> list[str]:
    """Make hooks of which worker 2 alone makes a mistake, or has something else, and one that is right."""
    odd = dist.get_rank() == 2
    found = []
    for text, options, lr, kind in (
        ("topk(density=2)" if odd else "dense", {}, 0.1, torch.optim.SGD),
        ("dense", {"unit": "row" if odd else "layer"}, 0.1, torch.optim.SGD),
        ("dense", {}, 0.1, torch.optim.Adam if odd else torch.optim.SGD),
        ("dense", {"scaler": torch.amp.GradScaler(device="cpu") if odd else None}, 0.1, torch.optim.SGD),
        ("dense", {}, 0.2 if odd else 0.1, torch.optim.SGD),
        ("dense", {}, 0.1, torch.optim.SGD),
    ):
        model = DistributedDataParallel(nn.Linear(3, 2))
        found.append(said(ddp_hook, text, model, kind(model.parameters(), lr=lr), **options))
    return found


@dataclass(frozen=True)
class FailsOnWorker2(EachItsOwn):
    """Cannot encode at worker 2's step 1."""

    def for_unit(self, name: str, shape: Shape) -> Scheme:
        return _Fails()


class _Fails(type(parse_scheme("dense"))):  # type: ignore[misc]
    def encode(self, x: Tensor, state: State, turn: Turn) -> Any:
        if turn.step == 1 and turn.ranks == (2,):
            raise RuntimeError("no memory is left")
        return super().encode(x, state, turn)


def failing() -> list[str]:
    """Let encoding fail on worker 2 alone, and go on."""
    job = Job(FailsOnWorker2())
    return [said(job.backward, step) for step in range(3)]


def mistakes() -> dict[str, str]:
    """Make hooks that are refused."""
    model = DistributedDataParallel(nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    half = torch.optim.SGD([model.module.bias], lr=0.1)
    return {
        "model": said(ddp_hook, "dense", model.module, optimizer),
        "unit": said(ddp_hook, "dense", model, optimizer, unit="row"),
        "on_nonfinite": said(ddp_hook, "dense", model, optimizer, on_nonfinite="ignore"),
        "scheme": said(ddp_hook, "topk(density=2)", model, optimizer),
        "group": said(ddp_hook, "dense", model, half),
    }


BAD = 4
"""The step at which worker 1's gradient of the first layer is infinite; its bucket comes last."""


def spoil(job: Job, step: int) -> Any:
    """Put an infinity into worker 1's gradient of the first layer; the result undoes it."""

    def infinite(gradient: Tensor) -> Tensor:
        return torch.where(torch.arange(gradient.numel()).view_as(gradient) == 7, torch.inf, gradient)

    if step == BAD and job.rank == 1:
        return job.model[0].weight.register_hook(infinite)
    return job.model[0].weight.register_hook(lambda gradient: gradient)


def scaled() -> dict[str, Any]:
    """Train under a loss scale that rises every three steps and falls at the bad one."""
    scaler = torch.amp.GradScaler(device="cpu", init_scale=2.0**8, growth_interval=3)
    job = Job("ef(topk(density=0.25))", on_nonfinite="pass", scaler=scaler)
    found: dict[str, Any] = {"scales": []}
    batch = 0
    for step in range(12):
        handle = spoil(job, step)
        before = (job.parameters(), job.memories())
        job.optimizer.zero_grad()
        scaler.scale(job.loss(batch)).backward()
        handle.remove()
        if step == BAD:
            found["means"] = job.means()
        scaler.step(job.optimizer)
        scaler.update()
        found["scales"].append(scaler.get_scale())
        if step == BAD:
            found["before"], found["after"] = before, (job.parameters(), job.memories())
        else:
            job.schedule.step()
            batch += 1
    plain = Job("ef(topk(density=0.25))")
    plain.run(range(batch))
    found |= {"end": job.parameters(), "plain": plain.parameters(), "skipped": job.hook.skipped, "step": job.hook.step}
    return found


def skipping() -> dict[str, Any]:
    """Take a bad step under the other policies: what is remembered, and that training goes on."""
    found: dict[str, Any] = {}
    for policy in ("skip", "raise"):
        job = Job("ef(topk(density=0.25))", on_nonfinite=policy)
        job.run(range(BAD))
        before = job.memories()
        handle = spoil(job, BAD)
        found[policy] = (said(job.backward, BAD), before, job.memories(), job.means(), job.hook.skipped)
        handle.remove()
        job.run(range(BAD + 1, BAD + 3))
        found[policy, "after"] = job.parameters()
    return found


def overflowing() -> dict[str, Any]:
    """Exchange finite gradients whose sum is beyond float32."""
    found: dict[str, Any] = {}
    for policy in ("skip", "raise"):
        job = Job("dense", dtype=torch.float32, on_nonfinite=policy)
        job.run(range(1))
        job.model[4].weight.register_hook(lambda gradient: gradient + 3e38)
        found[policy] = (said(job.backward, 1), job.means(), job.hook.skipped)
    return found


def remembering_too_much() -> list[str]:
    """Let worker 1's finite gradients and its residual together exceed float32, which it alone can see."""
    job = Job("ef(topk(density=0.25))", dtype=torch.float32)
    large = 2e38 if job.rank == 1 else 0.0
    job.model[0].bias.register_hook(lambda gradient: torch.full_like(gradient, large))
    return [said(job.backward, step) for step in range(2)]


def half() -> dict[str, Any]:
    """Exchange bf16 and fp16 gradients; return everybody's gradients, what came back, and what is remembered."""
    found = {}
    for dtype in (torch.bfloat16, torch.float16):
        job = Job("ef(topk(density=0.25))", dtype=dtype)
        steps = []
        for step in range(3):
            gradients = job.gradients(step)
            job.backward(step)
            steps.append((gradients, job.means()))
        found[dtype] = (steps, job.memories())
    return found


def accumulated() -> dict[str, Any]:
    """Take three steps of two small batches each, the first without synchronisation."""
    job = Job("ef(topk(density=0.25))")
    steps = []
    for step in range(3):
        sums = [a + b for a, b in zip(job.gradients(2 * step), job.gradients(2 * step + 1), strict=True)]
        job.optimizer.zero_grad()
        with job.ddp.no_sync():
            job.loss(2 * step).backward()
        job.loss(2 * step + 1).backward()
        steps.append((sums, job.means()))
    return {"steps": steps, "count": job.hook.step}


def rates() -> dict[str, Any]:
    """Give layers different rates, which change at every step, also once to zero."""
    found = {}
    for unit in ("layer", "model", "bucket"):
        job = Job(
            "ef(topk(density=0.25))",
            groups=lambda model: [{"params": list(model[i].parameters())} for i in (0, 2, 4)],
            unit=unit,
        )
        steps = []
        for step in range(6):
            lr = rates_at(step)
            for group, rate in zip(job.optimizer.param_groups, lr, strict=True):
                group["lr"] = rate
            gradients = job.gradients(step)
            job.backward(step)
            buckets = [work.units for log in job.hook.log for work in log.work]
            steps.append((gradients, job.means(), buckets))
        found[unit] = (steps, job.memories())
    return found


def rates_at(step: int) -> list[float]:
    """Return the rates of the three layers."""
    return [0.1 * 0.8**step, 0.05 + 0.01 * step, 0.2 if step != 2 else 0.0]


def buckets() -> dict[str, Any]:
    """Exchange buckets as units, which change after the first step."""
    job = Job("ef(topk(density=0.1))", PLAN.model_copy(update={"schedule": ()}), unit="bucket")
    steps = []
    for step in range(4):
        gradients = job.gradients(step)
        job.backward(step)
        steps.append((gradients, job.means(), [entry["parameters"] for entry in job.memories()]))
    return {"steps": steps, "memories": job.memories()}


class Forked(nn.Module):
    """A network of which worker 0 alone uses one half, and nobody uses a third part."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.own, self.idle = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x) + self.own(x) if dist.get_rank() == 0 else self.used(x)


def unused() -> list[dict[str, Tensor | None]]:
    """Exchange the gradients of a model with parameters that not everybody uses."""
    found = []
    for text in ("dense", "ef(topk(density=0.5))"):
        torch.manual_seed(0)
        model = DistributedDataParallel(Forked(), find_unused_parameters=True, bucket_cap_mb=1e-5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model.register_comm_hook(None, ddp_hook(text, model, optimizer))
        model(torch.full((2, 3), 1.0 + dist.get_rank())).sum().backward()
        found.append({name: p.grad for name, p in model.module.named_parameters()})
    return found


def static() -> dict[str, Tensor]:
    """Train with a static graph and gradients that are views of buckets; both change when hooks are called."""
    job = Job("ef(topk(density=0.1))", ddp={"static_graph": True, "gradient_as_bucket_view": True})
    job.run(range(STEPS))
    return job.parameters()


def broken() -> tuple[str, str]:
    """Let the exchange itself fail; the step after it works."""
    job = Job("dense")
    job.run(range(1))
    real = job.hook._driver.exchange

    def fails(*_: Any) -> Any:
        raise RuntimeError("the cable is cut")

    job.hook._driver.exchange = fails  # type: ignore[method-assign]
    first = said(job.backward, 1)
    job.hook._driver.exchange = real  # type: ignore[method-assign]
    return first, said(job.run, range(2, 3))


JOBS: dict[str, Callable[[Path], Any]] = {
    "straight": straight,
    "resumed": resumed,
    "refused": refused_checkpoints,
    **{
        job.__name__: lambda _, job=job: job()  # type: ignore[misc]
        for job in (
            equal, disagreements, mistakes, scaled, skipping, overflowing, remembering_too_much, half, accumulated,
            rates, buckets, unused, static, broken, mistaken_alone, failing,
        )
    },
}  # fmt: skip


def main(rank: int, processes: int, store: str, folder: Path, jobs: list[str]) -> None:
    """Run jobs as one process of a group."""
    torch.set_num_threads(1)
    limit = timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes, timeout=limit)
    torch.save({job: JOBS[job](folder) for job in jobs}, folder / f"result{rank}-{jobs[0]}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), sys.argv[5:])
