"""Water-filling: the sampling probabilities of least variance for a budget of expected entries."""

from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import pad

from .selection import top_k


def probabilities(magnitudes: Tensor, budget: float) -> Tensor:
    """Return p_i = min(1, c m_i) in each row, with c such that the p_i add up to the budget.

    Of all ways to keep entries (or atoms) independently with probability p_i and to send x_i / p_i, this one has the
    least variance for its expected number of entries [1]_, [2]_. Only the ``budget`` largest entries can be certain, so
    the others need not be sorted.

    Parameters
    ----------
    magnitudes : Tensor, shape [R, n]
        Finite and not negative.
    budget : float
        Expected number of entries of a row, above 0; need not be whole.

    Returns
    -------
    Tensor of float64, shape [R, n]
        A row's sum is the budget to rounding, or the number of entries above 0 where there are not more. Entries of 0
        have p = 0. A row's result does not depend on the others.

    References
    ----------
    .. [1] Wang, Sievert, Liu, Charles, Papailiopoulos, Wright. *ATOMO: Communication-efficient Learning via Atomic
       Sparsification*, NeurIPS 2018, Algorithm 1, https://arxiv.org/abs/1806.04090
    .. [2] Wangni, Wang, Liu, Zhang. *Gradient Sparsification for Communication-Efficient Distributed Optimization*,
       NeurIPS 2018, https://arxiv.org/abs/1710.09854

    Examples
    --------
    >>> probabilities(torch.tensor([[10.0, 1.0, 1.0, 1.0]]), 2)
    tensor([[1.0000, 0.3333, 0.3333, 0.3333]], dtype=torch.float64)
    """
    size = magnitudes.shape[1]
    if budget >= size:
        return (magnitudes > 0).double()
    m = _large(magnitudes.double())
    largest = top_k(m, ceil(budget))
    descending = m.gather(1, largest).sort(1, descending=True).values
    rest = _row_sums(m.scatter(1, largest, 0.0))
    # tails[:, i] is the sum of all but the i largest entries.
    tails = torch.cat([descending, rest], dim=1).flip(1).cumsum(1).flip(1)[:, :-1]
    left = budget - torch.arange(tails.shape[1], dtype=torch.float64, device=m.device)
    # Entry i is certain as long as its share of what is left exceeds 1, which ends where at most 1 is left.
    certain = (descending * left <= tails).int().argmax(1, keepdim=True)
    tail = tails.gather(1, certain)
    p = (m / torch.where(tail > 0, tail, 1) * left[certain]).clamp_(max=1)
    return torch.where(tail > 0, p, (m > 0).double())


def _large(x: Tensor) -> Tensor:
    """Return each row times a power of two, so that sums cannot overflow and the smallest entries lose no bits."""
    shift = 960 - torch.frexp(x.amax(1, keepdim=True)).exponent
    return torch.ldexp(torch.ldexp(x, shift // 2), shift - shift // 2)  # each factor is in range


def _row_sums(x: Tensor) -> Tensor:
    """Return the sum of each row as ``[R, 1]``, by halves: the same for any number of threads and other rows."""
    while x.shape[1] > 1:
        half = (x.shape[1] + 1) // 2
        x = x[:, :half] + pad(x[:, half:], (0, 2 * half - x.shape[1]))
    return x
