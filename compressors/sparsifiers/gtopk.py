"""gTop-k: the k largest entries of a sum, found by merging the workers' top-k pair by pair up a tree."""

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from ..base import Outcome, Passes, Protocol, Rounds, Shape, State, Turn, check_range, kept
from ..decoded import RaggedSparse, Sparse
from ..indices import indices_bytes
from ..payload import HEADER_BYTES, Ragged
from ..requests import Broadcast, Permute
from .selection import top_k
from .sparse import read_sparse, sparse_payload


@dataclass(frozen=True)
class GTopK(Protocol):
    """Merge top-k sets up a binomial tree, k = ceil(density * n) entries at every step, and broadcast the result.

    Each worker starts with its k entries of largest magnitude. In ceil(log2 N) rounds workers hand what they hold to a
    partner, which adds it to its own and keeps the k largest sums. The root's k entries, divided by N, are the mean. A
    worker sends k values and k packed indices once; the root broadcasts as much.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; lower compresses more. At least one entry is kept.

    Notes
    -----
    The entries are not always the k largest of the sum of all top-k sets: what a merge drops cannot come back higher up
    the tree. The worker that merges keeps what it drops: its ``sent`` is its own contribution less the dropped sums
    that others had handed to it, so that error feedback there sends them again. Differences from the paper: any number
    of workers, where it takes powers of two; a dropped entry stays with the worker that dropped it, where the authors'
    code puts it back at every worker that had sent it.

    References
    ----------
    .. [1] Shi, Wang, Zhao, Tang, Wang, Huang, Chu. *A Distributed Synchronous SGD Algorithm with Global Top-k
       Sparsification for Low Bandwidth Networks*, ICDCS 2019, https://arxiv.org/abs/1901.04359
    """

    density: float = 0.01

    name = "gtopk"
    title = "the k largest entries of the sum, by a tree of merges"
    paper = "Shi et al. 2019, arXiv 1901.04359"
    collective = "ceil(log2 N) permutes, broadcast"
    examples = ("gtopk(density=0.25)",)

    def __post_init__(self) -> None:
        check_range(self, "density", "in (0, 1]", 0 < self.density <= 1)

    @property
    def unbiased(self) -> bool:
        return False

    def error_bound(self, shape: Shape) -> float:
        """Return 1, or 0 where everything is kept: each entry of each worker is in the mean or is not."""
        return float(kept(self.density, prod(shape)) < prod(shape))

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        """Return what every worker but the root hands over; the root broadcasts as much without a header."""
        count = kept(self.density, prod(shape))
        return HEADER_BYTES + count * itemsize + indices_bytes(count, prod(shape), "log2")

    def passes(self, shape: Shape) -> Passes:
        """Return 4 passes to select; between rounds two sets are sorted together and selected from."""
        fraction = kept(self.density, prod(shape)) / prod(shape)
        return Passes(encode=4 + 3 * fraction, between=16 * fraction, decode=3 * fraction)

    def rounds(self, x: Tensor, state: State, turn: Turn) -> Rounds:
        flat = x.reshape(len(x), -1)
        size = flat.shape[1]
        k = kept(self.density, size)
        indices = top_k(flat, k)
        values = flat.gather(1, indices)
        held = [_Held.start(*row) for row in zip(indices, values, strict=True)]
        distance = 1
        while distance < turn.size:
            sends = [rank % (2 * distance) == distance for rank in range(turn.size)]
            to = tuple(rank - distance if send else -1 for rank, send in enumerate(sends))
            rows = Sparse(torch.stack([h.values for h in held]), torch.stack([h.indices for h in held]), size)
            reply = yield Permute(sparse_payload(rows, "log2"), to)
            arrived = read_sparse(reply, size, "log2")
            assert isinstance(arrived, RaggedSparse)
            for row, own in enumerate(held):
                if len(arrived.values.row(row)):
                    held[row] = own.merged(arrived.indices.row(row), arrived.values.row(row), k)
            distance *= 2
        rows = Sparse(torch.stack([h.values for h in held]), torch.stack([h.indices for h in held]), size)
        reply = yield Broadcast(sparse_payload(rows, "log2"), root=0)
        total = read_sparse(reply, size, "log2").total(flat[0])
        sent = [h.sent(*row) for h, row in zip(held, zip(indices, values, strict=True), strict=True)]
        places, parts = (Ragged.of(list(column)) for column in zip(*sent, strict=True))
        return Outcome(total.div_(turn.size).view(x.shape[1:]), RaggedSparse(parts, places, size), state)


@dataclass(frozen=True)
class _Held:
    """What a worker holds: k sums, how much of each came from others, and what it has dropped so far.

    Attributes
    ----------
    indices, values, foreign : Tensor, shape [k]
        Positions, sums, and the sums without the own contribution.
    dropped, returned : Tensor, shape [d]
        Positions that merges have dropped, and what of it had come from others.
    """

    indices: Tensor
    values: Tensor
    foreign: Tensor
    dropped: Tensor
    returned: Tensor

    @classmethod
    def start(cls, indices: Tensor, values: Tensor) -> "_Held":
        return cls(indices, values, torch.zeros_like(values), indices[:0], values[:0])

    def merged(self, indices: Tensor, values: Tensor, k: int) -> "_Held":
        """Return what is held after another worker's k sums were added."""
        union, place = torch.unique(torch.cat([self.indices, indices]), return_inverse=True)
        ours, theirs = place[: len(self.indices)], place[len(self.indices) :]
        empty = values.new_zeros(len(union))
        sums = empty.clone().index_add_(0, ours, self.values).index_add_(0, theirs, values)
        foreign = empty.index_add_(0, ours, self.foreign).index_add_(0, theirs, values)
        best = top_k(sums[None], k)[0]
        lost = torch.ones_like(union, dtype=torch.bool).index_fill_(0, best, value=False)
        return replace(
            self,
            indices=union[best],
            values=sums[best],
            foreign=foreign[best],
            dropped=torch.cat([self.dropped, union[lost]]),
            returned=torch.cat([self.returned, foreign[lost]]),
        )

    def sent(self, indices: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions and values of the accepted contribution, of which ``indices`` and ``values`` were offered.

        An own entry counts unless it was dropped here; what others gave and was dropped here counts against it.
        """
        accepted = ~torch.isin(indices, self.dropped)
        back = self.returned != 0
        union, place = torch.unique(torch.cat([indices[accepted], self.dropped[back]]), return_inverse=True)
        parts = torch.cat([values[accepted], -self.returned[back]])
        return union, parts.new_zeros(len(union)).index_add_(0, place, parts)
