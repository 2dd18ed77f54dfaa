"""Fitted rates: how fast a measured suboptimality falls with steps or with bits, next to the rate that theory promises.

A power law is c T^-p, a geometric one c exp(-p T), fitted by least squares to the logarithm of the mean over runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from ...compressors.errors import InputError
from ...compressors.feedback import ErrorFeedback
from ...compressors.remember import Remembering
from .check import SEEDS, Floats
from .evidence import Evidence
from .results import beznosikov_rates, ef21

Form = Literal["power", "geometric"]
Against = Literal["steps", "bits"]


class RateError(InputError):
    """A rate that cannot be fitted: too few points, or a suboptimality that is not above 0."""


class Interval(NamedTuple):
    """A value and its confidence limits; NaN where there are too few runs for them."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """A rate that theory promises for some runs.

    Attributes
    ----------
    form : {"power", "geometric"}
    exponent : float
        p: the suboptimality falls at least so fast in the end. Per step, if geometric.
    log_curve : callable
        Numbers of steps to the logarithm of what is promised then, up to a constant; its slope tends to -p.
    source : str
        The statement that it comes from.
    weights : array, shape [S], or None
        The weights of x_0, x_1, ... in the average that it speaks of; None: it speaks of the last iterate.
    """

    form: Form
    exponent: float
    log_curve: Callable[[Floats], Floats]
    source: str
    weights: Floats | None = None


@dataclass(frozen=True)
class Rate:
    """A fitted rate.

    Attributes
    ----------
    subject : str
    against : {"steps", "bits"}
        What T counts: steps, or the bits that a worker has handed over.
    form : {"power", "geometric"}
        c T^-p, or c exp(-p T).
    exponent, constant : Interval
        p and c.
    level : float
        The probability with which an interval would contain what infinitely many runs gave.
    first, last : float
        The least and the largest T of the fit.
    misfit : float
        The largest absolute difference between a logarithm and the fit: large where the form is wrong, which the
        intervals do not tell.
    runs : int
    predicted : float or None
        The exponent that the same fit gives for what theory promises at the same T.
    source : str
        Where the prediction comes from; empty if there is none.
    """

    subject: str
    against: Against
    form: Form
    exponent: Interval
    constant: Interval
    level: float
    first: float
    last: float
    misfit: float
    runs: int
    predicted: float | None = None
    source: str = ""

    @property
    def keeps_promise(self) -> bool | None:
        """Whether the interval reaches up to what theory promises; None without a prediction or an interval."""
        if self.predicted is None or np.isnan(self.exponent.high):
            return None
        return self.exponent.high >= self.predicted


def fit(
    points: Floats,
    errors: Floats,
    form: Form,
    subject: str = "",
    against: Against = "steps",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Rate:
    """Fit a rate, with confidence intervals by the percentile bootstrap over runs.

    Parameters
    ----------
    points : array, shape [K]
        T, above 0.
    errors : array, shape [R, K]
        The suboptimality in each of R independent runs. Equal rows count as what nothing was drawn in, and the
        intervals have no width; of fewer than 30 others the intervals are NaN.
    form : {"power", "geometric"}
    subject, against
        As in the result.
    level : float
    resamples, seed : int
        Of the bootstrap.

    Raises
    ------
    RateError
        If there are fewer than three points, or the mean at one of them is not above 0.
    """
    if len(points) < 3:
        raise RateError(f"a rate needs at least 3 points, and there are {len(points)}")
    means = errors.mean(axis=0)
    if not bool(np.all(means > 0)):
        where = points[int(np.argmin(means > 0))]
        raise RateError(f"a rate needs a mean suboptimality above 0, and at T = {where:g} it is {means.min():.3g}")
    abscissa = _abscissa(points, form)
    slope, offset = (float(part) for part in _line(abscissa, np.log(means)))
    exponent, constant = Interval(-slope, -slope, -slope), Interval(*(3 * [float(np.exp(offset))]))
    if not bool((errors == errors[0]).all()):
        exponent, constant = _bootstrap(abscissa, errors, exponent.value, constant.value, level, resamples, seed)
    return Rate(
        subject,
        against,
        form,
        exponent,
        constant,
        level,
        float(points[0]),
        float(points[-1]),
        float(np.abs(np.log(means) - offset - slope * abscissa).max()),
        len(errors),
    )


def measured_rate(
    evidence: Evidence,
    against: Against = "steps",
    form: Form | None = None,
    skip: float = 0.25,
    count: int = 12,
    level: float = 0.95,
) -> Rate:
    """Fit the rate of recorded runs, of the form that theory predicts for them.

    Parameters
    ----------
    evidence : Evidence
        Whose least value is known.
    against : {"steps", "bits"}
    form : {"power", "geometric"} or None
        None: the predicted form, or ``power`` if nothing is predicted.
    skip : float
        The part of the steps at the beginning that is left out.
    count : int
        About how many numbers of steps are fitted.
    level : float

    Raises
    ------
    RateError
        If it cannot be fitted.
    """
    promise = prediction(evidence)
    first = max(1, int(skip * evidence.steps))
    counts = np.unique(np.rint(np.geomspace(first, evidence.steps, count)))
    weights = None if promise is None else promise.weights
    errors = suboptimality(evidence, counts, weights)
    points = bits(evidence, counts) if against == "bits" else counts
    chosen = form or ("power" if promise is None else promise.form)
    rate = fit(points, errors, chosen, evidence.subject, against, level)
    if promise is None or promise.form != chosen:
        return rate
    slope, _ = _line(_abscissa(points, chosen), promise.log_curve(counts))
    return replace(rate, predicted=float(-slope), source=promise.source)


def suboptimality(evidence: Evidence, counts: Floats, weights: Floats | None = None) -> Floats:
    """Return f - f* after so many steps of each run, [R, K].

    Parameters
    ----------
    evidence : Evidence
    counts : array, shape [K]
        T, from 1 to S.
    weights : array, shape [S], or None
        None: of x_T. Else of the average of x_0, ..., x_{T-1} with these weights, for which the iterates must have been
        kept and f be computable.

    Raises
    ------
    RateError
        If f* or an average is not known.
    """
    if evidence.facts.least.how != "exact":
        raise RateError(f"{evidence.subject}: the least value of the objective is not known")
    whole = counts.astype(int)
    if weights is None:
        return evidence.stack("loss")[:, whole] - evidence.facts.least.value
    value, kept = evidence.facts.value, [t.position for t in evidence.traces if t.position is not None]
    if value is None or len(kept) < len(evidence.traces):
        raise RateError(f"{evidence.subject}: an average of iterates needs them kept, and the objective's values")
    rows = []
    for positions in kept:
        sums = np.cumsum(weights[:, None] * positions[:-1], axis=0) / np.cumsum(weights)[:, None]
        rows.append([value(sums[t - 1]) - evidence.facts.least.value for t in whole])
    return np.array(rows)


def bits(evidence: Evidence, counts: Floats) -> Floats:
    """Return the bits that a worker has handed over after so many steps, in the mean over workers and runs, [K]."""
    sums: Floats = 8 * np.cumsum(evidence.stack("sent_bytes").mean(axis=0))
    at_counts: Floats = sums[counts.astype(int) - 1]
    return at_counts


def prediction(evidence: Evidence) -> Prediction | None:
    """Return the fastest rate that a statement promises, all of whose conditions hold; None if none does.

    Geometric rates of EF21 and of compressed gradient descent; and 1/T of SGD under Stich's step 8 / (mu (a + t)), for
    the average with weights (a + t)^2: plain, unbiased, or with error feedback and a >= 7 / delta. None where the mean
    is compressed on its way back.
    """
    if evidence.back is not None:
        return None
    found = []
    for check in (*ef21.CHECKS, *beznosikov_rates.CHECKS):
        if check.statement.name not in ("ef21.pl", "beznosikov.b1_rate", "beznosikov.b2_rate", "beznosikov.b3_rate"):
            continue
        finding = check.examine(evidence)
        if finding.measured and len(finding.bound) > 1 and bool(np.all(finding.bound[:2] > 0)):
            decay = float(np.log(finding.bound[0] / finding.bound[1]) / (finding.steps[1] - finding.steps[0]))
            found.append(Prediction("geometric", decay, partial(np.multiply, -decay), check.statement.name))
    return max(found, key=lambda one: one.exponent) if found else _stich(evidence)


def _stich(evidence: Evidence) -> Prediction | None:
    """Return the rate 1/T under Stich's schedule, or None."""
    mu = evidence.facts.strong_convexity
    if mu is None or evidence.steps < 2 or not bool(np.all(evidence.lr > 0)):
        return None
    inverse = 8 / (mu.value * evidence.lr)
    shift = float(inverse[0])
    if not np.allclose(inverse, shift + np.arange(evidence.steps), rtol=1e-9, atol=0) or shift <= 1:
        return None
    memory = evidence.scheme.memory if isinstance(evidence.scheme, Remembering) else None
    remembers = memory == ErrorFeedback() and shift * (1 - evidence.error) >= 7 * (1 - 1e-9)
    plain = evidence.memory == "none" and evidence.scheme.unbiased and bool(np.isfinite(evidence.error))
    if not (remembers or plain):
        return None
    weights = np.square(shift + np.arange(float(evidence.steps)))

    def log_curve(counts: Floats) -> Floats:
        """Return the logarithm of the theorem's first term, T (T + 2 a) / S_T."""
        curve: Floats = np.log(counts * (counts + 2 * shift) / np.cumsum(weights)[counts.astype(int) - 1])
        return curve

    return Prediction("power", 1.0, log_curve, "stich.theorem", weights)


def _abscissa(points: Floats, form: Form) -> Floats:
    """Return against what the logarithm is a line."""
    logarithms: Floats = np.log(points)
    return logarithms if form == "power" else points


def _line(abscissa: Floats, ordinates: Floats) -> tuple[Floats, Floats]:
    """Return slope and offset of the least-squares line through ordinates [..., K]."""
    centred = abscissa - abscissa.mean()
    slope: Floats = np.asarray(ordinates @ centred / np.square(centred).sum())
    offset: Floats = np.asarray(ordinates.mean(axis=-1) - slope * abscissa.mean())
    return slope, offset


def _bootstrap(
    abscissa: Floats, errors: Floats, exponent: float, constant: float, level: float, resamples: int, seed: int
) -> tuple[Interval, Interval]:
    """Return exponent and constant with their limits."""
    if len(errors) < SEEDS:
        return Interval(exponent, np.nan, np.nan), Interval(constant, np.nan, np.nan)

    def statistic(rows: Floats, axis: int) -> Floats:
        slope, offset = _line(abscissa, np.log(errors[rows.astype(int)].mean(axis=axis - 1)))
        return np.stack([-slope, offset])

    limits = stats.bootstrap(
        (np.arange(len(errors)),),
        statistic,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    low, high = np.asarray(limits.low), np.asarray(limits.high)
    around = (float(np.exp(low[1])), float(np.exp(high[1])))
    return Interval(exponent, float(low[0]), float(high[0])), Interval(constant, *around)
