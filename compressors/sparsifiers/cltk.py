"""CLT-k: the k largest entries of one worker after the other, whose positions all workers send."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..base import Outcome, Passes, Protocol, Rounds, Shape, State, Turn, check_range, kept
from ..decoded import Aligned
from ..indices import decode_indices, encode_indices, indices_bytes
from ..payload import Payload
from ..requests import AllReduce, Broadcast
from ..wire import index_bits, packed_bytes
from .selection import top_k


@dataclass(frozen=True)
class CLTK(Protocol):
    """Send the entries at the k = ceil(density * n) positions that are largest at the leader, worker t mod N of step t.

    The leader broadcasts its packed positions; then the workers' values there are summed by an all-reduce, so the bytes
    do not grow with the number of workers. It works as far as the workers' memories resemble each other.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; lower compresses more. At least one entry is kept.

    Notes
    -----
    The paper puts a low-pass filter into the memory; plain error feedback is its special case beta = 1. Differences
    from the paper: the leader's top-k is exact, where the paper selects within chunks.

    References
    ----------
    .. [1] Chen et al. *ScaleCom: Scalable Sparsified Gradient Compression for Communication-Efficient Distributed
       Training*, NeurIPS 2020, https://arxiv.org/abs/2104.11125
    """

    density: float = 0.01

    name = "cltk"
    title = "the entries that are largest at one worker, each step another"
    paper = "Chen et al. 2020, arXiv 2104.11125"
    collective = "broadcast, all-reduce"
    examples = ("cltk(density=0.25)",)

    def __post_init__(self) -> None:
        check_range(self, "density", "in (0, 1]", 0 < self.density <= 1)

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def selects(self) -> bool:
        return True

    def error_bound(self, shape: Shape) -> float:
        """Return 1, or 0 where everything is sent: the leader's positions may hold nothing of another worker."""
        return float(kept(self.density, prod(shape)) < prod(shape))

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        """Return what the leader hands over; the others send no positions."""
        count = kept(self.density, prod(shape))
        return count * itemsize + indices_bytes(count, prod(shape), "log2")

    def passes(self, shape: Shape) -> Passes:
        """Return the leader's 4 passes to select, for which all wait, and what the kept entries cost."""
        fraction = kept(self.density, prod(shape)) / prod(shape)
        return Passes(encode=4, between=3 * fraction, decode=3 * fraction)

    def rounds(self, x: Tensor, state: State, turn: Turn) -> Rounds:
        flat = x.reshape(len(x), -1)
        size = flat.shape[1]
        k = kept(self.density, size)
        leader = turn.step % turn.size
        coded = torch.zeros(len(x), packed_bytes(k, index_bits(size)), dtype=torch.uint8, device=x.device)
        if leader in turn.ranks:
            row = turn.ranks.index(leader)
            written = encode_indices(top_k(flat[row : row + 1], k), size, "log2")
            assert isinstance(written, Tensor)
            coded[row] = written[0]
        reply = yield Broadcast(Payload((coded,)), leader)
        positions = decode_indices(reply.fixed(0), [k], size, "log2")
        assert isinstance(positions, Tensor)
        values = flat[:, positions[0]]
        reply = yield AllReduce(Payload((values,)))
        total = Aligned(reply.fixed(0), positions[0], size).total(flat[0])
        return Outcome(total.div_(turn.size).view(x.shape[1:]), Aligned(values, positions[0], size), state)
