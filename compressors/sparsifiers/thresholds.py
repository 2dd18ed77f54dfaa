"""What the threshold sparsifiers share: exact comparisons, and a codec of rows that differ in length."""

from abc import abstractmethod
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..base import State, Turn
from ..decoded import RaggedSparse
from ..payload import Ragged
from . import selection
from .sparse import Sparsifier


class ThresholdSparsifier(Sparsifier):
    """Base of codecs that send, of each worker's row, the entries that pass a threshold of that row.

    How many pass differs between workers and steps, so rows are ragged, and one of which nothing passes is empty. A
    subclass says which entries pass, and about how many.
    """

    @property
    def ragged(self) -> bool:
        return True

    @abstractmethod
    def passing(self, row: Tensor, turn: Turn, rank: int) -> Tensor:
        """Return the ascending positions of the entries of one row [n] that pass."""

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[RaggedSparse, State]:
        flat = x.reshape(len(x), -1)
        found = [self.passing(row, turn, rank) for row, rank in zip(flat, turn.ranks, strict=True)]
        return entries_at(flat, found), state


def entries_at(flat: Tensor, positions: list[Tensor]) -> RaggedSparse:
    """Return the entries of rows ``[R, n]`` at each row's positions."""
    values = Ragged.of([row[found] for row, found in zip(flat, positions, strict=True)])
    return RaggedSparse(values, Ragged.of(positions), flat.shape[1])


def above(row: Tensor, threshold: float) -> Tensor:
    """Return the ascending positions of entries whose magnitude is greater than a threshold."""
    most = bound(threshold, row, -inf)  # that does not pass
    return selection.at_least(row, float(torch.nextafter(most, torch.full_like(most, inf))))


def at_least(row: Tensor, threshold: float) -> Tensor:
    """Return the ascending positions of entries whose magnitude is a threshold or greater."""
    return selection.at_least(row, float(bound(threshold, row, inf)))


def bound(threshold: float, like: Tensor, side: float) -> Tensor:
    """Return a threshold in another dtype, rounded to the given side, so that comparisons have the same results."""
    near = torch.tensor(threshold, dtype=torch.float64, device=like.device).to(like.dtype)
    wrong_side = float(near) > threshold if side < 0 else float(near) < threshold
    return torch.nextafter(near, torch.full_like(near, side)) if wrong_side else near


def numbers(row: Tensor) -> NDArray[np.floating]:
    """Return values as an array, whose sums do not depend on the number of threads as torch's do."""
    row = row.detach().cpu()
    array: NDArray[np.floating] = (row.float() if row.dtype is torch.bfloat16 else row).numpy()
    return array
