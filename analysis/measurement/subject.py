"""The subject: the model that a worker trains while it is measured, and its share of the data."""

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ...compressors.keys import Purpose, stream
from ...compressors.partition import Partition
from ...sim.models.base import Model
from ...sim.models.registry import MODELS
from ...sim.tasks.base import Task
from ...sim.tasks.registry import make_task
from ...sim.training.batches import Batches
from ...sim.training.gradients import seeded
from ...sim.training.optimizers import make_optimizer
from ...sim.training.plan import Training
from ...sim.training.train import cut, new_model
from .group import Group
from .jobs import ComputeJob, StepJob

Batch = tuple[Tensor, ...]


class Subject(ABC):
    """A model on this worker's device, with its optimizer and batches.

    Attributes
    ----------
    plan : Training
        The simulator's plan of the same training.
    model : nn.Module
    optimizer : Optimizer
    """

    def __init__(self, plan: Training, model: nn.Module, device: torch.device) -> None:
        self.plan = plan
        self.model = model.to(device)
        self.optimizer: Optimizer = make_optimizer(plan, self.trained.values())

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, in the order of their definition."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def partition(self) -> Partition:
        """Units and messages, as the simulator cuts them."""
        return cut(self.model, self.plan)

    @abstractmethod
    def batch(self, step: int) -> Batch:
        """Return this worker's examples of a step, on its device."""

    @abstractmethod
    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the loss of this model, or of what is wrapped around it."""


class TaskSubject(Subject):
    """A task's model and data, as the simulator's training has them: the same start, the same batches."""

    def __init__(self, task: Task, plan: Training, group: Group) -> None:
        self._task, self._group = task, group
        self._train = task.splits().train
        self._batches = Batches(len(self._train), plan.workers, plan.batch_size, plan.seed)
        super().__init__(plan, new_model(task, plan), group.device)

    def batch(self, step: int) -> Batch:
        (indices,) = self._batches.indices(step, (self._group.rank,))
        return tuple(tensor.to(self._group.device) for tensor in self._train.take(indices))

    def loss(self, model: Any, batch: Batch) -> Tensor:
        return self._task.loss(model, batch)


class ModelSubject(Subject):
    """A model of the literature, or one of one's own, on the same drawn batch at every step."""

    def __init__(self, model: Model, plan: Training, group: Group) -> None:
        self._own = model
        key = int(stream(plan.seed, Purpose.MODEL, 0, "model").random_raw())
        with seeded(key, torch.device("cpu")):
            module = model.build().train()
            self._batch = tuple(t.to(group.device) for t in model.inputs(plan.batch_size, torch.device("cpu")))
        super().__init__(plan, module, group.device)

    def batch(self, step: int) -> Batch:
        return self._batch

    def loss(self, model: Any, batch: Batch) -> Tensor:
        return self._own.loss(model, batch)


def subject_of(job: ComputeJob | StepJob, group: Group) -> Subject:
    """Return what a job trains.

    Raises
    ------
    InputError
        If there is no such task or model or optimizer, or the data cannot fill a batch for every worker.
    """
    plan = training_of(job, group.size, str(group.device))
    found = find(job.task, job.options, None if group.search is None else Path(group.search))
    return ModelSubject(found, plan, group) if isinstance(found, Model) else TaskSubject(found, plan, group)


def find(name: str, options: dict[str, Any], search: Path | None = None) -> Task | Model:
    """Return a listed task or model, or one's own by its import path.

    Raises
    ------
    TaskError
        If there is none, or it does not take these options.
    """
    if name in MODELS and not options:
        return MODELS[name]
    if ":" in name and not options and (own := _own_model(name, search)) is not None:
        return own
    return make_task(name, options, search)


def _own_model(name: str, search: Path | None) -> Model | None:
    """Return what an import path names if it is a model; what is wrong with any other is for tasks to say."""
    module_name, _, attribute = name.partition(":")
    if search is not None and str(search.resolve()) not in sys.path:
        sys.path.insert(0, str(search.resolve()))
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except Exception:  # noqa: BLE001 - it is imported once more, and explained, as a task
        return None
    return found if isinstance(found, Model) else None


def training_of(job: ComputeJob | StepJob, workers: int, device: str = "cpu") -> Training:
    """Return the plan of a training that takes the job's steps."""
    step = job if isinstance(job, StepJob) else StepJob(task=job.task)
    return Training.model_validate(
        {
            "workers": workers,
            "batch_size": job.batch_size,
            "steps": job.warmup + job.repeats,
            "seed": job.seed,
            "optimizer": job.optimizer,
            "learning_rate": job.learning_rate,
            "optimizer_options": job.optimizer_options,
            "unit": step.unit,
            "message": step.message,
            "bucket": f"{step.bucket_bytes} B",
            "first_bucket": f"{step.first_bucket_bytes} B",
            "device": device,
        }
    )


def when_ready(parameter: nn.Parameter, act: Callable[[], None]) -> RemovableHandle:
    """Do something whenever the backward pass has completed a parameter's gradient."""
    register: Callable[[Callable[[Tensor], None]], RemovableHandle] = parameter.register_post_accumulate_grad_hook
    return register(lambda _: act())
