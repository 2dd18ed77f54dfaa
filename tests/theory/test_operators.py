"""Operators: limits of means, probes, the constants of schemes, and what every scheme says of itself."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import brentq

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.constants import constants, search, standard_vectors
from gradwire.analysis.theory.limits import hoeffding, of_draws, skewed, student
from gradwire.analysis.theory.probe import Probe, apply, draws_lots
from gradwire.analysis.theory.registry import OPERATOR_CHECKS
from gradwire.analysis.theory.results import operators
from gradwire.compressors.base import Turn
from gradwire.compressors.drivers import Item, StackedDriver
from gradwire.compressors.registry import SCHEMES
from gradwire.compressors.spec import parse_scheme

from .faultyschemes import ResampledAtomo, UnwrappedBlock

RNG = np.random.default_rng(5)


def verdict(finding):
    (judged,) = judge([finding])
    return judged.verdict


def reason(finding):
    (judged,) = judge([finding])
    assert judged.verdict == Verdict.NOT_APPLICABLE
    return judged.reason


# -------------------------------------------------------------------------------------------------------------- limits


def test_student_limits_are_scipys():
    values = RNG.exponential(size=(50, 3))
    low, high = student(values, 0.01)
    for k in range(3):
        interval = stats.ttest_1samp(values[:, k], 0).confidence_interval(0.98)
        assert (low[k], high[k]) == pytest.approx((interval.low, interval.high), rel=1e-12)


@pytest.mark.parametrize("hits", [0, 3, 40, 100])
def test_hoeffding_limits_solve_his_equation(hits):
    """The chance of such a mean is at most ((p/q)^q ((1-p)/(1-q))^(1-q))^R, set equal to the level."""
    runs, level, q = 100, 1e-4, hits / 100
    values = np.repeat([2.0, 5.0], [runs - hits, hits])[:, None]
    low, high = hoeffding(values, level, np.array([2.0]), np.array([5.0]))

    def excess(p: float) -> float:
        part = (p / q) ** q if q else 1.0
        other = ((1 - p) / (1 - q)) ** (1 - q) if q < 1 else 1.0
        return runs * math.log(part * other) - math.log(level)

    expected_low = 0.0 if q == 0 else brentq(excess, 1e-12, q)
    expected_high = 1.0 if q == 1 else brentq(excess, q, 1 - 1e-12)
    assert (low[0] - 2) / 3 == pytest.approx(expected_low, abs=1e-9)
    assert (high[0] - 2) / 3 == pytest.approx(expected_high, abs=1e-9)


def test_rare_events_do_not_break_the_level():
    """Of entries kept once in 100 times, Student's lower limit is above the mean far too often; the other never."""
    runs, level, tables = 200, 1e-3, 4000
    lost = (RNG.random((runs, tables)) > 0.01).astype(float)
    ends = np.zeros(tables), np.ones(tables)
    assert skewed(lost).all()
    assert np.mean(student(lost, level)[0] > 0.99) > 50 * level
    assert np.mean(of_draws(lost, level, *ends)[0] > 0.99) <= 3 * level


def test_normal_values_keep_students_limits():
    values = RNG.standard_normal((500, 4)) + 5
    assert not skewed(values).any()
    np.testing.assert_array_equal(of_draws(values, 0.01, np.zeros(4), np.full(4, 9.0)), student(values, 0.01))


# -------------------------------------------------------------------------------------------------------------- probes


@pytest.mark.parametrize("text", ["topk(density=0.2)", "qsgd(bits=3)", "randomk(density=0.2)", "gtopk", "natural"])
def test_a_row_becomes_what_a_lone_worker_gets(text):
    scheme, x = parse_scheme(text), RNG.standard_normal((1, 24))
    state = scheme.init((24,), 1, torch.from_numpy(x))
    for step, found in enumerate(apply(scheme, x, 3, 7)):
        turn = Turn(7, step, "probe", (0,), 1)
        (outcome,), _ = StackedDriver(1).exchange([Item(torch.from_numpy(x), scheme, state, turn)])
        np.testing.assert_array_equal(found[0], outcome.mean.numpy())


def test_regression_a_draw_that_rarely_shows_is_a_draw():
    """One entry of 40 is kept by one draw in 40, so two equal results say nothing."""
    probe = Probe(parse_scheme("randomk(density=0.025)"), {"one": standard_vectors(40)["one entry"]}, draws=300)
    assert not probe.exact
    assert len(probe.decoded["one"]) == 300
    assert 0.9 < probe.errors()["one"].mean() < 1


@pytest.mark.parametrize(("text", "draws"), [("topk", False), ("scaledsign", False), ("natural", True)])
def test_draws_are_noticed(text, draws):
    assert draws_lots(parse_scheme(text), (30,), 0) == draws


def test_a_memory_is_left_out():
    vectors = {"normal": RNG.standard_normal(30)}
    plain, wrapped = (Probe(parse_scheme(text), vectors) for text in ("topk(density=0.1)", "ef(topk(density=0.1))"))
    np.testing.assert_array_equal(plain.decoded["normal"], wrapped.decoded["normal"])


# ------------------------------------------------------------------------------------------------------- every scheme


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_no_scheme_contradicts_itself(name):
    """A vector for bases of entries, and a matrix for those of singular vectors."""
    scheme = SCHEMES[name]()
    shape = (4, 6) if scheme.granularity == {"layer"} else (24,)
    vectors = {key: vector.reshape(shape) for key, vector in standard_vectors(24).items()}
    judged = judge([check.examine(Probe(scheme, vectors, draws=60)) for check in operators.OPERATOR_CHECKS])
    assert {one.verdict for one in judged} <= {Verdict.HOLDS, Verdict.NOT_APPLICABLE}
    unsaid = scheme.law != "mean of sent" or (not scheme.unbiased and scheme.error_bound(shape) > 1)
    assert unsaid == all(one.verdict == Verdict.NOT_APPLICABLE for one in judged)


@pytest.mark.parametrize(
    "text",
    ["randomk(density=0.25)", "randomblock(density=0.25)", "randomblock(density=0.25, blocks=2)",
     "randomk(density=0.25, scaled=True)", "randomblock(density=0.25, scaled=True)"],
)  # fmt: skip
def test_random_selections_lose_the_same_of_every_vector(text):
    finding = operators.equality(Probe(parse_scheme(text), standard_vectors(20), draws=400))
    assert finding.bound == pytest.approx(3 if "scaled" in text else 0.75)
    assert verdict(finding) == Verdict.HOLDS


def test_sharp_examples_are_attained():
    """Natural compression: 1/8; one level of QSGD: sqrt(n) - 1 of sqrt(n); top-k: 1 - k/n, both on flat vectors."""
    natural = Probe(parse_scheme("natural"), {"x": standard_vectors(200)["four thirds"]}, 300).errors()["x"]
    assert natural.mean() == pytest.approx(1 / 8, abs=4 * natural.std() / 300**0.5)
    flat = Probe(parse_scheme("qsgd(bits=2, norm=l2)"), {"x": np.ones(400)}, 300).errors()["x"]
    assert flat.mean() == pytest.approx(19, abs=4 * flat.std() / 300**0.5)
    assert Probe(parse_scheme("topk(density=0.1)"), {"x": np.ones(50)}).errors()["x"] == pytest.approx([0.9])


def test_a_block_that_does_not_wrap_is_biased():
    """n = 20, b = 5: the first entry is in 1 of 16 blocks and not in 4 of 16; middle ones are in 5 of 16."""
    vectors = {"flat": np.ones(20)}
    probe = Probe(UnwrappedBlock(0.25, scaled=True), vectors, draws=1000)
    finding = operators.unbiased(probe)
    assert verdict(finding) == Verdict.VIOLATED
    kept = finding.values.mean(axis=0) / 4
    assert kept[[0, -1]] == pytest.approx(0.0625, abs=0.03)
    assert kept[10] == pytest.approx(0.3125, abs=0.06)
    wrapped = Probe(parse_scheme("randomblock(density=0.25, scaled=True)"), vectors, 1000)
    assert verdict(operators.unbiased(wrapped)) == Verdict.HOLDS


def test_drawing_again_is_biased():
    """Two atoms in 1 on average: nothing is drawn in a quarter of the cases, so what is sent is 4/3 too often."""
    vectors = {"flat": np.ones(2)}
    finding = operators.unbiased(Probe(ResampledAtomo(1.0, "elements"), vectors, draws=1000))
    assert verdict(finding) == Verdict.VIOLATED
    assert finding.values.mean() == pytest.approx(4 / 3, abs=0.05)


def test_other_schemes_are_not_judged():
    vectors = {"normal": RNG.standard_normal(20)}
    assert reason(operators.contraction(Probe(parse_scheme("natural"), vectors))) == "a biased scheme"
    assert reason(operators.variance(Probe(parse_scheme("topk"), vectors))) == "an unbiased scheme"
    assert reason(operators.unbiased(Probe(parse_scheme("topk"), vectors))) == "an unbiased scheme"
    assert reason(operators.variance(Probe(parse_scheme("sharedqsgd"), vectors))) == "a stated variance factor"
    assert reason(operators.equality(Probe(parse_scheme("topk"), vectors))) == "random-k or random-block"
    assert "what they get" in reason(operators.contraction(Probe(parse_scheme("signsgd"), vectors)))
    zeros = Probe(parse_scheme("topk"), vectors | {"zeros": np.zeros(20)})
    assert reason(operators.contraction(zeros)) == "no vector of zeros"
    warm = parse_scheme("warmup(topk(density=0.01), steps=10)")
    assert reason(operators.contraction(Probe(warm, vectors))) == "the same operator at every step"


# ----------------------------------------------------------------------------------------------------------- constants


@pytest.mark.parametrize("size", [1, 2, 7, 300])
def test_standard_vectors(size):
    vectors = standard_vectors(size, seed=3)
    assert len(vectors) == 11
    assert all(v.shape == (size,) and np.linalg.norm(v) == pytest.approx(1) for v in vectors.values())
    again = standard_vectors(size, seed=3)
    assert all(np.array_equal(v, again[name]) for name, v in vectors.items())
    quarters = np.abs(vectors["four thirds"]) * np.exp2(-np.round(np.log2(np.abs(vectors["four thirds"]))))
    assert np.ptp(quarters / quarters[0] % 1) < 1e-9 or size == 1
    assert np.flatnonzero(vectors["block at the end"])[-1] == size - 1


@pytest.mark.parametrize(
    ("text", "start", "supremum", "share"),
    [
        ("topk(density=0.25)", "geometric", 0.75, 0.99),
        ("scaledsign", "normal", 1 - 1 / 16, 0.99),
        ("qsgd(bits=2, norm=l2)", "unbalanced", 3.0, 0.9),
        ("natural", "normal", 1 / 8, 0.9),
        ("qsgd(bits=2)", "normal", 1.5, 0.9),
    ],
)
def test_the_search_comes_near_the_known_supremum(text, start, supremum, share):
    """From a vector that is far from it; 16 entries. One level of the largest: (sqrt(n) - 1) / 2."""
    probe = Probe(parse_scheme(text), {start: standard_vectors(16)[start]}, draws=200)
    found = constants(probe, rounds=30)
    assert probe.errors()[start].mean() < 0.8 * supremum
    assert share * supremum < found.found.mean < supremum * 1.06
    assert found.found.low <= supremum * (1 + 1e-9)
    assert found.found_from == start


def test_the_search_repeats_itself():
    vectors = {name: standard_vectors(12)[name] for name in ("normal", "flat", "geometric", "signs")}
    first, second = (search(Probe(parse_scheme("qsgd(bits=2)"), vectors, draws=30, seed=4), 12) for _ in range(2))
    assert first[1] == second[1]
    np.testing.assert_array_equal(first[0], second[0])


def test_constants_of_a_scheme():
    vectors = {name: standard_vectors(20)[name] for name in ("flat", "one entry", "normal")}
    known = constants(Probe(parse_scheme("randomk(density=0.25, scaled=True)"), vectors, draws=300), rounds=9)
    assert (known.stated, known.unbiased, known.bias) == (pytest.approx(3), True, Verdict.HOLDS)
    assert known.shape == (20,)
    assert all(one.low <= 3 <= one.high for one in [*known.measured.values(), known.found])
    assert 0.9 < known.tightness < 1.2
    exact = constants(Probe(parse_scheme("topk(density=0.25)"), vectors), rounds=9)
    assert exact.bias == Verdict.NOT_APPLICABLE
    assert exact.measured["flat"] == pytest.approx((0.75, 0.75, 0.75))
    assert exact.tightness == pytest.approx(1)


@pytest.mark.parametrize("check", OPERATOR_CHECKS, ids=lambda check: check.statement.name)
@pytest.mark.parametrize("text", ["topk", "wangni", "qsgd(bits=2, norm=l2, code=elias)", "cat", "atomo"])
def test_no_check_stumbles_over_zeros(check, text):
    (judged,) = judge([check.examine(Probe(parse_scheme(text), {"zeros": np.zeros((3, 4))}, draws=30))])
    assert judged.verdict == Verdict.NOT_APPLICABLE
