"""Selection kernels: which entries have the largest magnitude, exactly, with ties broken by the lowest index."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BATCHED_BELOW = 16_384
"""Rows shorter than this are selected together: single calls would cost more than the work."""
_SAMPLE = 4_096
"""About so many entries of a long row, or one in 1024, are looked at to guess the threshold."""
_PIECE = 131_072
"""So many entries of a long row are compared at a time."""


def top_k(x: Tensor, k: int) -> Tensor:
    """Return the indices of the k entries of largest magnitude in each row.

    Parameters
    ----------
    x : Tensor, shape [R, n]
        Finite values.
    k : int
        1 to n.

    Returns
    -------
    Tensor of int64, shape [R, k]
        Ascending in each row. Of equal magnitudes the lowest indices are taken.
    """
    rows, size = x.shape
    if k == size:
        return torch.arange(size, device=x.device).repeat(rows, 1)
    if x.device.type != "cpu" or size < _BATCHED_BELOW or x.dtype is torch.bfloat16:  # which numpy has not
        return _by_mask(x.abs(), k)
    return torch.from_numpy(np.stack([_by_threshold(row, k) for row in x.detach().numpy()]))


def _by_mask(magnitude: Tensor, k: int) -> Tensor:
    """Select with tensor operations, on any device."""
    smallest_kept = magnitude.topk(k, dim=1, sorted=True).values[:, -1:]
    above = magnitude > smallest_kept
    ties = magnitude == smallest_kept
    wanted = k - above.sum(1, keepdim=True)
    chosen = above | (ties & (ties.cumsum(1) <= wanted))
    return chosen.nonzero()[:, 1].view(-1, k)


def at_least(row: Tensor, threshold: float) -> Tensor:
    """Return the ascending indices at which the magnitudes of a row [n] reach a threshold."""
    if row.device.type != "cpu" or row.dtype is torch.bfloat16:
        return (row.abs() >= threshold).nonzero()[:, 0]
    return torch.from_numpy(_reaching(row.detach().numpy(), threshold))


def contenders(row: Tensor, k: int) -> Tensor | None:
    """Return the ascending indices of all entries of a row [n] that reach some magnitude, at least k of them.

    So the k largest magnitudes are among theirs, with all ties. None stands for all entries, where that is no loss.
    """
    if row.device.type != "cpu" or len(row) < _BATCHED_BELOW or row.dtype is torch.bfloat16:
        return None
    found = _contenders(row.detach().numpy(), k)
    return None if found is None else torch.from_numpy(found)


def _by_threshold(row: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Select from one long row, exactly, among few candidates where they can be found."""
    candidates = _contenders(row, k)
    return _exact(np.abs(row), k) if candidates is None else candidates[_exact(np.abs(row[candidates]), k)]


def _contenders(row: NDArray[np.floating], k: int) -> NDArray[np.int64] | None:
    """Return at least k indices of one long row that reach a sample's quantile, or None if that does not narrow it."""
    size = len(row)
    sample = np.abs(row[:: max(1, size // max(_SAMPLE, size >> 10))])
    expected = k * len(sample) / size
    rank = int(expected + 4 * expected**0.5 + 4)  # so that fewer than k candidates are improbable
    if rank < len(sample) // 2:
        guess = np.partition(sample, len(sample) - rank)[len(sample) - rank]
        candidates = _reaching(row, guess)
        if len(candidates) >= k:
            return candidates
    return None


def _reaching(row: NDArray[np.floating], threshold: float | np.floating) -> NDArray[np.int64]:
    """Return where magnitudes reach a threshold, piece by piece: magnitudes and comparisons stay in the cache."""
    size = min(len(row), _PIECE)
    magnitude, reached = np.empty(size, dtype=row.dtype), np.empty(size, dtype=np.bool_)
    found = []
    for start in range(0, len(row), _PIECE):
        piece = row[start : start + _PIECE]
        length = len(piece)
        np.abs(piece, out=magnitude[:length])
        np.greater_equal(magnitude[:length], threshold, out=reached[:length])
        found.append(np.flatnonzero(reached[:length]) + start)
    return np.concatenate(found)


def _exact(magnitude: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Select by one partition of the whole row."""
    cut = len(magnitude) - k
    smallest_kept = np.partition(magnitude, cut)[cut]
    chosen = magnitude > smallest_kept
    ties = np.flatnonzero(magnitude == smallest_kept)[: k - int(np.count_nonzero(chosen))]
    chosen[ties] = True
    return np.flatnonzero(chosen)
