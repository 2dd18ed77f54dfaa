"""A task at which one of the workers fails, in one of several ways; processes of a measurement import it."""

import os
import signal
import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gradwire.sim.tasks.base import Model, Split, Splits, Task


@dataclass(frozen=True)
class Faulty(Task):
    """A line through points, on which a worker does what it must not."""

    fault: Literal["none", "raise", "hang", "kill", "stop"] = "none"
    worker: int = 1

    metric = "loss"
    higher_is_better = False

    def splits(self) -> Splits:
        x = torch.linspace(-1, 1, 64)[:, None]
        split = Split((x, 2 * x))
        return Splits(split, split, split)

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)

    def loss(self, model: Model, batch: tuple[Tensor, ...]) -> Tensor:
        if os.environ.get("RANK") == str(self.worker):
            self._fail()
        return (model(batch[0]) - batch[1]).square().mean()

    def _fail(self) -> None:
        match self.fault:
            case "raise":
                raise RuntimeError("the disk is full of water")
            case "hang":
                time.sleep(3600)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
