"""What a listed model is: how to build it, what one batch looks like, and what it is called elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from ...compressors.base import Shape

META = torch.device("meta")
"""Where models are built: they have shapes there, and neither values nor memory."""


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
    run : callable
        Runs the module's forward pass and loss on a batch of so many samples, on the device of its parameters.
    """

    name: str
    title: str
    source: str
    sample: str
    batch: int
    build: Callable[[], nn.Module]
    run: Callable[[nn.Module, int], Tensor]

    def module(self) -> nn.Module:
        """Return the module on the ``meta`` device."""
        with META:
            return self.build()

    def parameters(self) -> list[tuple[str, Shape]]:
        """Return names and shapes in the order of their definition; a tied parameter stands once, where it is first."""
        return list(_parameters(self))


@lru_cache(maxsize=64)
def _parameters(model: Model) -> tuple[tuple[str, Shape], ...]:
    """Build a model once to know its parameters."""
    return tuple((name, tuple(parameter.shape)) for name, parameter in model.module().named_parameters())


def images(module: nn.Module, batch: int) -> Tensor:
    """Run a classifier of 1,000 classes on images of 224 x 224 pixels."""
    with META:
        x, y = torch.empty(batch, 3, 224, 224), torch.empty(batch, dtype=torch.int64)
        loss: Tensor = nn.functional.cross_entropy(module(x), y)
    return loss


def next_words(length: int) -> Callable[[nn.Module, int], Tensor]:
    """Return how a language model is run, on sequences of so many tokens."""

    def run(module: nn.Module, batch: int) -> Tensor:
        with META:
            tokens = torch.empty(batch, length, dtype=torch.int64)
            loss: Tensor = nn.functional.cross_entropy(module(tokens).flatten(0, 1), tokens.flatten())
        return loss

    return run
