"""Faults that schemes have had elsewhere, or might have, each in a scheme that says nothing of it."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradwire.compressors.adaptive import CAT
from gradwire.compressors.base import State, Turn
from gradwire.compressors.decoded import Block, Decoded
from gradwire.compressors.keys import Purpose, below, stream
from gradwire.compressors.lowrank.atomo import Atomo
from gradwire.compressors.payload import Payload
from gradwire.compressors.quantizers.coding import bucket_norms, pack_codes
from gradwire.compressors.quantizers.elias import encode_levels
from gradwire.compressors.quantizers.natural import Natural
from gradwire.compressors.quantizers.qsgd import QSGD
from gradwire.compressors.sparsifiers.randomblock import RandomBlock
from gradwire.compressors.sparsifiers.sparse import sparse_payload
from gradwire.compressors.sparsifiers.topk import TopK
from gradwire.compressors.sparsifiers.wangni import Wangni


def generator(turn: Turn) -> np.random.Generator:
    return np.random.Generator(stream(turn.seed, Purpose.NOISE, turn.step, turn.unit, turn.ranks[0]))


@dataclass(frozen=True)
class WrongWayQSGD(QSGD):
    """Rounds up with probability 1 - p, as hwang595/ATOMO's qsgd.py does (``dice > prob``)."""

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat, s = x.reshape(len(x), -1), self.levels
        norms = bucket_norms(flat, self.bucket, self.norm)
        scale = norms.repeat_interleave(min(self.bucket, flat.shape[1]), dim=1)[:, : flat.shape[1]]
        share = torch.where(scale > 0, flat.abs() / scale * s, 0.0)
        dice = torch.from_numpy(generator(turn).random(tuple(flat.shape)))
        level = (share.floor() + (dice > share - share.floor())).clamp(max=s)
        codes = (s + level * flat.sign()).to(torch.uint8)
        written = (
            encode_levels(codes, s, self.code == "elias") if self.code != "fixed" else pack_codes(codes, self.bits)
        )
        return Payload((norms, written)), self._sent(norms, codes, 8, flat.shape[1]), state


@dataclass(frozen=True)
class LargestNormQSGD(QSGD):
    """Says that its levels are of the Euclidean norm, and takes the largest entry."""

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        return QSGD(self.bits, self.bucket, "max", self.code).encode(x, state, turn)


@dataclass(frozen=True)
class WrongWayNatural(Natural):
    """Rounds up with the probability of rounding down."""

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        _, sent, state = super().encode(x, state, turn)
        values = sent.dense(x.reshape(len(x), -1))
        power = torch.exp2(torch.floor(torch.log2(x.reshape(len(x), -1).abs())))
        other = torch.sign(values) * torch.where(values.abs() > power, power, 2 * power)
        return super().encode(other.view(x.shape), state, turn)


@dataclass(frozen=True)
class UnwrappedBlock(RandomBlock):
    """Starts only where the whole block fits, so that entries near the ends are hardly ever sent."""

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[Block, State]:
        flat = x.reshape(len(x), -1)
        size, k = flat.shape[1], round(self.density * flat.shape[1])
        start = below(stream(turn.seed, Purpose.SELECTION, turn.step, turn.unit), size - k + 1)
        values = flat[:, start : start + k] * (size / k if self.scaled else 1)
        return Block(values, start, size), state


@dataclass(frozen=True)
class StingyTopK(TopK):
    """Sends half of the entries that it says."""

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        return TopK(self.density / 2).encode(x, state, turn)


@dataclass(frozen=True)
class ResampledAtomo(Atomo):
    """Draws again while nothing was drawn, and divides by the same probabilities, as hwang595/ATOMO's svd.py does."""

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        for attempt in range(1000):
            payload, sent, state = super().encode(x, state, replace(turn, step=turn.step + 100_000 * attempt))
            if sent.dense(x.reshape(len(x), -1)).any():
                break
        return payload, sent, state


@dataclass(frozen=True)
class StingyAtomo(Atomo):
    """Has a budget of three quarters of what it says."""

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        return Atomo(0.75 * self.budget, self.basis).encode(x, state, turn)


def clipped_once(magnitudes: Tensor, budget: float) -> Tensor:
    """Return min(1, s m_i / sum m), which spends less than the budget."""
    return (magnitudes.double() * budget / magnitudes.double().sum(1, keepdim=True)).clamp(max=1)


def clipped_and_filled(magnitudes: Tensor, budget: float) -> Tensor:
    """Return probabilities that add up to the budget, what was clipped being spread over the others evenly."""
    p = clipped_once(magnitudes, budget)
    for _ in range(100):
        free = p < 1
        p = torch.where(free, p + (budget - p.sum()) / free.sum().clamp(min=1), p).clamp(max=1)
    return p


@dataclass(frozen=True)
class ClippedWangni(Wangni):
    """Clips the probabilities once, as hwang595/ATOMO's svd.py does."""

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        flat = x.reshape(len(x), -1)
        p = clipped_once(flat.abs(), self.count(tuple(x.shape[1:])))
        drawn = torch.from_numpy(generator(turn).random(tuple(flat.shape))) < p
        sent = torch.where(drawn, flat / p.clamp(min=1e-300), 0.0)
        entries, state = Wangni(1.0).select(sent.view(x.shape), state, turn)  # sends all that is not zero
        return sparse_payload(entries, "log2"), entries, state


@dataclass(frozen=True)
class GreedyCAT(CAT):
    """Stops at the first number of entries whose successor is worse."""

    def choose(self, row: Tensor) -> int:
        magnitudes = np.sort(row.abs().numpy())[::-1]
        counts = np.arange(1.0, len(row) + 1)
        ratios = np.cumsum(magnitudes) ** 2 / counts / self._costs(counts, len(row), row.element_size())
        falls = np.flatnonzero(np.diff(ratios) < 0)
        return int(falls[0]) + 1 if len(falls) else len(row)


@dataclass(frozen=True)
class GenerousCAT(CAT):
    """Sends one entry more than is best."""

    def choose(self, row: Tensor) -> int:
        return min(super().choose(row) + 1, len(row))


@dataclass(frozen=True)
class UnscaledCAT(CAT):
    """Decodes ||x|| times the signs, as the paper's operator does, without the factor of its step."""

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        payload, sent, state = super().encode(x, state, turn)
        dense = sent.dense(x.reshape(len(x), -1))
        norms = x.reshape(len(x), -1).norm(dim=1, keepdim=True)
        return payload, TopK(1.0).encode(dense.sign() * norms, state, turn)[1], state
