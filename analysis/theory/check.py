"""The contract of a check: a statement of theory, the conditions it needs, what was measured and what it allows.

A check yields a :class:`Finding`, which is numbers only; :func:`judge` turns findings into verdicts, all of a table
together, because the level of a statistical statement depends on how many are made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .limits import of_draws, of_runs

Floats = NDArray[np.float64]
Subject = TypeVar("Subject")

LEVEL = 0.001
"""The probability that any statement of a table that holds is called violated."""
SEEDS = 30
"""A statement about an expectation is decided on at least so many independent runs or draws."""
ROUNDING = 1e-9
"""The relative difference that float64 arithmetic is granted."""

Relation = Literal["at most", "equal"]
Kind = Literal["path", "expectation", "frequency"]
Grade = Literal["derived", "stated", "indicative"]


class Verdict(StrEnum):
    """What a check finds."""

    HOLDS = "holds"
    NOT_REFUTED = "not refuted"
    """What was measured respects the bound, and something that the statement needs is only estimated."""
    INCONCLUSIVE = "inconclusive"
    """What was measured exceeds the bound, and something that the statement needs is only estimated."""
    VIOLATED = "violated"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Statement:
    """A result of theory.

    Attributes
    ----------
    name : str
        ``paper.what``, as in ``stich.memory``.
    title : str
        What it says, in a few words.
    source : str
        Paper and number of the result.
    formula : str
        The inequality or equation as plain text.
    kind : {"path", "expectation", "frequency"}
        Whether it holds on every run, for a mean over runs, or bounds how often something happens.
    grade : {"derived", "stated", "indicative"}
        ``derived``: proved in the documentation; ``stated``: as the paper prints it; ``indicative``: the statement's
        constants are not known surely, so that exceeding it proves nothing.
    attained : str
        An instance on which the bound is sharp enough that a faulty scheme or step size exceeds it; empty if there is
        none, so that the check cannot discriminate.
    relation : {"at most", "equal"}
    """

    name: str
    title: str
    source: str
    formula: str
    kind: Kind
    grade: Grade
    attained: str
    relation: Relation = "at most"


@dataclass(frozen=True)
class Condition:
    """What a statement presupposes.

    Attributes
    ----------
    text : str
    holds : bool or None
        None: it is only estimated, or assumed.
    measured, allowed : float or None
        The two sides, where it is about numbers.
    """

    text: str
    holds: bool | None
    measured: float | None = None
    allowed: float | None = None

    def __post_init__(self) -> None:
        if self.holds is not None:
            object.__setattr__(self, "holds", bool(self.holds))  # numpy's False is not False


def at_most(text: str, measured: float, allowed: float, sure: bool = True) -> Condition:
    """Return the condition that a number is at most another, to rounding; not ``sure``: it is only not refuted."""
    fine = bool(measured <= allowed + ROUNDING * abs(allowed))
    return Condition(text, fine and (sure or None), measured, allowed)


_NONE = np.empty(0)


@dataclass(frozen=True, eq=False)
class Finding:
    """The two sides of a statement for one subject.

    Attributes
    ----------
    statement : Statement
    subject : str
        What it was checked on.
    conditions : tuple of Condition
    steps : array, shape [K]
        What the columns of the sides are: steps, numbers of entries, or the number of a case.
    values : array, shape [R, K]
        The left side in each of R runs or independent draws; no rows if it cannot be measured.
    bound : array, shape [K]
        The right side.
    slack : float
        What the left side may exceed the right one by for rounding, besides the relative :data:`ROUNDING`.
    axis : str
        The name of what ``steps`` counts.
    exact : bool
        Whether the left side is the expectation itself, as where nothing is drawn, so that one row is enough.
    least, most : array, shape [K]
        What no value is beyond, where the mean may hang on rare draws and so be far from normal; empty if not given.
    """

    statement: Statement
    subject: str
    conditions: tuple[Condition, ...] = ()
    steps: Floats = field(default_factory=lambda: _NONE)
    values: Floats = field(default_factory=lambda: np.empty((0, 0)))
    bound: Floats = field(default_factory=lambda: _NONE)
    slack: float = 0.0
    axis: str = "step"
    exact: bool = False
    least: Floats = field(default_factory=lambda: _NONE)
    most: Floats = field(default_factory=lambda: _NONE)

    @property
    def refused(self) -> tuple[Condition, ...]:
        """The conditions that do not hold."""
        return tuple(condition for condition in self.conditions if condition.holds is False)

    @property
    def unsure(self) -> bool:
        """Whether a mean over runs would be decided on too few of them."""
        return self.statement.kind != "path" and not self.exact and len(self.values) < SEEDS

    @property
    def measured(self) -> bool:
        """Whether there is a left side."""
        return self.values.size > 0


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """A statement and how its sides are computed for a subject."""

    statement: Statement
    examine: Callable[[Subject], Finding]


class Judged(NamedTuple):
    """A finding's verdict.

    Attributes
    ----------
    finding : Finding
    verdict : Verdict
    reason : str
    measured, low, high : array, shape [K]
        The left side: the mean over runs or the worst of them, and its confidence limits.
    worst : int
        The column with the largest ratio of measured to bound, or, of an equation, the largest difference; -1 if none.
    ratio : float
        Measured over bound there; NaN if there is none.
    """

    finding: Finding
    verdict: Verdict
    reason: str
    measured: Floats
    low: Floats
    high: Floats
    worst: int
    ratio: float

    @property
    def discriminates(self) -> bool:
        """Whether there is an instance on which the check would have found a fault."""
        return bool(self.finding.statement.attained)


def judge(findings: Sequence[Finding]) -> list[Judged]:
    """Return the verdicts of a table of findings.

    Means over R runs get one-sided confidence limits of Student's t; where they hang on rare draws, those of Hoeffding
    if the values are bounded, else none. Frequencies get those of Clopper and Pearson. Each uses the level
    :data:`LEVEL` over the number of all such comparisons of the table (Bonferroni), so the probability that anything
    that holds is called violated is at most :data:`LEVEL`, as far as means over runs are normal.

    Parameters
    ----------
    findings : sequence of Finding
        All that will be shown together.
    """
    drawn = [f for f in findings if f.measured and not f.refused and not f.exact and f.statement.kind != "path"]
    comparisons = sum(f.values.shape[1] * (2 if f.statement.relation == "equal" else 1) for f in drawn)
    return [_judged(finding, LEVEL / max(comparisons, 1)) for finding in findings]


def _judged(finding: Finding, level: float) -> Judged:
    refused = finding.refused
    if not finding.measured:
        why = _told(refused[0]) if refused else "it cannot be measured here"
        return Judged(finding, Verdict.NOT_APPLICABLE, why, _NONE, _NONE, _NONE, -1, float("nan"))
    measured, low, high = _limits(finding, level)
    worst, ratio = _worst(finding, measured, low, high)
    verdict, reason = _verdict(finding, _exceeds(finding, low, high)), ""
    if refused:
        verdict, reason = Verdict.NOT_APPLICABLE, _told(refused[0])
    elif verdict in (Verdict.NOT_REFUTED, Verdict.INCONCLUSIVE):
        reason = _why_unsure(finding)
    elif verdict is Verdict.HOLDS and _undecided(finding, measured, low, high):
        verdict, reason = Verdict.INCONCLUSIVE, "it hangs on draws so rare that these cannot tell their mean"
    return Judged(finding, verdict, reason, measured, low, high, worst, ratio)


def _limits(finding: Finding, level: float) -> tuple[Floats, Floats, Floats]:
    """Return the left side and its lower and upper confidence limits, each [K]."""
    values, runs = finding.values, len(finding.values)
    if finding.statement.kind == "path":
        most = values.max(axis=0)
        return most, values.min(axis=0), most
    mean: Floats = values.mean(axis=0)
    if finding.exact or runs < SEEDS:
        return mean, mean, mean
    if finding.statement.kind == "frequency":
        hits = values.sum(axis=0)
        low = np.where(hits > 0, stats.beta.ppf(level, hits, runs - hits + 1), 0.0)
        high = np.where(hits < runs, stats.beta.isf(level, hits + 1, runs - hits), 1.0)
        return mean, low, high
    bounded = finding.least.size > 0
    low, high = of_draws(values, level, finding.least, finding.most) if bounded else of_runs(values, level)
    return mean, low, high


def _exceeds(finding: Finding, low: Floats, high: Floats) -> bool:
    """Return whether the statement is contradicted somewhere; what is not a number contradicts it."""
    slack = finding.slack + ROUNDING * np.abs(finding.bound)
    # On every path both ends must be right; of a mean, only what the confidence limits leave open.
    least, most = (high, low) if finding.statement.kind == "path" else (low, high)
    fine = least <= finding.bound + slack
    if finding.statement.relation == "equal":
        fine &= most >= finding.bound - slack
    return not bool(np.all(fine))


def _undecided(finding: Finding, measured: Floats, low: Floats, high: Floats) -> bool:
    """Return whether a mean is on the wrong side somewhere, and there is no confidence limit to tell by how much."""
    slack = finding.slack + ROUNDING * np.abs(finding.bound)
    found = np.isneginf(low) & (measured > finding.bound + slack)
    if finding.statement.relation == "equal":
        found |= np.isposinf(high) & (measured < finding.bound - slack)
    return bool(found.any())


def _worst(finding: Finding, measured: Floats, low: Floats, high: Floats) -> tuple[int, float]:
    """Return the column that is nearest to a contradiction, and measured over bound there.

    Of an equation between means that is where they differ most in units of what the confidence limits leave open.
    """
    bound = finding.bound
    with np.errstate(divide="ignore", invalid="ignore"):
        nothing = 1.0 if finding.statement.relation == "equal" else 0.0
        ratios = np.where((np.abs(measured) <= finding.slack) & (bound == 0), nothing, measured / bound)
    if finding.statement.relation == "equal":
        reach = np.where(measured > bound, measured - low, high - measured)
        drawn = (reach > 0) & (finding.statement.kind != "path")
        scale = np.where(drawn, reach, np.maximum(np.abs(bound), np.finfo(np.float64).tiny))
        distance = np.abs(measured - bound) / scale
        worst = int(np.argmax(np.nan_to_num(distance, nan=np.inf)))
    else:
        worst = int(np.argmax(np.nan_to_num(ratios, nan=np.inf)))
    return worst, float(ratios[worst])


def _verdict(finding: Finding, exceeds: bool) -> Verdict:
    sure = not _why_unsure(finding)
    if exceeds:
        return Verdict.VIOLATED if sure else Verdict.INCONCLUSIVE
    return Verdict.HOLDS if sure else Verdict.NOT_REFUTED


def _why_unsure(finding: Finding) -> str:
    """Return why a bound that is exceeded proves nothing, and one that is respected not everything; or nothing."""
    if finding.statement.grade == "indicative":
        return "the statement's constants are not known surely"
    for condition in finding.conditions:
        if condition.holds is None:
            return _told(condition)
    if finding.unsure:
        runs = "one run" if len(finding.values) == 1 else f"{len(finding.values)} runs"
        return f"a statement about a mean over runs, and {runs} of the {SEEDS} that it takes"
    return ""


def _told(condition: Condition) -> str:
    """Return a condition with its numbers."""
    if condition.measured is None or condition.allowed is None:
        return condition.text
    return f"{condition.text}: {condition.measured:.4g}, allowed {condition.allowed:.4g}"
