"""The statements of Khirirat et al. 2020 about choices: gains by brute force, costs by the paper's numbers."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.constants import standard_vectors
from gradwire.analysis.theory.probe import Probe
from gradwire.analysis.theory.results import khirirat2020_tuning as tuning
from gradwire.compressors.adaptive import CAT
from gradwire.compressors.spec import parse_scheme

RNG = np.random.default_rng(21)
X = RNG.standard_t(2, 7)


def subsets(count: int) -> list[list[int]]:
    return [list(chosen) for chosen in itertools.combinations(range(len(X)), count)]


@pytest.mark.parametrize("count", range(1, 8))
def test_gains_are_the_best_of_all_sets(count):
    """What a step of best length along such a vector takes off a quadratic, over what the gradient's own takes."""
    kept = max(np.square(X[own]).sum() / np.square(X).sum() for own in subsets(count))
    assert tuning.gains("top", X)[count - 1] == pytest.approx(kept, rel=1e-13)
    signs = [np.where(np.isin(np.arange(7), own), np.sign(X), 0) for own in subsets(count)]
    along = max((s @ X) ** 2 / (s @ s) / (X @ X) for s in signs)
    assert tuning.gains("sq", X)[count - 1] == pytest.approx(along, rel=1e-13)
    found = minimize(
        lambda p: float((X**2 / p).sum()) / float(X @ X),
        np.full(7, count / 7),
        jac=lambda p: -(X**2) / p**2 / float(X @ X),
        bounds=[(1e-9, 1)] * 7,
        constraints={"type": "eq", "fun": lambda p: p.sum() - count},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert tuning.gains("stochastic", X)[count - 1] == pytest.approx(1 / found.fun, rel=1e-5)


def test_costs_are_the_papers():
    """200 values: 8 + 64 bits an entry, or 9 bits and one value; 9 bytes an entry, 56.9 of them to 512 bytes."""
    assert tuning.costs(CAT(cost="payload"), 200)[[0, 9]] == pytest.approx([9, 90])
    assert tuning.costs(CAT(cost="payload", operator="sq"), 200)[[0, 7]] == pytest.approx([8 + 9 / 8, 17])
    assert tuning.costs(CAT(), 200)[[0, 55, 56, 112, 113]] == pytest.approx([640, 640, 1216, 1216, 1792])
    affine = CAT(cost="affine", fixed=10.0, per_packet=2.0, packet=3)
    assert tuning.costs(affine, 200)[4] == pytest.approx(10 + 2 * 45 / 3)
    assert tuning.capacity(CAT(), 200) == pytest.approx(512 / 9)


def test_whole_entries_leave_room_in_packets():
    """Of 200 equal entries, three packets take 170 at 9 bytes, and 3 x 56 = 168 are sent: 1.2 % less for as much."""
    probe = Probe(CAT(), {"flat": np.ones(200)})
    finding = tuning.best(probe)
    assert finding.bound[0] / finding.values[0, 0] == pytest.approx(168 / 170 * (512 / 9) / 56)
    assert tuning.packets(probe).values == pytest.approx(168)
    assert [one.verdict for one in judge([finding, tuning.packets(probe)])] == [Verdict.HOLDS] * 2


def test_beta_is_not_monotone_and_may_be_below_t_over_n():
    """Of 10 and 400 ones: beta falls from 0.2 to 0.121 at T = 2, and is 0.838 at the end."""
    beta = tuning.gains("sq", np.concatenate([[10.0], np.ones(400)]))
    assert beta[0] == pytest.approx(100 / 500)
    assert beta[1] == pytest.approx(11**2 / 2 / 500)
    assert beta[-1] == pytest.approx(410**2 / 401 / 500)
    spiked = tuning.gains("sq", np.array([10.0, 1, 1, 1]))
    assert spiked[-1] == pytest.approx(13**2 / 4 / 103)
    assert spiked[-1] < 1


@pytest.mark.parametrize(
    "text",
    ["cat", "cat(packet=60)", "cat(cost=payload)", "cat(operator=sq)", "cat(operator=stochastic)", "topk(density=0.1)",
     "cat(cost=affine, fixed=500, per_packet=1, packet=1)", "cat(operator=sq, cost=affine, fixed=1e7)"],
)  # fmt: skip
def test_real_schemes_keep_the_statements(text):
    probe = Probe(parse_scheme(text), standard_vectors(120), draws=60)
    judged = judge([check.examine(probe) for check in tuning.OPERATOR_CHECKS])
    assert {one.verdict for one in judged} == {Verdict.HOLDS, Verdict.NOT_APPLICABLE}


@pytest.mark.parametrize("size", [1, 2, 91])
def test_small_and_large_vectors_fill_packets(size):
    for fixed in (0.0, 64.0, 1e6):
        probe = Probe(CAT(packet=90, fixed=fixed), {"x": RNG.standard_normal(size)})
        assert judge([tuning.packets(probe)])[0].verdict == Verdict.HOLDS


def test_without_overhead_one_entry_is_chosen():
    probe = Probe(CAT(cost="payload"), {"x": RNG.standard_normal(500)})
    finding = tuning.one_entry(probe)
    largest = np.abs(probe.vectors["x"]).max()
    assert finding.values == pytest.approx(largest**2 / np.square(probe.vectors["x"]).sum())
    assert judge([finding])[0].verdict == Verdict.HOLDS


@pytest.mark.parametrize(
    ("check", "text", "reason"),
    [
        (tuning.one_entry, "topk", "cat, with a cost that is given"),
        (tuning.one_entry, "cat", "no cost of a message itself"),
        (tuning.one_entry, "cat(operator=sq, cost=payload)", "operator=top"),
        (tuning.packets, "cat(cost=payload)", "cost=packets"),
        (tuning.packets, "cat(operator=sq)", "operator=top"),
        (tuning.best, "cat(cost=cluster)", "cat, with a cost that is given"),
        (tuning.kept, "wangni", "cat, with a cost that is given"),
        (tuning.concave, "cat(operator=sq)", "topk, or cat with operator=top"),
    ],
)
def test_other_schemes_are_not_judged(check, text, reason):
    (judged,) = judge([check(Probe(parse_scheme(text), {"x": np.ones(20)}))])
    assert judged.verdict == Verdict.NOT_APPLICABLE
    assert judged.reason == reason


def test_descent_of_the_choice_is_what_the_gain_says():
    """f = L/2 ||x||^2, step 1/L: f falls by gain ||grad||^2 / (2 L), which is what is kept of the norm."""
    x = RNG.standard_normal(80)
    for operator in ("top", "sq"):
        probe = Probe(CAT(operator=operator), {"x": x})
        finding = tuning.kept(probe)
        after = x - probe.decoded["x"][0]
        assert finding.values[0, 0] == pytest.approx(1 - (after @ after) / (x @ x), rel=1e-12)
        count = CAT(operator=operator).choose(torch.from_numpy(x))
        assert finding.bound[0] == pytest.approx(tuning.gains(operator, x)[count - 1], rel=1e-14)
        assert math.isclose(finding.values[0, 0], finding.bound[0], rel_tol=1e-12)
