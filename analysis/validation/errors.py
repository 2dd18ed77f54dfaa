"""Errors of predictions: each configuration measured against predicted, phase by phase, and what they are in all."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from ..measurement.records import StepRecord, median, spread
from .predict import PHASES, Predicted


class Compared(NamedTuple):
    """A configuration, as measured and as predicted.

    Attributes
    ----------
    record : StepRecord
    predicted : Predicted
    """

    record: StepRecord
    predicted: Predicted

    @property
    def measured_s(self) -> float:
        """The median of the measured step."""
        return median(self.record.step_s)

    @property
    def error(self) -> float:
        """The relative error of the predicted step, with its sign."""
        return self.predicted.step_s / self.measured_s - 1

    def phase_s(self, name: str) -> float:
        """Return the median of a measured phase."""
        return median(getattr(self.record, name))

    def phase_error(self, name: str) -> float:
        """Return how far a phase is off, as a share of the measured step."""
        return (self.predicted.phases[name] - self.phase_s(name)) / self.measured_s


class Order(NamedTuple):
    """How many pairs of schemes there are whose order the measurement tells, and how many were predicted so."""

    right: int
    pairs: int

    @property
    def share(self) -> float:
        """The share that is right; NaN if there is no pair."""
        return self.right / self.pairs if self.pairs else float("nan")


class Summary(NamedTuple):
    """Absolute relative errors over configurations.

    Attributes
    ----------
    configurations : int
    median, p95, worst : float
    order : Order
    phases : dict of str to float
        The median of each phase's absolute error, as a share of the measured step.
    """

    configurations: int
    median: float
    p95: float
    worst: float
    order: Order
    phases: dict[str, float]


def summary(rows: Sequence[Compared]) -> Summary:
    """Return the errors of some configurations."""
    errors = np.abs([row.error for row in rows])
    phases = {name: float(np.median([abs(row.phase_error(name)) for row in rows])) for name in PHASES}
    quantiles = (float(np.median(errors)), float(np.quantile(errors, 0.95)), float(errors.max()))
    return Summary(len(rows), *quantiles, order(rows), phases)


def order(rows: Sequence[Compared]) -> Order:
    """Return how often the faster of two schemes is the one that was predicted.

    Pairs differ in their scheme only. Those whose measured steps lie within each other's quartiles tell no order.
    """
    right = pairs = 0
    for one, other in combinations(rows, 2):
        if one.record.scheme == other.record.scheme or _setting(one) != _setting(other):
            continue
        gap = other.measured_s - one.measured_s
        if abs(gap) <= (spread(one.record.step_s) + spread(other.record.step_s)) / 2:
            continue
        pairs += 1
        right += (other.predicted.step_s - one.predicted.step_s) * gap > 0
    return Order(right, pairs)


def _setting(row: Compared) -> str:
    """Return all of a configuration but its scheme."""
    return row.record.model_copy(update={"scheme": ""}).key
