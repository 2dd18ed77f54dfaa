"""Walls of all workers: cases worked by hand, and that their parts add up to the whole."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwire.analysis.measurement.walls import COMMUNICATION, Segment, totals, walls


def worker(start: float, *parts: tuple[str, float]) -> list[Segment]:
    """Return what a worker did that set out at a time: each part's kind and when it ended."""
    ends = [start, *(stop for _, stop in parts)]
    return [Segment(kind, *span) for (kind, _), span in zip(parts, pairwise(ends), strict=True)]


def test_workers_that_do_the_same_at_the_same_time_take_what_one_takes():
    own = worker(5, ("forward", 6), ("backward", 8), (COMMUNICATION, 8.5), ("optimizer", 9))
    expected = [("forward", 1), ("backward", 2), (COMMUNICATION, 0.5), ("optimizer", 0.5)]
    assert walls([own]) == walls([own, own, own]) == expected


def test_taking_turns_on_a_core_is_time_of_the_work():
    """A works from 0 to 1 and waits for B, which has to wait for the core and works from 1 to 2."""
    a = worker(0, ("forward", 1), (COMMUNICATION, 3), ("optimizer", 4))
    b = worker(1, ("forward", 2), (COMMUNICATION, 3), ("optimizer", 5))
    assert walls([a, b]) == [("forward", 2), (COMMUNICATION, 1), ("optimizer", 2)]


def test_what_lands_at_different_times_has_landed_when_the_first_has():
    a = worker(0, ("encode", 1), (COMMUNICATION, 2), ("decode", 4))
    b = worker(0, ("encode", 1), (COMMUNICATION, 3), ("decode", 4))
    assert walls([a, b]) == [("encode", 1), (COMMUNICATION, 1), ("decode", 2)]


def test_a_late_worker_makes_work_long_and_not_communication():
    """B sets out 10 s after A; the exchange itself takes 1 s."""
    a = worker(0, ("forward", 1), ("backward", 4), (COMMUNICATION, 15), ("optimizer", 16))
    b = worker(10, ("forward", 11), ("backward", 14), (COMMUNICATION, 15), ("optimizer", 16))
    assert walls([a, b]) == [("forward", 3.5), ("backward", 10.5), (COMMUNICATION, 1), ("optimizer", 1)]


def test_work_between_exchanges_is_split_as_a_mean_worker_splits_it():
    """The mean worker decodes for 2 s and encodes the next message for 1 s; together they have 6 s for that."""
    kinds = ("encode", COMMUNICATION, "decode", "encode", COMMUNICATION, "decode")
    a = worker(0, *zip(kinds, (1, 2, 3, 3.5, 9, 9), strict=True))
    b = worker(0, *zip(kinds, (1, 3.5, 6.5, 8, 9, 9), strict=True))
    found = walls([a, b])
    assert found == [
        ("encode", 1),
        (COMMUNICATION, 1),
        ("decode", 4),
        ("encode", 2),
        (COMMUNICATION, 1),
        ("decode", 0),
    ]
    assert totals(found) == {"encode": 3, COMMUNICATION: 2, "decode": 4}
    assert totals(found)["between"] == 0


def test_a_worker_that_is_done_before_another_one_begins_does_not_end_the_communication():
    """A broadcast is no barrier: its root goes on at once, and the bytes are there when the last worker has them."""
    root = worker(0, ("encode", 1), (COMMUNICATION, 2), ("decode", 3))
    other = worker(0, ("encode", 4), (COMMUNICATION, 5), ("decode", 6))
    assert walls([root, other]) == [("encode", 4), (COMMUNICATION, 1), ("decode", 1)]


def test_parts_that_take_no_time_share_what_there_is_alike():
    a = worker(0, ("forward", 0), ("backward", 0), (COMMUNICATION, 1), ("optimizer", 5))
    b = worker(3, ("forward", 3), ("backward", 3), (COMMUNICATION, 4), ("optimizer", 5))
    assert walls([a, b])[:2] == [("forward", 1.5), ("backward", 1.5)]


@pytest.mark.parametrize(
    "other",
    [
        worker(0, ("forward", 1), (COMMUNICATION, 2)),
        worker(0, ("forward", 1), (COMMUNICATION, 2), ("encode", 3)),
        worker(0, (COMMUNICATION, 1), ("forward", 2), ("decode", 3)),
    ],
    ids=["fewer", "others", "another order"],
)
def test_workers_that_did_not_do_the_same_are_refused(other):
    own = worker(0, ("forward", 1), (COMMUNICATION, 2), ("decode", 3))
    with pytest.raises(ValueError, match="the workers did not do the same in the same order"):
        walls([own, other])


@pytest.mark.parametrize(
    "own",
    [
        worker(0, (COMMUNICATION, 1), ("decode", 2)),
        worker(0, ("encode", 1), (COMMUNICATION, 2), (COMMUNICATION, 3), ("decode", 4)),
        worker(0, ("encode", 1), (COMMUNICATION, 2)),
    ],
    ids=["before", "between", "after"],
)
def test_time_that_no_work_could_be_charged_with_is_refused(own):
    with pytest.raises(ValueError, match="there must be work before, between and after collectives"):
        walls([own, own])


WORK = st.lists(st.sampled_from(["forward", "encode", "decode"]), min_size=1, max_size=3)


@st.composite
def groups(draw: st.DrawFn) -> list[list[Segment]]:
    """Draw some workers that do the same kinds of things for any times, each without gaps."""
    kinds = draw(WORK)
    for _ in range(draw(st.integers(0, 3))):
        kinds += [COMMUNICATION, *draw(WORK)]
    workers = []
    for _ in range(draw(st.integers(1, 4))):
        parts = draw(st.lists(st.floats(0, 10), min_size=len(kinds), max_size=len(kinds)))
        start = draw(st.floats(0, 100))
        (_, *ends) = accumulate(parts, initial=start)
        workers.append(worker(start, *zip(kinds, ends, strict=True)))
    return workers


@given(groups())
def test_all_parts_add_up_from_the_first_start_to_the_last_stop(workers):
    found = walls(workers)
    whole = max(own[-1].stop for own in workers) - min(own[0].start for own in workers)
    assert [kind for kind, _ in found] == [segment.kind for segment in workers[0]]
    assert sum(seconds for _, seconds in found) == pytest.approx(whole, abs=1e-9)
    assert sum(totals(found).values()) == pytest.approx(whole, abs=1e-9)
