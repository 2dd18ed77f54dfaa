"""Checks as a table, as data, as text that is stored, and as a figure."""

import io
import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from rich.console import Console

from gradwire.analysis.theory.assumptions import Assumption
from gradwire.analysis.theory.cases import Result
from gradwire.analysis.theory.check import Condition, Finding, Verdict, judge
from gradwire.analysis.theory.data import checks_data
from gradwire.analysis.theory.plots import checks_figure
from gradwire.analysis.theory.rates import Interval, Rate
from gradwire.analysis.theory.registry import GUARANTEES, STATEMENTS
from gradwire.analysis.theory.stored import from_text, to_text
from gradwire.analysis.theory.tables import checks_table, gravest, outlook, tally

IDENTITY, MEMORY = STATEMENTS["karimireddy.identity"], STATEMENTS["karimireddy.memory"]
STEPS = np.array([1.0, 10.0])
NO = Condition("a constant rate", holds=False)


def found(values, bound, statement=MEMORY, **more):
    return Finding(statement, "topk on a slope", (), STEPS, np.array([values]), np.array(bound), exact=True, **more)


FINE, BAD = found([0.5, 1.0], [1.0, 2.0]), found([0.5, 3.0], [1.0, 2.0])
REFUSED = Finding(IDENTITY, "sgd on a slope", (NO,))


def shown(judged, width=160):
    console = Console(width=width, file=io.StringIO())
    console.print(checks_table(judged))
    return console.file.getvalue()


def test_a_row_has_both_sides_where_they_are_nearest():
    text = shown(judge([BAD]))
    row = next(line for line in text.splitlines() if "karimireddy.memory" in line)
    assert row.split()[-5:] == ["hold", "3.00", "2.00", "1.50", "violated"]


def test_a_check_that_cannot_discriminate_says_so_and_only_such_a_one():
    blind = replace(FINE, statement=replace(MEMORY, attained=""))
    assert "holds, cannot discriminate" in shown(judge([blind]))
    assert "cannot" not in shown(judge([FINE]))


def test_no_table_is_wider_than_asked():
    assert max(map(len, shown(judge([FINE, BAD, REFUSED]), 80).splitlines())) <= 80


def test_the_gravest_instance_stands_for_a_check():
    closer = found([0.9, 1.0], [1.0, 2.0])
    applied = replace(REFUSED, conditions=(), steps=STEPS, values=np.zeros((1, 2)), bound=np.ones(2))
    judged = judge([FINE, closer, REFUSED, applied])
    assert [one.finding for one in gravest(judged)] == [closer, applied]
    assert [one.finding for one in gravest(judge([FINE, BAD]))] == [BAD]
    assert [one.verdict for one in gravest(judge([REFUSED]))] == [Verdict.NOT_APPLICABLE]


def test_the_outlook_names_the_guarantees_that_apply_or_says_that_there_is_none():
    average = replace(FINE, statement=STATEMENTS["karimireddy.average"])
    assert outlook("topk", judge([FINE])) == "topk is outside of every convergence guarantee that is checked here."
    assert outlook("topk", judge([FINE, replace(average, conditions=(NO,))])).startswith("topk is outside")
    told = "Convergence guarantees that apply to topk: karimireddy.average (holds)."
    assert outlook("topk", judge([FINE, average, replace(average, conditions=(NO,))])) == told


def test_guarantees_are_statements():
    assert STATEMENTS.keys() >= GUARANTEES


def test_the_tally_counts_verdicts():
    assert tally(judge([FINE, FINE, BAD, REFUSED])) == "4 checks: 1 not applicable, 2 holds, 1 violated."


def test_data_hold_everything_and_are_json():
    (data,) = json.loads(json.dumps(checks_data(judge([replace(BAD, conditions=(NO,))])), allow_nan=False))
    assert data["verdict"] == "not applicable"
    assert data["conditions"] == [{"text": NO.text, "holds": False, "measured": None, "allowed": None}]
    assert (data["axis"], data["at"]) == ("step", [1.0, 10.0])
    assert (data["measured"], data["bound"]) == ([0.5, 3.0], [1.0, 2.0])
    assert (data["source"], data["formula"]) == (MEMORY.source, MEMORY.formula)
    assert data["discriminates"] is True


def test_what_is_stored_comes_back_exactly():
    everything = Finding(
        MEMORY,
        "a subject",
        (NO, Condition("small", None, 0.1, 1 / 3)),
        STEPS,
        np.array([[0.1, np.nan], [1 / 3, np.inf]]),
        np.array([1.0, 2.0]),
        slack=1e-17,
        axis="entries",
        exact=True,
        least=np.zeros(2),
        most=np.ones(2),
    )
    assert {field.name for field in fields(Finding)} == set(vars(everything))
    rate = Rate("a", "bits", "power", Interval(1.0, float("nan"), 2.0), Interval(*3 * [0.1]), 0.95, 1.0, 9.0, 0.1, 30)
    met = Assumption("a", "xi", "what it is", 0.1, 0.2, 0.3, float("inf"))
    stored = from_text(to_text(Result([everything, REFUSED], [rate], [met])))
    np.testing.assert_equal([asdict(one) for one in stored.rates], [asdict(rate)])
    np.testing.assert_equal(stored.assumptions, [met])
    back, empty = stored.findings
    for field in fields(Finding):
        np.testing.assert_equal(getattr(back, field.name), getattr(everything, field.name))
    assert back.values.shape == (2, 2)
    assert not empty.measured


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_figure_has_axes_for_each_check_with_both_of_its_sides(count):
    figure = checks_figure(judge([BAD] * count))
    drawn = [axes for axes in figure.axes if axes.lines]
    assert len(drawn) == count
    for axes in drawn:
        sides = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
        assert sides == {"measured": [0.5, 3.0], "bound": [1.0, 2.0]}
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("step\ntopk on a slope: violated", "both sides")
