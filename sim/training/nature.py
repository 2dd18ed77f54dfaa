"""The nature of an objective: what is known of a task's loss before any training, as convergence theory asks for it."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..tasks.base import Task
from ..tasks.classification import Classification
from ..tasks.convex import Constants, Convex
from .gradients import seeded
from .smooth import rough_operations

_BATCH = 8


@dataclass(frozen=True, eq=False)
class Nature:
    """What is known of an objective, the mean loss over a training split.

    Attributes
    ----------
    examples : int
        Of the training split.
    constants : Constants or None
        Of a convex task.
    rough : tuple of str, or None
        Operations of the loss that are not smooth; None if its graph could not be had.
    alone : bool
        Whether the loss of a batch is the same in training as in evaluation: no dropout, no batch normalisation.
    nonnegative : bool
        Whether the loss is known to be at least 0, as a cross-entropy is.
    """

    examples: int
    constants: Constants | None
    rough: tuple[str, ...] | None
    alone: bool
    nonnegative: bool


def nature_of(task: Task, model: nn.Module) -> Nature:
    """Find out what is known of a task.

    Parameters
    ----------
    task : Task
    model : nn.Module
        A model of it, on the CPU; it stays as it is.
    """
    model = copy.deepcopy(model)
    split = task.splits().train.to(dtype=next(model.parameters()).dtype)
    batch = split.take(slice(0, _BATCH))
    with seeded(0, torch.device("cpu")):
        return Nature(
            examples=len(split),
            constants=task.constants() if isinstance(task, Convex) else None,
            rough=rough_operations(task, model, batch),
            alone=_alone(task, model, batch),
            nonnegative=isinstance(task, Classification) and type(task).loss is Classification.loss,
        )


def _alone(task: Task, model: nn.Module, batch: tuple[Tensor, ...]) -> bool:
    """Return whether training and evaluation mode give the same loss."""
    with torch.no_grad():
        evaluated, trained = (task.loss(model.train(mode), batch) for mode in (False, True))
    return bool(torch.isclose(evaluated, trained, rtol=1e-5))
