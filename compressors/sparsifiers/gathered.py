"""What the sparsifiers share that send a fraction of each worker's entries, with their positions."""

from dataclasses import dataclass
from math import prod

from ..base import Shape, check_range, kept
from ..indices import Coding
from .sparse import Sparsifier


@dataclass(frozen=True)
class GatheredSparsifier(Sparsifier):
    """Base of codecs that send ceil(density * n) entries of each worker, or about so many, with their indices.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; lower compresses more. At least one entry is kept.
    coding : {"log2", "raw", "bitmap", "rice", "elias", "auto"}
        How indices are written: in ceil(log2 n) bits each, 32 bits each, a bit for each of the n entries, Golomb-Rice
        or Elias' delta code on the gaps between them, or the shortest for each worker.
    """

    density: float = 0.01
    coding: Coding = "log2"

    def __post_init__(self) -> None:
        check_range(self, "density", "in (0, 1]", 0 < self.density <= 1)

    def count(self, shape: Shape) -> float:
        """Return how many values of a unit are sent, or the expectation of it."""
        return kept(self.density, prod(shape))

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - k / n."""
        return 1 - self.count(shape) / prod(shape)
