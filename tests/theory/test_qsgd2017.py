"""The statements of Alistarh et al. 2017: their bounds by exact arithmetic, by brute force, and by second formulas."""

import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
from scipy.optimize import minimize_scalar

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.results import qsgd2017
from gradwire.compressors.quantizers.qsgd import QSGD
from gradwire.compressors.spec import parse_scheme

PYTHAGOREAN = {"3, 4, 12": (3, 4, 12), "1, 2, 2, 4, 0": (1, 2, 2, 4, 0)}
"""Vectors of whole numbers whose Euclidean norm is one too."""


def elias(number: int) -> str:
    """Write a number by the definition of the recursive code, as text of bits."""
    text = "0"
    while number > 1:
        binary = f"{number:b}"
        text, number = binary + text, len(binary) - 1
    return text


def moments(vector: tuple[int, ...], s: int) -> tuple[Fraction, Fraction]:
    """Return E||Q||^2 and E||Q||_0 exactly, entry by entry, from the definition."""
    norm, second, entries = Fraction(math.isqrt(sum(v * v for v in vector))), Fraction(0), Fraction(0)
    for v in vector:
        share = abs(v) * s / norm
        level = math.floor(share)
        up = share - level
        second += (norm / s) ** 2 * (level**2 * (1 - up) + (level + 1) ** 2 * up)
        entries += (1 - up if level else 0) + up
    return second, entries


@pytest.mark.parametrize("vector", PYTHAGOREAN.values(), ids=PYTHAGOREAN)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_exact_moments_respect_the_lemma(vector, bits):
    """The operator's own means are those of exact arithmetic, and these are below the bounds."""
    n, scheme = len(vector), QSGD(bits, norm="l2")
    s, norm2 = scheme.levels, sum(v * v for v in vector)
    second, entries = moments(vector, s)
    root = sympy.sqrt(n)
    assert sympy.Rational(second - norm2) <= sympy.Min(sympy.Rational(n, s**2), root / s) * norm2
    assert sympy.Rational(entries) <= s * (s + root)
    probe = Probe(scheme, {"x": np.array(vector, dtype=float)}, draws=400)
    variance, sparsity = qsgd2017.variance(probe), qsgd2017.sparsity(probe)
    assert variance.bound == pytest.approx([float(sympy.Min(sympy.Rational(n, s**2), root / s))], rel=1e-14)
    assert sparsity.bound == pytest.approx([float(s * (s + root))], rel=1e-14)
    for values, exact in ((variance.values, (second - norm2) / norm2), (sparsity.values, entries)):
        assert values.mean() == pytest.approx(float(exact), abs=4.5 * values.std() / 20 + 1e-12)


@pytest.mark.parametrize("vector", PYTHAGOREAN.values(), ids=PYTHAGOREAN)
def test_second_moment_of_one_level_is_the_product_of_norms(vector):
    second, _ = moments(vector, 1)
    norm2 = sum(v * v for v in vector)
    assert second == sum(map(abs, vector)) * math.isqrt(norm2)
    finding = qsgd2017.second_moment(Probe(QSGD(2, norm="l2"), {"x": np.array(vector, dtype=float)}, draws=40))
    assert finding.bound == pytest.approx([float(second / norm2)], rel=1e-14)


def test_elias_numbers_are_not_longer_than_the_bound():
    """2.5 is attained by 4 (6 bits) and by 16 (11 bits)."""
    lengths = {k: len(elias(k)) for k in range(2, 1 << 17)}
    most = max((length - 1) / math.log2(k) for k, length in lengths.items())
    assert most == qsgd2017.ELIAS == (lengths[4] - 1) / 2 == (lengths[16] - 1) / 4


@pytest.mark.parametrize(("n", "s"), [(400, 1), (400, 7), (49, 7), (10_000, 3), (20, 15)])
def test_bounds_of_code_lengths(n, s):
    root = sympy.sqrt(n)
    printed = (3 + sympy.Rational(3, 2) * sympy.log(2 * (s**2 + n) / (s * (s + root)), 2)) * s * (s + root)
    assert qsgd2017.theorem_bits(n, s) == pytest.approx(float(printed), rel=1e-12)
    most, energy = min(n, s * (s + math.sqrt(n))), s**2 + min(n, s * math.sqrt(n))
    largest = minimize_scalar(
        lambda c: -c * (3 + 2.5 * math.log2(n / c) + 1.25 * math.log2(energy / c)),
        bounds=(1e-9, most),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert qsgd2017.elias_bits(n, s) == pytest.approx(-largest.fun, rel=1e-6)
    dense = n + sympy.Min(n, s * (s + root)) + sympy.Rational(5, 2) * n * sympy.log(1 + s / root, 2)
    assert qsgd2017.dense_elias_bits(n, s) == pytest.approx(float(dense), rel=1e-12)


@pytest.mark.parametrize("code", ["elias", "elias_dense"])
def test_payloads_have_the_length_of_the_code(code):
    """The bits of a payload are those of its levels, written out, up to whole bytes; and 32 for the norm."""
    vector, scheme = np.random.default_rng(2).standard_normal(30), QSGD(3, norm="l2", code=code)
    probe = Probe(scheme, {"x": vector}, draws=20)
    check = qsgd2017.code_length if code == "elias" else qsgd2017.dense_elias_length
    levels = np.rint(np.abs(probe.decoded["x"]) * scheme.levels / np.linalg.norm(vector)).astype(int)
    for bits, row in zip(check(probe).values[:, 0], levels, strict=True):
        places = np.flatnonzero(row)
        if code == "elias":
            gaps = np.diff(places, prepend=-1)
            written = sum(len(elias(g)) + 1 + len(elias(row[p])) for g, p in zip(gaps, places, strict=True))
        else:
            written = sum(len(elias(level + 1)) + (level > 0) for level in row)
        assert bits == 32 + 8 * math.ceil(written / 8)


def test_the_printed_dense_bound_applies_only_where_its_vanishing_term_is_small():
    """Of a flat vector with s = sqrt(n) every level is 1, in 3 bits and a sign: 4 n, and not 2.8 n."""
    scheme = QSGD(4, norm="l2", code="elias_dense")
    flat = qsgd2017.dense_code(Probe(scheme, {"flat": np.ones(49)}, draws=40))
    (judged,) = judge([flat])
    assert judged.verdict == Verdict.NOT_APPLICABLE
    assert judged.reason == "Elias's code takes at most 1.1 (log2 k + 1) bits: its o(1) is small"
    length = qsgd2017.dense_elias_length(Probe(scheme, {"flat": np.ones(49)}, draws=40)).values.mean()
    assert 4 * 49 + 32 <= length <= 4 * 49 + 32 + 7


@pytest.mark.parametrize("others", [0, 1, 2, 3])
def test_the_vanishing_term_is_what_the_code_takes_beyond_the_logarithm(others):
    """One entry of n = 225 that outweighs all others has level 15, and they have 0 or, drawn or not, 1."""
    vector = np.zeros(225)
    vector[7] = 1.0
    vector[100 : 100 + others] = 1 / 15  # level 1 at nearly every draw, as the norm is hardly more than 1
    probe = Probe(QSGD(5, norm="l2", code="elias_dense"), {"x": vector}, draws=60)
    (judged,) = judge([qsgd2017.dense_code(probe)])
    ones = np.rint(np.abs(probe.decoded["x"]) * 15 / np.linalg.norm(vector)).astype(int) + 1
    code = sum(len(elias(int(number))) for number in ones.ravel())
    applies = code <= 1.1 * (np.log2(ones) + 1).sum()
    assert applies == (judged.verdict != Verdict.NOT_APPLICABLE)
    assert applies
    assert judged.verdict == Verdict.NOT_REFUTED
    assert judged.finding.bound == pytest.approx([2.8 * 225 + 32])


@pytest.mark.parametrize(
    ("check", "text", "reason"),
    [
        (qsgd2017.variance, "topk", "QSGD with levels of the Euclidean norm"),
        (qsgd2017.variance, "qsgd(bits=2)", "QSGD with levels of the Euclidean norm"),
        (qsgd2017.sparsity, "qsgd(bits=2, norm=l2, bucket=16)", "one bucket for all entries"),
        (qsgd2017.second_moment, "qsgd(bits=3, norm=l2)", "one level, s = 1"),
        (qsgd2017.code_length, "qsgd(bits=2, norm=l2)", "levels are sent with code=elias"),
        (qsgd2017.dense_code, "qsgd(bits=3, norm=l2, code=elias_dense)", "s = sqrt(n)"),
    ],
)
def test_other_schemes_are_not_judged(check, text, reason):
    (judged,) = judge([check(Probe(parse_scheme(text), {"x": np.arange(1.0, 50)}, draws=30))])
    assert judged.verdict == Verdict.NOT_APPLICABLE
    assert judged.reason == reason
