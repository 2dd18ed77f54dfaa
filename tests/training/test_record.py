"""Recording: it changes nothing that is learnt, and what it takes down is what the definitions say."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor, nn
from torch.nn import functional

from gradwire.analysis.sweep.grid import make_grid
from gradwire.compressors.base import Turn
from gradwire.compressors.drivers import Item, StackedDriver
from gradwire.compressors.errors import InputError
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.experiment import validate_experiment
from gradwire.sim.tasks import make_task
from gradwire.sim.tasks.base import Split, Splits, Task
from gradwire.sim.tasks.classification import Classification
from gradwire.sim.training.batches import Batches
from gradwire.sim.training.order import candidates
from gradwire.sim.training.plan import Training, fingerprint
from gradwire.sim.training.record import AT_ITERATES, AT_STEPS, Recorder
from gradwire.sim.training.train import check, new_model, train
from gradwire.sim.training.trajectory import Trajectory
from gradwire.sim.training.tuning import Tuning

LOGISTIC = make_task("logistic", {})
SCHEMES = [
    "dense(dtype=bf16)", "topk(density=0.2)", "randomk(density=0.25)", "randomk(density=0.25, seed=own)",
    "randomblock(density=0.3, blocks=4)", "cltk(density=0.25)", "gtopk(density=0.25)", "oktopk(density=0.25)",
    "graddrop(rate=0.8)", "sidco(density=0.1)", "dgc(density=0.1)", "wangni(density=0.5)", "qsgd(bits=4)",
    "sharedqsgd(bits=4)", "natural", "terngrad(clip=2.5)", "signum(momentum=0.9)", "powersgd(rank=2)",
    "atomo(budget=3)", "cat(operator=sq)", "topk(density=0.25) | qsgd(bits=4, bucket=7)",
    "phases(dense, topk(density=0.5) | dense(dtype=bf16), at=3)", "warmup(topk(density=0.1), start=0.5, steps=3)",
    "ef(topk(density=0.2))", "ef(randomk(density=0.2))", "ef(powersgd(rank=1))", "ef(scaledsign)",
    "ef21(topk(density=0.2))", "lowpass(topk(density=0.2))", "ef(gtopk(density=0.2))",
]  # fmt: skip


def plan(**changes) -> Training:
    defaults = {"workers": 4, "batch_size": 6, "steps": 9, "learning_rate": 0.2, "evaluate_every": 4}
    return Training.model_validate({**defaults, **changes})


class Network(nn.Module):
    """What has buffers and draws at random: normalisation by batches, and dropout."""

    def __init__(self, normalise: bool = True) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(31, 6), nn.BatchNorm1d(6) if normalise else nn.Identity()
        self.drop, self.last = nn.Dropout(0.3 if normalise else 0), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(torch.tanh(self.norm(self.first(x)))))


@dataclass(frozen=True)
class Small(Classification):
    """The data of the logistic regression, in two classes, under a small network."""

    normalise: bool = True

    def splits(self) -> Splits:
        return Splits(*(Split((s.tensors[0], (s.tensors[1] > 0).long())) for s in LOGISTIC.splits()))

    def model(self) -> nn.Module:
        return Network(self.normalise)


def both(task: Task, scheme: str, training: Training) -> tuple[Trajectory, Trajectory]:
    """Train without a record, and with one."""
    parsed = parse_scheme(scheme)
    return train(task, parsed, training), train(task, parsed, training.model_copy(update={"record": "theory"}))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_recording_changes_nothing_that_is_learnt(scheme):
    unit = "layer" if "layer" in parse_scheme(scheme).granularity else "model"
    plain, recorded = both(LOGISTIC, scheme, plan(unit=unit, message="model"))
    assert replace(recorded, record=None).to_json() == plain.to_json()
    assert plain.record is None
    assert recorded.record is not None
    np.testing.assert_array_equal(recorded.record.lr, plain.learning_rate)


@pytest.mark.parametrize("gradients", ["batched", "looped"])
@pytest.mark.parametrize("unit", ["layer", "bucket", "model"])
def test_it_leaves_buffers_dropout_and_the_global_generator_alone(gradients, unit):
    training = plan(gradients=gradients, unit=unit, message="model", optimizer_options={"momentum": 0.9})
    torch.manual_seed(5)
    before = torch.get_rng_state()
    plain, recorded = both(Small(), "ef(topk(density=0.2))", training)
    assert torch.equal(torch.get_rng_state(), before)
    assert replace(recorded, record=None).to_json() == plain.to_json()


def test_a_record_is_stored_and_read_back_and_is_not_there_without_asking():
    plain, recorded = both(Small(normalise=False), "ef(topk(density=0.2))", plan())
    assert '"record"' not in plain.to_json()
    again = Trajectory.from_json(recorded.to_json())
    assert again.to_json() == recorded.to_json()
    for name, values in vars(recorded.record).items():
        np.testing.assert_array_equal(getattr(again.record, name), values)


def test_recorded_or_not_is_part_of_the_fingerprint():
    prints = {fingerprint("task", "dense", plan(record=record), torch.device("cpu")) for record in ("none", "theory")}
    assert len(prints) == 2


# ------------------------------------------------------------------------------------------------ the definitions


def test_logistic_regression_by_its_formulas():
    """Loss, gradients and noise of every step, from the data in numpy alone."""
    training = plan(dtype="float64", record="theory", schedule=[{"name": "ExponentialLR", "options": {"gamma": 0.9}}])
    trace = train(LOGISTIC, parse_scheme("topk(density=0.2)"), training).record
    features, labels = (t.double().numpy() for t in LOGISTIC.splits().train.tensors)
    rows, batches = features * labels[:, None], Batches(len(features), 4, 6, 0)

    def gradients(x: np.ndarray) -> np.ndarray:
        return LOGISTIC.regularisation * x - expit(-(rows @ x))[:, None] * rows

    last = None
    for step in range(10):
        x = trace.position[step]
        every = gradients(x)
        whole = every.mean(0)
        value = np.logaddexp(0, -rows @ x).mean() + LOGISTIC.regularisation / 2 * x @ x
        noise = np.square(every - whole).sum(1).mean()
        assert [trace.loss[step], trace.gradient2[step], trace.example_noise2[step]] == pytest.approx(
            [value, whole @ whole, noise], rel=1e-10
        )
        if last is not None:
            expected = np.linalg.norm(whole - last[1]) / np.linalg.norm(x - last[0])
            assert trace.secant[step] == pytest.approx(expected, rel=1e-9)
            assert trace.secant[step] ** 2 == pytest.approx(trace.turned2[step - 1] / trace.moved2[step - 1], rel=1e-9)
        last = x, whole
        if step < 9:
            own = every[batches.indices(step, (0, 1, 2, 3)).numpy()]  # [4, 6, 31]
            g, halves = own.mean(1), own[:, :3].mean(1) - own[:, 3:].mean(1)
            assert trace.noise2[step] == pytest.approx(np.square(g - whole).sum(1).mean(), rel=1e-10)
            assert trace.spread2[step] == pytest.approx(np.square(g - g.mean(0)).sum(1).mean(), rel=1e-10)
            assert trace.within2[step] == pytest.approx(np.square(halves).sum(1).mean() / 4, rel=1e-10)
            assert trace.lr[step] == pytest.approx(0.2 * 0.9**step)
    assert np.isnan(trace.curvature).all()  # a convex task's is known


def test_a_network_is_measured_at_evaluations_alone():
    training = plan(dtype="float64", record="theory", learning_rate=0.5)
    task = Small(normalise=False)
    trace = train(task, parse_scheme("dense"), training).record
    for name in ("loss", "gradient2", "curvature", "curvature_error"):
        assert np.flatnonzero(np.isfinite(getattr(trace, name))).tolist() == [0, 4, 8, 9], name
    assert np.flatnonzero(np.isfinite(trace.secant)).tolist() == [4, 8, 9]
    assert np.flatnonzero(np.isfinite(trace.noise2)).tolist() == [0, 4, 8]
    assert np.flatnonzero(np.isfinite(trace.within2)).tolist() == [0, 4, 8]
    assert trace.position is None
    model, split = new_model(task, training), task.splits().train.to(dtype=torch.float64)
    loss = functional.cross_entropy(model(split.tensors[0]), split.tensors[1])
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert trace.loss[0] == pytest.approx(loss.item(), rel=1e-12)
    assert trace.gradient2[0] == pytest.approx(float(gradient @ gradient), rel=1e-10)


def test_the_iterate_is_in_the_order_of_the_units():
    """Without error, plain SGD's step is the mean gradient, wherever each unit begins."""
    for unit in ("layer", "bucket", "model"):
        training = plan(dtype="float64", record="theory", unit=unit, message="model")
        trace = train(Small(normalise=False), parse_scheme("ef(topk(density=0.3))"), training).record
        assert trace.identity.max() < 1e-13
        assert trace.memory2[1:].min() > 0


@pytest.mark.parametrize("units", ["update", "gradient"])
def test_error_feedback_in_either_unit_by_hand(units):
    """Both are the same method at a constant rate: p = g + e / lr, and the rest is remembered."""
    scheme = parse_scheme(f"ef(topk(density=0.2), units={units})")
    trace = train(LOGISTIC, scheme, plan(dtype="float64", record="theory")).record
    data, split = Batches(455, 4, 6, 0), LOGISTIC.splits().train.to(dtype=torch.float64)
    model, e = LOGISTIC.model().double(), np.zeros((4, 31))
    for step in range(9):
        g = np.stack([
            torch.autograd.grad(LOGISTIC.loss(model, split.take(batch)), model.weights)[0].numpy()
            for batch in data.indices(step, (0, 1, 2, 3))
        ])  # fmt: skip
        p = g + e / 0.2
        rest = p.copy()
        np.put_along_axis(rest, np.argsort(-np.abs(p), axis=1)[:, :7], 0, axis=1)  # 20 % of 31, rounded up
        lost, whole = np.square(rest).sum(1), np.square(p).sum(1)
        assert trace.input2[step] == pytest.approx(whole.mean(), rel=1e-10)
        assert trace.lost2[step] == pytest.approx(lost.mean(), rel=1e-10)
        assert trace.worst_ratio[step] == pytest.approx((lost / whole).max(), rel=1e-10)
        e = 0.2 * rest
        assert trace.memory2[step + 1] == pytest.approx(np.square(e).sum(1).mean(), rel=1e-10)
        np.testing.assert_allclose(trace.memory[step + 1], e.mean(0), rtol=1e-9, atol=1e-14)
        with torch.no_grad():
            model.weights -= 0.2 * torch.from_numpy((p - rest).mean(0))
    assert trace.identity.max() < 1e-14


def test_at_a_rate_of_0_nothing_is_compressed():
    schedule = [{"name": "CosineAnnealingLR", "options": {"T_max": 4}}]
    training = plan(dtype="float64", record="theory", schedule=schedule)
    trace = train(LOGISTIC, parse_scheme("ef(topk(density=0.2))"), training).record
    assert trace.lr[4] == trace.input2[4] == trace.lost2[4] == trace.worst_ratio[4] == trace.moved2[4] == 0
    assert trace.memory2[5] == trace.memory2[4] > 0
    assert trace.input2[[3, 5]].min() > 0


def test_single_examples_have_no_halves():
    trace = train(LOGISTIC, parse_scheme("dense"), plan(batch_size=1, record="theory")).record
    assert np.isnan(trace.within2).all()


def test_what_a_memory_of_another_kind_lost_is_not_known():
    trace = train(LOGISTIC, parse_scheme("lowpass(topk(density=0.2))"), plan(record="theory")).record
    assert np.isnan(trace.worst_ratio).all()
    assert np.isnan(trace.lost2).all()


# ---------------------------------------------------------------------------------------------------------- its ends


@pytest.mark.parametrize("task", [make_task("quadratic", {"dimension": 8, "examples": 64}), Small(normalise=False)])
def test_a_diverged_training_keeps_its_steps(task):
    training = plan(learning_rate=1e12, steps=60, record="theory", optimizer_options={"weight_decay": 1.0})
    trajectory = train(task, parse_scheme("ef(topk(density=0.5))"), training)
    assert trajectory.diverged
    trace, steps = trajectory.record, len(trajectory.logs)
    assert {len(getattr(trace, name)) for name in AT_STEPS} == {steps}
    assert {len(getattr(trace, name)) for name in AT_ITERATES} == {steps + 1}
    np.testing.assert_array_equal(trace.lr, trajectory.learning_rate[:steps])


def test_several_processes_are_refused():
    with pytest.raises(
        InputError, match="^training.record = 'theory': needs all workers in one process, and training.processes = 2"
    ):
        validate_experiment({"schemes": ["dense"], "training": {"record": "theory", "processes": 2}})
    with pytest.raises(InputError, match="training.record"):
        validate_experiment({"schemes": ["dense"], "training": {"record": "everything"}})


def test_sweeps_are_refused():
    for data, axes in (
        ({"training": {"record": "theory"}}, {"seed": [0, 1]}),
        ({"training": {}}, {"training.record": ["none", "theory"]}),
    ):
        with pytest.raises(InputError, match="training.record: a sweep keeps results of trainings and no traces"):
            make_grid({"schemes": ["dense"], **data}, axes)


def test_only_the_training_that_counts_is_recorded():
    tried = list(candidates(plan(record="theory"), Tuning(learning_rates=(0.1, 0.2))))
    assert {own.record for _, own in tried} == {"none"}


def test_a_task_that_cannot_be_measured_is_told_before_training():
    @dataclass(frozen=True)
    class OnlySingle(type(LOGISTIC)):
        def loss(self, model, batch):
            if batch[0].dtype == torch.float64:
                raise RuntimeError("no double here")
            return super().loss(model, batch)

    with pytest.raises(InputError, match="no double here"):
        check(OnlySingle(), parse_scheme("dense"), plan(record="theory"))
    check(OnlySingle(), parse_scheme("dense"), plan())


def test_of_a_step_that_did_not_end_the_start_alone_is_kept():
    recorder = Recorder(workers=1, parameters=2, vectors=True)
    scheme, driver, x = parse_scheme("dense"), StackedDriver(1), torch.zeros(2, dtype=torch.float64)
    for step in range(2):
        recorder.begin(x, 0.0, x, 0.1)
        rows = torch.ones(1, 2, dtype=torch.float64)
        turn = Turn(0, step, "x", (0,), 1, 0.1)
        (outcome,), _ = driver.exchange([Item(rows, scheme, scheme.init((2,), 1, x), turn)])
        recorder.exchanged(0, rows, scheme, turn, outcome)
        if step == 0:
            recorder.end(8.0)
            x = x - 0.1
    trace = recorder.finish(x, 0.0, x)
    assert [len(trace.lr), len(trace.identity), len(trace.loss), len(trace.position)] == [1, 1, 2, 2]
    assert trace.moved2.tolist() == pytest.approx([0.02])
