"""What classification tasks share: the cross-entropy, and the accuracy as metric."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from .base import Model, Task


class Classification(Task):
    """A task whose batches are inputs [B, ...] and labels [B] (int64), and whose model gives scores [B, classes].

    The metric is the share of examples whose highest score is their label's, from 0 to 1.
    """

    metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True

    def loss(self, model: Model, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the mean cross-entropy in nats, a scalar."""
        inputs, labels = batch
        return functional.cross_entropy(model(inputs), labels)

    def measure(self, model: Model, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy and the accuracy, from one forward pass."""
        inputs, labels = batch
        scores = model(inputs)
        return functional.cross_entropy(scores, labels), (scores.argmax(-1) == labels).double().mean()
