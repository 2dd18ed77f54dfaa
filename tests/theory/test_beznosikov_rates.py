"""Biased gradient descent: classes against random vectors, rates against sympy, the divergence in exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.problems import NoisyQuadratic, three_pulls
from gradwire.analysis.theory.results import beznosikov_rates as rates
from gradwire.compressors.spec import parse_scheme

from .beznosikov_rates_cases import SCALED, UNSCALED, bowl

DRAWS = 400
ALL = (rates.b1_rate, rates.b2_rate, rates.b3_rate)


def verdict(finding):
    (judged,) = judge([finding])
    return judged.verdict, judged.reason


def slope(scheme, step, steps=20, workers=1, noise=0.0, seeds=(0, 1)):
    """One worker on a quadratic with L = 2 and mu = 1/2."""
    problem = NoisyQuadratic(torch.linspace(0.5, 2, 10), noise, workers, torch.ones(10))
    return Trial(problem, parse_scheme(scheme), (step,) * steps, seeds).run()


@pytest.mark.parametrize(
    "text", ["topk(density=0.3)", "randomk(density=0.3)", "scaledsign", "natural", SCALED, "dense"]
)
def test_classes_hold_on_drawn_vectors(text):
    scheme, rng = parse_scheme(text), np.random.default_rng(0)
    vectors = {str(i): rng.standard_normal(10) ** (2 * i + 1) for i in range(4)} | {"flat": np.ones(10)}
    found = rates.classes(scheme, scheme.error_bound((10,)))
    for name, drawn in Probe(scheme, vectors, draws=DRAWS).decoded.items():
        x = vectors[name]
        sent2, along = np.square(drawn).sum(1).mean() / (x @ x), (drawn @ x).mean() / (x @ x)
        off = (
            0.0 if len(drawn) == 1 else 6 * max(np.square(drawn).sum(1).std(), (drawn @ x).std()) / (x @ x) / 3000**0.5
        )
        assert found.a <= sent2 + off + 1e-12
        assert sent2 <= found.b * along + (1 + found.b) * off + 1e-12
        assert found.g <= along + off + 1e-12
        if found.delta is not None:
            assert np.square(drawn - x).sum(1).mean() / (x @ x) <= 1 - 1 / found.delta + 3 * off + 1e-12


def test_classes_of_any_contraction_follow_from_its_error():
    """Brute force over C(x) in the ball around x = (1, 0): the worst of the three constants."""
    radius = 0.6
    angle, length = np.meshgrid(np.linspace(0, 2 * np.pi, 2001), np.linspace(0, radius, 501))
    c = 1 + length * np.cos(angle)
    sent2 = c**2 + (length * np.sin(angle)) ** 2
    found = rates.classes(parse_scheme("scaledsign"), radius**2)
    assert found.a == pytest.approx(sent2.min(), rel=1e-6)
    assert found.g == pytest.approx(c.min(), rel=1e-6)
    assert found.b >= (sent2 / c).max()
    assert found.delta == pytest.approx(1 / (1 - radius**2))


def test_known_classes():
    assert rates.classes(parse_scheme("topk(density=0.25)"), 0.75) == (0.25, 0.25, 1.0, 4.0)
    assert rates.classes(parse_scheme(SCALED), 1.0) == (1.0, 1.0, 2.0, None)
    assert rates.classes(parse_scheme("randomk(density=0.25)"), 1.0) is None


def test_rates_at_the_papers_steps():
    """1 - (a/b^2) mu/L, 1 - (g/b) mu/L and 1 - (1/delta) mu/L, with L = 2, mu = 1/2."""
    quarter = sympy.Rational(1, 4)
    share = sympy.Rational(3, 10)
    cases = [
        (rates.b1_rate, "topk(density=0.3)", 0.5, 1 - share * quarter),
        (rates.b2_rate, "topk(density=0.3)", 0.5, 1 - share * quarter),
        (rates.b3_rate, "topk(density=0.3)", 0.5, 1 - share * quarter),
        (rates.b1_rate, SCALED, 0.25, 1 - quarter / 4),
        (rates.b2_rate, SCALED, 0.25, 1 - quarter / 2),
    ]
    for check, scheme, step, factor in cases:
        found = check(slope(scheme, step))
        start = float(torch.linspace(0.5, 2, 10).double().sum()) / 2
        exact = [float(factor ** int(count)) * start for count in found.steps]
        np.testing.assert_allclose(found.bound, exact, rtol=1e-6)


@pytest.mark.parametrize("scheme", ["topk(density=0.3)", "scaledsign", "natural", "randomk(density=0.3)", SCALED])
def test_rates_hold_on_real_schemes(scheme):
    evidence = slope(scheme, 0.2, steps=12, seeds=tuple(range(30)))
    findings = [check(evidence) for check in ALL]
    judged = [one.verdict for one in judge(findings)]
    assert judged[:2] == [Verdict.HOLDS] * 2
    assert judged[2] == (Verdict.NOT_APPLICABLE if scheme in ("natural", SCALED) else Verdict.HOLDS)


def test_random_entries_attain_the_third_rate():
    """Every entry is kept with probability 1/5 and then vanishes, so that the mean is exactly (4/5)^T."""
    found = rates.b3_rate(bowl(parse_scheme(UNSCALED), 1.0))
    np.testing.assert_allclose(found.bound, 100 * 0.8**found.steps, rtol=1e-12)
    np.testing.assert_allclose(found.values.mean(0)[:4], found.bound[:4], rtol=0.05)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"workers": 2}, "a single worker"),
        ({"noise": 0.1}, "gradients without noise"),
        ({"step": 0.6}, "a learning rate of at most 1/L: 0.6, allowed 0.5"),
        ({"scheme": "ef(topk(density=0.3))"}, "no memory around the scheme"),
    ],
)
def test_where_the_third_rate_does_not_apply(changes, reason):
    finding = rates.b3_rate(slope(**{"scheme": "topk(density=0.3)", "step": 0.4, "steps": 3, **changes}))
    assert verdict(finding) == (Verdict.NOT_APPLICABLE, reason)


def test_the_first_two_allow_steps_below_2_over_b_l():
    assert rates.b1_rate(slope("topk(density=0.3)", 0.99, steps=3)).measured
    assert (
        verdict(rates.b2_rate(slope(SCALED, 0.51, steps=3)))[1] == "a learning rate of at most 1/L: 0.51, allowed 0.5"
    )


def test_three_pulls_diverge_in_exact_fractions():
    step, x = Fraction(1, 20), [Fraction(3, 2)] * 3
    v = [[-3, 2, 2], [2, -3, 2], [2, 2, -3]]
    evidence = Trial(three_pulls(1.5), parse_scheme("topk(density=0.3)"), (0.05,) * 60, (0, 1)).run()
    for t in range(60):
        np.testing.assert_allclose(evidence.traces[0].position[t], [float(value) for value in x], rtol=1e-12)
        total = [Fraction(0)] * 3
        for own in v:
            slope = sum(a * b for a, b in zip(own, x, strict=True))
            gradient = [2 * slope * a + b / 2 for a, b in zip(own, x, strict=True)]
            largest = max(range(3), key=lambda j: abs(gradient[j]))
            total[largest] += gradient[largest]
        x = [a - step * b / 3 for a, b in zip(x, total, strict=True)]
    assert x[0] == Fraction(3, 2) * (1 + Fraction(11, 6) * step) ** 60
    (judged,) = judge([rates.divergence(evidence)])
    assert judged.verdict == Verdict.HOLDS
    assert float(1 + Fraction(11, 6) * step) == pytest.approx(1.0916667, rel=1e-7)


def test_three_pulls_converge_with_error_feedback():
    evidence = Trial(three_pulls(1.5), parse_scheme("ef(topk(density=0.3))"), (0.01,) * 500, (0,)).run()
    sizes = np.square(evidence.traces[0].position).sum(axis=1)
    assert sizes[-1] < 1e-4 * sizes[0]
    assert verdict(rates.divergence(evidence)) == (Verdict.NOT_APPLICABLE, "no memory around the scheme")


def test_three_pulls_are_recognised():
    other = Trial(
        NoisyQuadratic(torch.ones(3), 0.0, 3, torch.ones(3)), parse_scheme("topk(density=0.3)"), (0.05,), (0,)
    )
    assert verdict(rates.divergence(other.run()))[1] == "the example's three objectives, from equal entries"
    two = Trial(three_pulls(1.0), parse_scheme("topk(density=0.6)"), (0.05,), (0,))
    assert verdict(rates.divergence(two.run()))[1] == "the largest entry is sent: topk with k = 1"


def test_constants_of_the_three_pulls():
    """Against the Hessian by sympy: mean of 2 v v^T plus 1/2."""
    x = sympy.symbols("x1:4")
    f = sum(sum(a * b for a, b in zip(v, x, strict=True)) ** 2 for v in ((-3, 2, 2), (2, -3, 2), (2, 2, -3)))
    f = f / 3 + sum(b**2 for b in x) / 4
    curvatures = [float(value) for value in sympy.hessian(f, x).eigenvals(multiple=True)]
    facts = three_pulls(1.0).facts()
    assert facts.smoothness.value == pytest.approx(max(curvatures))
    assert facts.strong_convexity.value == pytest.approx(min(curvatures))
    assert facts.own_smoothness.value == pytest.approx(2 * 17 + 0.5)
