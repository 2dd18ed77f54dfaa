"""CAT: each worker picks at each step how many entries to send, by descent guaranteed for the cost of sending them."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .base import Codec, Passes, SchemeError, Shape, State, Turn, check_range
from .costs import Cost, CostModel, FloatArray, Operator, payload_bytes
from .decoded import Decoded, RaggedSparse
from .keys import Purpose, stream
from .payload import HEADER_BYTES, SIZE_BYTES, Payload, Ragged
from .sparsifiers.selection import top_k
from .sparsifiers.sparse import read_sparse, sparse_payload
from .sparsifiers.waterfill import probabilities
from .wire import index_bits, pack, unpack

_FIRST = 1024
"""So many entries are looked at first where the search stops early."""


@dataclass(frozen=True)
class CAT(Codec):
    """Send T entries, where T maximises the guaranteed descent for the cost of the message.

    With g a worker's values and |g|_(1) >= |g|_(2) >= ... its sorted magnitudes, the guarantee is a fraction of
    ``||g||^2 / (2 L)`` for an L-smooth loss and a step of 1 / L. The payloads' lengths vary, so they are gathered.

    Parameters
    ----------
    operator : {"top", "sq", "stochastic"}
        ``top``: the T largest entries; fraction alpha(T) = sum of their squares / ||g||^2.
        ``sq``: the T largest entries' signs, and one scale; beta(T) = (sum of their magnitudes)^2 / (T ||g||^2).
        ``stochastic``: entry i with probability p_i = min(1, c |g_i|), sum of p_i = T, as g_i / p_i; its omega(T) =
        ||g||^2 / sum of g_i^2 / p_i. T is the expected number.
    cost : {"packets", "payload", "affine", "cluster"}
        What T's payload of P bytes costs: whole packets, fixed + per_packet * ceil(P / packet); P itself, for which one
        entry is always the best choice of ``top``; fixed + per_packet * P / packet; or the line that a simulated
        cluster charges for gathering it, which a run fills in.
    fixed, per_packet : float
        Cost of a message and of a packet, in bytes.
    packet : int
        Bytes of payload that a packet holds.

    Notes
    -----
    The paper's second operator sends ||g|| sign(g_i) and takes a step of sqrt(beta) / (sqrt(T) L). Here that factor
    is part of what is decoded, ||g|| sqrt(beta / T) = the mean magnitude of the T entries; so with a step of 1 / L the
    lemma holds as it stands, and the payload is as long as the paper's. The third operator is left unbiased: its lemma
    needs a step of omega / L.

    alpha is concave, so for ``top`` the search goes up from few entries until the ratio falls; packets are filled, so
    only full ones are candidates. beta is not monotone: all T are compared, as for omega. The defaults are those of
    an IPv4 datagram of 576 bytes with 512 of payload; a cluster's line is given by
    :func:`gradwire.compressors.costs.affine_of`.

    References
    ----------
    .. [1] Khirirat, Magnússon, Aytekin, Johansson. *A Flexible Framework for Communication-Efficient Machine Learning:
       from HPC to IoT*, AAAI 2021, https://arxiv.org/abs/2003.06377
    """

    operator: Operator = "top"
    cost: Cost = "packets"
    fixed: float = 64.0
    per_packet: float = 576.0
    packet: int = 512

    name = "cat"
    title = "as many entries as pay: the best guaranteed descent for the cost of the message"
    paper = "Khirirat et al. 2021, arXiv 2003.06377"
    collective = "all-gather"
    examples = ("cat(operator=sq)",)

    def __post_init__(self) -> None:
        check_range(self, "fixed", "at least 0", self.fixed >= 0)
        check_range(self, "per_packet", "above 0", self.per_packet > 0)
        check_range(self, "packet", "at least 1", self.packet >= 1)

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        if self.cost == "cluster":
            raise SchemeError(
                "cat: cost = 'cluster' is filled in by a simulation; elsewhere write cost=affine and its numbers"
            )
        return State()

    @property
    def unbiased(self) -> bool:
        return self.operator == "stochastic"

    @property
    def selects(self) -> bool:
        return self.operator == "top"

    @property
    def varying(self) -> bool:
        return True

    @property
    def combine(self) -> Literal["sum", "gather"]:
        return "gather"

    def error_bound(self, shape: Shape) -> float:
        """Return 1 - 1 / n, or n - 1 where stochastic.

        Each fraction is at least 1 / n at T = 1, and the choice's is not less, since it costs no less. What is lost is
        1 - alpha or 1 - beta of the squared norm, or 1 / omega - 1.
        """
        return prod(shape) - 1.0 if self.unbiased else 1 - 1 / prod(shape)

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        """Return the bytes for values that are spread like normal ones."""
        count = _normal_count(self, prod(shape), itemsize)
        own = payload_bytes(np.array([float(count)]), prod(shape), itemsize, self.operator)
        announced = SIZE_BYTES * (1 if self.operator == "sq" else 2)
        return HEADER_BYTES + announced + ceil(float(own[0]))

    def passes(self, shape: Shape) -> Passes:
        """Return 6 passes: those of an exact selection, and a sort of what may be sent; decoding touches little."""
        return Passes(encode=6, between=0, decode=0)

    def choose(self, row: Tensor) -> int:
        """Return T for the values ``[n]`` of one worker; the least of equally good ones."""
        peak = float(row.abs().max())
        if peak == 0:
            return 1
        if self.operator == "top":
            return self._climb(row, peak)
        magnitudes = _descending(row.abs()) / peak
        gains = _sq_gains(magnitudes) if self.operator == "sq" else _stochastic_gains(magnitudes)
        counts = np.arange(1.0, len(gains) + 1)
        return 1 + int(np.argmax(gains / self._costs(counts, len(row), row.element_size())))

    def _climb(self, row: Tensor, peak: float) -> int:
        """Compare T upwards until the ratio falls, which it does for good: alpha is concave, the cost a line."""
        size, itemsize = len(row), row.element_size()
        total = float(np.square(row.detach().cpu().double().numpy() / peak).sum())
        filled = int(self.packet / float(payload_bytes(np.ones(1), size, itemsize, "top")[0]))
        step = max(1, filled) if self.cost == "packets" else 1
        reach = max(2, ceil(_FIRST / step)) * step
        while True:
            reach = min(reach, size)
            largest = _descending(row[top_k(row[None], reach)[0]].abs()) / peak
            gains = np.cumsum(np.square(largest)) / total
            counts = np.arange(step, reach + 1, step)
            if reach == size and size % step:
                counts = np.append(counts, size)
            best = int(np.argmax(gains[counts - 1] / self._costs(counts.astype(np.float64), size, itemsize)))
            if reach == size or best < len(counts) - 1:
                return int(counts[best])
            reach *= 8

    def _costs(self, counts: FloatArray, size: int, itemsize: int) -> FloatArray:
        model = CostModel(self.cost, self.fixed, self.per_packet, self.packet)
        return model.of(payload_bytes(counts, size, itemsize, self.operator))

    # -------------------------------------------------------------------------------------------------- the exchange

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = x.reshape(len(x), -1)
        counts = [self.choose(row) for row in flat]
        if self.operator == "stochastic":
            entries = _drawn(flat, counts, turn)
            return sparse_payload(entries, "log2"), entries, state
        indices = [top_k(row[None], count)[0] for row, count in zip(flat, counts, strict=True)]
        values = [row[chosen] for row, chosen in zip(flat, indices, strict=True)]
        if self.operator == "top":
            entries = RaggedSparse(Ragged.of(values), Ragged.of(indices), flat.shape[1])
            return sparse_payload(entries, "log2"), entries, state
        scales = torch.stack([own.double().abs().sum() / len(own) for own in values]).to(x.dtype)[:, None]
        signs = [(own < 0).long() for own in values]
        bits = index_bits(flat.shape[1]) + 1
        codes = [pack((2 * own + sign)[None], bits)[0] for own, sign in zip(indices, signs, strict=True)]
        return Payload((scales, Ragged.of(codes))), _signed(scales, indices, signs, flat.shape[1]), state

    def decode(self, payload: Payload, shape: Shape, turn: Turn) -> Decoded:
        size = prod(shape)
        if self.operator != "sq":
            return read_sparse(payload, size, "log2")
        coded, bits = payload.buffers[1], index_bits(size) + 1
        assert isinstance(coded, Ragged)
        indices, signs = [], []
        for r, length in enumerate(coded.lengths):
            codes = unpack(coded.row(r)[None], bits, 8 * length // bits)[0]
            own = codes >> 1
            entry = torch.ones_like(own, dtype=torch.bool)
            entry[1:] = own[1:] > own[:-1]  # positions ascend; zero bits that fill the last byte do not
            indices.append(own[entry])
            signs.append(codes[entry] & 1)
        return _signed(payload.fixed(0), indices, signs, size)


def _descending(magnitudes: Tensor) -> FloatArray:
    """Return values sorted from the largest down, in float64."""
    wide = magnitudes.detach().cpu().to(torch.promote_types(magnitudes.dtype, torch.float32))  # numpy has no bfloat16
    descending: FloatArray = np.sort(wide.numpy())[::-1].astype(np.float64)
    return descending


def _signed(scales: Tensor, indices: list[Tensor], signs: list[Tensor], size: int) -> RaggedSparse:
    """Return each row's scale at its positions, negative where the sign is 1."""
    values = [scale * (1 - 2 * sign).to(scales.dtype) for scale, sign in zip(scales, signs, strict=True)]
    return RaggedSparse(Ragged.of(values), Ragged.of(indices), size)


def _drawn(flat: Tensor, counts: list[int], turn: Turn) -> RaggedSparse:
    """Draw entries of least variance, each worker from its own stream, with 53 bits so that no probability is lost."""
    values, indices = [], []
    for row, count, rank in zip(flat, counts, turn.ranks, strict=True):
        p = probabilities(row.abs()[None], count)[0]
        bits = stream(turn.seed, Purpose.SELECTION, turn.step, turn.unit, rank).random_raw(len(row))
        draws = torch.from_numpy((bits >> np.uint64(11)) * 2.0**-53).to(row.device)
        chosen = (draws < p).nonzero()[:, 0]
        indices.append(chosen)
        values.append((row[chosen].double() / p[chosen]).to(row.dtype))
    return RaggedSparse(Ragged.of(values), Ragged.of(indices), flat.shape[1])


def _sq_gains(descending: FloatArray) -> FloatArray:
    """Return beta(T) for T = 1 to n."""
    gains: FloatArray = np.cumsum(descending) ** 2 / np.arange(1, len(descending) + 1) / np.square(descending).sum()
    return gains


def _stochastic_gains(descending: FloatArray) -> FloatArray:
    """Return omega(T) for T = 1 to the number of entries above 0.

    With the m largest certain, sum of g_i^2 / p_i is their squares' sum and (sum of the others)^2 / (T - m); m is the
    first for which the next one's share (T - m) |g_(m+1)| / (sum of the others) is at most 1.
    """
    g = descending[: np.count_nonzero(descending)]
    tails = np.cumsum(g[::-1])[::-1]
    certain = np.arange(len(g))
    counts = np.arange(1, len(g) + 1)
    m = np.minimum(np.searchsorted(np.maximum.accumulate(certain + tails / g), counts), counts - 1)
    squares = np.cumsum(np.square(g))
    second = squares[m] - np.square(g[m]) + np.square(tails[m]) / (counts - m)
    gains: FloatArray = squares[-1] / second
    return gains


@lru_cache(maxsize=256)
def _normal_count(scheme: CAT, size: int, itemsize: int) -> int:
    """Return T for the quantiles of the magnitudes of ``size`` normal values."""
    dtype = torch.float64 if itemsize == 8 else torch.float32
    middle = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    return scheme.choose(torch.special.ndtri((1 + middle) / 2).to(dtype))
