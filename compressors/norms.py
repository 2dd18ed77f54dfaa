"""Norms of rows that do not depend on how many rows or threads share the work."""

import torch
from torch import Tensor
from torch.nn.functional import pad

_BLOCK = 512


def power_sums(x: Tensor, order: int) -> Tensor:
    """Return the sum of ``|x|**order`` of each row, order 1 or 2.

    A sum over a long row is split between threads where there are few rows, and rounded accordingly. Blocks are not.

    Parameters
    ----------
    x : Tensor, shape [R, n]

    Returns
    -------
    Tensor of float64, shape [R]
    """
    blocks = pad(x, (0, -x.shape[1] % _BLOCK)).view(len(x), -1, _BLOCK)
    sums: Tensor = torch.linalg.vector_norm(blocks, order, dim=2).double().pow_(order).cumsum(1)
    return sums[:, -1]
