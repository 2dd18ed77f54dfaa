"""The validation on published runs: which are inputs, which are fitted, and what the others are predicted to take."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from .fit import fitted
from .predict import Predictor
from .sets import RunSet, Sets, Terms, read_sets
from .table import ALONE, Run, read_runs


class Role(StrEnum):
    """What a run is used for."""

    INPUT = "input"
    FITTED = "fitted"
    PREDICTED = "predicted"
    UNCOUNTED = "not counted"


@dataclass(frozen=True)
class Outcome:
    """A run, measured and predicted.

    Attributes
    ----------
    run : Run
    role : Role
    measured_s : float
        Of a step.
    predicted_s : float or None
        Likewise; None for inputs, and where nothing can be played.
    nothing_sent : bool
        Whether nothing is exchanged, so that an input itself is the prediction.
    """

    run: Run
    role: Role
    measured_s: float
    predicted_s: float | None
    nothing_sent: bool = False

    @property
    def error(self) -> float:
        """The predicted over the measured time, less 1; NaN without a prediction."""
        return np.nan if self.predicted_s is None else self.predicted_s / self.measured_s - 1


@dataclass(frozen=True)
class Part:
    """A set of runs with its network's terms.

    Attributes
    ----------
    name : str
    of : RunSet
    terms : Terms
        As fitted.
    outcomes : tuple of Outcome
        Of all its runs.

    Raises
    ------
    ValueError
        If a run is both fitted and predicted, or a fitted one is not in the calibration.
    """

    name: str
    of: RunSet
    terms: Terms
    outcomes: tuple[Outcome, ...]

    def __post_init__(self) -> None:
        refuse_both(self.of.calibration, (one.run.run for one in self.having(Role.PREDICTED)))
        if sorted(self.of.calibration) != sorted(one.run.run for one in self.having(Role.FITTED)):
            raise ValueError(f"{self.of.title}: the fitted runs are not those of its calibration")

    def having(self, role: Role) -> Iterator[Outcome]:
        """Yield the outcomes of a role."""
        return (one for one in self.outcomes if one.role == role)

    @property
    def strength(self) -> str:
        """The weakest strength of its runs."""
        return max(one.run.strength for one in self.outcomes)


@dataclass(frozen=True)
class Errors:
    """Errors of some predictions: how many there are, and three of their magnitudes."""

    rows: int
    median: float
    high: float
    worst: float

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> "Errors":
        """Return the errors of outcomes; NaN where there are none."""
        sizes: NDArray[np.float64] = np.abs([one.error for one in outcomes])
        if not len(sizes):
            return cls(0, np.nan, np.nan, np.nan)
        return cls(len(sizes), float(np.median(sizes)), float(np.percentile(sizes, 95)), float(sizes.max()))


def refuse_both(calibration: Iterable[str], predicted: Iterable[str]) -> None:
    """Raise ``ValueError`` if a run is fitted and reported as a prediction."""
    both = set(calibration) & set(predicted)
    if both:
        raise ValueError(f"runs are both fitted and predicted: {', '.join(sorted(both))}")


def validate(runs: dict[str, Run] | None = None, sets: Sets | None = None) -> tuple[Part, ...]:
    """Fit each set's terms and predict its runs.

    Parameters
    ----------
    runs, sets : optional
        By default those that come with gradwire.

    Raises
    ------
    ValueError
        If a calibration names a run that is no run of its set, an input, or one with an unknown input.
    """
    runs, sets = runs or read_runs(), sets or read_sets()
    predictor = Predictor(runs, sets.schedules)
    inputs = {run.alone for run in runs.values()} | {run.run for run in runs.values() if run.schedule == ALONE}
    parts: dict[str, Part] = {}
    for name, of in sets.sets.items():
        own = {run.run: run for run in runs.values() if run.set == name}
        fittable = {run.run for run in own.values() if run.run not in inputs and not run.unknown}
        if not set(of.calibration) <= fittable:
            strange = ", ".join(sorted(set(of.calibration) - fittable))
            raise ValueError(f"{of.title}: cannot be calibrated on {strange}")
        start = _start(of, parts[of.terms_of].terms) if of.terms_of else of.start
        terms = fitted(of, start, [own[row] for row in of.calibration], predictor)
        outcomes = tuple(_outcome(run, of, terms, inputs, predictor) for run in own.values())
        parts[name] = Part(name, of, terms, outcomes)
    return tuple(parts.values())


def _start(of: RunSet, terms: Terms) -> Terms:
    """Return another set's terms with those that this set gives."""
    return terms.model_copy(update={name: getattr(of.start, name) for name in of.start.model_fields_set})


def _outcome(run: Run, of: RunSet, terms: Terms, inputs: set[str], predictor: Predictor) -> Outcome:
    """Predict a run, if it is none that says what a step computes."""
    measured_s = run.step_s(of.steps_per_epoch)
    if run.run in inputs:
        return Outcome(run, Role.INPUT, measured_s, None)
    predicted_s = predictor.step_s(run, of, terms) if run.schedule in predictor.schedules else None
    if run.unknown:
        return Outcome(run, Role.UNCOUNTED, measured_s, predicted_s)
    role = Role.FITTED if run.run in of.calibration else Role.PREDICTED
    return Outcome(run, role, measured_s, predicted_s, predictor.schedules[run.schedule].sends_nothing(run.hosts))
