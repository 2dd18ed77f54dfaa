"""Karimireddy et al. 2019: bounds against second evaluations, sharp examples, counter-examples, wrong conditions."""

from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from gradwire.analysis.theory.check import Finding, Verdict, judge
from gradwire.analysis.theory.evidence import Constant, Evidence, Facts
from gradwire.analysis.theory.lab import Problem, Trial
from gradwire.analysis.theory.problems import Given, NoisyQuadratic
from gradwire.analysis.theory.results import karimireddy2019 as theory
from gradwire.compressors.keys import Purpose, stream
from gradwire.compressors.spec import parse_scheme

from .feedback_instances import Forgetful, absolute_value, constant_gradient, run, shrinking

ENDS = np.array([1, 2, 7, 100])


def verdict(finding: Finding) -> tuple[Verdict, str]:
    (judged,) = judge([finding])
    return judged.verdict, judged.reason


def noisy(scheme: str, rates: tuple[float, ...] = (0.1,) * 10) -> Evidence:
    return run(NoisyQuadratic(torch.linspace(0.1, 1, 10), 1.0, 2, torch.ones(10)), parse_scheme(scheme), rates)


# ------------------------------------------------------------------------------------------------------------- bounds


def test_the_worst_memory_is_the_recursion_with_equality():
    for delta in (0.01, 0.3, 0.99, 1.0):
        norm, norms = 0.0, []
        for _ in range(100):
            norm = (1 - delta) ** 0.5 * (norm + 1)
            norms.append(norm)
        assert theory.worst_memory(delta, ENDS) == pytest.approx([norms[end - 1] for end in ENDS], rel=1e-12)


def test_the_sharp_form_tends_to_the_lemma_as_delta_vanishes():
    d = sympy.symbols("delta", positive=True)
    q = sympy.sqrt(1 - d)
    ratio = ((1 - d) / (1 - q) ** 2) / (4 * (1 - d) / d**2)
    assert sympy.limit(ratio, d, 0) == 1
    assert sympy.simplify(ratio - (1 + q) ** 2 / 4) == 0  # at most 1
    far = theory.worst_memory(1e-3, np.array([100_000]))[0] ** 2
    assert far == pytest.approx(float((4 * (1 - d) / d**2 * ratio).subs(d, sympy.Rational(1, 1000))), rel=1e-9)


def test_no_gradients_within_the_bound_do_worse_than_constant_ones():
    """Any sequence of directions and sizes, and any contraction of the same strength."""
    draw, delta = np.random.default_rng(0), 0.2
    limits = theory.worst_memory(delta, np.arange(1, 31))
    for _ in range(200):
        memory = np.zeros(3)
        for limit in limits:
            gradient = draw.standard_normal(3)
            given = memory + gradient / np.linalg.norm(gradient) * draw.uniform(0, 1)
            lost = draw.standard_normal(3)
            memory = lost / np.linalg.norm(lost) * (1 - delta) ** 0.5 * np.linalg.norm(given)
            assert np.linalg.norm(memory) <= limit * (1 + 1e-12)


def test_the_descent_bound_is_the_printed_one():
    gap, gamma, smooth, second, delta, rho = (Fraction(*x) for x in ((7, 2), (1, 10), (3, 1), (5, 4), (1, 5), (2, 3)))
    for end in ENDS:
        printed = gap / (gamma * (1 - rho / 2) * int(end))
        printed += smooth * gamma * second / (2 - rho)
        printed += 4 * gamma**2 * smooth**2 * second * (1 - delta) / (rho * (2 - rho) * delta**2)
        at_one = 2 * gap / (gamma * int(end)) + gamma * smooth * second
        at_one += 4 * gamma**2 * smooth**2 * second * (1 - delta) / delta**2
        numbers = (float(x) for x in (gap, gamma, smooth, second, delta))
        found = theory.descent_bound(*numbers, np.array([end]), np.array([float(rho), 1.0]))
        assert found[:, 0] == pytest.approx([float(printed), float(at_one)], rel=1e-14)


@pytest.mark.parametrize("delta", [0.1, 0.9, 1.0])
def test_the_best_rho_is_found(delta):
    evidence = run(NoisyQuadratic(torch.ones(4), 1.0, 1, torch.ones(4)), shrinking(delta), (0.1,) * 20)
    finding = theory.best(evidence)
    second = float(evidence.stack("own2").mean(axis=0).max())
    for end, bound in zip(finding.steps, finding.bound, strict=True):

        def at(rho: float, end: float = end) -> float:
            start = 2.0 / (0.1 * (1 - rho / 2) * end) + 0.1 * second / (2 - rho)
            return start + 4 * 0.01 * second * (1 - delta) / (rho * (2 - rho) * delta**2)

        least = minimize_scalar(at, bounds=(1e-9, 2 - 1e-9), method="bounded", options={"xatol": 1e-12}).fun
        assert least * (1 - 1e-5) <= bound <= least * 1.001


def test_the_best_learning_rate_of_the_nonsmooth_bound_gives_the_papers_rate():
    gamma, radius, sigma, end, q, delta = sympy.symbols("gamma R sigma T q delta", positive=True)
    bound = radius**2 / (2 * gamma * end) + gamma * sigma**2 * (sympy.Rational(1, 2) + 2 * q / delta)
    best = sympy.solve(sympy.diff(bound, gamma), gamma)[0]
    rate = sigma * radius * sympy.sqrt(1 + 4 * q / delta) / sympy.sqrt(end)
    assert sympy.simplify(bound.subs(gamma, best) - rate) == 0
    numbers = {radius: 3, sigma: 2, end: 50, delta: sympy.Rational(1, 4), q: sympy.sqrt(sympy.Rational(3, 4))}
    found = theory.nonsmooth_bound(9.0, float(best.subs(numbers)), 4.0, 0.25, np.array([50]))
    assert found[0] == pytest.approx(float(rate.subs(numbers)), rel=1e-12)


def test_the_descents_left_sides_are_means_and_least_means():
    evidence = noisy("ef(topk(density=0.2))", (0.5,) * 30)
    means = [np.mean([trace.gradient2[t] for trace in evidence.traces]) for t in range(30)]
    average, least = theory.average(evidence), theory.least(evidence)
    for column, end in enumerate(average.steps.astype(int)):
        assert average.values[:, column].mean() == pytest.approx(sum(means[:end]) / end, rel=1e-12)
        assert least.values[:, column].mean() == pytest.approx(min(means[:end]), rel=1e-12)


# ----------------------------------------------------------------------------------------------------- sharp examples


def test_constant_gradients_attain_the_memory_at_every_step():
    evidence = run(constant_gradient(), shrinking(0.1), (0.1,) * 200)
    for check in (theory.memory_sharp, theory.pathwise):
        finding = check(evidence)
        assert finding.values / finding.bound == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5, 50])
def test_the_absolute_value_attains_the_nonsmooth_bound_for_every_number_of_steps(steps):
    sigma, radius = 2.0, 3.0
    rate = radius / (sigma * steps)
    finding = theory.nonsmooth(run(absolute_value(sigma, radius), parse_scheme("dense"), (rate,) * steps))
    assert finding.values[:, -1] == pytest.approx(finding.bound[-1], rel=1e-12)
    assert finding.bound[-1] == pytest.approx(sigma * radius * (steps + 1) / (2 * steps), rel=1e-12)
    assert verdict(finding)[0] == Verdict.HOLDS


# --------------------------------------------------------------------------------------- counter-examples to the sign


class Lopsided(Problem):
    """f(x) = x / 4, whose gradient is seen as 4 with probability 1/4 and as -1 otherwise."""

    name, workers, start = "a slope seen lopsidedly", 1, torch.zeros(1, dtype=torch.float64)

    def facts(self) -> Facts:
        return Facts(None, None, convex=True, least=Constant(-float("inf"), "exact"))

    def value(self, x: Tensor) -> float:
        return float(x) / 4

    def gradient(self, x: Tensor) -> Tensor:
        return torch.full_like(x, 0.25)

    def rows(self, x: Tensor, step: int, seed: int) -> Tensor:
        draw = np.random.Generator(stream(seed, Purpose.NOISE, step, "lopsided", 0)).random()
        return torch.tensor([[4.0 if draw < 0.25 else -1.0]], dtype=torch.float64)


def test_the_sign_alone_climbs_a_slope_that_is_seen_lopsidedly():
    steps = 600
    ends = {}
    for text in ("signsgd", "ef(scaledsign)"):
        trace = Trial(Lopsided(), parse_scheme(text), (0.1,) * steps).run().traces[0]
        assert trace.position is not None
        ends[text] = float(trace.position[-1, 0]) / (0.1 * steps)
    deviation = (0.25 * 0.75 / steps) ** 0.5
    assert ends["signsgd"] == pytest.approx(0.5, abs=5 * 2 * deviation)  # up: the mean sign is -1/2
    assert ends["ef(scaledsign)"] == pytest.approx(-0.25, abs=5 * 5 * deviation)  # down: the mean gradient is 1/4


def crossing(eps: float) -> Given:
    """f(x) = eps |x1 + x2| + |x1 - x2| from (1, 1), the sign at 0 taken to be 1."""
    up, across = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)

    def value(x: Tensor) -> float:
        return float(eps * (up @ x).abs() + (across @ x).abs())

    def gradients(x: Tensor) -> Tensor:
        return (eps * _sign(up @ x) * up + _sign(across @ x) * across)[None]

    facts = Facts(
        smoothness=None,
        strong_convexity=None,
        convex=True,
        least=Constant(0.0, "exact"),
        optimum=np.zeros(2),
        value=lambda x: value(torch.as_tensor(x)),
    )
    return Given("two absolute values", torch.ones(2), value, gradients, facts)


def _sign(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x)


def test_the_sign_alone_is_frozen_and_error_feedback_moves():
    frozen = run(crossing(0.5), parse_scheme("scaledsign"), tuple(1 / (4 + t) for t in range(200)))
    position = frozen.traces[0].position
    assert position is not None
    assert position.sum(axis=1) == pytest.approx(2, abs=1e-12)
    moving = run(crossing(0.5), parse_scheme("ef(scaledsign)"), (0.05,) * 300)
    position = moving.traces[0].position
    assert position is not None
    assert abs(position[-1].sum()) < 0.2
    assert verdict(theory.nonsmooth(moving))[0] == Verdict.HOLDS
    told, reason = verdict(theory.nonsmooth(frozen))
    assert (told, reason) == (Verdict.NOT_APPLICABLE, "error feedback around the scheme, or no memory and no error")


# --------------------------------------------------------------------------------------------------- wrong conditions

FALLING = (0.1, 0.1, 0.05)


@pytest.mark.parametrize(
    ("check", "scheme", "rates", "reason"),
    [
        (theory.identity, "topk(density=0.2)", FALLING, "error feedback around the scheme"),
        (theory.identity, "ef(topk(density=0.2), decay=0.9)", FALLING, "nothing of the memory fades"),
        (theory.memory, "topk(density=0.2)", (0.1,) * 3, "error feedback around the scheme"),
        (theory.memory, "ef21(topk(density=0.2))", (0.1,) * 3, "error feedback around the scheme"),
        (theory.memory, "ef(topk(density=0.2))", FALLING, "a constant learning rate"),
        (theory.memory_sharp, "ef(topk(density=0.2))", FALLING, "a constant learning rate"),
        (theory.memory_sharp, "ef(gtopk(density=0.2))", (0.1,) * 3, "a contraction: delta = 0"),
        (theory.pathwise, "ef(topk(density=0.2), units=gradient)", FALLING, "a memory in units of the update"),
        (theory.pathwise, "ef(randomk(density=0.2))", (0.1,) * 10, "every vector that was compressed keeps"),
        (theory.average, "ef(topk(density=0.2))", FALLING, "a constant learning rate"),
        (theory.nonsmooth, "ef(topk(density=0.2))", FALLING, "a constant learning rate"),
    ],
)
def test_what_is_presupposed_is_asked_for(check, scheme, rates, reason):
    told, why = verdict(check(noisy(scheme, rates)))
    assert told == Verdict.NOT_APPLICABLE
    assert why.startswith(reason)


def test_a_pause_of_the_learning_rate_is_not_of_the_theory():
    told, why = verdict(theory.pathwise(noisy("ef(topk(density=0.2))", (0.1, 0.0, 0.1))))
    assert (told, why) == (Verdict.NOT_APPLICABLE, "learning rates above 0: at 0 nothing is sent")


def test_a_memory_in_units_of_the_gradient_is_the_papers_at_a_constant_rate():
    update, gradient = (noisy(f"ef(topk(density=0.2), units={units})") for units in ("update", "gradient"))
    for name in ("memory2", "mean_memory2", "lost2", "input2", "loss", "worst_ratio"):
        assert gradient.stack(name) == pytest.approx(update.stack(name), rel=1e-12, abs=1e-15)
    assert verdict(theory.identity(gradient))[0] == Verdict.HOLDS


def test_two_memories_are_not_the_papers():
    evidence = noisy("twosided(topk(density=0.2))")
    assert evidence.memory == "other"
    for check in (theory.identity, theory.memory):
        assert verdict(check(evidence)) == (
            Verdict.NOT_APPLICABLE,
            "error feedback around the scheme, or no memory and no error",
        )


def test_what_overflows_is_not_of_the_theory():
    evidence = noisy("ef(topk(density=0.2))", (1e40,) * 6)
    assert not np.isfinite(evidence.stack("own2")).all()
    for check in (theory.identity, theory.memory, theory.average, theory.nonsmooth):
        assert verdict(check(evidence)) == (Verdict.NOT_APPLICABLE, "every gradient's squared norm is finite")


def test_a_schedule_contracts_as_its_weakest_phase():
    evidence = noisy("ef(phases(topk(density=0.1), topk(density=0.5), at=(5,)))")
    assert evidence.error == pytest.approx(0.9)
    assert verdict(theory.pathwise(evidence))[0] == Verdict.HOLDS


def test_without_smoothness_convexity_or_an_optimum_there_is_no_bound():
    evidence = run(absolute_value(1.0, 1.0), shrinking(0.5), (0.1,) * 5)
    for check in (theory.average, theory.least, theory.best):
        assert verdict(check(evidence)) == (
            Verdict.NOT_APPLICABLE,
            "a smooth objective, its L: there is none, or it is not known",
        )
    assert verdict(theory.nonsmooth(run(constant_gradient(), shrinking(0.5), (0.1,) * 5))) == (
        Verdict.NOT_APPLICABLE,
        "the optimum x* is known",
    )


def test_what_is_only_estimated_does_not_decide():
    """A forgetful memory exceeds the bound; with an L that was only met at some points that proves nothing."""
    slope = torch.ones(1, dtype=torch.float64)
    facts = Facts(Constant(0.1, "sampled"), None, convex=True, least=Constant(0.0, "exact"))
    problem = Given("a slope", torch.ones(1), lambda x: float(slope @ x), lambda _: slope[None].clone(), facts)
    evidence = run(problem, shrinking(0.5, Forgetful()), (0.1,) * 100)
    assert verdict(theory.average(evidence)) == (
        Verdict.INCONCLUSIVE,
        "a smooth objective, its L = 0.1, only estimated",
    )
