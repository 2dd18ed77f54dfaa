"""Ok-Topk: a sparse all-reduce: each worker sums one region of everybody's top-k, and all gather what stands out."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod

import torch
from torch import Tensor

from ..base import Outcome, Passes, Protocol, Rounds, Shape, State, Turn, check_range, kept
from ..decoded import RaggedSparse
from ..norms import power_sums
from ..payload import HEADER_BYTES, Payload, Ragged
from ..requests import AllReduce, AllToAll, Gather, Request
from .selection import top_k

_SURPLUS = 2
"""A threshold that lets through more than so many times k entries is estimated anew."""
_FEW = 16
"""With fewer entries than this to send, thresholds are estimated in every step: the next step's may differ a lot."""


@dataclass(frozen=True)
class OkTopK(Protocol):
    """Send local top-k entries to the workers that own their regions, and gather the sums that are globally largest.

    The unit is cut into N regions with equally many selected entries. Every worker hands its entries above its local
    threshold to the regions' owners (an all-to-all), which add them up. Sums above the global threshold are gathered
    by all. Entries travel as a value and an index of 32 bits. With k entries each way, about 4 k (N - 1) / N words
    cross a worker's link, whatever the number of workers. A step that estimates thresholds takes more; over the steps
    from one estimation to the next, the average stays below the paper's 6 k.

    Parameters
    ----------
    density : float
        Kept fraction of the entries, in (0, 1]; k = ceil(density * n).
    tau : int
        Steps after which thresholds are estimated exactly, from the k-th largest magnitude; they are reused in between,
        so then the number of entries only is about k.
    balance : int
        Steps after which the regions are cut anew.

    Notes
    -----
    Only entries that their worker selected, and that stand out globally, count as sent. Differences from the paper:
    survivors are not spread evenly over the workers before the gather. In between, thresholds follow the workers' mean
    magnitudes, of which one travels with each chunk, where the authors' code lets them drift by a constant factor. One
    that lets through nothing, or more than 2 k entries, is estimated anew, as is any for fewer than 16 entries. A zero
    is never sent. Indices are integers: as float32, as in the authors' code, they are exact below 2^24 only.

    References
    ----------
    .. [1] Li, Hoefler. *Near-Optimal Sparse Allreduce for Distributed Deep Learning*, PPoPP 2022,
       https://arxiv.org/abs/2201.07598
    """

    density: float = 0.01
    tau: int = 32
    balance: int = 64

    name = "oktopk"
    title = "entries of each worker's top-k whose sums are globally largest"
    paper = "Li & Hoefler 2022, arXiv 2201.07598"
    collective = "all-to-all, all-gather; now and then all-reduce, all-gather"
    state = "threshold a worker, threshold and regions shared"
    examples = ("oktopk(density=0.25, tau=2, balance=3)",)

    def __post_init__(self) -> None:
        check_range(self, "density", "in (0, 1]", 0 < self.density <= 1)
        check_range(self, "tau", "at least 1", self.tau >= 1)
        check_range(self, "balance", "at least 1", self.balance >= 1)

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def selects(self) -> bool:
        return True

    @property
    def varying(self) -> bool:
        return True

    def error_bound(self, shape: Shape) -> float:
        """Return 1: each entry of each worker is in the mean or is not."""
        return 1.0

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        """Return the k entries that go to the owners, and headers; the way back adds about one N-th of them."""
        return HEADER_BYTES + kept(self.density, prod(shape)) * (itemsize + 4)

    def passes(self, shape: Shape) -> Passes:
        """Return 2 passes to compare with a threshold, 4 more every ``tau`` steps, and what the kept entries cost."""
        fraction = kept(self.density, prod(shape)) / prod(shape)
        return Passes(encode=2 + 4 / self.tau + 3 * fraction, between=8 * fraction, decode=3 * fraction)

    def rounds(self, x: Tensor, state: State, turn: Turn) -> Rounds:
        flat = x.reshape(len(x), -1)
        size = flat.shape[1]
        k = kept(self.density, size)
        scales = power_sums(flat, 1) / size
        chosen, local = self._select(flat, scales, k, state, turn)
        bounds = state.shared.get("bounds")
        if not isinstance(bounds, Tensor) or turn.step % self.balance == 0:
            bounds = yield from _balanced(chosen, size, turn)
        values = [row[i] for row, i in zip(flat, chosen, strict=True)]
        reply = yield AllToAll(_by_region(values, chosen, bounds, scales.to(x), turn.size))
        sums = [_summed(reply, row, turn.size) for row in range(len(x))]
        scale = float(reply.fixed(2)[0].double().cumsum(0)[-1])
        ratio = state.shared.get("global", 0.0)
        if self._estimates(k, turn) or not ratio:
            found = yield Gather(Payload((Ragged.of([s for _, s in sums]),)))
            survive, smallest = _exact(found, k, turn)
            ratio = smallest / scale if scale else 0.0
        else:
            survive = [s.abs() >= ratio * scale for _, s in sums]
        largest = [(i[keep], s[keep]) for (i, s), keep in zip(sums, survive, strict=True)]
        reply = yield Gather(Payload((Ragged.of([s for _, s in largest]), Ragged.of([i.int() for i, _ in largest]))))
        total, places = (_flat(reply, i) for i in (0, 1))
        if not 0 < len(total) <= _SURPLUS * k:
            ratio = 0.0  # all workers see that it must be estimated anew
        mean = flat.new_zeros(size).index_copy_(0, places.long(), total).div_(turn.size)
        accepted = [torch.isin(i, places) for i in chosen]
        sent = RaggedSparse(
            Ragged.of([v[a] for v, a in zip(values, accepted, strict=True)]),
            Ragged.of([i[a] for i, a in zip(chosen, accepted, strict=True)]),
            size,
        )
        after = State(rows={"local": local}, shared={"bounds": bounds, "global": ratio})
        return Outcome(mean.view(x.shape[1:]), sent, after)

    def _estimates(self, k: int, turn: Turn) -> bool:
        """Return whether thresholds are due."""
        return turn.step % self.tau == 0 or k < _FEW

    def _select(self, flat: Tensor, scales: Tensor, k: int, state: State, turn: Turn) -> tuple[list[Tensor], Tensor]:
        """Return each row's selected positions, ascending, and the thresholds over the scales, [W]."""
        local = state.rows.get("local", torch.zeros_like(scales)).clone()
        chosen = []
        for row, values in enumerate(flat):
            above, due = values[:0].long(), self._estimates(k, turn) or not local[row]
            if not due:
                above = (values.abs() >= float(local[row] * scales[row])).nonzero()[:, 0]
            if not 0 < len(above) <= _SURPLUS * k:
                above = top_k(values[None], k)[0]
                local[row] = values[above].abs().min().double() / scales[row] if scales[row] else 0.0
            chosen.append(above[values[above] != 0])
        return chosen, local


def _balanced(chosen: list[Tensor], size: int, turn: Turn) -> Generator[Request, Payload, Tensor]:
    """Return the N - 1 inner boundaries of regions, each worker's own averaged: its entries in N equal shares."""
    shares = torch.arange(1, turn.size, device=chosen[0].device)
    own = []
    for indices in chosen:
        even = shares * size // turn.size
        own.append(indices[shares * len(indices) // turn.size] if len(indices) else even)
    if turn.size == 1:
        return own[0]
    reply = yield AllReduce(Payload((torch.stack(own),)))
    return reply.fixed(0)[0] // turn.size


def _by_region(values: list[Tensor], chosen: list[Tensor], bounds: Tensor, scales: Tensor, size: int) -> Payload:
    """Return the payload whose chunks are each row's entries by region, in whose order they lie, and its scale."""
    lengths: list[int] = []
    for indices in chosen:
        cuts = [0, *torch.searchsorted(indices, bounds).tolist(), len(indices)]
        lengths += [stop - start for start, stop in pairwise(cuts)]
    assert len(lengths) == len(chosen) * size
    offsets = tuple(accumulate(lengths, initial=0))
    entries = Ragged(torch.cat(values), offsets), Ragged(torch.cat(chosen).int(), offsets)
    return Payload((*entries, scales[:, None].repeat(1, size)))


def _summed(reply: Payload, row: int, size: int) -> tuple[Tensor, Tensor]:
    """Return positions, ascending, and sums of a local worker's region; entries are added in rank order."""
    values, indices, _ = reply.buffers
    assert isinstance(values, Ragged)
    assert isinstance(indices, Ragged)
    sources = range(row * size, (row + 1) * size)
    union, place = torch.unique(torch.cat([indices.row(s) for s in sources]).long(), return_inverse=True)
    received = torch.cat([values.row(s) for s in sources])
    return union, received.new_zeros(len(union)).index_add_(0, place, received)


def _exact(found: Payload, k: int, turn: Turn) -> tuple[list[Tensor], float]:
    """Return which sums of each local worker's region are among the k largest of all, and the smallest one's size."""
    sums = found.buffers[0]
    assert isinstance(sums, Ragged)
    keep = torch.zeros_like(sums.flat, dtype=torch.bool)
    if len(sums.flat):
        keep[top_k(sums.flat[None], min(k, len(sums.flat)))[0]] = True
    mine = [keep[sums.offsets[rank] : sums.offsets[rank + 1]] for rank in turn.ranks]
    return mine, float(sums.flat[keep].abs().min()) if len(sums.flat) else 0.0


def _flat(reply: Payload, index: int) -> Tensor:
    """Return a gathered buffer's entries; regions follow each other, so positions ascend."""
    buffer = reply.buffers[index]
    assert isinstance(buffer, Ragged)
    return buffer.flat
