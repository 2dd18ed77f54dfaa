"""Errors of predictions, worked by hand: steps, phases, their quantiles, and the order of schemes."""

import math

import numpy as np
import pytest

from gradwire.analysis.measurement.jobs import Link, StepJob
from gradwire.analysis.measurement.records import StepRecord
from gradwire.analysis.validation.errors import Compared, order, summary
from gradwire.analysis.validation.predict import PHASES, Predicted

SLOW_LINK = Link(link_bps=1e8, burst_bytes=26_084)


def compared(scheme: str, measured_s: tuple[float, ...], predicted_s: float, link: Link = SLOW_LINK, **job) -> Compared:
    """Return a configuration of which only the steps matter."""
    blank = StepJob(task="mnist", scheme=scheme, **job).blank(4, link)
    nothing = dict.fromkeys(PHASES, 0.0)
    phases = {name: tuple(0.0 for _ in measured_s) for name in PHASES}
    return Compared(blank.model_copy(update={"step_s": measured_s, **phases}), Predicted(predicted_s, nothing, 0.0, ()))


def of_phases(measured: dict[str, float], predicted: dict[str, float]) -> Compared:
    """Return a configuration whose phases add up to its step, measured three times with the same median."""
    blank = StepJob(task="mnist").blank(4, Link())
    times = {name: (0.5 * seconds, seconds, 3 * seconds) for name, seconds in measured.items()}
    step_s = tuple(map(sum, zip(*times.values(), strict=True)))
    record: StepRecord = blank.model_copy(update={**times, "step_s": step_s})
    return Compared(record, Predicted(sum(predicted.values()), predicted, 0.0, ()))


MEASURED = dict(zip(PHASES, (1.0, 2.0, 0.5, 4.0, 0.25, 0.25), strict=True))
OFF = dict(zip(PHASES, (1.5, 1.0, 0.5, 8.0, 0.25, 0.5), strict=True))


def test_errors_are_relative_to_the_median_step_and_signed():
    row = of_phases(MEASURED, OFF)
    assert row.measured_s == 8
    assert row.error == pytest.approx(11.75 / 8 - 1)
    assert compared("dense", (1.0, 2.0, 9.0), 1.5).error == -0.25


def test_errors_of_phases_are_shares_of_the_step_and_add_up_to_its_error():
    row = of_phases(MEASURED, OFF)
    assert [row.phase_error(name) for name in PHASES] == [0.0625, -0.125, 0, 0.5, 0, 0.03125]
    assert sum(row.phase_error(name) for name in PHASES) == pytest.approx(row.error)
    assert [row.phase_s(name) for name in PHASES] == list(MEASURED.values())


def test_the_summary_has_numpys_quantiles_of_errors_without_signs():
    errors = (0.3, -0.5, 0.1, -0.2, 0.0)
    rows = [compared("dense", (1.0,), 1 + error) for error in errors]
    found = summary(rows)
    assert found.configurations == 5
    assert found.median == pytest.approx(0.2)
    assert found.worst == pytest.approx(0.5)
    assert found.p95 == pytest.approx(0.3 + 0.8 * 0.2)  # place 0.95 * 4 = 3.8 of 0, 0.1, 0.2, 0.3, 0.5
    assert found.p95 == pytest.approx(float(np.quantile(np.abs(errors), 0.95)))


def test_the_summary_has_the_median_of_each_phases_error_without_its_sign():
    right = of_phases(MEASURED, MEASURED)
    found = summary([of_phases(MEASURED, OFF), right, of_phases(MEASURED, OFF)]).phases
    assert found == dict(zip(PHASES, (0.0625, 0.125, 0, 0.5, 0, 0.03125), strict=True))
    assert set(summary([right]).phases.values()) == {0}


# --------------------------------------------------------------------------------------------------------------- order


def test_the_order_of_each_pair_of_schemes_counts_once():
    """Measured: 1 < 2 < 3; predicted: 1 < 3 < 2."""
    rows = [compared("dense", (1.0,), 5), compared("scaledsign", (2.0,), 7), compared("qsgd(bits=4)", (3.0,), 6)]
    assert order(rows) == order(rows[::-1]) == (2, 3)
    assert order(rows).share == pytest.approx(2 / 3)
    assert summary(rows).order == (2, 3)


def test_equal_predictions_of_what_differs_are_not_right():
    assert order([compared("dense", (1.0,), 5), compared("scaledsign", (2.0,), 5)]) == (0, 1)


def test_pairs_within_each_others_quartiles_tell_nothing():
    """Both have quartiles 2 apart: they tell an order if their medians are more than 2 apart."""
    steps = (8.0, 9.0, 10.0, 11.0, 12.0)
    near = tuple(step + 2 for step in steps)
    far = tuple(step + 2.1 for step in steps)
    assert order([compared("dense", steps, 1), compared("scaledsign", near, 2)]) == (0, 0)
    assert order([compared("dense", steps, 1), compared("scaledsign", far, 2)]) == (1, 1)
    assert math.isnan(order([compared("dense", steps, 1), compared("scaledsign", near, 2)]).share)


@pytest.mark.parametrize(
    "other",
    [
        {"link": Link(link_bps=1e9, burst_bytes=250_000)},
        {"link": Link()},
        {"overlap": True},
        {"batch_size": 16},
        {"options": {"hidden": "2048,2048"}},
    ],
    ids=str,
)
def test_what_differs_in_more_than_the_scheme_is_no_pair(other):
    assert order([compared("dense", (1.0,), 1), compared("scaledsign", (2.0,), 2)]).pairs == 1
    assert order([compared("dense", (1.0,), 1), compared("scaledsign", (2.0,), 2, **other)]).pairs == 0


def test_a_scheme_is_no_pair_with_itself():
    assert order([compared("dense", (1.0,), 1), compared("dense", (2.0,), 2)]).pairs == 0
