"""What the sparsifiers share whose workers send entries of their own, with their positions."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from ..base import Codec, Shape, Turn, check_range, kept
from ..decoded import Decoded
from ..indices import Coding, length_varies
from ..payload import Payload
from .sparse import read_sparse, sparse_bytes


@dataclass(frozen=True)
class GatheredSparsifier(Codec):
    """Base of codecs that send some entries of each worker with their indices.

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

    collective = "all-gather"

    def __post_init__(self) -> None:
        check_range(self, "density", "in (0, 1]", 0 < self.density <= 1)

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def selects(self) -> bool:
        return True

    @property
    def varying(self) -> bool:
        return length_varies(self.coding)

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "gather"

    def count(self, shape: Shape) -> float:
        """Return how many of a unit's entries a worker sends, or the expectation of it."""
        return kept(self.density, prod(shape))

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - k / n."""
        return 1 - self.count(shape) / prod(shape)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return sparse_bytes(self.count(shape), prod(shape), itemsize, self.coding)

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        return read_sparse(payload, prod(shape), self.coding)
