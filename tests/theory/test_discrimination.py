"""Every check: it holds where it is said to be sharp, and a faulty scheme or step size turns it red there."""

import numpy as np
import pytest

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.registry import STATEMENTS

from . import (
    beznosikov_rates_cases,
    ef21_cases,
    karimireddy_cases,
    khirirat_cases,
    natural_cases,
    qsgd_convergence_cases,
)

CASES = (
    beznosikov_rates_cases,
    ef21_cases,
    karimireddy_cases,
    khirirat_cases,
    natural_cases,
    qsgd_convergence_cases,
)
SHARP = {name: case for module in CASES for name, case in module.SHARP.items()}
BROKEN = {name: case for module in CASES for name, case in module.BROKEN.items()}
CAN_FAIL = sorted(name for name, statement in STATEMENTS.items() if statement.attained)


def test_what_is_said_to_discriminate_is_what_is_shown_to():
    assert CAN_FAIL == sorted(SHARP) == sorted(BROKEN)


@pytest.mark.parametrize("name", CAN_FAIL)
def test_it_holds_where_it_is_sharp(name):
    (judged,) = judge([SHARP[name]()])
    assert judged.finding.statement.name == name
    assert judged.verdict == Verdict.HOLDS, judged.reason
    assert np.isfinite(judged.measured).all()


@pytest.mark.parametrize("name", CAN_FAIL)
def test_a_fault_turns_it_red(name):
    (judged,) = judge([BROKEN[name]()])
    assert judged.finding.statement.name == name
    assert judged.verdict == Verdict.VIOLATED, judged.reason
