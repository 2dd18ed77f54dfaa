"""SGD with unbiased compression on convex objectives: the bounds against sympy and from the definition of the step."""

from dataclasses import replace

import numpy as np
import pytest
import sympy
import torch

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import NoisyQuadratic, Sampled
from gradwire.analysis.theory.results import qsgd2017_convergence as qsgd
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.tasks.quadratic import Quadratic

from .qsgd_convergence_cases import HALF, MOST, STEPS, on_ramp, planned


def verdict(finding):
    (judged,) = judge([finding])
    return judged.verdict, judged.reason


def bowl(scheme, step, noise=1.0, workers=4, steps=30, seeds=30):
    problem = NoisyQuadratic(torch.linspace(0.2, 2, 12), noise, workers, torch.ones(12))
    return Trial(problem, parse_scheme(scheme), (step,) * steps, tuple(range(seeds))).run()


def test_the_planned_step_gives_the_paper_s_bound():
    """omega = 1/3, slope 1, so s^2 = 1/3; L = 1, R = 25, T = 40."""
    found = qsgd.convex(on_ramp(parse_scheme(MOST), 25.0, 4, planned(1 / 3, 25.0)))
    distance, variance, steps = sympy.Integer(25), sympy.Rational(1, 3), STEPS
    exact = distance * sympy.sqrt(2 * variance / steps) + distance**2 / steps
    assert found.bound == pytest.approx([float(exact)], rel=1e-9)


def test_any_step_against_the_definition():
    """omega = 1, slope 1, step 1/2 with L = 1: c = 1."""
    found = qsgd.any_step(on_ramp(parse_scheme(HALF), 20.0, 4, 0.5))
    assert found.bound == pytest.approx([400 / count + 0.5 for count in found.steps], rel=1e-9)


def test_the_paper_s_bound_follows_from_that_of_any_step():
    r, s, t, smoothness = sympy.symbols("R s T L", positive=True)
    c = r / s * sympy.sqrt(2 / t)
    any_step = r**2 * (smoothness + 1 / c) / (2 * t) + c * s**2 / 2
    printed = r * sympy.sqrt(2 * s**2 / t) + smoothness * r**2 / t
    # What is left: L R^2 / (2 T) + (1 - 3/4) R s sqrt(2 / T).
    left = smoothness * r**2 / (2 * t) + r * s * sympy.sqrt(2 / t) / 4
    assert sympy.simplify(printed - any_step - left) == 0


def test_sharp_where_the_ramp_ends_with_the_run():
    """Without noise along the ramp the mean height is an arithmetic mean."""
    found = qsgd.any_step(on_ramp(parse_scheme("dense"), 20.5, 4, 0.5))
    exact = np.mean([20.5 - 0.5 * t - 0.5 for t in range(1, 40)] + [(20.5 - 20) ** 2 / 2])
    assert found.values[0, -1] == pytest.approx(exact, rel=1e-12)
    assert found.values[0, -1] / found.bound[-1] > 0.9


def test_the_variance_uses_the_second_moment_that_was_met():
    evidence = bowl(HALF, 0.1, steps=5, seeds=2)
    second = max(np.mean([trace.own2[t] for trace in evidence.traces]) for t in range(5))
    found = qsgd.any_step(evidence)
    spare = 1 / 0.1 - 2
    assert found.bound[-1] == pytest.approx(12 / (2 * 0.1 * 5) + (1 / 4 * second + 1 / 4) / (2 * spare), rel=1e-6)


@pytest.mark.parametrize("scheme", ["dense", "natural", HALF, "randomk(density=0.5, scaled=True)"])
def test_real_schemes(scheme):
    evidence = bowl(scheme, 0.05, steps=12)
    assert verdict(qsgd.any_step(evidence))[0] == Verdict.HOLDS


def test_examples_of_a_task():
    task = Quadratic(dimension=10, noise=1.0, examples=50)
    runs = Trial(Sampled(task, "quadratic", 2, 4), parse_scheme(HALF), (0.2,) * 8, tuple(range(30))).run()
    assert verdict(qsgd.any_step(runs))[0] == Verdict.HOLDS


@pytest.mark.parametrize(
    ("scheme", "step", "reason"),
    [
        ("topk", 0.1, "an unbiased scheme"),
        ("ef(topk)", 0.1, "no memory around the scheme"),
        (HALF, 0.6, "a learning rate of at most 1/L: 0.6, allowed 0.5"),
        (HALF, 0.5, "a learning rate below 1/L, or 1/L and no variance: 0.5, allowed 0.5"),
    ],
)
def test_where_it_does_not_apply(scheme, step, reason):
    assert verdict(qsgd.any_step(bowl(scheme, step, steps=3, seeds=2))) == (Verdict.NOT_APPLICABLE, reason)


def test_a_step_too_long_for_the_variance():
    refused, reason = verdict(qsgd.convex(on_ramp(parse_scheme(MOST), 25.0, 4, 1.01 * planned(1 / 3, 25.0))))
    assert refused == Verdict.NOT_APPLICABLE
    assert reason.startswith("a step that is the theorem's for at least this variance: 0.3333, allowed 0.2")


def test_it_takes_a_convex_objective_and_its_optimum():
    evidence = bowl(HALF, 0.1, steps=3, seeds=2)
    assert verdict(qsgd.convex(replace(evidence, facts=replace(evidence.facts, convex=False))))[1] == "convex"
    assert verdict(qsgd.convex(replace(evidence, facts=replace(evidence.facts, optimum=None))))[1] == "x* is known"
