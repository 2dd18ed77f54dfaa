"""Training: against plain SGD written out, over processes, with schedules, divergence and bad plans."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradwire.compressors.base import SchemeError
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.tasks import make_task
from gradwire.sim.tasks.base import Split, Splits, Task
from gradwire.sim.training.batches import Batches, TooFewExamplesError
from gradwire.sim.training.optimizers import OptimizerError
from gradwire.sim.training.plan import Schedule, Training
from gradwire.sim.training.spread import train_spread
from gradwire.sim.training.train import DeviceError, check, find_device, new_model, train
from gradwire.sim.training.trajectory import Trajectory

LOGISTIC = make_task("logistic", {})
QUADRATIC = make_task("quadratic", {"dimension": 12, "examples": 64})


def plan(**changes) -> Training:
    defaults = {
        "workers": 4, "batch_size": 4, "steps": 12, "learning_rate": 0.2, "evaluate_every": 5, "dtype": "float64"
    }  # fmt: skip
    return Training.model_validate({**defaults, **changes})


def by_hand(task: Task, training: Training) -> tuple[list[float], Tensor]:
    """Plain SGD with the mean gradient of all workers' batches, by autograd on the joint batch."""
    model = new_model(task, training)
    split = task.splits().train.to(dtype=torch.float64)
    data = Batches(len(split), training.workers, training.batch_size, training.seed)
    losses = []
    for step in range(training.steps):
        indices = data.indices(step, tuple(range(training.workers)))
        loss = task.loss(model, split.take(indices.reshape(-1)))
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(training.learning_rate * gradient)
    return losses, next(model.parameters()).detach()


@pytest.mark.parametrize("task", [LOGISTIC, QUADRATIC], ids=["logistic", "quadratic"])
@pytest.mark.parametrize("unit", ["layer", "bucket", "model"])
def test_dense_training_is_sgd_on_the_joint_batch(task, unit):
    training = plan(unit=unit, message=unit)
    losses, _ = by_hand(task, training)
    trajectory = train(task, parse_scheme("dense"), training)
    np.testing.assert_allclose(trajectory.train_loss, losses, rtol=1e-11, atol=1e-13)
    assert trajectory.status == "completed"
    assert trajectory.evaluations.steps.tolist() == [0, 5, 10, 12]
    assert len(trajectory.logs) == 12


def test_keeping_everything_is_dense_training():
    training = plan()
    dense = train(LOGISTIC, parse_scheme("dense"), training)
    for text in ("ef(topk(density=1))", "ef(randomblock(density=1))", "randomk(density=1)"):
        trajectory = train(LOGISTIC, parse_scheme(text), training)
        np.testing.assert_allclose(trajectory.train_loss, dense.train_loss, rtol=1e-11)


def test_error_feedback_is_the_papers_memory_sgd_under_a_falling_rate():
    """Stich et al. 2018: g = comp(m + lr grad), m = m + lr grad - g, x = x - mean g, each worker with its own m."""
    training = plan(steps=30, schedule=[{"name": "ExponentialLR", "options": {"gamma": 0.9}}])
    trajectory = train(QUADRATIC, parse_scheme("ef(topk(density=0.25))"), training)
    model = new_model(QUADRATIC, training)
    parameter = next(model.parameters())
    split = QUADRATIC.splits().train.to(dtype=torch.float64)
    data = Batches(len(split), 4, 4, 0)
    memory = np.zeros((4, 12))
    for step in range(30):
        losses, sent, rate = [], np.zeros(12), 0.2 * 0.9**step
        for worker in range(4):
            loss = QUADRATIC.loss(model, split.take(data.indices(step, (worker,))[0]))
            losses.append(loss.item())
            memory[worker] += rate * torch.autograd.grad(loss, parameter)[0].numpy().reshape(-1)
            largest = np.argsort(-np.abs(memory[worker]), kind="stable")[:3]
            sent[largest] += memory[worker][largest] / 4
            memory[worker][largest] = 0
        assert trajectory.train_loss[step] == pytest.approx(np.mean(losses), rel=1e-9, abs=1e-12)
        assert trajectory.learning_rate[step] == pytest.approx(rate, rel=1e-12)
        with torch.no_grad():
            parameter -= torch.from_numpy(sent).view_as(parameter)
    assert np.abs(memory).max() > 0


def test_same_seed_same_bits_and_other_seeds_differ():
    runs = [train(LOGISTIC, parse_scheme("qsgd(bits=4)"), plan(seed=seed)) for seed in (0, 0, 1)]
    assert runs[0].to_json() == runs[1].to_json()
    assert runs[0].digest != runs[2].digest


def test_momentum_and_schedule_are_torchs_own():
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    phases = [
        {"name": "LinearLR", "options": {"start_factor": 0.25, "total_iters": 4}, "until": 4},
        {"name": "CosineAnnealingLR", "options": {"T_max": 8}},
    ]
    training = plan(optimizer_options=options, schedule=phases)
    trajectory = train(LOGISTIC, parse_scheme("dense"), training)
    model = new_model(LOGISTIC, training)
    split = LOGISTIC.splits().train.to(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, **options)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=4),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8),
        ],
        milestones=[4],
    )
    data = Batches(len(split), 4, 4, 0)
    for step in range(12):
        loss = LOGISTIC.loss(model, split.take(data.indices(step, (0, 1, 2, 3)).reshape(-1)))
        assert trajectory.train_loss[step] == pytest.approx(loss.item(), rel=1e-10)
        assert trajectory.learning_rate[step] == optimizer.param_groups[0]["lr"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop", "Adagrad"])
def test_other_optimizers_train(optimizer):
    trajectory = train(LOGISTIC, parse_scheme("ef(topk(density=0.2))"), plan(optimizer=optimizer, steps=40))
    assert trajectory.train_loss[-5:].mean() < 0.7 * trajectory.train_loss[:2].mean()


# ------------------------------------------------------------------------------------------------------- divergence


def test_divergence_ends_the_training_and_is_said():
    trajectory = train(QUADRATIC, parse_scheme("dense"), plan(learning_rate=1e6, steps=200))
    assert trajectory.diverged
    assert "is not finite" in trajectory.status
    assert len(trajectory.logs) < 200
    assert len(trajectory.train_loss) == len(trajectory.logs) + 1
    assert not math.isfinite(trajectory.train_loss[-1])
    again = Trajectory.from_json(trajectory.to_json())
    assert again.to_json() == trajectory.to_json()


@dataclass(frozen=True)
class Spiky(Task):
    """A loss whose value is finite while its gradient is not: |x|^0.5 at 0, from the third batch on."""

    metric = "loss"
    higher_is_better = False

    def splits(self) -> Splits:
        values = torch.arange(64, dtype=torch.float32)
        return Splits(Split((values,)), Split((values,)), Split((values,)))

    def model(self) -> nn.Module:
        line = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(line.weight)
        return line

    def loss(self, model, batch: tuple[Tensor, ...]) -> Tensor:
        return model(batch[0][:, None]).abs().sqrt().mean()


def test_a_gradient_that_is_not_finite_is_found_where_the_loss_is():
    trajectory = train(Spiky(), parse_scheme("randomk(density=0.5)"), plan())
    assert trajectory.status.startswith("diverged at step 0: the gradient of weight holds an infinity or a NaN")


# -------------------------------------------------------------------------------------------------- several processes


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["ef(topk(density=0.2))", "qsgd(bits=4, bucket=16)", "dense"])
def test_workers_over_two_processes_learn_the_same(scheme):
    stacked = train(LOGISTIC, parse_scheme(scheme), plan(workers=8))
    done: list[int] = []
    spread = train_spread(LOGISTIC, parse_scheme(scheme), plan(workers=8, processes=2), done.append)
    np.testing.assert_allclose(spread.train_loss, stacked.train_loss, rtol=1e-9)
    np.testing.assert_allclose(spread.evaluations.test_loss, stacked.evaluations.test_loss, rtol=1e-9)
    assert spread.logs == stacked.logs
    assert done
    assert done == sorted(done)


@pytest.mark.slow
def test_processes_agree_on_a_divergence():
    stacked = train(QUADRATIC, parse_scheme("dense"), plan(learning_rate=1e6, steps=200))
    spread = train_spread(QUADRATIC, parse_scheme("dense"), plan(learning_rate=1e6, steps=200, processes=2))
    assert spread.status == stacked.status


# ------------------------------------------------------------------------------------------------------------ batches


def test_batches_cover_an_epoch_without_overlap_and_differ_between_epochs():
    data = Batches(examples=103, workers=4, batch_size=5, seed=3)
    assert data.steps_per_epoch == 5
    epochs = [torch.stack([data.indices(step, (0, 1, 2, 3)) for step in range(5 * e, 5 * e + 5)]) for e in (0, 1)]
    for epoch in epochs:
        assert len(epoch.unique()) == epoch.numel() == 100
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(data.indices(2, (3,))[0], epochs[0][2][3])


def test_shards_are_those_of_a_strided_sampler():
    data = Batches(examples=40, workers=4, batch_size=5, seed=0)
    order = torch.cat([data.indices(step, (0, 1, 2, 3)).T.reshape(-1) for step in range(2)])
    for rank in range(4):
        own = torch.cat([data.indices(step, (rank,))[0] for step in range(2)])
        assert torch.equal(own, order[rank::4])


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"optimizer": "Adamm"}, OptimizerError, r"training.optimizer = 'Adamm'.*Adam"),
        ({"optimizer": "LBFGS"}, OptimizerError, "cannot be used: it evaluates the loss several times"),
        ({"optimizer_options": {"momentun": 0.9}}, OptimizerError, "no option 'momentun'; did you mean momentum"),
        ({"optimizer_options": {"momentum": -1}}, OptimizerError, "SGD refuses them"),
        ({"optimizer_options": {"betas": [0.9]}, "optimizer": "Adam"}, OptimizerError, "Adam refuses them"),
        ({"schedule": [{"name": "StepLR", "options": {"step_size": 0}}]}, OptimizerError, "SGD, StepLR fail"),
        (
            {"schedule": [{"name": "OneCycleLR", "options": {"max_lr": 1.0, "total_steps": 5}}]},
            OptimizerError,
            "OneCycleLR fail at step 5 of 12",
        ),
        (
            {"schedule": [{"name": "ExponentialLR", "options": {"gamma": -1.0}}]},
            OptimizerError,
            "learning rate of step 1 is -0.2",
        ),
        ({"schedule": [{"name": "CosineLR"}]}, OptimizerError, r"schedule\[0\].name = 'CosineLR'"),
        ({"schedule": [{"name": "LambdaLR"}]}, OptimizerError, "it takes a function"),
        ({"schedule": [{"name": "CosineAnnealingLR"}]}, OptimizerError, "refuses them.*T_max"),
        ({"schedule": [{"name": "ConstantLR", "until": 3}]}, OptimizerError, "the last phase has no end"),
        ({"schedule": [{"name": "ConstantLR"}, {"name": "ConstantLR"}]}, OptimizerError, "needs one, in rising order"),
        ({"workers": 1000}, TooFewExamplesError, "1000 workers need 4000 examples a step"),
        ({"workers": 6, "processes": 4}, SchemeError, "processes = 4 must divide training.workers = 6"),
        ({"unit": "model", "message": "bucket"}, SchemeError, "larger than message"),
    ],
)
def test_plans_that_cannot_work_are_refused_before_training(changes, error, words):
    with pytest.raises(error, match=words) as caught:
        check(LOGISTIC, parse_scheme("dense"), plan(**changes))
    assert "\n" not in str(caught.value)


def test_schemes_that_cannot_take_a_unit_are_refused_before_training():
    with pytest.raises(SchemeError, match="powersgd.*works on layer only"):
        check(LOGISTIC, parse_scheme("powersgd"), plan(unit="model", message="model"))
    with pytest.raises(SchemeError, match="error feedback needs at most 1"):
        check(LOGISTIC, parse_scheme("ef(randomk(density=0.1, scaled=True))"), plan())


def test_a_device_that_is_not_there():
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        with pytest.raises(DeviceError, match=f"finds {count} CUDA devices"):
            find_device(f"cuda:{count}")
    else:
        with pytest.raises(DeviceError, match="training.device = 'cuda'.*use 'cpu' or 'auto'"):
            find_device("cuda")
    assert find_device("cpu") == torch.device("cpu")


def test_plan_accepts_schedules_as_objects():
    assert Training(schedule=(Schedule(name="ConstantLR"),)).schedule[0].name == "ConstantLR"
