"""The whole objective: value, gradient and curvature of the mean loss over the training split, at a model's parameters.

It is taken in evaluation mode: dropout keeps everything, and normalisation layers use their running statistics.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from ..tasks.base import Split, Task
from ..tasks.convex import Convex
from .curvature import largest_curvature, sample
from .record import Local

_CHUNK = 1000
"""So many examples go through the model at a time."""


class Measured(NamedTuple):
    """What was found at an iterate: f(x), grad f(x) of shape [d] in flat order, None if not taken, and the rest."""

    loss: float
    gradient: Tensor | None
    local: Local


NOT_TAKEN = Measured(float("nan"), None, Local())


class Objective:
    """Measures f at the parameters of a model, on a copy of it, so that nothing of the model changes.

    Parameters
    ----------
    task : Task
        Of a convex task everything is in float64, whatever the training is in, and each example's gradient is taken;
        of another the value, the gradient and the curvature are in the model's own dtype.
    twin : nn.Module
        A copy of the model, which becomes this object's own.
    split : Split
        The training split, on the model's device.
    seed : int
        Draws the examples that curvature is taken on.
    """

    def __init__(self, task: Task, twin: nn.Module, split: Split, seed: int) -> None:
        self.convex = isinstance(task, Convex)
        self.dtype = torch.float64 if self.convex else next(twin.parameters()).dtype
        self.twin = twin.to(self.dtype)
        self._task, self._split, self._seed = task, split.to(dtype=self.dtype), seed
        self._parameters = {name: p for name, p in twin.named_parameters() if p.requires_grad}
        self._sample = () if self.convex else sample(self._split, seed)

    def follow(self, model: nn.Module) -> None:
        """Take over a model's parameters and buffers."""
        with torch.no_grad():
            theirs = chain(model.parameters(), model.buffers())
            for own, other in zip(chain(self.twin.parameters(), self.twin.buffers()), theirs, strict=True):
                own.copy_(other)

    def measure(self) -> Measured:
        """Measure f where the model was when it was followed."""
        with _evaluating(self.twin):
            if self.convex:
                return self._by_example()
            loss, gradient = self._whole()
            curvature = largest_curvature(self._task, self.twin, self._sample, self._seed)
        return Measured(loss, gradient, Local(curvature.value, curvature.error))

    def _chunks(self) -> Iterator[tuple[Tensor, ...]]:
        for start in range(0, len(self._split), _CHUNK):
            yield self._split.take(slice(start, start + _CHUNK))

    def _whole(self) -> tuple[float, Tensor]:
        """Return value and gradient."""
        value, total = 0.0, None
        for batch in self._chunks():
            share = len(batch[0]) / len(self._split)
            loss = self._task.loss(self.twin, batch)
            parts = torch.autograd.grad(loss, list(self._parameters.values()), materialize_grads=True)
            part = share * flat(dict(zip(self._parameters, parts, strict=True)))
            value, total = value + share * loss.item(), part if total is None else total + part
        assert total is not None
        return value, total

    def _by_example(self) -> Measured:
        """Return value, gradient, and the mean squared distance of an example's gradient from it."""
        parameters = {name: p.detach() for name, p in self._parameters.items()}

        def loss(parameters: dict[str, Tensor], *example: Tensor) -> Tensor:
            def model(*inputs: Tensor) -> Tensor:
                result: Tensor = functional_call(self.twin, parameters, inputs)
                return result

            return self._task.loss(model, tuple(part[None] for part in example))

        count = len(self._split)
        rows_of: Any = vmap(grad_and_value(loss), in_dims=(None, *[0] * len(self._split.tensors)))
        value, spread, centre = 0.0, 0.0, None
        total = torch.zeros((), dtype=self.dtype)
        for batch in self._chunks():
            gradients, losses = rows_of(parameters, *batch)
            rows = flat(gradients, len(batch[0]))
            centre = rows.mean(0) if centre is None else centre
            value, total = value + float(losses.sum()) / count, total + (rows - centre).sum(0) / count
            spread += float((rows - centre).square().sum()) / count
        assert centre is not None
        # Sums are taken about a centre near the mean: about 0, a small spread would be lost in the gradients' size.
        spread = max(spread - float(total.square().sum()), 0.0)
        return Measured(value, centre + total, Local(example_noise2=spread))


def flat(tensors: dict[str, Tensor], rows: int = 0) -> Tensor:
    """Return parameters' values by name, in the order of their definition, as one vector in the partition's flat order.

    With ``rows``, each has so many in its first dimension, which stays.
    """
    shape = (rows, -1) if rows else (-1,)
    return torch.cat([tensor.reshape(shape) for tensor in reversed(list(tensors.values()))], dim=-1)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while."""
    model.eval()
    try:
        yield
    finally:
        model.train()
