"""Top-k: the k entries of largest magnitude of each worker, exactly."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import Tensor

from ..base import Codec, Passes, Shape, State, Turn, check_range, kept
from ..decoded import Decoded, Sparse
from ..payload import Payload
from .selection import top_k
from .sparse import read_sparse, sparse_bytes, sparse_payload


@dataclass(frozen=True)
class TopK(Codec):
    """Send the k = ceil(density * n) entries of largest magnitude, with their indices.

    A worker hands over k values in the gradient's dtype and k indices of ceil(log2 n) bits, packed:
    ``k * (itemsize + ceil(log2 n) / 8)`` bytes and a header. Workers choose different entries, so the payloads are
    gathered.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; lower compresses more. At least one entry is kept.

    Notes
    -----
    Ties are broken by the lowest index, so exactly k entries are sent, also of a constant input; Aji and Heafield
    send what lies strictly above a quantile, which may be none.

    References
    ----------
    .. [1] Aji, Heafield. *Sparse Communication for Distributed Gradient Descent*, EMNLP 2017,
       https://aclanthology.org/D17-1045
    .. [2] Stich, Cordonnier, Jaggi. *Sparsified SGD with Memory*, NeurIPS 2018, https://arxiv.org/abs/1809.07599

    Examples
    --------
    >>> str(TopK(density=0.05))
    'topk(density=0.05)'
    """

    density: float = 0.01

    name = "topk"
    title = "the k entries of largest magnitude, with their indices"
    paper = "Aji & Heafield 2017, D17-1045; Stich et al. 2018, arXiv 1809.07599"
    collective = "all-gather"
    examples = ("topk(density=0.25)", "topk(density=1)")

    def __post_init__(self) -> None:
        check_range(self, "density", "in (0, 1]", 0 < self.density <= 1)

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def selects(self) -> bool:
        return True

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "gather"

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - k / n, attained where all magnitudes are equal (Stich et al. 2018, Lemma A.1)."""
        return 1 - kept(self.density, prod(shape)) / prod(shape)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return sparse_bytes(kept(self.density, prod(shape)), prod(shape), itemsize, "log2")

    def passes(self, shape: Shape) -> Passes:
        """Return 4 passes to select (magnitude, threshold, count, compact) and what the kept entries cost."""
        fraction = kept(self.density, prod(shape)) / prod(shape)
        return Passes(encode=4 + 3 * fraction, between=0, decode=3 * fraction)

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = x.reshape(len(x), -1)
        size = flat.shape[1]
        indices = top_k(flat, kept(self.density, size))
        sent = Sparse(flat.gather(1, indices), indices, size)
        return sparse_payload(sent, "log2"), sent, state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        return read_sparse(payload, prod(shape), "log2")
