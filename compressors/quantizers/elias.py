"""Elias's recursive (omega) code of levels, as QSGD uses it: short for small numbers, of which gradients have many.

A number k is written as the bit 0, before that k in binary, before that the number of k's bits less one in binary, and
so on down to 1, which is the bit 0 alone [1]_. A row's bits start at the lowest bit of its first byte. The last byte is
filled up with ones: they begin a number that does not end, so a reader needs no count.

References
----------
.. [1] Elias. *Universal codeword sets and representations of the integers*, IEEE Trans. Inf. Theory 21(2), 1975,
   https://doi.org/10.1109/TIT.1975.1055349
"""

import torch
from torch import Tensor

from ..payload import Ragged


def encode_levels(codes: Tensor, top: int, gaps: bool) -> Ragged:
    """Write each row's levels.

    Parameters
    ----------
    codes : Tensor of uint8, shape [W, n]
        ``top`` plus the signed level.
    top : int
    gaps : bool
        Write the distance of each non-zero level from the one before, its sign and its level; else level + 1 of every
        entry, followed by a sign unless it is zero.

    Returns
    -------
    Ragged of uint8
    """
    from . import omega  # noqa: PLC0415 - numba loads slowly, and other codes do not need it

    rows = []
    for row in codes.cpu().numpy():
        written = torch.empty((omega.length(row, top, gaps) + 7) // 8, dtype=torch.uint8)
        omega.write(row, top, gaps, written.numpy())
        rows.append(written.to(codes.device))
    return Ragged.of(rows)


def decode_levels(buffer: Ragged, top: int, size: int, gaps: bool) -> Tensor:
    """Undo :func:`encode_levels`; returns codes of uint8, shape [R, size]."""
    from . import omega  # noqa: PLC0415 - as above

    codes = torch.full((len(buffer.lengths), size), top, dtype=torch.uint8)
    for r, row in enumerate(codes):
        omega.read(buffer.row(r).cpu().numpy(), top, gaps, row.numpy())
    return codes.to(buffer.flat.device)
