"""What the conformance tests share: reading outcomes, comparing states, and how far rounding may go."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradwire.compressors.base import (
    Memory,
    Outcome,
    Scheme,
    Shape,
    State,
)
from gradwire.compressors.lowrank.powersgd import PowerSGD
from gradwire.compressors.remember import RememberingCodec, RememberingProtocol
from gradwire.compressors.wirelog import MessageLog

WORKERS = 4
ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "int8": 0.0, "int32": 0.0}
"""Of sums in a dtype; those of whole numbers are exact."""
FLOATS = (torch.float32, torch.float64)


# ------------------------------------------------------------------------------------------------------------ helpers


def plain(scheme: Scheme) -> Scheme:
    """Return the scheme inside its memories."""
    while isinstance(scheme, RememberingCodec | RememberingProtocol):
        scheme = scheme.inner
    return scheme


def selects(scheme: Scheme) -> bool:
    """Return whether each entry is sent as it is or not at all."""
    return plain(scheme).selects


def remembers(scheme: Scheme) -> bool:
    """Return whether a scheme has a memory, so that it takes no other."""
    return any(isinstance(part, Memory) for part in scheme.parts())


def takes_memory(scheme: Scheme, shape: Shape) -> bool:
    """Return whether error feedback goes around a scheme on units of a shape."""
    lawful = all(one.law == "mean of sent" and one.error_bound(shape) <= 1 for one in scheme.ever())
    return lawful and not remembers(scheme)


def may_send_nothing(scheme: Scheme, shape: Shape) -> bool:
    """Return whether nothing may be sent of values that are not zero; only a bound below 1 promises something."""
    return scheme.varying and scheme.error_bound(shape) >= 1


def rows_of(outcome: Outcome) -> Tensor:
    """Return ``sent`` as [W, n]."""
    return outcome.sent.dense(outcome.mean.reshape(-1))


def lawful_mean(scheme: Scheme, outcome: Outcome) -> Tensor:
    """Return what ``mean`` should be by the scheme's law, from ``sent`` of all workers, in float64."""
    average = rows_of(outcome).double().mean(0)
    return average.sign() if scheme.law == "vote" else average


def residual(state: State) -> Tensor:
    """Return error feedback's memory, [W, n]; a copy, since the next step writes to it."""
    return state.elements["residual"].clone()


def assert_same(one: State, other: State) -> None:
    """Compare two states bit for bit."""

    def leaves(state: State) -> dict[str, object]:
        parts = {**state.elements, **state.rows, **state.shared}
        return {**parts, **({} if state.inner is None else {f"inner {k}": v for k, v in leaves(state.inner).items()})}

    left, right = leaves(one), leaves(other)
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(right[key])), key


def sum_roundoff(log: MessageLog, dtype: torch.dtype) -> float:
    """Return the unit roundoff of the coarsest dtype in which workers' values were added; of whole numbers it is 0."""
    summed = [c.dtype for c in log.collectives if c.operation in ("all-reduce", "reduce-scatter")]
    return max(ROUNDOFF.get(name, 0.0) for name in [*summed, str(dtype).removeprefix("torch.")])


def mean_error(scheme: Scheme, p: Tensor, outcome: Outcome, log: MessageLog) -> Tensor:
    """Return how far rounding may take ``mean`` from the exact average of ``sent``, entry by entry.

    N - 1 additions and a division, each off by a factor of 1 + u at most, give N u / (1 - N u) times the sum of
    magnitudes over N. A factorisation P Q_w^T of rank r adds r products and additions on either side, for which
    |P_i| |Q_wj| <= ||p_w|| bounds the magnitudes, P being orthonormal and Q_w = M_w^T P. Subnormal results add half a
    spacing of the smallest numbers.
    """
    terms, u = len(p), sum_roundoff(log, p.dtype)
    magnitude = rows_of(outcome).double().abs().mean(0)
    stage = plain(scheme)
    if isinstance(stage, PowerSGD):
        terms += 2 * stage.rank + 2
        magnitude = magnitude.new_full(magnitude.shape, float(p.double().reshape(len(p), -1).norm(dim=1).mean()))
    return terms * u / (1 - terms * u) * magnitude + torch.finfo(p.dtype).smallest_normal * 2 * u


# ------------------------------------------------------------------------------------------------------- probabilities


def algorithm_1(magnitudes: NDArray[np.float64], budget: float) -> NDArray[np.float64]:
    """Run the loop of Algorithm 1 of ATOMO over the sorted entries; zeros are never sent."""
    order = np.argsort(-magnitudes, kind="stable")
    sorted_, p = magnitudes[order], np.zeros(len(magnitudes))
    for i, value in enumerate(sorted_):
        tail = math.fsum(sorted_[i:])
        if tail == 0:
            break
        if value / tail * budget <= 1:  # in this order products of subnormal values lose nothing
            p[i:] = sorted_[i:] / tail * budget
            break
        p[i], budget = 1, budget - 1
    out = np.empty_like(p)
    out[order] = p
    return out
