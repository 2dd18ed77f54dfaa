"""How the sides of statements about whole runs are put together: checkpoints, running means, averaged iterates."""

import numpy as np
from numpy.typing import NDArray

from ..check import Floats
from ..evidence import Evidence

Ints = NDArray[np.int64]


def checkpoints(steps: int, most: int = 8) -> Ints:
    """Return numbers T of steps from 1 to ``steps``, at even ratios: few, as a level is divided by their number."""
    return np.unique(np.geomspace(1, steps, most).round().astype(np.int64))


def as_steps(ends: Ints) -> Floats:
    """Return numbers of steps as a finding holds them."""
    return ends.astype(np.float64)


def running_means(rows: Floats, ends: Ints) -> Floats:
    """Return the means of the first T columns of [R, S], for each T of ``ends``: [R, K]."""
    means: Floats = np.cumsum(rows, axis=1)[:, ends - 1] / ends
    return means


def at_averages(evidence: Evidence, weights: Floats, ends: Ints) -> Floats:
    """Return f at the weighted averages of x_0 ... x_{T-1}, for each T of ``ends``: [R, K].

    Parameters
    ----------
    evidence : Evidence
        With iterates and f.
    weights : array, shape [S]
    ends : array, shape [K]
    """
    value, total = evidence.facts.value, np.cumsum(weights)[ends - 1]
    assert value is not None
    found = []
    for trace in evidence.traces:
        assert trace.position is not None
        sums = np.cumsum(weights[:, None] * trace.position[:-1], axis=0)[ends - 1]
        found.append([value(average) for average in sums / total[:, None]])
    return np.array(found)


def distance2(evidence: Evidence, virtual: bool) -> Floats:
    """Return ||x_t - x*||^2 of all runs, [R, S+1]; of the iterates without their memory where ``virtual``."""
    found, optimum = [], evidence.facts.optimum
    assert optimum is not None
    for trace in evidence.traces:
        assert trace.position is not None
        assert trace.memory is not None
        at = trace.position - trace.memory if virtual else trace.position
        found.append(np.square(at - optimum).sum(axis=1))
    return np.array(found)


def suboptimality(evidence: Evidence) -> Floats:
    """Return f(x_t) - f* of all runs, [R, S+1]."""
    gap: Floats = evidence.stack("loss") - evidence.facts.least.value
    return gap


def start_gap(evidence: Evidence) -> float:
    """Return the mean over runs of f(x_0) - f*."""
    return float(suboptimality(evidence)[:, 0].mean())


def relative(values: Floats, allowed: Floats) -> Floats:
    """Return values over what is allowed; 0 where both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.where((values == 0) & (allowed == 0), 0.0, values / allowed)
    return ratio


def paired(left: Floats, right: Floats) -> Floats:
    """Return the left side, [R, K], for a right side that was measured in the same runs, as their mean.

    The mean over runs is that of ``left``; the spread is that of ``left - right``, which is what a statement decides
    that says mean of left <= mean of right.
    """
    values: Floats = left - right + right.mean(axis=0)
    return values
