"""Recording a training: the trainer tells of each step, and what convergence theory speaks of is taken down."""

from copy import deepcopy

from torch import Tensor, nn

from ...compressors.base import Outcome
from ...compressors.drivers import Item
from ...compressors.partition import Unit
from ...compressors.wirelog import StepLog
from ..tasks.base import Split, Task
from .gradients import Batch, StackedGradients
from .objective import NOT_TAKEN, Measured, Objective, flat
from .plan import Training
from .record import Recorder, Trace


class Recording:
    """Records a training of which all workers are in this process.

    The whole objective is measured at every step of a convex task, and at evaluations of others; so is the noise within
    workers' batches. Iterates and memories are kept whole for convex tasks only.

    Parameters
    ----------
    task : Task
    model : nn.Module
        Before its first step; it is copied.
    split : Split
        The training split, on the model's device and in its dtype.
    plan : Training
    """

    def __init__(self, task: Task, model: nn.Module, split: Split, plan: Training) -> None:
        self._plan = plan
        self._objective = Objective(task, deepcopy(model), split, plan.seed)
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self._recorder = Recorder(plan.workers, count, vectors=self._objective.convex)
        self._within2 = float("nan")
        ranks, twin = tuple(range(plan.workers)), self._objective.twin
        part = split.to(dtype=self._objective.dtype).take(slice(0, max(plan.batch_size // 2, 1)))
        self._gradients = StackedGradients(task, twin, ranks, plan.seed, plan.gradients, part)

    def begin(self, step: int, rate: float, model: nn.Module, batches: Batch) -> None:
        """Begin a step, before its exchanges.

        Parameters
        ----------
        step : int
        rate : float
        model : nn.Module
        batches : tuple of Tensor, each [W, B, ...]
            What the workers see.
        """
        found = self._measured(step, model)
        self._within2 = float("nan") if found is NOT_TAKEN else self._within(batches, step)
        self._recorder.begin(_position(model), found.loss, found.gradient, rate, found.local)

    def exchanged(self, unit: Unit, item: Item, outcome: Outcome) -> None:
        """Take down a unit's exchange, with its state as it is after it."""
        self._recorder.exchanged(unit.start, item.x, item.scheme, item.turn, outcome)

    def end(self, log: StepLog) -> None:
        """End the step."""
        sent = sum(sum(collective.sent_bytes) for message in log for collective in message.collectives)
        self._recorder.end(sent / self._plan.workers, self._within2)

    def finish(self, completed: int, model: nn.Module) -> Trace:
        """Return what was recorded of so many completed steps."""
        found = self._measured(completed, model)
        return self._recorder.finish(_position(model), found.loss, found.gradient, found.local)

    def _measured(self, step: int, model: nn.Module) -> Measured:
        """Measure the whole objective, if that is to be done before this step."""
        due = step % self._plan.evaluate_every == 0 or step == self._plan.steps
        if not (self._objective.convex or due):
            return NOT_TAKEN
        self._objective.follow(model)
        return self._objective.measure()

    def _within(self, batches: Batch, step: int) -> float:
        """Return the noise of workers' gradients as the two halves of each batch show it; NaN for a single example."""
        size = batches[0].shape[1]
        half = size // 2
        if not half:
            return float("nan")
        batches = tuple(t.to(self._objective.dtype) if t.is_floating_point() else t for t in batches)
        first, second = (
            flat(self._gradients(tuple(t[:, part] for t in batches), step).rows, self._plan.workers).double()
            for part in (slice(0, half), slice(half, size))
        )
        return half * (size - half) / size**2 * float((first - second).square().sum(1).mean())


def _position(model: nn.Module) -> Tensor:
    """Return the trained parameters in flat order."""
    return flat({name: p.detach() for name, p in model.named_parameters() if p.requires_grad})
