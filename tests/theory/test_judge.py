"""Verdicts: when a statement counts as holding, violated or undecided, and how sure that is."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from gradwire.analysis.theory import check
from gradwire.analysis.theory.check import LEVEL, SEEDS, Condition, Finding, Statement, Verdict, at_most, judge

BOUND = Statement("a.bound", "", "", "", "expectation", "derived", "somewhere")


def finding(values, bound=1.0, statement=BOUND, conditions=(), **more):
    values = np.atleast_2d(np.asarray(values, dtype=float))
    columns = values.shape[1]
    bounds = np.broadcast_to(np.asarray(bound, dtype=float), (columns,))
    return Finding(statement, "a subject", tuple(conditions), np.arange(1.0, columns + 1), values, bounds, **more)


def verdict(*args, **kwargs):
    (judged,) = judge([finding(*args, **kwargs)])
    return judged.verdict


def runs(mean, spread=0.1, columns=1, count=SEEDS, seed=0):
    return np.random.default_rng(seed).normal(mean, spread, (count, columns))


PATH = replace(BOUND, kind="path")
EQUAL = replace(BOUND, relation="equal")


def test_a_mean_that_is_surely_above_the_bound_violates_it_and_one_that_may_be_below_does_not():
    assert verdict(runs(2.0)) is Verdict.VIOLATED
    assert verdict(runs(1.02)) is Verdict.HOLDS
    assert verdict(runs(0.5)) is Verdict.HOLDS


def test_limits_are_those_of_student_at_the_level_shared_by_all_comparisons():
    values = runs(0.5, columns=3)
    other = finding(runs(0.1, columns=2, seed=1), statement=EQUAL, bound=0.1)
    judged, _ = judge([finding(values), other])
    level = LEVEL / (3 + 2 * 2)
    sides = stats.t.interval(1 - 2 * level, SEEDS - 1, values.mean(0), stats.sem(values))
    np.testing.assert_allclose([judged.low, judged.high], sides, rtol=1e-12)


def test_what_is_exact_refused_or_holds_on_every_path_takes_no_part_of_the_level():
    values = runs(0.5)
    alone, *_ = judge([finding(values)])
    no = Condition("never", holds=False)
    others = [finding([0.5], exact=True), finding(values, conditions=[no]), finding([[0.5]], statement=PATH)]
    among, *_ = judge([finding(values), *others])
    assert among.low == alone.low


def test_the_level_is_kept_where_the_bound_is_attained(monkeypatch):
    level, tables = 0.05, 2000
    monkeypatch.setattr(check, "LEVEL", level)
    rng = np.random.default_rng(3)
    false = sum(verdict(rng.normal(1.0, 1.0, (SEEDS, 5))) is Verdict.VIOLATED for _ in range(tables))
    assert stats.binomtest(false, tables, level, "greater").pvalue > 0.001
    assert false > 0.2 * level * tables  # and it is not kept by never finding anything


def test_few_runs_decide_nothing_unless_nothing_is_drawn():
    assert verdict(runs(2.0, count=SEEDS - 1)) is Verdict.INCONCLUSIVE
    assert verdict(runs(0.5, count=1)) is Verdict.NOT_REFUTED
    assert verdict([[2.0]], exact=True) is Verdict.VIOLATED
    assert verdict([[0.5]], exact=True) is Verdict.HOLDS


def test_every_path_counts():
    assert verdict([[0.5], [1.1]], statement=PATH) is Verdict.VIOLATED
    assert verdict([[0.5], [1.0]], statement=PATH) is Verdict.HOLDS
    equal = replace(PATH, relation="equal")
    assert verdict([[1.0], [1.0]], statement=equal) is Verdict.HOLDS
    assert verdict([[1.0], [1.1]], statement=equal) is Verdict.VIOLATED
    assert verdict([[0.9], [1.0]], statement=equal) is Verdict.VIOLATED
    assert verdict([[0.9], [1.1]], statement=equal) is Verdict.VIOLATED


def test_an_equation_is_violated_from_either_side():
    for mean, expected in ((0.5, Verdict.VIOLATED), (1.01, Verdict.HOLDS), (1.5, Verdict.VIOLATED)):
        assert verdict(runs(mean), statement=EQUAL) is expected


def test_a_sample_that_rare_draws_may_have_missed_decides_nothing():
    """0 with probability 1/20 and else 1: the expectation is 0.95, and one time in five there is no 0 in 30 draws."""
    for zeros in range(5):
        values = np.repeat([[0.0], [1.0]], [zeros, SEEDS - zeros], axis=0)
        assert verdict(values, bound=values.mean() - 1e-3) is Verdict.INCONCLUSIVE
        assert verdict(values, bound=values.mean() + 1e-3) is Verdict.HOLDS
        assert verdict(10 + values, bound=1.0) is Verdict.INCONCLUSIVE  # no lower limit at all
        assert verdict(10 - values, bound=1.0) is (Verdict.INCONCLUSIVE if zeros == 0 else Verdict.VIOLATED)
    assert verdict(np.full((SEEDS, 1), 0.1), bound=0.0) is Verdict.INCONCLUSIVE
    assert verdict(np.full((SEEDS, 1), 0.1), bound=0.0, exact=True) is Verdict.VIOLATED


def test_frequencies_get_the_limits_of_clopper_and_pearson():
    often = replace(BOUND, kind="frequency")
    hits = np.repeat([[1.0], [0.0]], [12, 28], axis=0)
    (judged,) = judge([finding(hits, bound=0.9, statement=often)])
    oracle = stats.binomtest(12, 40).proportion_ci(1 - 2 * LEVEL, "exact")
    np.testing.assert_allclose([judged.low[0], judged.high[0]], [oracle.low, oracle.high], rtol=1e-9)
    assert verdict(hits, bound=0.05, statement=often) is Verdict.VIOLATED
    assert verdict(np.ones((SEEDS, 1)), bound=1.0, statement=often) is Verdict.HOLDS
    assert verdict(np.zeros((SEEDS, 1)), bound=0.0, statement=often) is Verdict.HOLDS


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_a_contradiction(value):
    assert verdict([[value]], exact=True) is Verdict.VIOLATED
    assert verdict([[0.5, value]], statement=PATH) is Verdict.VIOLATED


def test_conditions_decide_whether_a_verdict_counts():
    no, maybe, yes = (Condition(f"it is {holds}", holds) for holds in (False, None, True))
    assert verdict([[2.0]], exact=True, conditions=[yes, maybe, no]) is Verdict.NOT_APPLICABLE
    assert verdict([[2.0]], exact=True, conditions=[yes, maybe]) is Verdict.INCONCLUSIVE
    assert verdict([[0.5]], exact=True, conditions=[yes, maybe]) is Verdict.NOT_REFUTED
    assert verdict([[0.5]], exact=True, conditions=[yes]) is Verdict.HOLDS
    indicative = replace(BOUND, grade="indicative")
    assert verdict([[2.0]], exact=True, statement=indicative) is Verdict.INCONCLUSIVE
    (judged,) = judge([finding([[2.0]], exact=True, conditions=[at_most("a step of at most 1", 3.0, 1.0)])])
    assert judged.reason == "a step of at most 1: 3, allowed 1"


def test_a_finding_without_sides_is_not_applicable_and_says_why():
    (judged,) = judge([Finding(BOUND, "a subject", (Condition("there is none", holds=False),))])
    assert (judged.verdict, judged.reason, judged.worst) == (Verdict.NOT_APPLICABLE, "there is none", -1)


def test_of_an_equation_either_side_may_hang_on_rare_draws():
    same = np.full((SEEDS, 1), 1.5)
    assert verdict(same, bound=2.0, statement=EQUAL) is Verdict.INCONCLUSIVE
    assert verdict(same, bound=1.0, statement=EQUAL) is Verdict.INCONCLUSIVE
    assert verdict(same, bound=1.5, statement=EQUAL) is Verdict.HOLDS


def test_rounding_is_granted_and_no_more():
    assert verdict([[1 + 5e-10]], exact=True) is Verdict.HOLDS
    assert verdict([[1 + 2e-9]], exact=True) is Verdict.VIOLATED
    assert verdict([[1e-13]], bound=0.0, exact=True) is Verdict.VIOLATED
    assert verdict([[1e-13]], bound=0.0, exact=True, slack=1e-12) is Verdict.HOLDS


def test_the_worst_column_is_where_both_sides_are_nearest():
    (judged,) = judge([finding([[0.1, 0.9, 0.4]], bound=[1.0, 2.0, 0.5], exact=True)])
    assert (judged.worst, judged.ratio) == (2, pytest.approx(0.8))
    (judged,) = judge([finding([[0.4, 2.1]], bound=[0.5, 2.0], statement=EQUAL, exact=True)])
    assert judged.worst == 0


def test_the_worst_column_of_an_equation_between_means_is_the_one_nearest_to_its_limit():
    """The first column is off by a half of nearly nothing, and by little of what its limits leave open."""
    values = np.hstack([runs(0.0015, spread=1.0), runs(1.05, spread=0.1, seed=1)])
    (judged,) = judge([finding(values, bound=[0.001, 1.0], statement=EQUAL)])
    assert judged.verdict is Verdict.HOLDS
    assert judged.worst == 1
