"""The choice between schemes: who leads, and by how much an input must change for another one to lead."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

from scipy.optimize import brentq

from ...compressors.errors import InputError
from ..verdict import TIE
from .cases import HERE, KEYS, Case, Point

UNCOMPRESSED = "uncompressed"
"""Stands for the best of all uncompressed cases."""
Scores = Mapping[str, float]
"""By scheme, or :data:`UNCOMPRESSED`: the time that counts; the lowest leads."""

FINE = tuple(2 ** (k / 2) for k in range(1, 9))
"""Factors that are tried in turn, up to 16, before the place of a change between two of them is found exactly."""
COARSE = (4.0, 16.0)
"""The same where every transfer has to be played."""
SEARCHED = FINE[-1]
_PRECISION, _ROUGH = 1e-6, 0.02
"""Of the logarithm of a factor."""
UNMEASURED = (3.0, 1 / 3)
"""By what costs that nobody measured are multiplied."""


@dataclass(frozen=True)
class Change:
    """From some value of an input on, another scheme leads.

    Attributes
    ----------
    factor : float
        How many times the input's own value it is.
    leader : str
        A scheme, or :data:`UNCOMPRESSED`.
    flips : bool
        Whether the answer to "compress or not" is another one.
    """

    factor: float
    leader: str
    flips: bool


@dataclass(frozen=True)
class Tipping:
    """What an input that changes alone does to the answer.

    Attributes
    ----------
    key : str
    changes : tuple of Change
        By rising factor. On either side of 1 the first change of the leader, and the first that flips the answer.
    lowest, highest : float
        The range of factors that was searched; narrower than asked for where no such cluster can be timed.
    """

    key: str
    changes: tuple[Change, ...]
    lowest: float
    highest: float


@dataclass(frozen=True)
class Flip:
    """The choice where the costs that nobody measured are others.

    Attributes
    ----------
    factor : float
        What they are multiplied by.
    leader : str
    flips : bool
        Whether the answer to "compress or not" is another one.
    gain : float
        The time of the best uncompressed case over that of the best compressing scheme.
    """

    factor: float
    leader: str
    flips: bool
    gain: float


def scores(cases: Iterable[Case], point: Point = HERE) -> dict[str, float]:
    """Return the time that counts for each choice.

    A compressing scheme must be faster by more than a tie to lead, so its time counts :data:`..verdict.TIE` fold.
    """
    found: dict[str, float] = {}
    for case in cases:
        name, seconds = case.scheme, case.seconds(point)
        if case.uncompressed:
            name = UNCOMPRESSED
        else:
            seconds *= TIE
        found[name] = min(seconds, found.get(name, seconds))
    return found


def leader(found: Scores) -> str:
    """Return the choice with the lowest score; of equal ones the first."""
    return min(found, key=lambda name: found[name])


def gain(found: Scores) -> float:
    """Return the best uncompressed time over the best time under compression."""
    return found[UNCOMPRESSED] / min(score / TIE for name, score in found.items() if name != UNCOMPRESSED)


def flips(cases: Sequence[Case]) -> list[Flip]:
    """Choose again where the costs that nobody measured are three times larger, and three times smaller."""
    here = leader(scores(cases))
    found = []
    for factor in UNMEASURED:
        changed = scores(cases, Point(estimates=factor))
        there = leader(changed)
        found.append(Flip(factor, there, _flipped(here, there), gain(changed)))
    return found


def tippings(cases: Sequence[Case], progress: Callable[[], None] = lambda: None) -> list[Tipping]:
    """Return, for each input that ``cases`` have, where its change alone changes the answer.

    Left out are the costs that nobody measured, for :func:`flips` asks for those.
    """
    coarse = any(case.by_events for case in cases)
    names = [name for name in Point._fields if name != "estimates"]
    if all(case.inputs.cluster.intra is None for case in cases):
        names.remove("intra")
    found = []
    for name in names:
        found.append(_tipping(KEYS[name], _scores_over(cases, name), coarse))
        progress()
    return found


def _scores_over(cases: Sequence[Case], name: str) -> Callable[[float], Scores]:
    """Return the scores as a function of the factor on one input; what was computed once is kept."""
    known: dict[float, Scores] = {}

    def at(factor: float) -> Scores:
        if factor not in known:
            known[factor] = scores(cases, HERE._replace(**{name: factor}))
        return known[factor]

    return at


def _tipping(key: str, at: Callable[[float], Scores], coarse: bool = False) -> Tipping:
    """Search both sides of 1."""
    changes: list[Change] = []
    ends = []
    for side in (-1, 1):
        own, end = _search(
            at, [factor**side for factor in (COARSE if coarse else FINE)], _ROUGH if coarse else _PRECISION
        )
        changes += own
        ends.append(end)
    return Tipping(key, tuple(sorted(changes, key=lambda change: change.factor)), *ends)


def _search(at: Callable[[float], Scores], factors: Sequence[float], precision: float) -> tuple[list[Change], float]:
    """Return the changes in one direction, and how far it was searched.

    Scores are continuous in the factor. Between two factors that are tried, an odd number of changes is found as one,
    and an even number is missed.
    """
    here = leader(at(1.0))
    changes: list[Change] = []
    before = 1.0
    for factor in factors:
        try:
            there = leader(at(factor))
        except InputError:  # the changed cluster cannot be built, or is too large to be played
            break
        if there != here and not changes:
            changes.append(_change(at, (before, factor), {here}, precision))
        if _flipped(here, there) and not any(change.flips for change in changes):
            side = {UNCOMPRESSED} if here == UNCOMPRESSED else set(at(1.0)) - {UNCOMPRESSED}
            changes.append(_change(at, (before, factor), side, precision))
        before = factor
        if any(change.flips for change in changes):
            break
    return changes, before


def _change(at: Callable[[float], Scores], between: tuple[float, float], side: set[str], precision: float) -> Change:
    """Return where a side that leads at the first factor ceases to, before the second."""

    def ahead(exponent: float) -> float:
        found = at(exp(exponent))
        best = min(found[name] for name in side)
        return log(min(score for name, score in found.items() if name not in side) / best)

    first, last = map(log, between)
    root = float(brentq(ahead, first, last, xtol=precision)) if ahead(last) else last
    beyond = root + 2 * precision * (1 if last > first else -1)
    following = leader(at(exp(beyond)))
    if following in side:  # by rounding
        following = leader(at(between[1]))
    return Change(exp(root), following, (following == UNCOMPRESSED) != (UNCOMPRESSED in side))


def _flipped(one: str, other: str) -> bool:
    return (one == UNCOMPRESSED) != (other == UNCOMPRESSED)
