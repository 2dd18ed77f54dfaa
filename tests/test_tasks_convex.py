"""The convex tasks: their data, and their constants against independent computations in float64."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.autograd.functional import hessian
from torch.func import functional_call, grad, vmap

from gradwire.sim.tasks import Convex, TaskError, logistic, make_task
from gradwire.sim.tasks.logistic import DATA, Logistic
from gradwire.sim.tasks.quadratic import Quadratic


def objective(task: Convex):
    """Return the training objective as a function of the parameter vector in float64, and its examples."""
    train = task.splits().train.to(dtype=torch.float64)
    model = task.model().double()
    ((name, _),) = model.named_parameters()

    def value(position, *batch):
        return task.loss(lambda *inputs: functional_call(model, {name: position}, inputs), batch or train.tensors)

    return value, train


def example_gradients(task: Convex, position):
    """Return the gradient of every training example at a position, [m, d]."""
    value, train = objective(task)
    single = [tensor.unsqueeze(1) for tensor in train.tensors]
    return vmap(grad(value), in_dims=(None, *(0 for _ in single)))(position, *single)


def test_breast_cancer_data_have_the_published_statistics():
    table = np.loadtxt(DATA, delimiter=",", skiprows=1)
    assert table.shape == (569, 31)
    assert len(np.unique(table, axis=0)) == 569
    assert np.bincount(table[:, -1].astype(int)).tolist() == [357, 212]
    # Ranges of mean radius, mean texture, error of area and worst area, as the data's description gives them.
    for column, low, high in ((0, 6.981, 28.11), (1, 9.71, 39.28), (13, 6.802, 542.2), (23, 185.2, 4254.0)):
        assert (table[:, column].min(), table[:, column].max()) == (low, high)


def test_logistic_splits_are_stratified_and_standardised():
    splits = Logistic().splits()
    assert [len(split) for split in splits] == [455, 57, 57]
    for split, malignant in zip(splits, (170, 21, 21), strict=True):
        features, labels = split.tensors
        assert features.dtype == labels.dtype == torch.float32
        assert sorted(labels.unique().tolist()) == [-1, 1]
        assert (labels == 1).sum() == malignant
        assert (features[:, -1] == 1).all()
    features = splits.train.tensors[0][:, :-1].double()
    torch.testing.assert_close(features.mean(0), torch.zeros(30, dtype=torch.float64), rtol=0, atol=1e-7)
    torch.testing.assert_close(features.std(0, correction=0), torch.ones(30, dtype=torch.float64), rtol=0, atol=1e-7)
    assert len({row.numpy().tobytes() for split in splits for row in split.tensors[0]}) == 569


@pytest.mark.parametrize("regularisation", [0.002, 0.1, 1e-6])
def test_logistic_optimum_agrees_with_scipy(regularisation):
    task = Logistic(regularisation)
    features, labels = (tensor.numpy().astype(np.float64) for tensor in task.splits().train.tensors)

    def value_and_gradient(weights):
        margins = labels * (features @ weights)
        losses = np.log1p(np.exp(-np.abs(margins))) + np.maximum(-margins, 0)
        pull = labels * np.exp(-np.logaddexp(0, margins))
        slope = regularisation * weights - features.T @ pull / len(labels)
        return losses.mean() + regularisation / 2 * weights @ weights, slope

    found = minimize(
        value_and_gradient,
        np.zeros(31),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20_000, "ftol": 0, "gtol": 1e-9},
    )
    constants = task.constants()
    value, slope = value_and_gradient(constants.optimum.numpy())
    assert np.linalg.norm(slope) < 2e-12
    assert constants.optimum_value == pytest.approx(value, rel=1e-13)
    assert constants.optimum_value == pytest.approx(found.fun, rel=1e-9)
    assert constants.optimum_value <= found.fun + 1e-15
    if regularisation > 1e-3:
        np.testing.assert_allclose(constants.optimum.numpy(), found.x, atol=1e-5)
    ours, _ = objective(task)
    assert ours(constants.optimum).item() == pytest.approx(value, rel=1e-13)


def test_logistic_curvature_lies_between_its_constants():
    task = Logistic(0.01)
    constants = task.constants()
    value, _ = objective(task)
    at_zero = torch.linalg.eigvalsh(hessian(value, torch.zeros(31, dtype=torch.float64)))
    assert at_zero[-1].item() == pytest.approx(constants.smoothness, rel=1e-12)
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 1.0, 10.0, 1000.0):
        position = scale * torch.randn(31, generator=generator, dtype=torch.float64)
        eigenvalues = torch.linalg.eigvalsh(hessian(value, position))
        assert eigenvalues[0] >= constants.strong_convexity * (1 - 1e-9)
        assert eigenvalues[-1] <= constants.smoothness
    # Far out the logistic loss is flat, so that only the penalty's curvature is left.
    assert eigenvalues[0].item() == pytest.approx(constants.strong_convexity, rel=1e-6)


def test_gradient_noise_is_that_of_the_examples():
    for task in (Logistic(), Quadratic(dimension=20, noise=0.5)):
        constants = task.constants()
        gradients = example_gradients(task, constants.optimum)
        deviations = gradients - gradients.mean(0)
        assert deviations.square().sum(1).mean().item() == pytest.approx(constants.gradient_noise, rel=1e-6)


def test_logistic_learns_and_counts_right_answers():
    task = Logistic()
    train, _, test = task.splits()
    model = task.model()
    with torch.no_grad():
        next(model.parameters()).copy_(task.constants().optimum)
    features, labels = (tensor.numpy() for tensor in test.tensors)
    right = np.mean(np.sign(features @ next(model.parameters()).detach().numpy()) == labels)
    evaluation = task.evaluate(model, test)
    assert evaluation.metric == pytest.approx(right)
    assert evaluation.metric > 0.9
    assert task.evaluate(model, train).loss == pytest.approx(task.constants().optimum_value, rel=1e-5)


def test_logistic_says_when_the_optimum_is_out_of_reach(monkeypatch):
    monkeypatch.setattr(logistic, "GRADIENT_NORM", 0.0)
    with pytest.raises(TaskError, match=r"^task\.regularisation = 0\.002: too small to find the optimum to a gradient"):
        Logistic().constants()


@pytest.mark.parametrize("rotated", [True, False])
def test_quadratic_is_what_its_fields_say(rotated):
    task = Quadratic(dimension=12, smoothness=4.0, strong_convexity=1e-5, rotated=rotated, noise=2.0, examples=30)
    constants = task.constants()
    value, train = objective(task)
    start = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    curvature = hessian(value, start)
    expected = np.geomspace(1e-5, 4.0, 12)
    np.testing.assert_allclose(torch.linalg.eigvalsh(curvature).numpy(), expected, rtol=1e-6)
    assert (constants.smoothness, constants.strong_convexity) == (4.0, 1e-5)
    diagonal = torch.diag(torch.diagonal(curvature))
    assert torch.equal(curvature, diagonal) != rotated
    # The textbook form, 1/2 x^T A x - b^T x, differs by a constant.
    linear = curvature @ constants.optimum
    textbook = start @ curvature @ start / 2 - linear @ start
    least = -(constants.optimum @ linear) / 2
    assert value(start).item() == pytest.approx((textbook - least).item(), rel=1e-12)
    assert value(constants.optimum).item() == constants.optimum_value == 0
    noise = train.tensors[0]
    torch.testing.assert_close(
        example_gradients(task, start), curvature @ (start - constants.optimum) + noise, rtol=1e-12, atol=1e-12
    )


def test_quadratic_noise_sums_to_exactly_zero():
    task = Quadratic(dimension=5, noise=3.0, examples=200)
    noise = task.splits().train.tensors[0]
    assert noise.shape == (200, 5)
    assert all(sum(map(Fraction, column)) == 0 for column in noise.T.tolist())
    assert noise.double().square().sum(1).mean().item() == pytest.approx(9, rel=1e-6)
    assert np.linalg.matrix_rank(noise.numpy()) == 5
    assert Quadratic(noise=0.0).splits().train.tensors[0].abs().max() == 0


def test_quadratic_is_evaluated_without_noise():
    task = Quadratic(dimension=10, noise=5.0)
    constants = task.constants()
    model = task.model()
    position = next(model.parameters())
    train, validation, test = task.splits()
    assert position.abs().max() == 0
    for _ in range(3000):
        position.data -= grad(lambda x: functional_call(model, {"position": x}, validation.tensors).mean())(
            position.data
        )
    assert task.evaluate(model, test).metric < 1e-12
    torch.testing.assert_close(position.data.double(), constants.optimum, rtol=0, atol=1e-5)
    position.data += 0.5
    exact = task.evaluate(model, validation)
    assert exact.loss == exact.metric
    assert task.evaluate(model, train).loss == pytest.approx(exact.loss, abs=1e-5)


def test_quadratic_draws_are_keyed_by_the_data_seed():
    first, same, other = (Quadratic(dimension=6, data_seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.constants().optimum, same.constants().optimum)
    assert not torch.equal(first.constants().optimum, other.constants().optimum)
    # More examples or a lower curvature move neither the optimum nor the axes.
    more = make_task("quadratic", {"dimension": 6, "data_seed": 1, "examples": 10, "smoothness": 2.0})
    assert torch.equal(first.constants().optimum, more.constants().optimum)
    assert first.digest() == same.digest() != other.digest()
    assert math.isclose(first.constants().gradient_noise, 1.0)
