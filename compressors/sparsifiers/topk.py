"""Top-k: the k entries of largest magnitude of each worker, exactly."""

from dataclasses import dataclass
from math import prod

from torch import Tensor

from ..base import Passes, Shape, State, Turn, kept
from ..decoded import Sparse
from .gathered import GatheredSparsifier
from .selection import top_k


@dataclass(frozen=True)
class TopK(GatheredSparsifier):
    """Send the k = ceil(density * n) entries of largest magnitude, with their indices.

    A worker hands over k values in the gradient's dtype and k indices of ceil(log2 n) bits, packed:
    ``k * (itemsize + ceil(log2 n) / 8)`` bytes and a header. Workers choose different entries, so the payloads are
    gathered.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; lower compresses more. At least one entry is kept.
    coding : {"log2", "raw", "bitmap", "rice", "elias", "auto"}
        How indices are written; see :data:`gradwire.compressors.indices.Coding`.

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

    name = "topk"
    title = "the k entries of largest magnitude, with their indices"
    paper = "Aji & Heafield 2017, D17-1045; Stich et al. 2018, arXiv 1809.07599"
    examples = ("topk(density=0.25, coding=rice)",)

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - k / n, attained where all magnitudes are equal (Stich et al. 2018, Lemma A.1)."""
        return super().error_bound(shape)

    def passes(self, shape: Shape) -> Passes:
        """Return 4 passes to select (magnitude, threshold, count, compact) and what the kept entries cost."""
        fraction = kept(self.density, prod(shape)) / prod(shape)
        return Passes(encode=4 + 3 * fraction, between=0, decode=3 * fraction)

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[Sparse, State]:
        flat = x.reshape(len(x), -1)
        size = flat.shape[1]
        indices = top_k(flat, kept(self.density, size))
        return Sparse(flat.gather(1, indices), indices, size), state
