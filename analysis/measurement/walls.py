"""Walls: where the time of all workers together goes, from when the first sets out until the last has ended.

Workers do the same in the same order: work, collectives, work. Between two collectives they work from when the first of
them has landed until the last has launched; from then until the first lands they communicate. So what a worker waits
for another one, because it is slower or has to take its turn on a processor that they share, is time of that work, and
all parts add up to the whole. Times of different workers are compared, which asks for one clock: on one machine they
have it, and otherwise each worker's are counted from when all set out.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

COMMUNICATION = "communication"


class Segment(NamedTuple):
    """What a worker did, of a kind such as ``forward`` or :data:`COMMUNICATION`, from when to when in seconds."""

    kind: str
    start: float
    stop: float


def walls(workers: Sequence[Sequence[Segment]]) -> list[tuple[str, float]]:
    """Return what all workers together did, in order, and for how many seconds.

    Parameters
    ----------
    workers : sequence of sequence of Segment
        Each worker's, without gaps, of the same kinds in the same order: work comes first, last, and between any two
        collectives.

    Returns
    -------
    list of tuple of str and float
        An entry for each segment. What work between two collectives took in all is split in proportion to what its
        parts took on a mean worker.

    Raises
    ------
    ValueError
        If the workers did not do the same, or there is no work where there must be.
    """
    kinds = [segment.kind for segment in workers[0]]
    if any([segment.kind for segment in own] != kinds for own in workers):
        raise ValueError("the workers did not do the same in the same order")
    found: list[tuple[str, float]] = []
    run: list[int] = []
    since = min(own[0].start for own in workers)
    for i, kind in enumerate(kinds):
        if kind != COMMUNICATION:
            run.append(i)
            continue
        launched = max(own[i].start for own in workers)
        found += _split(workers, run, launched - since)
        landings = [own[i].stop for own in workers]
        # Who is done before all others have begun, as a broadcast's root, does not say when the bytes are there.
        since = min(landings) if min(landings) >= launched else max(landings)
        found.append((kind, since - launched))
        run = []
    found += _split(workers, run, max(own[-1].stop for own in workers) - since)
    return found


def _split(workers: Sequence[Sequence[Segment]], run: Sequence[int], seconds: float) -> list[tuple[str, float]]:
    """Return the parts of a run of work."""
    if not run:
        raise ValueError("there must be work before, between and after collectives")
    parts = [sum(own[i].stop - own[i].start for own in workers) for i in run]
    whole = sum(parts)
    shares = [part / whole for part in parts] if whole else [1 / len(run) for _ in run]
    return [(workers[0][i].kind, seconds * share) for i, share in zip(run, shares, strict=True)]


def totals(parts: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Return the seconds of each kind; 0 of those that do not occur."""
    found: defaultdict[str, float] = defaultdict(float)
    for kind, seconds in parts:
        found[kind] += seconds
    return found
