"""Error feedback without bounded gradients: the bound's derivation, worst cases, wrong conditions."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch

from gradwire.analysis.theory.check import Finding, Verdict, judge
from gradwire.analysis.theory.problems import NoisyQuadratic
from gradwire.analysis.theory.results import feedback2019 as theory
from gradwire.compressors.spec import parse_scheme

from .feedback_instances import absolute_value, run, shrinking

ENDS = np.array([1, 2, 10, 300])


def verdict(finding: Finding) -> tuple[Verdict, str]:
    (judged,) = judge([finding])
    return judged.verdict, judged.reason


def test_the_constants_of_the_memorys_recursion():
    d = sympy.symbols("delta", positive=True)
    beta = d / (2 * (1 - d))
    assert sympy.simplify((1 - d) * (1 + beta) - (1 - d / 2)) == 0
    assert sympy.simplify((1 - d) * (1 + 1 / beta) - (1 - d) * (2 - d) / d) == 0  # at most 2 (1 - delta) / delta


def test_the_constants_of_the_descent():
    """With the largest learning rate a quarter of the gradients is left, which makes the bound's 4, 2 and 4."""
    gap, noise, mean, smooth, end, q = sympy.symbols("f sigma2 mean2 L T q", positive=True)
    delta = 1 - q**2
    for step in (1 / (4 * smooth), delta / (4 * smooth * q)):
        u = step * smooth
        memory = 4 * q**2 * step**2 / delta**2, 2 * q**2 * step**2 * noise / delta
        kept = sympy.Rational(1, 2) - u / 2 - smooth**2 / 2 * memory[0]
        given = gap / (step * end) + u * mean / 2 + smooth**2 / 2 * memory[1]
        bound = 4 * gap / (step * end) + 2 * u * mean + 4 * u**2 * noise * q**2 / delta
        assert sympy.simplify(4 * given - bound) == 0
        for number in (0.1, 0.5, 0.9):
            if step.subs({smooth: 1, q: number}) <= min(0.25, (1 - number**2) / (4 * number)):
                assert kept.subs({smooth: 1, q: number}) >= 0.25 - 1e-12


def test_no_scalar_run_exceeds_the_memorys_bound():
    """Any exact gradients, compressed by C(x) = (1 - sqrt(1 - delta)) x."""
    draw = np.random.default_rng(0)
    for _ in range(500):
        delta, gamma = draw.uniform(0.01, 1), draw.uniform(0.01, 2)
        gradients = draw.standard_normal(50) * draw.exponential(size=50)
        memory, held = 0.0, []
        for gradient in gradients:
            memory = (1 - delta) ** 0.5 * (memory + gamma * gradient)
            held.append(memory**2)
        assert np.mean(held) <= 4 * (1 - delta) * gamma**2 / delta**2 * np.mean(gradients**2)


def test_the_bound_is_the_printed_one():
    gap, gamma, smooth, own, delta = (Fraction(*x) for x in ((7, 2), (1, 10), (3, 1), (5, 4), (1, 5)))
    for end in ENDS:
        printed = 4 * gap / (gamma * int(end)) + 2 * smooth * gamma * own
        printed += 4 * smooth**2 * gamma**2 * own * (1 - delta) / delta
        numbers = [float(x) for x in (gap, gamma, smooth)]
        found = theory.gradient_bound(*numbers, theory.Noise(float(own), float(own)), float(delta), np.array([end]))
        assert found[0] == pytest.approx(float(printed), rel=1e-14)


def test_the_deterministic_part_is_16_l_over_delta_t():
    delta = 1e-4
    gamma = theory.largest_step(2.0, delta)
    assert gamma == pytest.approx(delta / 8, rel=1e-4)
    bound = theory.gradient_bound(3.0, gamma, 2.0, theory.Noise(0.0, 0.0), delta, np.array([7]))[0]
    assert bound == pytest.approx(16 * 2 * 3 / (delta * 7), rel=1e-4)
    assert theory.largest_step(2.0, 1.0) == theory.largest_step(2.0, 0.9) == 1 / 8


@pytest.mark.parametrize("density", [0.1, 0.5])
def test_both_hold_on_a_noisy_quadratic(density):
    problem = NoisyQuadratic(torch.linspace(0.1, 1, 20), 1.0, 2, torch.ones(20))
    gamma = 0.99 * theory.largest_step(1.0, density)
    evidence = run(problem, parse_scheme(f"ef(randomk(density={density}))"), (gamma,) * 40, 30)
    judged = judge([check.examine(evidence) for check in theory.CHECKS])
    assert [j.verdict for j in judged] == [Verdict.HOLDS] * 2
    assert all(0.1 < j.ratio < 1 for j in judged)


def test_the_noise_of_the_mean_is_told_apart():
    """Four workers' noise, averaged: a quarter, as far as 30 runs can tell."""
    problem = NoisyQuadratic(torch.ones(50), 2.0, 4, torch.ones(50))
    own, mean = theory.noise(run(problem, parse_scheme("dense"), (0.1,), 30))
    assert own == pytest.approx(4, rel=0.1)
    assert mean == pytest.approx(1, rel=0.1)


def test_what_is_presupposed_is_asked_for():
    problem = NoisyQuadratic(torch.ones(4), 1.0, 2, torch.ones(4))
    fine = run(problem, parse_scheme("ef(topk(density=0.25))"), (0.05,) * 3)
    unlike = replace(fine, facts=replace(fine.facts, identical=False))
    large = run(problem, parse_scheme("ef(topk(density=0.25))"), (0.1,) * 3)
    for check in (theory.memory, theory.gradient):
        assert verdict(check(fine))[0] == Verdict.NOT_REFUTED  # two runs
        assert verdict(check(unlike)) == (
            Verdict.NOT_APPLICABLE,
            "all workers' gradients have the same expectation",
        )
    told, why = verdict(theory.gradient(large))
    assert (told, why) == (Verdict.NOT_APPLICABLE, f"the learning rate: 0.1, allowed {1 / (16 * 0.75**0.5):.4g}")
    assert verdict(theory.memory(large))[0] == Verdict.NOT_REFUTED
    told, why = verdict(theory.gradient(run(absolute_value(1.0, 1.0), shrinking(0.5), (0.1,) * 3)))
    assert (told, why) == (Verdict.NOT_APPLICABLE, "a smooth objective, its L: there is none, or it is not known")
