"""Computation alone: forward pass, backward pass and optimizer, whole and layer by layer, in all workers at once."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from torch import nn
from torch.utils.hooks import RemovableHandle

from .clock import Clock, Mark
from .group import Group
from .jobs import ComputeJob
from .records import ComputeRecord, LayerRecord, median
from .subject import Subject, subject_of, when_ready


class Passes(NamedTuple):
    """The times of a step's passes in seconds."""

    forward_s: float
    backward_s: float
    optimizer_s: float


def measure_compute(job: ComputeJob, group: Group) -> ComputeRecord:
    """Measure a job's computation; return its record, the same on every worker.

    Raises
    ------
    InputError
        If there is no such task, or a batch cannot be filled.
    """
    subject = subject_of(job, group)
    steps = job.warmup + job.repeats
    plain = [_step(subject, group, step) for step in range(steps)][job.warmup :]
    forward, backward, optimizer = (group.slowest(kind) for kind in zip(*plain, strict=True))
    hooks = _LayerHooks(subject.model, group.clock)
    hooked = []
    with hooks.in_place():
        for step in range(steps):
            hooks.clear()
            _step(subject, group, step, hooks)
            hooked.append(hooks.times())
    forward_of, backward_of = (
        np.median([[layer[kind] for layer in one] for one in hooked[job.warmup :]], axis=0).tolist() for kind in (0, 1)
    )
    forward_of = _scaled(group.mean(forward_of), median(forward))
    backward_of = _scaled(group.mean(backward_of), median(backward))
    layers = tuple(
        LayerRecord(name=name, parameters=names, elements=elements, forward_s=f, backward_s=b)
        for (name, names, elements), f, b in zip(hooks.layers(), forward_of, backward_of, strict=True)
    )
    times = {"forward_s": forward, "backward_s": backward, "optimizer_s": optimizer, "layers": layers}
    return job.blank(group.size, group.link).model_copy(update=times)


def _step(subject: Subject, group: Group, step: int, hooks: "_LayerHooks | None" = None) -> Passes:
    """Take a step without exchanging anything; all workers set out together."""
    batch, clock = subject.batch(step), group.clock
    group.barrier()
    start = clock.mark()
    loss = subject.loss(subject.model, batch)
    forward = clock.mark()
    loss.backward()  # type: ignore[no-untyped-call]
    backward = clock.mark()
    subject.optimizer.step()
    subject.optimizer.zero_grad()
    stop = clock.mark()
    clock.settle()
    if hooks is not None:
        hooks.passes = (start, forward, backward)
    return Passes(clock.seconds(start, forward), clock.seconds(forward, backward), clock.seconds(backward, stop))


def _scaled(parts: Sequence[float], whole: float) -> list[float]:
    """Return parts that add up to a whole."""
    together = sum(parts)
    return [whole * part / together for part in parts]


class _LayerHooks:
    """Marks when each layer begins in the forward pass, and when its gradients are complete in the backward pass.

    A layer is a module that owns trained parameters itself. In the forward pass it is charged what runs in it, and what
    runs outside of any layer until another one begins; the first layer, also what runs before it. In the backward pass
    it is charged the time since the layer behind it was complete.
    """

    def __init__(self, model: nn.Module, clock: Clock) -> None:
        self._model, self._clock = model, clock
        self._owned: dict[str, dict[str, nn.Parameter]] = defaultdict(dict)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self._owned[name.rpartition(".")[0]][name] = parameter
        self.passes: tuple[Mark, Mark, Mark] = (None, None, None)
        self._order: dict[str, None] = {}
        self._running: list[str] = []
        self.clear()

    def clear(self) -> None:
        """Forget all marks, but the order of the layers."""
        self._running = []
        self._switches: list[tuple[str, Mark]] = []  # from when on which layer is charged
        self._complete: dict[str, Mark] = {}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Hold the hooks on the model."""
        handles: list[RemovableHandle] = []
        for name, parameters in self._owned.items():
            module = self._model.get_submodule(name)
            handles.append(module.register_forward_pre_hook(partial(self._enter, name)))
            handles.append(module.register_forward_hook(self._leave))
            handles += [when_ready(parameter, partial(self._completed, name)) for parameter in parameters.values()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, *_: object) -> None:
        self._order.setdefault(name)
        self._running.append(name)
        self._switches.append((name, self._clock.mark()))

    def _leave(self, *_: object) -> None:
        self._running.pop()
        if self._running:  # back in the layer around it
            self._switches.append((self._running[-1], self._clock.mark()))

    def _completed(self, name: str) -> None:
        self._complete[name] = self._clock.mark()

    def _names(self) -> list[str]:
        """Return the layers in the order of their first use; those that are not called themselves come last."""
        return [*self._order, *(name for name in self._owned if name not in self._order)]

    def layers(self) -> list[tuple[str, tuple[str, ...], int]]:
        """Return each layer's name, parameters and number of values, in forward order."""
        found = []
        for name in self._names():
            own = self._owned[name]
            elements = sum(parameter.numel() for parameter in own.values())
            found.append((name or type(self._model).__name__, tuple(own), elements))
        return found

    def times(self) -> list[tuple[float, float]]:
        """Return each layer's seconds in the forward and the backward pass, in forward order."""
        start, forward, backward = self.passes
        names, seconds = self._names(), self._clock.seconds
        charged = dict.fromkeys(names, 0.0)
        switches = [(names[0], start), *self._switches, ("", forward)]
        for (name, since), (_, until) in pairwise(switches):
            charged[name] += seconds(since, until)
        spent, at = {}, 0.0
        for name in reversed(names):
            complete = at if name not in self._complete else seconds(forward, self._complete[name])
            if name == names[0]:
                complete = seconds(forward, backward)
            spent[name] = max(0.0, complete - at)
            at = max(at, complete)
        return [(charged[name], spent[name]) for name in names]
