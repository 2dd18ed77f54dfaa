"""Tuning: every scheme gets the same grid of learning rates, and keeps the one that serves it best.

One learning rate for all schemes would decide between them beforehand: what is sparse, noisy or late often wants
another one than what is dense.
"""

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from .trajectory import Evaluations, Trajectory


class Tuning(BaseModel):
    """Which learning rates are tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rates: Annotated[
        tuple[float, ...],
        Field(description="tried with every scheme, each of which keeps its best; none: training.learning_rate"),
    ] = ()
    seed: Annotated[
        int | None,
        Field(strict=True, ge=0, lt=2**63, description="of the trainings that are compared; by default training.seed"),
    ] = None

    @field_validator("learning_rates")
    @classmethod
    def _rates(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if not all(math.isfinite(rate) and rate > 0 for rate in rates):
            raise ValueError("must be numbers above 0")
        return tuple(sorted(set(rates)))


def first_at_target(evaluations: Evaluations, target: float | None, higher_is_better: bool) -> int | None:
    """Return the index of the first evaluation whose validation metric meets the target, if any does."""
    if target is None:
        return None
    metric = evaluations.validation_metric
    meets = metric >= target if higher_is_better else metric <= target
    return int(np.argmax(meets)) if meets.any() else None


def best_rate(tried: Mapping[float, Trajectory], target: float | None, higher_is_better: bool) -> float:
    """Return the learning rate that serves a scheme best, on the validation split alone.

    Trainings that completed come first; of them those that reached the target, in fewer steps before more; then the
    better validation metric at the end decides, and at last the smaller rate.

    Parameters
    ----------
    tried : mapping of learning rate to Trajectory
        Of one scheme.
    target : float or None
    higher_is_better : bool
    """

    def rank(rate: float) -> tuple[bool, float, float, float]:
        trajectory = tried[rate]
        evaluations = trajectory.evaluations
        reached = first_at_target(evaluations, target, higher_is_better)
        steps = math.inf if reached is None else float(evaluations.steps[reached])
        last = float(evaluations.validation_metric[-1]) if len(evaluations.steps) else math.nan
        worse = math.inf if math.isnan(last) else -last if higher_is_better else last
        return trajectory.diverged, steps, worse, rate

    return min(tried, key=rank)
