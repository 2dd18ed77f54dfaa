"""Training: N virtual workers take synchronous steps, and every gradient passes through its compressor.

Each step computes all workers' gradients, hands each message to the driver with its scheme, and lets the optimizer take
the mean. What is learnt and what crossed the wire becomes a :class:`Trajectory`; time has no part in it.
"""

import hashlib
import math
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...compressors.base import NonFiniteError, Scheme, SchemeError, State, Turn
from ...compressors.drivers import Driver, Item, StackedDriver
from ...compressors.errors import InputError
from ...compressors.keys import Purpose, stream
from ...compressors.partition import Message, Partition, Unit, partition
from ...compressors.processes import ProcessGroupDriver
from ...compressors.wirelog import MessageLog, StepLog
from ..tasks.base import Split, Splits, Task, TaskError
from .batches import Batches
from .gradients import Gradients, StackedGradients, seeded
from .objective import Objective
from .optimizers import make_optimizer, make_schedule, rehearse
from .plan import Training
from .recording import Recording
from .trajectory import Evaluations, Trajectory

Progress = Callable[[int], None]
"""Called with the number of completed steps."""


class DeviceError(InputError):
    """A device that is not there."""


def find_device(name: str, process: int = 0) -> torch.device:
    """Return the device of a plan, for one of its processes.

    Raises
    ------
    DeviceError
        If there is no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    index = int(name.partition(":")[2]) if ":" in name else process % max(count, 1)
    if index >= count:
        raise DeviceError(f"training.device = {name!r}: torch finds {count} CUDA devices here; use 'cpu' or 'auto'")
    return torch.device("cuda", index)


def cut(model: nn.Module, plan: Training) -> Partition:
    """Return how a plan cuts a model's trained parameters into units and messages."""
    trained = [(name, tuple(p.shape)) for name, p in model.named_parameters() if p.requires_grad]
    itemsize = torch.float64.itemsize if plan.dtype == "float64" else torch.float32.itemsize
    return partition(trained, plan.unit, plan.message, plan.bucket, plan.first_bucket, itemsize)


def new_model(task: Task, plan: Training) -> nn.Module:
    """Return the task's model as initialised by the plan's seed, on the CPU, in the plan's dtype."""
    key = int(stream(plan.seed, Purpose.MODEL, 0, "model").random_raw())
    with seeded(key, torch.device("cpu")):
        model = task.model()
    return model.to(getattr(torch, plan.dtype)).train()


def check(task: Task, scheme: Scheme, plan: Training) -> None:
    """Find out before any training whether a scheme, a plan and a task go together.

    Raises
    ------
    SchemeError, OptimizerError, TooFewExamplesError, DeviceError
        One line that names the key, the value and what is allowed.
    """
    _check_devices(plan)
    if plan.workers % plan.processes:
        raise SchemeError(f"training.processes = {plan.processes} must divide training.workers = {plan.workers}")
    if plan.unit not in scheme.granularity:
        allowed = ", ".join(sorted(scheme.granularity))
        raise SchemeError(f"training.unit = {plan.unit!r}: {scheme} works on {allowed} only")
    model = _tried_model(task, plan)
    for message in cut(model, plan).messages:
        for unit in message:
            scheme.for_unit(unit.name, unit.shape).init(unit.shape, 1, torch.zeros(()))
    rehearse(plan, scheme)


def _check_devices(plan: Training) -> None:
    """Refuse what NCCL does: several processes on one GPU."""
    device = find_device(plan.device)
    if device.type == "cuda" and plan.processes > (1 if ":" in plan.device else torch.cuda.device_count()):
        raise DeviceError(
            f"training.processes = {plan.processes}: each process needs a GPU of its own, and training.device = "
            f"{plan.device!r} gives {torch.cuda.device_count()}; use fewer processes, or device = 'cpu'"
        )


def _tried_model(task: Task, plan: Training) -> nn.Module:
    """Return a task's model after one loss on one worker's batch; a task's own fault is told as such."""
    try:
        split = task.splits().train.to(dtype=getattr(torch, plan.dtype))
        Batches(len(split), plan.workers, plan.batch_size, plan.seed)
        model = new_model(task, plan)
        loss = task.loss(model, split.take(slice(0, plan.batch_size)))
        if loss.ndim:
            raise ValueError(f"its loss has the shape {tuple(loss.shape)} instead of being one number")
        if plan.record == "theory":
            Objective(task, deepcopy(model), Split(split.take(slice(0, plan.batch_size))), plan.seed).measure()
    except InputError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise TaskError("name", None, f"{type(task).__name__} fails: {type(error).__name__}: {said}") from error
    return model


def train(
    task: Task, scheme: Scheme, plan: Training, driver: Driver | None = None, progress: Progress | None = None
) -> Trajectory:
    """Train a task under a scheme, with this process's part of the workers.

    Parameters
    ----------
    task : Task
    scheme : Scheme
    plan : Training
    driver : Driver, optional
        Does the exchanges; default: all workers are stacked in this process.
    progress : callable, optional

    Returns
    -------
    Trajectory
        Complete on the process that holds worker 0; elsewhere without evaluations.
    """
    trainer = _Trainer(task, scheme, plan, driver or StackedDriver(plan.workers))
    status = "completed"
    for step in range(plan.steps):
        reason = trainer.evaluate(step) if step % plan.evaluate_every == 0 else None
        reason = reason or trainer.step(step)
        if reason is not None:
            status = f"diverged at step {step}: {reason}"
            break
        if progress is not None:
            progress(step + 1)
    else:
        if reason := trainer.evaluate(plan.steps):
            status = f"diverged at step {plan.steps}: {reason}"
    return trainer.trajectory(status)


class _Trainer:
    """The state of one training on one process."""

    def __init__(self, task: Task, scheme: Scheme, plan: Training, driver: Driver) -> None:
        self._task, self._scheme, self._plan, self._driver = task, scheme, plan, driver
        process = driver.ranks[0] // len(driver.ranks)
        device = self._device = find_device(plan.device, process)
        dtype = getattr(torch, plan.dtype)
        self._splits = Splits(*(split.to(device, dtype) for split in task.splits()))
        self._model = new_model(task, plan).to(device)
        recorded = plan.record == "theory"
        self._recording = Recording(task, self._model, self._splits.train, plan) if recorded else None
        self._batches = Batches(len(self._splits.train), plan.workers, plan.batch_size, plan.seed)
        sample = self._splits.train.take(slice(0, plan.batch_size))
        self._gradients = StackedGradients(task, self._model, driver.ranks, plan.seed, plan.gradients, sample)
        self._parameters = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        self._optimizer = make_optimizer(plan, self._parameters.values())
        self._schedule = make_schedule(plan, self._optimizer)
        self._partition = cut(self._model, plan)
        like = next(iter(self._parameters.values())).detach()
        units = [unit for message in self._partition.messages for unit in message]
        self._schemes = {unit.name: scheme.for_unit(unit.name, unit.shape) for unit in units}
        self._states: dict[str, State] = {
            unit.name: self._schemes[unit.name].init(unit.shape, len(driver.ranks), like) for unit in units
        }
        self._losses: list[float] = []
        self._rates: list[float] = []
        self._evaluations: list[tuple[float, ...]] = []
        self._logs: list[StepLog] = []

    def step(self, step: int) -> str | None:
        """Take one optimizer step; return None, or why it could not be taken."""
        rate = float(self._optimizer.param_groups[0]["lr"])
        batches = self._splits.train.take(self._batches.indices(step, self._driver.ranks))
        gradients = self._gradients(batches, step)
        losses = self._everyones(gradients.losses)
        self._losses.append(float(losses.mean()))
        self._rates.append(rate)
        if reason := _not_finite("loss", losses) or self._someones_gradient_not_finite(gradients):
            return reason
        if self._recording is not None:
            self._recording.begin(step, rate, self._model, batches)
        messages = enumerate(self._partition.messages)
        try:
            self._logs.append(tuple(self._exchange(message, i, gradients, step, rate) for i, message in messages))
        except NonFiniteError as error:
            if isinstance(self._driver, ProcessGroupDriver):
                raise  # the other processes wait in an exchange; this one's end must end them
            return str(error).partition(": ")[2]
        if self._recording is not None:
            self._recording.end(self._logs[-1])
        self._optimizer.step()
        self._schedule.step()
        self._follow_rank_0()
        return None

    def _exchange(self, message: Message, index: int, gradients: Gradients, step: int, rate: float) -> MessageLog:
        """Exchange one message and leave the means where the optimizer finds them."""
        ranks, size, seed = self._driver.ranks, self._driver.size, self._plan.seed
        items = [
            Item(
                _values(unit, gradients),
                self._schemes[unit.name],
                self._states[unit.name],
                Turn(seed, step, unit.name, ranks, size, rate),
            )
            for unit in message
        ]
        outcomes, log = self._driver.exchange(items, index)
        for unit, item, outcome in zip(message, items, outcomes, strict=True):
            self._states[unit.name] = outcome.state
            if self._recording is not None:
                self._recording.exchanged(unit, item, outcome)
            pieces = torch.split(outcome.mean.reshape(-1), [p.elements for p in unit.parameters])
            for parameter, mean in zip(unit.parameters, pieces, strict=True):
                self._parameters[parameter.name].grad = mean.view(parameter.shape)
        return log

    # ------------------------------------------------------------------------------------------ several processes

    def _everyones(self, own: Tensor) -> Tensor:
        """Return all N workers' values in rank order, on the CPU."""
        if isinstance(self._driver, ProcessGroupDriver):
            return self._driver.all_gather(own[:, None])[:, 0].cpu()
        return own.cpu()

    def _someones_gradient_not_finite(self, gradients: Gradients) -> str | None:
        """Return whose gradients are not finite, where a process that stopped alone would leave the others waiting."""
        if not isinstance(self._driver, ProcessGroupDriver):
            return None  # the driver finds it
        finite = [torch.isfinite(row.reshape(len(row), -1)).all(1) for row in gradients.rows.values()]
        return _not_finite("gradient", torch.where(self._everyones(torch.stack(finite).all(0)), 0.0, math.nan))

    def _follow_rank_0(self) -> None:
        """Give every process the buffers (running statistics) of the process that holds worker 0."""
        if isinstance(self._driver, ProcessGroupDriver):
            for buffer in self._model.buffers():
                dist.broadcast(buffer, src=0)

    # ------------------------------------------------------------------------------------------------- what is kept

    def evaluate(self, completed: int) -> str | None:
        """Measure the model on the validation and test splits; return None, or what is not finite.

        The process that holds worker 0 does it, and all others learn whether the training goes on.
        """
        measured: tuple[float, ...] = ()
        if self._driver.ranks[0] == 0:
            validation = self._task.evaluate(self._model, self._splits.validation)
            test = self._task.evaluate(self._model, self._splits.test)
            measured = (*validation, *test)
        finite = torch.full((len(self._driver.ranks),), all(map(math.isfinite, measured)), device=self._device)
        if not bool(self._everyones(finite).all()):
            return "a loss or metric of the evaluation is not finite"
        if measured:
            self._evaluations.append((completed, *measured))
        return None

    def trajectory(self, status: str) -> Trajectory:
        """Return what was learnt so far."""
        columns = np.array(self._evaluations, dtype=np.float64).reshape(-1, 5).T
        digest = hashlib.sha256()
        for parameter in self._parameters.values():
            digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
        mode = self._gradients.mode
        return Trajectory(
            scheme=str(self._scheme),
            train_loss=np.array(self._losses),
            learning_rate=np.array(self._rates),
            evaluations=Evaluations(columns[0].astype(np.int64), *columns[1:]),
            logs=tuple(self._logs),
            status=status,
            gradients=mode if mode == "batched" else f"looped: {self._gradients.reason}",
            parameters=self._partition.elements,
            digest=digest.hexdigest(),
            record=None if self._recording is None else self._recording.finish(len(self._logs), self._model),
        )


def _not_finite(what: str, values: Tensor) -> str | None:
    """Return which workers' values are not finite, or None."""
    bad = [str(rank) for rank, value in enumerate(values.tolist()) if not math.isfinite(value)]
    return f"the {what} of worker {', '.join(bad)} is not finite" if bad else None


def _values(unit: Unit, gradients: Gradients) -> Tensor:
    """Return a unit's gradients ``[W, *shape]``: a parameter's as they are, several end to end."""
    rows = [gradients.rows[parameter.name] for parameter in unit.parameters]
    if len(rows) == 1:
        return rows[0].view(len(rows[0]), *unit.shape)
    return torch.cat([row.reshape(len(row), -1) for row in rows], dim=1)
