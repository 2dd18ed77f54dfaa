"""What a listed model is: how to build it, what one batch looks like, and what it is called elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from ...compressors.base import Shape

META = torch.device("meta")
"""Where models are built: they have shapes there, and neither values nor memory."""
Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Model:
    """A model of the literature.

    Attributes
    ----------
    name, title : str
    source : str
        Paper, and the library whose parameter names and shapes these are.
    sample : str
        What one sample of a batch is.
    batch : int
        The customary batch of one worker.
    build : callable
        Returns the module; call it under the ``meta`` device, or it costs memory and time.
    inputs : callable
        Returns a batch of so many samples on a device: drawn at random, or without values on ``meta``.
    loss : callable
        Runs the module's forward pass on such a batch; returns the loss.
    """

    name: str
    title: str
    source: str
    sample: str
    batch: int
    build: Callable[[], nn.Module]
    inputs: Callable[[int, torch.device], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]

    def module(self) -> nn.Module:
        """Return the module on the ``meta`` device."""
        with META:
            return self.build()

    def run(self, module: nn.Module, batch: int) -> Tensor:
        """Run forward pass and loss of a module on the ``meta`` device on so many samples."""
        return self.loss(module, self.inputs(batch, META))

    def parameters(self) -> list[tuple[str, Shape]]:
        """Return names and shapes in the order of their definition; a tied parameter stands once, where it is first."""
        return list(_parameters(self))


@lru_cache(maxsize=64)
def _parameters(model: Model) -> tuple[tuple[str, Shape], ...]:
    """Build a model once to know its parameters."""
    return tuple((name, tuple(parameter.shape)) for name, parameter in model.module().named_parameters())


def images(batch: int, device: torch.device) -> Batch:
    """Return images of 224 x 224 pixels with labels of 1,000 classes."""
    x = torch.empty(batch, 3, 224, 224, device=device)
    return x if device == META else x.normal_(), labels(1000, device, batch)


def labels(count: int, device: torch.device, *shape: int) -> Tensor:
    """Return whole numbers from 0 to ``count`` - 1."""
    found = torch.empty(shape, dtype=torch.int64, device=device)
    return found if device == META else found.random_(count)


def classified(module: nn.Module, batch: Batch) -> Tensor:
    """Return the loss of a classifier."""
    x, y = batch
    loss: Tensor = nn.functional.cross_entropy(module(x), y)
    return loss


def sequences(words: int, length: int) -> Callable[[int, torch.device], Batch]:
    """Return what gives sequences of so many of these words."""
    return lambda batch, device: (labels(words, device, batch, length),)


def next_words(module: nn.Module, batch: Batch) -> Tensor:
    """Return the loss of a language model."""
    (tokens,) = batch
    loss: Tensor = nn.functional.cross_entropy(module(tokens).flatten(0, 1), tokens.flatten())
    return loss
