"""The hook for DistributedDataParallel: gradients of a real job are exchanged by the simulator's own code.

A hook is called for each bucket while the backward pass goes on. It hands the bucket to a thread of its own, in which
the messages of a step are exchanged one after the other, the same on every worker.
"""

# No `from __future__ import annotations` here: DistributedDataParallel compares the annotations of the hook.

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Variable
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from .background import Background
from .base import NonFiniteError, Rate, Scheme, SchemeError, Shape, State, Turn
from .drivers import Item
from .errors import InputError
from .partition import Granularity, Parameter, Unit, partition
from .processes import ProcessGroupDriver
from .regroup import regrouped
from .spec import parse_scheme
from .watch import Watch
from .wirelog import MessageLog, StepLog

OnNonFinite = Literal["raise", "skip", "pass"]
_log = logging.getLogger(__name__)


class HookError(InputError):
    """A hook that cannot work as asked for, or a checkpoint that is not of this hook."""


@dataclass
class _Bucket:
    """What the hook takes from a bucket: its flat buffer and the gradients in it by name, to be overwritten."""

    buffer: Tensor
    gradients: dict[str, Tensor]
    is_last: bool
    future: "Future[Tensor]"


@dataclass
class _Round:
    """One backward pass: the buckets so far, what came of them, and the states to go back to."""

    rates: dict[str, float]
    scale: float
    known: dict[str, tuple[Unit, State]] = field(default_factory=dict)
    buckets: list[_Bucket] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    logs: list[MessageLog] = field(default_factory=list)
    before: dict[str, State] = field(default_factory=dict)
    error: BaseException | None = None


class DDPHook:
    """A scheme at work in a DistributedDataParallel model; made by :func:`ddp_hook`.

    Attributes
    ----------
    step : int
        The number of completed backward passes that exchanged gradients, without those that ``pass`` undoes, which
        the optimizer does not count either. It keys the random draws.
    log : tuple of MessageLog
        What the workers had to tell each other in the last of them, one entry for each bucket: rows that differ in
        length unpadded, and of a permute each worker's own bytes. A padded all-gather crosses the wire for either.
    skipped : int
        In how many of them a value was not finite.
    """

    def __init__(
        self,
        scheme: str | Scheme,
        model: DistributedDataParallel,
        optimizer: Optimizer,
        seed: int,
        unit: Granularity,
        on_nonfinite: OnNonFinite,
        scaler: torch.amp.GradScaler | None,
        exact: bool,
        watch: Watch | None,
    ) -> None:
        self.__name__ = self.__qualname__ = "gradwire_ddp_hook"  # DistributedDataParallel asks for them
        self.step, self.skipped = 0, 0
        self.log: StepLog = ()
        self._seed, self._unit, self._watch = seed, unit, watch
        self._optimizer, self._on_nonfinite, self._scaler = optimizer, on_nonfinite, scaler
        trained = {name: p for name, p in model.module.named_parameters() if p.requires_grad}
        self._names = {p: name for name, p in trained.items()}
        self._shapes: list[tuple[str, Shape]] = [(name, tuple(p.shape)) for name, p in trained.items()]
        self._whole = partition(self._shapes, "model", "model").messages[0][0]
        self._schemes: dict[str, Scheme] = {}
        self._states: dict[str, tuple[Unit, State]] = {}
        # A group of its own: DistributedDataParallel's collectives on the model's group come in an order of their own.
        ranks = dist.get_process_group_ranks(model.process_group)
        backend = dist.get_backend(model.process_group)
        group = dist.new_group(ranks, backend=backend, use_local_synchronization=True)
        self._driver = ProcessGroupDriver(group=group, exact=exact, watch=watch)
        device, mistake = next(iter(trained.values())).device, None
        try:
            self._scheme = _scheme_of(scheme)
            self._check(trained)
        except InputError as error:  # the others wait to compare
            mistake = error
        self._share(mistake, device)
        self._compare(device, exact)
        self._round: _Round | None = None
        self._background = Background()

    # ------------------------------------------------------------------------------------------- checks at the start

    def _check(self, trained: dict[str, Tensor]) -> None:
        """Refuse what could not work, before the first step."""
        _check_options(self._optimizer, self._seed, self._unit, self._on_nonfinite, self._scaler)
        if self._unit not in self._scheme.granularity:
            allowed = ", ".join(sorted(self._scheme.granularity))
            raise SchemeError(f"ddp_hook: unit = {self._unit!r}: {self._scheme} works on {allowed} only")
        self._scheme.check_optimizer(self._optimizer)
        known = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        if missing := [name for name, p in trained.items() if id(p) not in known]:
            raise HookError(f"ddp_hook: parameter {missing[0]} is in no group of the optimizer, so it has no rate")
        for unit in self._cut([name for name, _ in self._shapes]) if self._unit != "bucket" else []:
            self._scheme.for_unit(unit.name, unit.shape).init(unit.shape, 1, torch.zeros(()))

    def _share(self, mistake: InputError | None, device: torch.device) -> None:
        """Raise this worker's mistake, after the others are told; or tell whose it is."""
        told = self._driver.all_gather(torch.tensor([[mistake is not None]], dtype=torch.uint8, device=device))
        if mistake is not None:
            raise mistake
        if workers := told[:, 0].nonzero()[:, 0].tolist():
            who = ", ".join(map(str, workers))
            raise HookError(f"ddp_hook: worker {who} cannot make its hook, so nobody can; its own error says why")

    def _compare(self, device: torch.device, exact: bool) -> None:
        """Raise the same error on every worker unless all of them were given the same."""
        rates = self._rates()
        own = {
            "scheme": str(self._scheme),
            "unit": self._unit,
            "seed": str(self._seed),
            "on_nonfinite": self._on_nonfinite,
            "exact": str(exact),
            "parameters": repr((self._shapes, [p.dtype for p in self._names])),
            "optimizer": type(self._optimizer).__name__,
            "scaler": "none" if self._scaler is None else "one",
            "learning rates": repr([rates[name] for name, _ in self._shapes]),
        }
        for key, others in self._driver.differences(own, device).items():
            here = "" if key in ("parameters", "learning rates") else f" (here it is {own[key]})"
            workers = ", ".join(map(str, others))
            raise HookError(
                f"ddp_hook: {key} of worker {workers} differs from worker 0's{here}: all workers must pass the same"
            )

    # ------------------------------------------------------------------------- on the thread of the backward pass

    def __call__(self, state: object, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]
        """Take a bucket and return the future of its mean, as ``register_comm_hook`` wants it."""
        if self._round is None or bucket.index() == 0:
            self._round = _Round(self._rates(), 1.0 if self._scaler is None else float(self._scaler.get_scale()))
        if self._watch is not None:
            self._watch.ready(0 if self._unit == "model" else bucket.index())
        buffer = bucket.buffer()
        names = [self._names[p] for p in bucket.parameters()]
        future: Future[Tensor] = Future(devices=[] if buffer.device.type == "cpu" else [buffer.device])
        gradients = dict(zip(names, bucket.gradients(), strict=True))
        taken = _Bucket(buffer, gradients, bucket.is_last(), future)
        current = self._round
        self._background.do(lambda: self._take(current, taken), buffer.device)
        if taken.is_last:
            self._round = None
            # DistributedDataParallel queues the end of its own work after this call; what is queued by then comes later
            # still, so that it is ready for another step when the error is raised.
            _at_the_end(lambda: _at_the_end(lambda: _raise(current.error)))
        return future

    def _rates(self) -> dict[str, float]:
        """Return each parameter's learning rate."""
        groups = self._optimizer.param_groups
        return {self._names[p]: float(g["lr"]) for g in groups for p in g["params"] if p in self._names}

    # ---------------------------------------------------------------------------------------------- on the own thread

    def _take(self, current: _Round, bucket: _Bucket) -> None:
        """Exchange what a bucket completes; after the last one, complete the step."""
        if not current.buckets:
            current.known = dict(self._states)
        current.buckets.append(bucket)
        try:
            if current.error is None and (self._unit != "model" or bucket.is_last):
                self._exchange(current)
        except BaseException as error:  # noqa: BLE001 - it is raised in the backward pass
            current.error = error
        if not bucket.is_last:
            return
        try:
            self._complete(current)
        except BaseException as error:  # noqa: BLE001 - whatever happens, the backward pass must not wait for ever
            current.error = error
        for taken in current.buckets:
            taken.future.set_result(taken.buffer)

    def _exchange(self, current: _Round) -> None:
        """Exchange one message and leave the means in the gradients."""
        buckets = current.buckets if self._unit == "model" else current.buckets[-1:]
        gradients = {name: gradient for bucket in buckets for name, gradient in bucket.gradients.items()}
        units = self._cut(list(gradients))
        items = [self._item(unit, gradients, current) for unit in units]
        outcomes, log = self._driver.exchange(items, len(current.logs))
        for unit, outcome in zip(units, outcomes, strict=True):
            self._states[unit.name] = (unit, outcome.state)
            mean = outcome.mean if current.scale == 1 else outcome.mean * current.scale
            pieces = torch.split(mean.reshape(-1), [p.elements for p in unit.parameters])
            for parameter, piece in zip(unit.parameters, pieces, strict=True):
                gradients[parameter.name].copy_(piece.view(parameter.shape))
        current.logs.append(log)
        for bucket in buckets:
            _check_mean(bucket, self.step)

    def _cut(self, names: list[str]) -> list[Unit]:
        """Return the units of a message of these parameters."""
        if self._unit == "model":
            return [self._whole]
        shapes, start, found = dict(self._shapes), 0, []
        for name in names:
            found.append(Parameter(name, shapes[name], start))
            start = found[-1].stop
        return [Unit(tuple(found))] if self._unit == "bucket" else [Unit((parameter,)) for parameter in found]

    def _item(self, unit: Unit, gradients: dict[str, Tensor], current: _Round) -> Item:
        """Return a unit's values, at least in float32 and without the loss scale, with its scheme and state."""
        parts = [gradients[parameter.name] for parameter in unit.parameters]
        dtype = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
        if len(parts) == 1:
            x = parts[0].reshape(unit.shape).to(dtype).contiguous()
        else:
            x = torch.cat([part.reshape(-1).to(dtype) for part in parts])
        if current.scale != 1:
            x = x / current.scale  # not in place: it may be the gradient itself
        if unit.name not in self._schemes:
            self._schemes[unit.name] = self._scheme.for_unit(unit.name, unit.shape)
        if unit.name not in self._states:
            fresh = self._schemes[unit.name].init(unit.shape, 1, x)
            self._states[unit.name] = (unit, regrouped(fresh, unit, list(current.known.values())))
        state = self._states[unit.name][1]
        if self._on_nonfinite != "raise":
            current.before[unit.name] = state.map(torch.clone)
        current.units.append(unit)
        rate = _rate(unit, current.rates, x)
        turn = Turn(self._seed, self.step, unit.name, self._driver.ranks, self._driver.size, rate)
        return Item(x[None], self._schemes[unit.name], state, turn)

    def _complete(self, current: _Round) -> None:
        """End a step: apply the policy if a value was not finite, and give the gradients back."""
        undone = False
        if current.error is None:
            self._replace(current)
        else:
            skipped = isinstance(current.error, NonFiniteError) and self._on_nonfinite != "raise"
            for bucket in current.buckets:
                bucket.buffer.fill_(0.0 if skipped and self._on_nonfinite == "skip" else torch.nan)
            if skipped:
                self._states = {name: (u, current.before.get(name, s)) for name, (u, s) in current.known.items()}
                self.skipped += 1
                self._tell("%s; the step is skipped", current.error)
                current.error = None
                undone = self._on_nonfinite == "pass"  # then the optimizer does not count it; zeros are a step for it
        self.step += not undone
        self.log = tuple(current.logs)

    def _replace(self, current: _Round) -> None:
        """Keep the states of this step's units only, and say so if the buckets have changed."""
        self._states = {unit.name: self._states[unit.name] for unit in current.units}
        if current.known and (new := self._states.keys() - current.known.keys()):
            told = "step %d: the buckets have changed; %d units start anew but for what they remember by element"
            self._tell(told, self.step, len(new))

    def _tell(self, *message: object) -> None:
        """Log a warning, once among all workers."""
        if self._driver.ranks[0] == 0:
            _log.warning(*message)

    # ------------------------------------------------------------------------------------------------ between steps

    def state_dict(self) -> dict[str, Any]:
        """Return this worker's memories and step for a checkpoint; every worker must save its own."""
        states = [
            {"parameters": [p.name for p in unit.parameters], "state": state.map(torch.clone).state_dict()}
            for unit, state in self._states.values()
        ]
        return {**self._identity(), "step": self.step, "states": states}

    def load_state_dict(self, data: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises
        ------
        HookError
            If it is of another scheme, partition, seed, worker or number of workers, or no such checkpoint at all.
        """
        for key in (*self._identity(), "step", "states"):
            if not isinstance(data, dict) or key not in data:
                raise HookError(f"ddp_hook: this is no checkpoint of a hook: it has no {key!r}")
        for key, own in self._identity().items():
            if data[key] != own:
                told = "parameters differ" if key == "parameters" else f"{key} is {data[key]!r}, here {own!r}"
                raise HookError(f"ddp_hook: this checkpoint is not of this hook: its {told}")
        devices = {name: p.device for p, name in self._names.items()}
        states = {}
        for entry in data["states"]:
            unit = self._cut(entry["parameters"])[0]
            # A copy: what was loaded may be loaded again.
            own_copy = partial(Tensor.to, device=devices[unit.parameters[0].name], copy=True)
            states[unit.name] = (unit, State.from_dict(entry["state"]).map(own_copy))
        self._states, self.step = states, int(data["step"])

    def _identity(self) -> dict[str, Any]:
        """Return what a checkpoint and a hook must have in common."""
        return {
            "scheme": str(self._scheme),
            "unit": self._unit,
            "seed": self._seed,
            "workers": self._driver.size,
            "worker": self._driver.ranks[0],
            "parameters": [[name, list(shape)] for name, shape in self._shapes],
        }

    def close(self) -> None:
        """End the thread, after what it has begun. A hook that is not closed ends with the process."""
        self._background.close()


def ddp_hook(
    scheme: str | Scheme,
    model: DistributedDataParallel,
    optimizer: Optimizer,
    *,
    seed: int = 0,
    unit: Granularity = "layer",
    on_nonfinite: OnNonFinite = "raise",
    scaler: torch.amp.GradScaler | None = None,
    exact: bool = False,
    watch: Watch | None = None,
) -> DDPHook:
    """Return a communication hook that compresses the gradients of a DistributedDataParallel model.

    All workers must call it, with the same arguments, after the model was wrapped and before the first step::

        hook = ddp_hook("ef(topk(density=0.01))", model, optimizer)
        model.register_comm_hook(None, hook)

    Parameters
    ----------
    scheme : str or Scheme
    model : DistributedDataParallel
    optimizer : Optimizer
        Its groups' learning rates are read at each step, for memories that are measured in updates.
    seed : int
        From 0 to 2**64 - 1. Keys all random draws; a simulation with the same seed makes the same ones.
    unit : {"layer", "bucket", "model"}
        What the scheme sees as one tensor. ``bucket`` follows DistributedDataParallel's buckets, which change after
        the first step; ``model`` exchanges nothing before the backward pass is over.
    on_nonfinite : {"raise", "skip", "pass"}
        What becomes of a step in which any worker's gradient, or the mean, holds an infinity or a NaN. ``raise``: every
        worker's backward pass raises the same :class:`NonFiniteError`; gradients are NaN and memories undefined.
        ``skip``: all gradients are zero. ``pass``: all gradients are NaN, on which a ``GradScaler`` skips the step and
        lowers its scale. Under the last two all memories stay as they were, which costs a copy of them at each step.
    scaler : GradScaler, optional
        If the loss is scaled, the scaler: the scheme sees gradients divided by the scale, as its memories, thresholds
        and clips need them, and the means are multiplied by it.
    exact : bool
        Sum in rank order, as the simulator does to the last bit, at the price of gathers in place of all-reduces.
    watch : Watch, optional
        Is told when each bucket arrives, is encoded, exchanged and decoded.

    Returns
    -------
    DDPHook

    Raises
    ------
    SchemeError, HookError
        One line that names the key, the value and what is allowed. If one worker's arguments are refused, or not all
        agree, all workers raise.

    Notes
    -----
    Gradients of less than float32 are compressed in float32, and memories kept in it; what travels is up to the scheme.
    """
    if not isinstance(model, DistributedDataParallel):
        raise HookError(f"ddp_hook: model must be a DistributedDataParallel, not a {type(model).__name__}")
    return DDPHook(scheme, model, optimizer, seed, unit, on_nonfinite, scaler, exact, watch)


# ------------------------------------------------------------------------------------------------------------- helpers


def _scheme_of(given: object) -> Scheme:
    """Return a scheme, or the one of a text."""
    if isinstance(given, Scheme):
        return given
    if not isinstance(given, str):
        raise HookError(f"ddp_hook: scheme = {given!r} is not allowed: it must be a text or a Scheme")
    return parse_scheme(given)


def _check_options(optimizer: object, seed: object, unit: object, on_nonfinite: object, scaler: object) -> None:
    """Refuse arguments of the wrong kind, or beyond what they may be."""
    units, policies = ("layer", "bucket", "model"), ("raise", "skip", "pass")
    whole = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**64
    for key, value, good, allowed in (
        ("unit", unit, unit in units, f"one of {', '.join(units)}"),
        ("on_nonfinite", on_nonfinite, on_nonfinite in policies, f"one of {', '.join(policies)}"),
        ("seed", seed, whole, "a whole number from 0 to 2**64 - 1"),
        ("optimizer", optimizer, isinstance(optimizer, Optimizer), "a torch.optim.Optimizer"),
        ("scaler", scaler, scaler is None or hasattr(scaler, "get_scale"), "a GradScaler or None"),
    ):
        if not good:
            raise HookError(f"ddp_hook: {key} = {value!r} is not allowed: it must be {allowed}")


def _rate(unit: Unit, rates: dict[str, float], like: Tensor) -> Rate:
    """Return a unit's learning rate: a number, or a tensor where its parameters' rates differ."""
    each = [rates[parameter.name] for parameter in unit.parameters]
    if len(set(each)) == 1:
        return each[0]
    return torch.cat([like.new_full((p.elements,), r) for p, r in zip(unit.parameters, each, strict=True)])


def _check_mean(bucket: _Bucket, step: int) -> None:
    """Raise if a mean is not finite though all gradients were: a sum or a cast has overflowed, on all workers alike."""
    if isfinite(float(bucket.buffer.sum())) or bool(torch.isfinite(bucket.buffer).all()):
        return
    names = [name for name, gradient in bucket.gradients.items() if not bool(torch.isfinite(gradient).all())]
    raise NonFiniteError(f"step {step}: the mean of {names[0]} overflows, though every gradient is finite")


def _at_the_end(act: Callable[[], None]) -> None:
    """Queue what is to be done on the thread of the backward pass when it is over."""
    Variable._execution_engine.queue_callback(act)  # noqa: SLF001 - as torch's own FSDP does


def _raise(error: BaseException | None) -> None:
    if error is not None:
        raise error
