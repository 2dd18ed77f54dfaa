"""The suite: its cases, and, as slow tests, that all of it is green and every check applies somewhere."""

from collections import defaultdict

import pytest

from gradwire.analysis.sweep.executors import Pool
from gradwire.analysis.theory.cases import PROBLEMS, RATES, ProbeCase, RunCase, cases_of
from gradwire.analysis.theory.check import SEEDS, Verdict, judge
from gradwire.analysis.theory.registry import STATEMENTS
from gradwire.analysis.theory.suite import examine, suite_cases
from gradwire.sim.training.store import Store


def test_cases_differ_and_have_the_seeds_that_expectations_take():
    cases = suite_cases()
    runs = [case for case in cases if isinstance(case, RunCase)]
    assert len(cases) == len(set(cases))
    assert {case.seeds for case in runs} == {SEEDS}
    assert {case.problem for case in runs} >= {"logistic", "quadratic"}


def test_a_scheme_is_tried_on_what_theorems_about_its_kind_speak_of():
    kinds = {
        "ef(topk(density=0.1))": {"quadratic", "round", "logistic"},
        "ef21(topk(density=0.1))": {"pulled", "one worker"},
        "qsgd": {"one worker", "quadratic", "logistic"},
        "topk": {"one worker", "three pulls"},
        "lowpass(topk)": set(),
    }
    for scheme, problems in kinds.items():
        probe, *runs = cases_of(scheme)
        assert isinstance(probe, ProbeCase)
        assert {case.problem for case in runs} == problems
        assert {case.rates for case in runs} <= RATES.keys()
        assert problems <= PROBLEMS.keys()


@pytest.mark.slow
def test_the_whole_suite_is_green_and_leaves_no_check_out(tmp_path):
    results = examine(suite_cases(), Store(tmp_path), Pool())
    verdicts = defaultdict(set)
    for one in judge([finding for result in results for finding in result.findings]):
        verdicts[one.finding.statement.name].add(one.verdict)
    assert verdicts.keys() == STATEMENTS.keys()
    for name, found in verdicts.items():
        applied = found - {Verdict.NOT_APPLICABLE}
        surely = {Verdict.HOLDS} if STATEMENTS[name].grade != "indicative" else {Verdict.NOT_REFUTED}
        assert applied == surely, name
    for rate in (rate for result in results for rate in result.rates):
        assert rate.keeps_promise, rate
