"""The constants of a scheme's operator: as stated, as measured on given vectors, and the worst that a search finds."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...compressors.base import Scheme, Shape
from .check import LEVEL, Floats, Verdict, judge
from .limits import of_draws
from .probe import Probe, apply, draws_lots
from .results.operators import unbiased

_POPULATION = 8
"""Vectors that are tried together in a round of the search."""
_TRIALS = 16
"""Times that each of them is compressed, where anything is drawn."""
_RESTS = 8
"""Rounds without progress after which the search goes on in smaller steps."""


class Estimate(NamedTuple):
    """A mean over draws with its confidence limits, all the same where nothing is drawn."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Constants:
    """What is known of E||C(x) - x||^2 / ||x||^2: omega of an unbiased scheme, 1 - delta of a contraction.

    Attributes
    ----------
    scheme : str
    shape : Shape
        Of the vectors.
    unbiased : bool
        As the scheme says.
    stated : float
        The supremum over all vectors, or an upper bound of it, as the scheme says.
    measured : dict of str to Estimate
        On given vectors.
    found : Estimate
        On the worst vector that the search found, from draws that it did not use.
    found_from : str
        The vector from which the search came there.
    worst : array, shape of the vectors
        That vector, of norm 1.
    level : float
        The probability that any of the limits is on the wrong side; for upper ones, as far as no draw can lose more
        than those that were seen.
    bias : Verdict
        Of the statement that every entry keeps its expectation: not applicable to a scheme that does not say so.
    """

    scheme: str
    shape: Shape
    unbiased: bool
    stated: float
    measured: dict[str, Estimate]
    found: Estimate
    found_from: str
    worst: Floats
    level: float
    bias: Verdict

    @property
    def largest(self) -> Estimate:
        """The largest of all that was measured."""
        return max([*self.measured.values(), self.found], key=lambda estimate: estimate.mean)

    @property
    def tightness(self) -> float:
        """The largest that was measured over what is stated: 1 where the statement is attained."""
        largest = self.largest.mean
        return largest / self.stated if self.stated else float(largest == 0)


def standard_vectors(size: int, seed: int = 0) -> dict[str, Floats]:
    """Return vectors on which schemes differ, by name, each of shape [size] and norm 1.

    ``blocks`` at either end show what is never sent there; ``four thirds`` are 4/3 of powers of two, which natural
    compression rounds worst; ``unbalanced`` has entries that are certain to be sampled.
    """
    draws = np.random.default_rng((seed, size))
    signs = np.where(draws.random(size) < 0.5, -1.0, 1.0)
    edge = max(1, size // 10)
    first, last, one, few, apart = (np.zeros(size) for _ in range(5))
    first[:edge], last[-edge:], one[size // 3] = 1.0, 1.0, 1.0
    few[draws.permutation(size)[:edge]] = 1.0
    apart[:] = 1.0
    apart[::7] = 20.0
    vectors = {
        "flat": np.ones(size),
        "signs": signs,
        "one entry": one,
        "geometric": signs * 0.8 ** np.arange(size),
        "four thirds": signs * 4 / 3 * 2.0 ** draws.integers(-3, 4, size),
        "normal": draws.standard_normal(size),
        "heavy tail": draws.standard_t(1.5, size),
        "sparse": few * draws.standard_normal(size),
        "unbalanced": signs * apart,
        "block at the start": first,
        "block at the end": last,
    }
    return {name: vector / np.linalg.norm(vector) for name, vector in vectors.items()}


def constants(probe: Probe, rounds: int = 45, level: float = LEVEL) -> Constants:
    """Measure a scheme's constants on a probe's vectors, and search for worse ones.

    Parameters
    ----------
    probe : Probe
        Its vectors have one shape.
    rounds : int
        Of the search, each of which tries 8 vectors.
    level : float
    """
    shape = next(iter(probe.vectors.values())).shape
    worst, start = search(probe, rounds)
    again = Probe(probe.scheme, {"worst": worst}, probe.draws, probe.seed + 1)
    each = level / (2 * (len(probe.vectors) + 1))
    measured = {name: _estimate(drawn, each, probe.exact) for name, drawn in probe.errors().items()}
    (bias,) = judge([unbiased(probe)])
    return Constants(
        str(probe.operator),
        shape,
        probe.operator.unbiased,
        probe.operator.error_bound(shape),
        measured,
        _estimate(again.errors()["worst"], each, again.exact),
        start,
        worst,
        level,
        bias.verdict,
    )


def search(probe: Probe, rounds: int) -> tuple[Floats, str]:
    """Look for the vector that loses most, from the worst ones of a probe.

    The three vectors that lose most are changed at random: some entries are scaled, made equal to another or to zero,
    or all are drawn together or apart. In each round a vector and its changes are compared, on fresh draws, and the
    change that loses most, if it does so again, goes on; after some rounds without progress the changes become smaller.

    Returns
    -------
    array
        Of the vectors' shape, and of norm 1.
    str
        The probe's vector from which it came.
    """
    operator = probe.operator
    known = {name: float(errors.mean()) for name, errors in probe.errors().items()}
    starts = sorted(known, key=known.__getitem__, reverse=True)[:3]
    shape = probe.vectors[starts[0]].shape
    trials = _TRIALS if draws_lots(operator, shape, probe.seed) else 1
    found: list[tuple[float, str, Floats]] = []
    for order, name in enumerate(starts):
        draws = np.random.default_rng((probe.seed, order))
        vector, loss = _climb(operator, probe.vectors[name].reshape(-1), shape, rounds // len(starts), trials, draws)
        found.append((loss, name, vector))
    _, name, vector = max(found, key=lambda one: one[0])
    return vector.reshape(shape), name


def _climb(
    operator: Scheme, start: Floats, shape: Shape, rounds: int, trials: int, draws: np.random.Generator
) -> tuple[Floats, float]:
    """Change a vector [n] for the worse, again and again; return it and what it loses on average.

    A change counts if on fresh draws it still loses more than the vector did in all rounds: or what varies most would
    win.
    """
    best, seen, reach, rested = start / (np.linalg.norm(start) or 1.0), list[float](), 1.0, 0
    for _ in range(rounds):
        tried = np.stack([best, *(_changed(best, reach, draws) for _ in range(_POPULATION - 1))])
        losses = _losses(operator, tried, shape, trials, int(draws.integers(2**32)))
        seen.extend(losses[:, 0].tolist())
        top = 1 + int(np.argmax(losses[:, 1:].mean(axis=0)))
        again = _losses(operator, tried[top : top + 1], shape, 2 * trials, int(draws.integers(2**32)))[:, 0]
        rested += 1
        if again.mean() > np.mean(seen):
            best, seen, rested = tried[top], again.tolist(), 0
        if rested == _RESTS:
            reach, rested = reach / 2, 0
    return best, float(np.mean(seen))


def _changed(vector: Floats, reach: float, draws: np.random.Generator) -> Floats:
    """Return a vector of norm 1 of which a random share of the entries was changed."""
    changed, size = vector.copy(), len(vector)
    places = np.flatnonzero(draws.random(size) < draws.random() ** 2)
    kind = draws.integers(4)
    if kind == 0:
        changed[places] *= np.exp(reach * draws.standard_normal(len(places)))
    elif kind == 1:
        changed[places] = vector[draws.integers(size)] * np.where(vector[places] < 0, -1.0, 1.0)
    elif kind == 2:
        changed[places] = 0.0
    else:
        changed *= np.abs(vector + 1e-300) ** (reach * draws.uniform(-0.5, 0.5))
    norm = float(np.linalg.norm(changed))
    return changed / norm if np.isfinite(norm) and norm > 0 else vector


def _losses(operator: Scheme, tried: Floats, shape: Shape, trials: int, seed: int) -> Floats:
    """Return what each row, all of norm 1, loses in each trial, [trials, rows]."""
    results = apply(operator, tried.reshape(len(tried), *shape), trials, seed)
    losses: Floats = np.square(results - tried).sum(axis=2)
    return losses


def _estimate(drawn: Floats, level: float, exact: bool) -> Estimate:
    """Return a mean of values [R] that are not negative, and its limits."""
    mean = float(drawn.mean())
    if exact:
        return Estimate(mean, mean, mean)
    low, high = of_draws(drawn[:, None], level, np.zeros(1), drawn.max(keepdims=True))
    return Estimate(mean, float(low[0]), float(high[0]))
