"""Schemes as they are used, with error feedback on several workers: every bound that applies holds, and is told to."""

import pytest
import torch

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.evidence import Evidence
from gradwire.analysis.theory.problems import NoisyQuadratic, Sampled
from gradwire.analysis.theory.results import alistarh2018, feedback2019, karimireddy2019, stich2018
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.tasks.logistic import Logistic

from .feedback_instances import run
from .stich_cases import rates

MODULES = (karimireddy2019, feedback2019, alistarh2018, stich2018)
CHECKS = [check for module in MODULES for check in module.CHECKS if check.statement.grade != "indicative"]
FORM = "learning rates 8 / (mu (a + t)) with a > 1"
CONSTANT = "a constant learning rate"
HALF = "2 (1 - delta) below 1, which is more than half of the entries sent"
EVERY_VECTOR = "every vector that was compressed keeps to the stated contraction"


def refusals(evidence: Evidence) -> dict[str, str]:
    """What does not apply, and why; all else must hold."""
    found = {}
    for judged in judge([check.examine(evidence) for check in CHECKS]):
        name = judged.finding.statement.name
        if judged.verdict == Verdict.NOT_APPLICABLE:
            found[name] = judged.reason.split(":")[0]
        else:
            assert judged.verdict == Verdict.HOLDS, (name, judged.reason)
            assert 0 < judged.ratio < 1.1, name
    return found


@pytest.mark.parametrize(
    ("scheme", "refused"),
    [
        ("ef(topk(density=0.6))", {}),
        ("ef(topk(density=0.2))", {"alistarh.squared": HALF}),
        ("ef(scaledsign)", {"alistarh.squared": HALF}),
        (
            "ef(randomk(density=0.2))",
            dict.fromkeys(
                ["karimireddy.pathwise"]
                + [f"alistarh.{name}" for name in ("step", "sum", "squared", "cauchy", "constant", "nonconvex")],
                EVERY_VECTOR,
            ),
        ),
    ],
)
def test_at_a_constant_rate(scheme, refused):
    problem = NoisyQuadratic(torch.linspace(0.1, 1, 10), 1.0, 2, 2 * torch.ones(10))
    found = refusals(run(problem, parse_scheme(scheme), (0.02,) * 20, 30))
    assert found == refused | dict.fromkeys(("stich.memory", "stich.averaging", "stich.theorem"), FORM)


def test_at_falling_rates_on_logistic_regression():
    problem = Sampled(Logistic(regularisation=0.1), "logistic", 2, 8)
    found = refusals(run(problem, parse_scheme("ef(topk(density=0.2))"), rates(100.0, 0.1, 10), 30))
    assert found.pop("alistarh.squared") == HALF
    assert set(found.values()) == {CONSTANT}
    assert set(found) == {
        *(f"karimireddy.{name}" for name in ("memory", "memory_sharp", "average", "least", "best", "nonsmooth")),
        *("alistarh.constant", "alistarh.nonconvex", "feedback.memory", "feedback.gradient"),
    }


def test_what_needs_no_contraction_holds_for_protocols_that_have_none():
    problem = NoisyQuadratic(torch.linspace(0.1, 1, 10), 1.0, 3, 2 * torch.ones(10))
    found = refusals(run(problem, parse_scheme("ef(gtopk(density=0.2))"), (0.02,) * 10, 30))
    applied = {check.statement.name for check in CHECKS} - set(found)
    assert applied == {"karimireddy.identity", "stich.step", "alistarh.descent"}
    assert found.pop("stich.averaging") == FORM
    assert set(found.values()) == {"a contraction"}
