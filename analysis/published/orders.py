"""Orders: whether predictions say which of two runs is faster, as the measurements do."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from .table import ALONE
from .validation import Outcome, Part, Role

SCHEDULES = ("bsp", "wfbp", "mg-wfbp")
"""Schedules that were measured on the same clusters with the same software."""


@dataclass(frozen=True)
class Pair:
    """Two runs that differ in one thing, at least one of them predicted."""

    first: Outcome
    second: Outcome

    @property
    def decidable(self) -> bool:
        """Whether the measurements differ by more than their spreads."""
        spread_s = sum(one.measured_s * one.run.spread for one in (self.first, self.second))
        return abs(self.first.measured_s - self.second.measured_s) > spread_s

    @property
    def right(self) -> bool:
        """Whether the same run is faster by prediction; equal predictions are not right."""
        gain_s = self.first.measured_s - self.second.measured_s
        return gain_s * (_said_s(self.first) - _said_s(self.second)) > 0


def _said_s(outcome: Outcome) -> float:
    """Return the predicted time; of an input, which stands for itself, the measured one."""
    return outcome.measured_s if outcome.predicted_s is None else outcome.predicted_s


def schedule_pairs(parts: Iterable[Part]) -> tuple[Pair, ...]:
    """Return the decidable pairs of schedules at equal cluster, model and number of workers."""
    return tuple(_counting(_schedule_pairs(parts)))


def winner_pairs(parts: Iterable[Part]) -> tuple[Pair, ...]:
    """Return the decidable pairs of each compressed run and the fastest uncompressed one of its set-up."""
    return tuple(_counting(_winner_pairs(parts)))


def _schedule_pairs(parts: Iterable[Part]) -> Iterator[Pair]:
    for part in parts:
        known = [one for one in part.outcomes if one.run.schedule in SCHEDULES and one.role != Role.UNCOUNTED]
        for same in _set_ups(known):
            yield from (Pair(*two) for two in combinations(same, 2))


def _winner_pairs(parts: Iterable[Part]) -> Iterator[Pair]:
    for part in parts:
        known = [one for one in part.outcomes if one.run.schedule != ALONE and one.role != Role.UNCOUNTED]
        for same in _set_ups(known):
            dense = [one for one in same if not one.run.compressed]
            if dense:
                best = min(dense, key=lambda one: one.measured_s)
                yield from (Pair(best, one) for one in same if one.run.compressed)


def _counting(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Yield those that can be decided and of which something is predicted."""
    for pair in pairs:
        if pair.decidable and Role.PREDICTED in (pair.first.role, pair.second.role):
            yield pair


def _set_ups(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Return the outcomes of each model, batch and number of workers."""
    groups: dict[tuple[str, int, int], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one.run.model, one.run.batch, one.run.workers), []).append(one)
    return list(groups.values())
