"""The subject: the model that a worker trains while it is measured, and its share of the data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ...compressors.partition import Partition
from ...sim.tasks.registry import make_task
from ...sim.training.batches import Batches
from ...sim.training.optimizers import make_optimizer
from ...sim.training.plan import Training
from ...sim.training.train import cut, new_model
from .group import Group
from .jobs import ComputeJob, StepJob

Batch = tuple[Tensor, ...]


class Subject:
    """A task's model on this worker's device, with its optimizer and batches, as the simulator's training has them.

    Parameters
    ----------
    job : ComputeJob or StepJob
    group : Group

    Raises
    ------
    InputError
        If there is no such task or optimizer, or the data cannot fill a batch for every worker.
    """

    def __init__(self, job: ComputeJob | StepJob, group: Group) -> None:
        search = None if group.search is None else Path(group.search)
        self.plan = training_of(job, group.size, str(group.device))
        self._task = make_task(job.task, job.options, search)
        self._group = group
        self._train = self._task.splits().train
        self._batches = Batches(len(self._train), group.size, job.batch_size, job.seed)
        self.model = new_model(self._task, self.plan).to(group.device)
        self.optimizer: Optimizer = make_optimizer(self.plan, self.trained.values())

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, in the order of their definition."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def partition(self) -> Partition:
        """Units and messages, as the simulator cuts them."""
        return cut(self.model, self.plan)

    def batch(self, step: int) -> Batch:
        """Return this worker's examples of a step, on its device."""
        (indices,) = self._batches.indices(step, (self._group.rank,))
        return tuple(tensor.to(self._group.device) for tensor in self._train.take(indices))

    def loss(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        """Return the loss of this model, or of what is wrapped around it."""
        return self._task.loss(model, batch)


def training_of(job: ComputeJob | StepJob, workers: int, device: str = "cpu") -> Training:
    """Return the plan of a training that takes the job's steps."""
    step = job if isinstance(job, StepJob) else StepJob(task=job.task)
    return Training(
        workers=workers,
        batch_size=job.batch_size,
        steps=job.warmup + job.repeats,
        seed=job.seed,
        optimizer=job.optimizer,
        learning_rate=job.learning_rate,
        optimizer_options=job.optimizer_options,
        unit=step.unit,
        message=step.message,
        bucket=f"{step.bucket_bytes} B",
        first_bucket=f"{step.first_bucket_bytes} B",
        device=device,
    )


def when_ready(parameter: nn.Parameter, act: Callable[[], None]) -> RemovableHandle:
    """Do something whenever the backward pass has completed a parameter's gradient."""
    register: Callable[[Callable[[Tensor], None]], RemovableHandle] = parameter.register_post_accumulate_grad_hook
    return register(lambda _: act())
