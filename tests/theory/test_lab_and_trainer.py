"""Two paths to a trace: the laboratory and the trainer, given the same examples, take down the same numbers."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from gradwire.analysis.theory import lab
from gradwire.analysis.theory.problems import NoisyQuadratic, Sampled
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.tasks import make_task
from gradwire.sim.training.batches import Batches
from gradwire.sim.training.plan import Training
from gradwire.sim.training.record import Trace
from gradwire.sim.training.train import train

WORKERS, BATCH, STEPS, RATE = 3, 5, 25, 0.15
TASKS = {
    "logistic": ("weights", make_task("logistic", {"regularisation": 0.01})),
    "quadratic": ("position", make_task("quadratic", {"dimension": 12, "examples": 120})),
}
SCHEMES = [
    "dense", "topk(density=0.3)", "qsgd(bits=4)", "randomblock(density=0.3)", "wangni(density=0.4)",
    "ef(topk(density=0.3))", "ef(randomk(density=0.3))", "ef(scaledsign)", "ef(gtopk(density=0.3))",
    "ef21(topk(density=0.3))", "lowpass(topk(density=0.3))",
]  # fmt: skip
TRAINER_ALONE = {"curvature", "curvature_error", "example_noise2", "within2"}
"""What the laboratory does not measure."""


class Shuffled(Sampled):
    """Workers that draw the trainer's examples."""

    def rows(self, x: Tensor, step: int, seed: int) -> Tensor:
        with torch.no_grad():
            self._parameter.copy_(x)
        drawn = Batches(len(self._split), WORKERS, BATCH, seed).indices(step, tuple(range(WORKERS)))
        return self._stacked(self._split.take(drawn), step).rows[self._name]


def test_what_is_drawn_is_not_exact_though_no_run_shows_it():
    """Of a vector with one entry, random-k of one in a hundred loses everything nearly always."""
    start = torch.zeros(100)
    start[0] = 1.0
    problem = NoisyQuadratic(torch.ones(100), 0.0, 1, start)
    evidence = lab.Trial(problem, parse_scheme("randomk(density=0.01)"), (1.0,) * 3, (0, 1)).run()
    assert evidence.traces[0].loss.tolist() == evidence.traces[1].loss.tolist() == [0.5] * 4
    assert not evidence.exact
    assert lab.Trial(problem, parse_scheme("topk(density=0.01)"), (1.0,) * 3, (0, 1)).run().exact


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("task", TASKS)
def test_both_record_the_same(task, scheme, monkeypatch):
    unit, made = TASKS[task]
    monkeypatch.setattr(lab, "UNIT", unit)  # whose name keys the scheme's draws
    schedule = [{"name": "ExponentialLR", "options": {"gamma": 0.95}}]
    training = Training.model_validate(
        {"workers": WORKERS, "batch_size": BATCH, "steps": STEPS, "learning_rate": RATE, "schedule": schedule,
         "dtype": "float64", "record": "theory", "seed": 7}
    )  # fmt: skip
    parsed = parse_scheme(scheme)
    trained = train(made, parsed, training).record
    rates = [RATE * 0.95**step for step in range(STEPS)]
    followed = lab.follow(Shuffled(made, task, WORKERS, BATCH), parsed, rates, seed=7)
    for name in (field.name for field in fields(Trace)):
        ours, theirs = getattr(trained, name), getattr(followed, name)
        if name in TRAINER_ALONE:
            assert np.isnan(theirs).all()
        else:
            scale = np.nanmax(np.abs(theirs), initial=0.0)
            np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-11 * scale + 1e-15, err_msg=name)
    assert np.isfinite(trained.loss).all()
    assert trained.moved2.min() > 0
