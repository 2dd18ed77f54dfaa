"""The contract of a task: splits of data, a model, a loss and a metric.

A task says what is learnt and nothing about how: workers, optimizer and compression belong to the trainer.
"""

import hashlib
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ...compressors.errors import InputError

Model = Callable[..., Tensor]
"""A module, or a functional stand-in for it, that is called with a batch's inputs."""


class TaskError(InputError):
    """A task that cannot be had as asked for.

    Parameters
    ----------
    key : str
        The key under ``[task]`` that is at fault; ``"name"`` if it is the task itself.
    value : object
        What was given; None if nothing was.
    allowed : str
        What is wrong with it and what would do, in one line.
    """

    def __init__(self, key: str, value: object, allowed: str) -> None:
        # All three go to `args`, by which an exception is pickled on its way out of a worker process.
        super().__init__(key, value, allowed)
        self.key, self.value, self.allowed = key, value, allowed

    def __str__(self) -> str:
        given = "" if self.value is None else f" = {self.value!r}"
        return f"task.{self.key}{given}: {self.allowed}"


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one purpose: tensors that share their leading dimension.

    Attributes
    ----------
    tensors : tuple of Tensor, each [m, ...]
        What a batch is made of, in the order in which :meth:`Task.loss` takes it; for a classification, inputs and
        labels.

    Raises
    ------
    ValueError
        If there is no tensor, or no example, or the leading dimensions differ.
    """

    tensors: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        lengths = [tensor.shape[0] if tensor.ndim else 0 for tensor in self.tensors]
        if not lengths or min(lengths) < 1 or min(lengths) != max(lengths):
            raise ValueError(f"a split needs tensors with the same number of examples, at least 1; found {lengths}")

    def __len__(self) -> int:
        """Return the number of examples, m."""
        return self.tensors[0].shape[0]

    def take(self, indices: Tensor | slice) -> tuple[Tensor, ...]:
        """Return the examples at some positions.

        Parameters
        ----------
        indices : Tensor of int64, any shape, or slice
            Positions from 0. ``[W, B]`` gives W workers' batches of B examples, each tensor ``[W, B, ...]``.

        Returns
        -------
        tuple of Tensor
            One per tensor of the split; views for a slice, copies for a tensor.
        """
        return tuple(tensor[indices] for tensor in self.tensors)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Split":
        """Return the split on another device, or with its floating-point tensors in another dtype."""
        moved = (t.to(device=device, dtype=dtype if t.is_floating_point() else None) for t in self.tensors)
        return Split(tuple(moved))


class Splits(NamedTuple):
    """A task's data: what is trained on, what settings are chosen by, and what is reported."""

    train: Split
    validation: Split
    test: Split


class Evaluation(NamedTuple):
    """Means over a split: the loss, and the metric that the task names."""

    loss: float
    metric: float


class Task(ABC):
    """Data, a model, a loss and a metric.

    A task is a frozen dataclass whose fields are the keys of ``[task]`` in an experiment file. The built-in tasks give
    their floating-point data as float32; :meth:`Split.to` and ``Module.to`` take both data and model elsewhere.

    Attributes
    ----------
    metric : str
        The metric's name, such as ``"accuracy"``.
    higher_is_better : bool
        The direction in which the metric improves.
    """

    metric: ClassVar[str]
    higher_is_better: ClassVar[bool]

    @abstractmethod
    def splits(self) -> Splits:
        """Return the data as CPU tensors: the same at every call, whatever the run's seed."""

    @abstractmethod
    def model(self) -> nn.Module:
        """Return a newly initialised model; the caller has seeded torch's generator."""

    @abstractmethod
    def loss(self, model: Model, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the loss, a scalar: the mean over a batch.

        Must work under ``torch.func.vmap(torch.func.grad(...))``: no ``.item()``, no branches on values.

        Parameters
        ----------
        model : Model
            The model, or a functional stand-in; call it, and use nothing else of it.
        batch : tuple of Tensor, each [B, ...]
            Examples as :meth:`Split.take` gives them.
        """

    def measure(self, model: Model, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the loss and the metric of a batch, each a scalar mean; the metric is the loss unless overridden."""
        loss = self.loss(model, batch)
        return loss, loss

    def evaluate(self, model: nn.Module, split: Split, batch_size: int = 1000) -> Evaluation:
        """Measure a model on a whole split, in evaluation mode and without gradients.

        Parameters
        ----------
        model : nn.Module
            The model, on the split's device and in its dtype.
        split : Split
            The examples.
        batch_size : int
            How many examples go through the model at a time; bounds memory, not the result.
        """
        training = model.training
        model.eval()
        loss = metric = 0.0
        try:
            with torch.no_grad():
                for start in range(0, len(split), batch_size):
                    batch = split.take(slice(start, start + batch_size))
                    share = batch[0].shape[0] / len(split)
                    batch_loss, batch_metric = self.measure(model, batch)
                    loss += share * batch_loss.item()
                    metric += share * batch_metric.item()
        finally:
            model.train(training)
        return Evaluation(loss, metric)

    def digest(self) -> str:
        """Return a sha256, in hexadecimal, of all of the task that a training's result depends on.

        It covers the data tensors (dtype, shape, bytes), the task's class and fields, and the source text of the
        modules that define the class and the tasks it derives from. Other modules that these import are not covered.

        Raises
        ------
        TaskError
            If a module's source text cannot be read, as for a class typed at a prompt.
        """
        kind = type(self)
        digest = hashlib.sha256(f"{kind.__module__}:{kind.__qualname__}".encode())
        values: list[tuple[str, Any]] = [(f.name, getattr(self, f.name)) for f in fields(self)]  # type: ignore[arg-type]
        digest.update(repr(values).encode())
        for module in sorted({base.__module__ for base in kind.__mro__ if issubclass(base, Task)}):
            digest.update(_source(module).encode())
        for split in self.splits():
            for tensor in split.tensors:
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _source(module: str) -> str:
    """Return a loaded module's source text."""
    try:
        return inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError) as error:
        allowed = f"the source text of module {module!r} cannot be read; keep the task in a file"
        raise TaskError("name", module, allowed) from error
