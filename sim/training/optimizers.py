"""Optimizers and learning-rate schedules by their names in torch."""

import inspect
import math
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from ...compressors.base import Scheme
from ...compressors.errors import InputError
from ...compressors.optimizers import OneBitAdam
from .plan import Schedule, Training

_NOT_STEPPED_ONCE = {"LBFGS": "it evaluates the loss several times a step", "SparseAdam": "it takes sparse gradients"}
_OWN: dict[str, Any] = {"OneBitAdam": OneBitAdam}
"""Those that belong to a scheme, besides torch's."""
_NOT_FROM_TEXT = {
    "LambdaLR": "it takes a function",
    "MultiplicativeLR": "it takes a function",
    "ReduceLROnPlateau": "it waits for a metric",
    "SequentialLR": "write several phases with `until` instead",
    "ChainedScheduler": "it takes other schedulers",
}


_REHEARSED = 20_000
"""So many steps are rehearsed at most."""


class OptimizerError(InputError):
    """An optimizer or schedule that torch does not have, or that does not take what it was given."""


def make_optimizer(plan: Training, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Build the optimizer that a plan names.

    Raises
    ------
    OptimizerError
        One line that names the key, the value and what is allowed.
    """
    kind = _OWN.get(plan.optimizer) or _find(
        torch.optim, Optimizer, "training.optimizer", plan.optimizer, _NOT_STEPPED_ONCE
    )
    if "lr" in plan.optimizer_options:
        raise OptimizerError("training.optimizer_options: lr is training.learning_rate; write it there alone")
    options = {"lr": plan.learning_rate, **plan.optimizer_options}
    result: Optimizer = _build(kind, "training.optimizer_options", options, list(parameters))
    return result


def make_schedule(plan: Training, optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """Build the learning-rate schedule: constant, one scheduler, or several in sequence.

    Raises
    ------
    OptimizerError
        One line that names the key, the value and what is allowed.
    """
    if not plan.schedule:
        return lr_scheduler.ConstantLR(optimizer, factor=1.0)
    _check_phases(plan.schedule)
    phases = [_phase(phase, optimizer, i) for i, phase in enumerate(plan.schedule)]
    if len(phases) == 1:
        return phases[0]
    milestones = [phase.until for phase in plan.schedule if phase.until is not None]
    return lr_scheduler.SequentialLR(optimizer, phases, milestones=milestones)


def _phase(phase: Schedule, optimizer: Optimizer, number: int) -> lr_scheduler.LRScheduler:
    key = f"training.schedule[{number}]"
    kind = _find(lr_scheduler, lr_scheduler.LRScheduler, f"{key}.name", phase.name, _NOT_FROM_TEXT)
    result: lr_scheduler.LRScheduler = _build(kind, f"{key}.options", phase.options, optimizer)
    return result


def _check_phases(phases: tuple[Schedule, ...]) -> None:
    """Every phase but the last must say when it ends, in order."""
    ends = [phase.until for phase in phases[:-1]]
    if phases[-1].until is not None:
        raise OptimizerError(f"training.schedule[{len(phases) - 1}].until: the last phase has no end; leave it out")
    if any(end is None for end in ends) or ends != sorted(set(ends)):  # type: ignore[type-var]
        raise OptimizerError(f"training.schedule: until = {ends}: every phase but the last needs one, in rising order")


def _find(module: Any, base: type, key: str, name: str, refused: dict[str, str]) -> Any:
    """Return a class of a torch module by name."""
    if name in refused:
        raise OptimizerError(f"{key} = {name!r} cannot be used: {refused[name]}")
    kind = getattr(module, name, None)
    if inspect.isclass(kind) and issubclass(kind, base) and kind is not base:
        return kind
    known = [n for n, k in vars(module).items() if inspect.isclass(k) and issubclass(k, base) and k is not base]
    names = [n for n in known if n not in refused and not n.startswith("_")]
    close = get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(names))}"
    raise OptimizerError(f"{key} = {name!r}: {module.__name__} has no such class; {hint}")


def _build(kind: Any, key: str, options: dict[str, Any], first: Any) -> Any:
    """Call a class with options that came from a file."""
    known = list(inspect.signature(kind).parameters)[1:]
    for option in options:
        if option not in known:
            close = get_close_matches(option, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
            raise OptimizerError(f"{key}: {kind.__name__} has no option {option!r}; {hint}")
    try:
        return kind(first, **options)
    except Exception as error:  # torch answers options from a file with whatever its arithmetic meets first
        raise OptimizerError(f"{key} = {options}: {kind.__name__} refuses them: {_said(error)}") from error


def rehearse(plan: Training, scheme: Scheme) -> None:
    """Take all of a plan's steps with one parameter of one value, to find out now what would stop them later.

    Raises
    ------
    OptimizerError
        If optimizer or schedule cannot be built, fail at a step, or give a learning rate that is no rate.
    SchemeError
        If what the scheme exchanges must not go into this optimizer.
    """
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = make_optimizer(plan, [parameter])
    scheme.check_optimizer(optimizer)
    schedule = make_schedule(plan, optimizer)
    for step in range(min(plan.steps, _REHEARSED)):
        rate = float(optimizer.param_groups[0]["lr"])
        if not (math.isfinite(rate) and rate >= 0):
            raise OptimizerError(f"training.schedule: the learning rate of step {step} is {rate}")
        parameter.grad = torch.zeros(1)
        try:
            optimizer.step()
            schedule.step()
        except Exception as error:
            names = ", ".join([plan.optimizer, *(phase.name for phase in plan.schedule)])
            raise OptimizerError(f"training: {names} fail at step {step} of {plan.steps}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """Return an exception's message as one line."""
    return " ".join(str(error).split()) or type(error).__name__
