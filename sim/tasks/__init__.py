"""What is learnt: data, model and metric, one file a task.

A task of your own is a frozen dataclass that derives from :class:`Task` (or :class:`Classification`). Its fields are
the keys of ``[task]`` in an experiment file, where it goes by its import path, ``package.module:Task``.
"""

from .base import Evaluation, Model, Split, Splits, Task, TaskError
from .classification import Classification
from .convex import Constants, Convex
from .idx import IdxError
from .registry import TASKS, make_task

__all__ = [
    "TASKS",
    "Classification",
    "Constants",
    "Convex",
    "Evaluation",
    "IdxError",
    "Model",
    "Split",
    "Splits",
    "Task",
    "TaskError",
    "make_task",
]
