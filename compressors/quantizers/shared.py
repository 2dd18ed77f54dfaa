"""What the quantizers share whose levels are summed as whole numbers under one scale of all workers."""

import torch
from torch import Tensor

from ..base import Scheme, SchemeError, Turn


def summed_dtype(scheme: Scheme, top: int, turn: Turn) -> torch.dtype:
    """Return the integers in which the levels -top to top of all workers can be summed.

    Raises
    ------
    SchemeError
        If even 32 bits can overflow.
    """
    largest = top * turn.size
    if largest <= torch.iinfo(torch.int8).max:
        return torch.int8
    if largest <= torch.iinfo(torch.int32).max:
        return torch.int32
    raise SchemeError(f"{scheme}: levels up to {top} of {turn.size} workers overflow a sum of 32 bits")


def mean_of_levels(total: Tensor, scale: Tensor, turn: Turn) -> Tensor:
    """Return the mean of all workers' levels ``[n]``, times the scale ``[1, 1]`` of a level."""
    return (total.to(scale.dtype) / turn.size).mul_(scale[0])
