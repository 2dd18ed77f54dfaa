"""Hard threshold: the entries whose magnitude is at least a given number."""

from dataclasses import dataclass
from math import inf, prod

from torch import Tensor

from ..base import Passes, Shape, Turn, check_range
from ..indices import Coding
from .thresholds import ThresholdSparsifier, at_least


@dataclass(frozen=True)
class Threshold(ThresholdSparsifier):
    """Send the entries with |x| >= ``value``, with their positions.

    A worker hands over its entries in the gradient's dtype with their positions, and a header. What is not sent is
    below ``value`` each, so the squared error is below n * value**2 whatever the input: the error is absolute.

    Parameters
    ----------
    value : float
        The threshold lambda, above 0, in the units of what is compressed, gradients as a rule, and rounded to their
        dtype; higher compresses more.
    coding : {"log2", "raw", "bitmap", "rice", "elias", "auto"}
        How positions are written; see :data:`gradwire.compressors.indices.Coding`.

    Notes
    -----
    The scheme is not homogeneous: multiplying the gradients, or the rate under ``ef`` in update units, changes what is
    sent. Under ``ef`` with ``units=gradient`` the threshold keeps its meaning when the rate changes.

    How many entries pass is not known beforehand; ``wire_bytes`` counts all of them, which is the most.

    References
    ----------
    .. [1] Sahu, Dutta, Abdelmoniem, Banerjee, Canini, Kalnis. *Rethinking Gradient Sparsification as Total Error
       Minimization*, NeurIPS 2021, https://arxiv.org/abs/2108.00951
    """

    value: float = 0.01
    coding: Coding = "log2"

    name = "threshold"
    title = "the entries of magnitude at least lambda, with their positions"
    paper = "Sahu et al. 2021, arXiv 2108.00951"
    examples = ("threshold(value=0.5)",)

    def __post_init__(self) -> None:
        check_range(self, "value", "above 0", 0 < self.value < inf)

    @property
    def homogeneous(self) -> bool:
        return False

    def error_bound(self, shape: Shape) -> float:
        """Return 1, attained by whatever lies below the threshold."""
        return 1.0

    def count(self, shape: Shape) -> float:
        return float(prod(shape))

    def passes(self, shape: Shape) -> Passes:
        """Return a read to compare, and at most a write of the values and an addition of each when decoded."""
        return Passes(encode=3, between=0, decode=3)

    def passing(self, row: Tensor, turn: Turn, rank: int) -> Tensor:
        return at_least(row, float(row.new_tensor(self.value)))
