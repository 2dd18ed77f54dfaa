"""Batches: which examples each worker sees at each step, from the seed alone."""

import numpy as np
import torch
from torch import Tensor

from ...compressors.errors import InputError
from ...compressors.keys import Purpose, stream


class TooFewExamplesError(InputError):
    """The training split cannot fill one batch for every worker."""


class Batches:
    """Shards an epoch's shuffled examples over the workers, as DistributedSampler does.

    Of each epoch's permutation, step b of the epoch takes the next N * B examples, of which worker r gets every N-th
    from the r-th on. What remains at the end of an epoch and would not fill a step is left out.

    Parameters
    ----------
    examples : int
    workers : int
        N.
    batch_size : int
        B, examples of a worker and step.
    seed : int
    """

    def __init__(self, examples: int, workers: int, batch_size: int, seed: int) -> None:
        self.steps_per_epoch = examples // (workers * batch_size)
        if not self.steps_per_epoch:
            raise TooFewExamplesError(
                f"training.batch_size = {batch_size}: {workers} workers need {workers * batch_size} examples a step, "
                f"but the training split has {examples}; use fewer workers or smaller batches"
            )
        self._examples, self._workers, self._batch_size, self._seed = examples, workers, batch_size, seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def indices(self, step: int, ranks: tuple[int, ...]) -> Tensor:
        """Return the example indices of some workers at a step, shape [len(ranks), B]."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = np.random.Generator(stream(self._seed, Purpose.SHUFFLING, epoch, "train"))
            self._order, self._epoch = torch.from_numpy(generator.permutation(self._examples)), epoch
        size = self._workers * self._batch_size
        return self._order[within * size : (within + 1) * size].view(self._batch_size, self._workers).T[list(ranks)]
