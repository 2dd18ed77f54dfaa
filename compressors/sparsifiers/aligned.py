"""What the sparsifiers share that send the same random entries of every worker."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from ..base import Shape, check_range, kept
from .sparse import Sparsifier


@dataclass(frozen=True)
class AlignedSparsifier(Sparsifier):
    """Base of codecs that keep ceil(density * n) entries, each with equal probability, the same on every worker.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; lower compresses more. At least one entry is kept.
    scaled : bool
        Multiply what is kept by n / k, which makes the scheme unbiased and its variance n / k - 1 times the squared
        norm. Leave it off under error feedback, which the scaled form would make diverge.
    """

    density: float = 0.01
    scaled: bool = False

    collective = "all-reduce"

    def __post_init__(self) -> None:
        check_range(self, "density", "in (0, 1]", 0 < self.density <= 1)

    @property
    def unbiased(self) -> bool:
        return self.scaled or self.density == 1

    @property
    def selects(self) -> bool:
        return not self.scaled or self.density == 1

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "sum"

    @property
    def sends_positions(self) -> bool:
        return False

    def count(self, shape: Shape) -> float:
        return kept(self.density, prod(shape))

    def fraction(self, shape: Shape) -> float:
        """Return the fraction of a unit's entries that is kept, which is their probability to be."""
        return kept(self.density, prod(shape)) / prod(shape)

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - k / n, or n / k - 1 where scaled; both hold with equality for every input."""
        fraction = self.fraction(shape)
        return 1 / fraction - 1 if self.scaled else 1 - fraction
