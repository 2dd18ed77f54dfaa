"""Alistarh et al. 2018: the lemmas against the algorithm written down anew, bounds, Assumption 1, wrong conditions."""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
import sympy
import torch
from torch import Tensor

from gradwire.analysis.theory.check import Finding, Verdict, judge
from gradwire.analysis.theory.evidence import Constant, Evidence, Facts
from gradwire.analysis.theory.problems import Given, NoisyQuadratic
from gradwire.analysis.theory.results import alistarh2018 as theory
from gradwire.compressors.spec import parse_scheme

from .feedback_instances import constant_gradient, run, shrinking

ENDS = np.array([1, 2, 10, 300])
RATES = tuple(0.05 / (1 + t) ** 0.3 for t in range(40))


def verdict(finding: Finding) -> tuple[Verdict, str]:
    (judged,) = judge([finding])
    return judged.verdict, judged.reason


def noisy(scheme: str, workers: int = 2, rates: tuple[float, ...] = (0.1,) * 5) -> Evidence:
    return run(NoisyQuadratic(torch.linspace(0.1, 1, 10), 1.0, workers, torch.ones(10)), parse_scheme(scheme), rates)


# ------------------------------------------------------------------------------- the lemmas, from the algorithm itself

WORKERS, SIZE, KEPT = 4, 60, 45


def quadratics() -> tuple[np.ndarray, np.ndarray]:
    """Every worker's curvatures and optimum."""
    draw = np.random.default_rng(3)
    return draw.uniform(0.2, 2, (WORKERS, SIZE)), draw.standard_normal((WORKERS, SIZE))


def problem() -> Given:
    curvature, optimum = (torch.from_numpy(array) for array in quadratics())

    def value(x: Tensor) -> float:
        return float((curvature * (x - optimum).square()).sum() / 2 / WORKERS)

    facts = Facts(Constant(2.0, "exact"), None, convex=True, least=Constant(0.0, "exact"), identical=False)
    start = torch.zeros(SIZE)
    return Given("four quadratics", start, value, lambda x: curvature * (x - optimum), facts)


class Written(NamedTuple):
    """||v_t - x_t|| for t = 1 ..., ||x_t - x_{t-1}||, and Assumption 1's ratios."""

    apart: list[float]
    moved: list[float]
    xi: list[float]


def written(kept: int) -> Written:
    """The paper's algorithm in numpy."""
    curvature, optimum = quadratics()

    def top(x: np.ndarray) -> np.ndarray:
        chosen = np.argsort(-np.abs(x))[:kept]
        return np.where(np.isin(np.arange(SIZE), chosen), x, 0)

    v, x, errors = np.zeros(SIZE), np.zeros(SIZE), np.zeros((WORKERS, SIZE))
    found = Written([], [], [])
    for alpha in RATES:
        update = alpha * curvature * (v - optimum)
        sums = update + errors
        sent = np.stack([top(row) for row in sums])
        off = np.linalg.norm(top(sums.mean(0)) - sent.mean(0))
        v, x, errors = v - sent.mean(0), x - update.mean(0), sums - sent
        found.apart.append(float(np.linalg.norm(v - x)))
        found.moved.append(float(np.linalg.norm(update.mean(0))))
        found.xi.append(float(off / np.linalg.norm(update.mean(0))))
    return found


@pytest.fixture(scope="module")
def recorded() -> Evidence:
    return run(problem(), parse_scheme(f"ef(topk(density={KEPT / SIZE}))"), RATES)


def test_what_is_recorded_is_the_papers_algorithm(recorded):
    expected = written(KEPT)
    trace = recorded.traces[0]
    assert np.sqrt(trace.mean_memory2[1:]) == pytest.approx(expected.apart, rel=1e-9)
    assert trace.lr * np.sqrt(trace.mean2) == pytest.approx(expected.moved, rel=1e-9)
    assert theory.discrepancies(recorded)[0] == pytest.approx(expected.xi, rel=1e-9, abs=1e-12)
    assert 0 < theory.discrepancy(recorded).largest == pytest.approx(max(expected.xi), rel=1e-9)


def test_the_lemmas_sides_are_the_papers_sums(recorded):
    expected, g = written(KEPT), ((SIZE - KEPT) / SIZE) ** 0.5
    xi, apart, moved = max(expected.xi), expected.apart, expected.moved
    findings = {check: check(recorded) for check in (theory.step, theory.total, theory.squared, theory.cauchy)}
    for t in range(1, len(RATES) + 1):
        back = [moved[t - k] for k in range(1, t + 1)]
        plain = sum(g**k * length for k, length in enumerate(back, 1))
        doubled = sum((2 * g**2) ** k * length**2 for k, length in enumerate(back, 1))
        fading = sum(g**k * length**2 for k, length in enumerate(back, 1))
        before = apart[t - 2] if t > 1 else 0.0
        allowed = {
            theory.step: g * before + (g + xi) * moved[t - 1],
            theory.total: (1 + xi / g) * plain,
            theory.squared: (1 + xi / g) ** 2 * doubled,
            theory.cauchy: (1 + xi / g) ** 2 * g / (1 - g) * fading,
        }
        for check, bound in allowed.items():
            power = 2 if check in (theory.squared, theory.cauchy) else 1
            assert findings[check].values[0, t - 1] == pytest.approx(apart[t - 1] ** power / bound, rel=1e-9)
            assert findings[check].values[0, t - 1] < 1
    assert {verdict(finding)[0] for finding in findings.values()} == {Verdict.HOLDS}


# ------------------------------------------------------------------------------------------------------------- bounds


def test_the_sum_forms_follow_from_the_step():
    """Unrolled with equality, the step is the sum; squares of two terms and Cauchy and Schwarz lie above it."""
    draw, g, xi = np.random.default_rng(0), 0.6, 0.3
    for _ in range(100):
        moved, apart = draw.exponential(size=20), 0.0
        for t, length in enumerate(moved, 1):
            apart = g * apart + (g + xi) * length
            back = moved[:t][::-1]
            powers = np.arange(1, t + 1)
            assert apart == pytest.approx((1 + xi / g) * (g**powers * back).sum(), rel=1e-12)
            assert apart**2 <= (1 + xi / g) ** 2 * ((2 * g**2) ** powers * back**2).sum() * (1 + 1e-12)
            assert apart**2 <= (1 + xi / g) ** 2 * g / (1 - g) * (g**powers * back**2).sum() * (1 + 1e-12)


def test_the_nonconvex_bound_is_the_derived_one():
    gap, alpha, smooth, second, g, xi = (Fraction(*x) for x in ((7, 2), (1, 10), (3, 1), (5, 4), (3, 5), (1, 4)))
    for end in ENDS:
        derived = 2 * gap / (alpha * int(end)) + alpha * smooth * second
        derived += alpha**2 * smooth**2 * second * ((g + xi) / (1 - g)) ** 2
        numbers = [float(x) for x in (gap, alpha, smooth, second, (g + xi) / (1 - g))]
        assert theory.nonconvex_bound(*numbers, np.array([end]))[0] == pytest.approx(float(derived), rel=1e-14)


def test_the_papers_learning_rate_turns_the_general_bound_into_the_one_used():
    alpha, c, eps, m, smooth, reach, end = sympy.symbols("alpha c epsilon M L C T", positive=True)
    hindrance = m**2 + 2 * sympy.sqrt(eps) * smooth * m * reach
    general = eps / ((2 * alpha * c * eps - alpha**2 * hindrance) * end)
    choice = c * eps / hindrance
    assert sympy.simplify(general.subs(alpha, choice) - 1 / (choice * c * end)) == 0


def test_the_success_region_is_the_one_of_the_learning_rate():
    for alpha, c, smooth, second, reach in ((0.1, 0.5, 2.0, 3.0, 4.0), (1e-3, 1.0, 1.0, 1.0, 0.0)):
        eps = theory.success_region(alpha, c, smooth, second, reach)
        assert c * eps == pytest.approx(alpha * (second + 2 * (eps * second) ** 0.5 * smooth * reach), rel=1e-12)
    assert theory.success_region(1e-3, 2.0, 1.0, 3.0, 0.0) == pytest.approx(1e-3 * 3 / 2)  # plain SGD


def test_constant_gradients_attain_the_lemmas():
    evidence = run(constant_gradient(), shrinking(0.3), (0.1,) * 100)
    for check in (theory.step, theory.total):
        assert check(evidence).values == pytest.approx(1, rel=1e-12)
    for check in (theory.cauchy, theory.constant):
        finding = check(evidence)
        assert finding.values[:, -1] == pytest.approx(finding.bound[-1], rel=1e-6)


# -------------------------------------------------------------------------------------------------------- assumption 1


@pytest.mark.parametrize("scheme", ["dense", "ef(topk(density=0.2))", "ef(randomk(density=0.2, seed=own))"])
def test_one_worker_has_no_discrepancy(scheme):
    assert theory.discrepancy(noisy(scheme, workers=1)) == (0, 0, 0, 0)


def test_shared_indices_have_no_discrepancy_and_own_choices_have_one():
    assert theory.discrepancy(noisy("ef(randomk(density=0.2))")).largest < 1e-12
    assert theory.discrepancy(noisy("ef(randomk(density=0.2, seed=own))")).median > 0.1
    assert np.isnan(theory.discrepancy(noisy("ef(gtopk(density=0.2))")).largest)


def test_quantiles_are_of_all_runs_and_steps():
    evidence = noisy("ef(topk(density=0.2))", rates=(0.1,) * 50)
    xi, found = np.sort(theory.discrepancies(evidence).ravel()), theory.discrepancy(evidence)
    assert len(xi) == 100
    assert found == (xi[99], xi[50], xi[90], xi[99])


def test_where_gradients_cancel_and_choices_do_not_there_is_no_xi():
    rows = torch.tensor([[3.0, 2.0], [-3.0, 0.0], [0.0, -2.0]], dtype=torch.float64)
    facts = Facts(Constant(1.0, "exact"), None, convex=True, least=Constant(0.0, "exact"), identical=False)
    given = Given("a tie", torch.zeros(2), lambda _: 0.0, lambda _: rows.clone(), facts)
    evidence = run(given, parse_scheme("ef(topk(density=0.5))"), (0.1,) * 3)
    assert theory.discrepancies(evidence)[0, 0] == np.inf
    told, why = verdict(theory.total(evidence))
    assert (told, why) == (Verdict.NOT_APPLICABLE, "Assumption 1 with the xi that was met")


# --------------------------------------------------------------------------------------------- runs, wrong conditions


def test_the_convex_theorem_bounds_how_often_the_optimum_is_missed():
    quadratic = NoisyQuadratic(torch.ones(4), 0.2, 2, 2 * torch.ones(4))
    evidence = run(quadratic, parse_scheme("ef(topk(density=0.75))"), (0.1,) * 30, 30)
    (judged,) = judge([theory.convex(evidence)])
    assert judged.verdict == Verdict.NOT_REFUTED
    assert judged.reason == "the statement's constants are not known surely"
    eps = theory.success_region(
        0.1, 1.0, 1.0, float(evidence.stack("mean2").mean(axis=0).max()),
        (0.5 + theory.discrepancy(evidence).largest) / 0.5,
    )  # fmt: skip
    for end, share, bound in zip(judged.finding.steps, judged.measured, judged.finding.bound, strict=True):
        missed = [float((t.position[: int(end) + 1] ** 2).sum(1).min()) > eps for t in evidence.traces]
        assert share == np.mean(missed)
        assert bound == pytest.approx(min(1, (1 + np.log(16 / eps)) / (0.1 * end)), rel=1e-9)
    assert judged.measured[0] == 1
    assert judged.measured[-1] == 0


@pytest.mark.parametrize(
    ("check", "scheme", "reason"),
    [
        (
            theory.squared,
            "ef(topk(density=0.2))",
            "2 (1 - delta) below 1, which is more than half of the entries sent: 1.6, allowed 1",
        ),
        (
            theory.squared,
            "ef(topk(density=0.5))",
            "2 (1 - delta) below 1, which is more than half of the entries sent: 1, allowed 1",
        ),
        (theory.step, "topk(density=0.2)", "error feedback around the scheme, or no memory and no error"),
        (theory.step, "ef(gtopk(density=0.2))", "a contraction: delta = 0 is above 0"),
        (theory.total, "ef(randomk(density=0.2))", "every vector that was compressed keeps to the stated contraction"),
        (theory.convex, "ef(topk(density=0.2))", "the start lies outside of the success region: eps"),
    ],
)
def test_what_is_presupposed_is_asked_for(check, scheme, reason):
    told, why = verdict(check(noisy(scheme)))
    assert told == Verdict.NOT_APPLICABLE
    assert why.startswith(reason)


def test_learning_rates_must_be_constant_for_the_constant_forms():
    evidence = noisy("ef(topk(density=0.2))", rates=(0.1, 0.05))
    for check in (theory.constant, theory.nonconvex, theory.convex):
        assert verdict(check(evidence)) == (Verdict.NOT_APPLICABLE, "a constant learning rate")
    assert verdict(theory.descent(evidence))[0] == Verdict.NOT_REFUTED


def test_of_several_workers_only_known_schemes_are_sure_to_contract_the_mean():
    assert verdict(theory.step(noisy("ef(topk(density=0.2))")))[0] == Verdict.HOLDS
    assert verdict(theory.step(noisy("ef(scaledsign)")))[0] == Verdict.HOLDS
    assert verdict(theory.step(noisy("ef(blocktopk(density=0.5, block=2))"))) == (
        Verdict.NOT_REFUTED,
        "C contracts the mean of the vectors that workers compress",
    )


def test_the_descents_sides_are_sums_over_steps():
    evidence = noisy("ef(topk(density=0.2))", rates=(0.1, 0.05, 0.2, 0.01))
    finding = theory.descent(evidence)
    second = max(np.mean([trace.mean2[t] for trace in evidence.traces]) for t in range(4))
    for column, end in enumerate(finding.steps.astype(int)):
        alpha, sides = evidence.lr[:end], []
        for trace in evidence.traces:
            left = sum(a * g for a, g in zip(alpha, trace.gradient2, strict=False))
            held = sum(a * e for a, e in zip(alpha, trace.mean_memory2, strict=False))
            right = 2 * trace.loss[0] + second * (alpha**2).sum() + held
            sides.append((left / alpha.sum(), right / alpha.sum()))
        left, right = np.mean(sides, axis=0)
        assert finding.values[:, column].mean() == pytest.approx(left, rel=1e-12)
        assert finding.bound[column] == pytest.approx(right, rel=1e-12)
