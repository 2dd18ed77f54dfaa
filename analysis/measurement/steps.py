"""Training steps, measured phase by phase, while their exchanges are done after the backward pass or during it."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ...compressors.base import Scheme, SchemeError, State, Turn
from ...compressors.ddp import ddp_hook
from ...compressors.drivers import Item
from ...compressors.partition import BUCKET_BYTES, FIRST_BUCKET_BYTES, Message, Partition, Unit, partition
from ...compressors.processes import ProcessGroupDriver
from ...compressors.spec import parse_scheme
from ...sim.models.base import Model
from ...sim.training.optimizers import rehearse
from ...sim.training.train import check
from .group import Group
from .jobs import StepJob
from .phases import Launch, MarkingWatch, Marks, Phases, phases
from .records import CollectiveUse, StepRecord, median
from .subject import find, subject_of, training_of, when_ready


class Stepper(ABC):
    """Takes a job's steps, one after the other, as one of the workers.

    Parameters
    ----------
    job : StepJob
    group : Group

    Raises
    ------
    InputError
        If the task, the scheme and the optimizer do not go together; on every worker alike.
    """

    def __init__(self, job: StepJob, group: Group) -> None:
        self._job, self._group = job, group
        self.subject = subject_of(job, group)
        self._watch = MarkingWatch(group.clock)

    @abstractmethod
    def step(self, step: int) -> Phases:
        """Take a step, in which all workers set out together."""

    def _optimize(self) -> None:
        """Update the parameters."""
        self.subject.optimizer.step()
        self.subject.optimizer.zero_grad()

    def close(self) -> None:  # noqa: B027
        """End what goes on between steps."""


class AfterStepper(Stepper):
    """Exchanges all messages after the backward pass, in the simulator's order."""

    def __init__(self, job: StepJob, group: Group) -> None:
        super().__init__(job, group)
        scheme = parse_scheme(job.scheme)
        scheme.check_optimizer(self.subject.optimizer)
        _check_units(scheme, job, self.subject.partition)
        self._driver = ProcessGroupDriver(agree=job.agree, watch=self._watch)
        self._messages = self.subject.partition.messages
        self._trained = self.subject.trained
        units = [unit for message in self._messages for unit in message]
        self._schemes = {unit.name: scheme.for_unit(unit.name, unit.shape) for unit in units}
        like = next(iter(self._trained.values())).detach()
        self._states: dict[str, State] = {u.name: self._schemes[u.name].init(u.shape, 1, like) for u in units}
        for number, message in enumerate(self._messages):
            for parameter in (parameter for unit in message for parameter in unit.parameters):
                when_ready(self._trained[parameter.name], partial(self._watch.ready, number))

    def step(self, step: int) -> Phases:
        subject, clock = self.subject, self._group.clock
        batch = subject.batch(step)
        self._watch.clear()
        self._group.barrier()
        start = clock.mark()
        loss = subject.loss(subject.model, batch)
        forward = clock.mark()
        loss.backward()  # type: ignore[no-untyped-call]
        backward = clock.mark()
        for number, message in enumerate(self._messages):
            self._exchange(number, message, step)
        exchanged = clock.mark()
        self._optimize()
        stop = clock.mark()
        clock.settle()
        return phases(Marks(start, forward, backward, exchanged, stop), self._watch, clock, overlap=False)

    def _exchange(self, number: int, message: Message, step: int) -> None:
        """Exchange one message and leave the means where the optimizer finds them."""
        driver, rate = self._driver, float(self.subject.optimizer.param_groups[0]["lr"])
        items = []
        for unit in message:
            turn = Turn(self._job.seed, step, unit.name, driver.ranks, driver.size, rate)
            items.append(Item(self._values(unit), self._schemes[unit.name], self._states[unit.name], turn))
        outcomes, _ = driver.exchange(items, number)
        for unit, outcome in zip(message, outcomes, strict=True):
            self._states[unit.name] = outcome.state
            pieces = torch.split(outcome.mean.reshape(-1), [p.elements for p in unit.parameters])
            for parameter, mean in zip(unit.parameters, pieces, strict=True):
                self._trained[parameter.name].grad = mean.view(parameter.shape)

    def _values(self, unit: Unit) -> Tensor:
        """Return a unit's gradients ``[1, *shape]``: a parameter's as they are, several end to end."""
        gradients = [self._gradient(parameter.name) for parameter in unit.parameters]
        if len(gradients) == 1:
            return gradients[0].reshape(1, *unit.shape)
        return torch.cat([gradient.reshape(-1) for gradient in gradients])[None]

    def _gradient(self, name: str) -> Tensor:
        """Return a parameter's gradient; zero where the loss does not depend on it."""
        parameter = self._trained[name]
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


class DuringStepper(Stepper):
    """Lets DistributedDataParallel exchange its buckets by the scheme's hook, during the backward pass."""

    def __init__(self, job: StepJob, group: Group) -> None:
        super().__init__(job, group)
        devices = None if group.device.type == "cpu" else [group.device.index]
        model = self.subject.model
        self._wrapped = DistributedDataParallel(model, device_ids=devices, bucket_cap_mb=_bucket_cap(job))
        optimizer = self.subject.optimizer
        self._hook = ddp_hook(job.scheme, self._wrapped, optimizer, seed=job.seed, unit=job.unit, watch=self._watch)
        self._wrapped.register_comm_hook(None, self._hook)

    def step(self, step: int) -> Phases:
        subject, clock = self.subject, self._group.clock
        batch = subject.batch(step)
        self._watch.clear()
        self._group.barrier()
        start = clock.mark()
        loss = subject.loss(self._wrapped, batch)
        forward = clock.mark()
        loss.backward()  # type: ignore[no-untyped-call]
        exchanged = clock.mark()
        self._optimize()
        stop = clock.mark()
        clock.settle()
        return phases(Marks(start, forward, exchanged, exchanged, stop), self._watch, clock, overlap=True)

    def close(self) -> None:
        self._hook.close()


def _bucket_cap(job: StepJob) -> float | None:
    """Return DistributedDataParallel's ``bucket_cap_mb`` for a job; None is its default, with a small first bucket."""
    if job.message == "layer":
        return 1 / 2**20  # every parameter fills a bucket
    if job.message == "model":
        return float(2**20)  # no model does
    own = (job.bucket_bytes, job.first_bucket_bytes) != (BUCKET_BYTES, FIRST_BUCKET_BYTES)
    return job.bucket_bytes / 2**20 if own else None


def check_step(job: StepJob, workers: int, search: Path | None = None) -> None:
    """Find out before any measurement whether a job can be done.

    Raises
    ------
    InputError
        One line that names the key, the value and what is allowed.
    """
    plan, scheme = training_of(job, workers), parse_scheme(job.scheme)
    found = find(job.task, job.options, search)
    if isinstance(found, Model):
        shapes = found.parameters()
        cuts = partition(shapes, job.unit, job.message, job.bucket_bytes, job.first_bucket_bytes)
        _check_units(scheme, job, cuts)
        rehearse(plan, scheme)
    else:
        check(found, scheme, plan)


def _check_units(scheme: Scheme, job: StepJob, cuts: Partition) -> None:
    """Refuse units that a scheme does not take."""
    if job.unit not in scheme.granularity:
        allowed = ", ".join(sorted(scheme.granularity))
        raise SchemeError(f"unit = {job.unit!r}: {scheme} works on {allowed} only")
    for unit in (unit for message in cuts.messages for unit in message):
        scheme.for_unit(unit.name, unit.shape).init(unit.shape, 1, torch.zeros(()))


def measure_steps(job: StepJob, group: Group) -> StepRecord:
    """Take a job's steps and return their record, the same on every worker.

    Raises
    ------
    InputError
        If the job cannot be done as asked for, on every worker alike.
    """
    stepper = DuringStepper(job, group) if job.overlap else AfterStepper(job, group)
    try:
        taken = [stepper.step(step) for step in range(job.warmup + job.repeats)][job.warmup :]
    finally:
        stepper.close()
    return _record(job, group, taken)


def _record(job: StepJob, group: Group, taken: Sequence[Phases]) -> StepRecord:
    """Put all workers' phases together."""
    step_s = group.slowest([one.step_s for one in taken])
    names = ("forward_s", "backward_s", "encode_s", "decode_s", "optimizer_s")
    means = {name: group.mean([getattr(one, name) for one in taken]) for name in names}
    waits = tuple(whole - sum(parts) for whole, *parts in zip(step_s, *means.values(), strict=True))
    return job.blank(group.size, group.link).model_copy(
        update={
            **means,
            "communication_s": group.mean([one.communication_s for one in taken]),
            "exposed_communication_s": waits,
            "step_s": step_s,
            "ready_s": _ready(group, taken),
            "collectives": _uses(group, taken),
        }
    )


def _ready(group: Group, taken: Sequence[Phases]) -> tuple[float, ...]:
    """Return when each message's gradients were ready."""
    messages = min(len(one.ready_s) for one in taken)
    return tuple(median(group.mean([one.ready_s[message] for one in taken])) for message in range(messages))


def _uses(group: Group, taken: Sequence[Phases]) -> tuple[CollectiveUse, ...]:
    """Return the collectives of a step; which there are is the same on every worker, but may vary from step to step."""
    found: dict[tuple[int, int, str, int], list[Launch]] = defaultdict(list)
    for one in taken:
        times: dict[tuple[int, int, str], int] = defaultdict(int)
        for launch in one.launches:
            kind = (launch.message, launch.round, launch.operation)
            found[*kind, times[kind]].append(launch)
            times[kind] += 1
    uses = []
    for launches in found.values():
        first = launches[0]
        size = sum(launch.bytes for launch in launches) / len(launches)
        seconds = median(group.mean([launch.seconds for launch in launches]))
        use = CollectiveUse(
            operation=first.operation, message=first.message, round=first.round, bytes=size, seconds=seconds
        )
        uses.append(use)
    return tuple(uses)
