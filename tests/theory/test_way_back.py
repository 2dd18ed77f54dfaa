"""The laboratory's way back: what is applied is what a master makes of the mean, drawn from streams of its own."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from gradwire.analysis.theory import rates
from gradwire.analysis.theory.cases import RunCase
from gradwire.analysis.theory.check import Verdict, judge
from gradwire.analysis.theory.lab import Trial
from gradwire.analysis.theory.problems import NoisyQuadratic
from gradwire.analysis.theory.suite import suite_cases
from gradwire.compressors.errors import InputError
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.training.record import Trace

HALF = "randomk(density=0.5, scaled=True)"
RATE, SIZE = 0.1, 40


def runs(scheme, back=None, noise=0.0, workers=2, steps=3, seeds=(0,)):
    problem = NoisyQuadratic(torch.linspace(1, 2, SIZE, dtype=torch.float64), noise, workers, torch.ones(SIZE))
    there = None if back is None else parse_scheme(back)
    return Trial(problem, parse_scheme(scheme), (RATE,) * steps, seeds, there).run()


def applied(evidence, run=0):
    """What was applied at each step, [S, d]."""
    return -np.diff(evidence.traces[run].position, axis=0) / RATE


def test_half_of_the_entries_come_back_doubled():
    evidence = runs("dense", HALF)
    gradients = np.linspace(1, 2, SIZE) * evidence.traces[0].position[:-1]
    came = applied(evidence)
    kept = np.abs(came) > 1e-12
    assert (kept.sum(axis=1) == SIZE // 2).all()
    np.testing.assert_allclose(came, np.where(kept, 2 * gradients, 0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(evidence.traces[0].applied2, (came**2).sum(axis=1), rtol=1e-9)


def test_draws_follow_from_seed_and_step_alone():
    two = runs("dense", HALF, seeds=(0, 1))
    kept = np.array([np.abs(applied(two, run)) > 1e-12 for run in (0, 1)]).reshape(6, SIZE)
    assert len(np.unique(kept, axis=0)) == 6
    more = runs("dense", HALF, workers=5)
    np.testing.assert_allclose(more.traces[0].position, two.traces[0].position, rtol=1e-12)


def test_draws_are_others_than_on_the_way_there():
    """The same ones would let half of the entries through both ways; independent ones, about a quarter."""
    moved = np.count_nonzero(np.abs(applied(runs(HALF, HALF, steps=20))) > 1e-12, axis=1)
    assert 5 < moved.mean() < 15
    assert moved.max() < SIZE // 2


@pytest.mark.parametrize("scheme", ["natural", "ef(topk(density=0.25))", "ef21(topk(density=0.25))"])
def test_dense_on_the_way_back_changes_nothing(scheme):
    (with_it,), (without,) = (runs(scheme, back, noise=1.0).traces for back in ("dense", None))
    for name in (field.name for field in fields(Trace)):
        np.testing.assert_array_equal(getattr(with_it, name), getattr(without, name), err_msg=name)


@pytest.mark.parametrize("back", ["ef(topk(density=0.25))", "gtopk(density=0.25)", "sidco", "signum"])
def test_what_cannot_be_on_the_way_back(back):
    with pytest.raises(InputError, match=r"^back = .*: it must be a scheme of one round") as caught:
        runs("dense", back)
    assert str(parse_scheme(back)) in str(caught.value)


def test_no_rate_is_promised():
    steps = tuple(8 / (14 + t) for t in range(20))
    problem = NoisyQuadratic(torch.ones(6), 1.0, 1, torch.ones(6))
    natural = parse_scheme("natural")
    assert rates.prediction(Trial(problem, natural, steps).run()) is not None
    assert rates.prediction(Trial(problem, natural, steps, back=natural).run()) is None


BOTH_WAYS = [case for case in suite_cases() if isinstance(case, RunCase) and case.back]


@pytest.mark.slow
@pytest.mark.parametrize("case", BOTH_WAYS, ids=lambda case: case.problem)
def test_natural_compression_holds_both_ways(case):
    found = judge(case.result().findings)
    applies = {one.finding.statement.name: one for one in found if one.verdict != Verdict.NOT_APPLICABLE}
    assert list(applies) == ["natural.bidirectional"]
    (one,) = applies.values()
    assert one.verdict == Verdict.HOLDS
    assert one.finding.values.shape[0] == 30
    assert one.finding.subject.startswith("natural and natural on the way back on ")
