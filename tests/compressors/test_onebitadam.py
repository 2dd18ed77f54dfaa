"""1-bit Adam, the scheme and its optimizer together, against the algorithm written anew in float64."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from gradwire.compressors.base import SchemeError, State
from gradwire.compressors.onebitadam import OneBitAdamScheme
from gradwire.compressors.optimizers import OneBitAdam
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.training.optimizers import OptimizerError, make_optimizer
from gradwire.sim.training.plan import Training

LR, BETAS, EPS = 0.05, (0.9, 0.99), 1e-8


class Reference:
    """Tang et al. 2021, Algorithm 1, one unit, N workers, chunks that are whole bytes of signs."""

    def __init__(self, workers: int, size: int, freeze: int, scale: str) -> None:
        self.workers, self.freeze, self.scale = workers, freeze, scale
        length = 8 * math.ceil(size / (8 * workers))
        self.chunks = [np.arange(size)[r * length : (r + 1) * length] for r in range(workers)]
        self.m, self.v = np.zeros(size), np.zeros(size)
        self.worker_error, self.server_error = np.zeros((workers, size)), np.zeros(size)
        self.x, self.t = np.zeros(size), 0

    def compress(self, values: np.ndarray) -> np.ndarray:
        size = np.sqrt(np.mean(values**2)) if self.scale == "rms" else np.mean(np.abs(values))
        return np.where(values >= 0, size, -size)

    def step(self, gradients: np.ndarray) -> None:
        if self.t < self.freeze:
            g = gradients.mean(0)
            self.m = BETAS[0] * self.m + (1 - BETAS[0]) * g
            self.v = BETAS[1] * self.v + (1 - BETAS[1]) * g**2
        else:
            corrected = BETAS[0] * self.m + (1 - BETAS[0]) * gradients + self.worker_error
            sent = np.stack([self.compress(row) for row in corrected])
            self.worker_error = corrected - sent
            for chunk in self.chunks:
                if len(chunk):
                    own = sent[:, chunk].mean(0) + self.server_error[chunk]
                    self.m[chunk] = self.compress(own)
                    self.server_error[chunk] = own - self.m[chunk]
        self.t += 1
        self.x = self.x - LR * self.m / (np.sqrt(self.v) + EPS)


def train(workers: int, shape: tuple[int, ...], freeze: int, scale: str, steps: int, exchange, values):
    """Return parameter and state after some steps, and the reference after the same."""
    scheme = OneBitAdamScheme(freeze_step=freeze, beta1=BETAS[0], scale=scale)
    parameter = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = OneBitAdam([parameter], lr=LR, betas=BETAS, eps=EPS, freeze_step=freeze)
    scheme.check_optimizer(optimizer)
    reference, state = Reference(workers, math.prod(shape), freeze, scale), None
    for step in range(steps):
        x = values(workers, *shape, seed=step, dtype=torch.float64) + torch.linspace(-1, 1, math.prod(shape)).view(
            shape
        )
        outcome, log = exchange(scheme, x, state, step, LR)
        state = outcome.state
        parameter.grad = outcome.mean
        optimizer.step()
        reference.step(x.reshape(workers, -1).numpy())
        assert [c.operation for c in log.collectives] == (
            ["all-reduce"] if step < freeze else ["all-to-all", "all-gather"]
        )
    return parameter.detach(), state, reference


@pytest.mark.parametrize("scale", ["rms", "mean"])
@pytest.mark.parametrize(
    ("workers", "shape"), [(4, (5, 13)), (3, (100,)), (1, (11,)), (6, (7,)), (4, (1200,))], ids=str
)
def test_it_is_algorithm_1_for_any_number_of_workers(workers, shape, scale, exchange, values):
    """12 steps after the freeze; signs agree as long as no value is within rounding of 0."""
    x, state, reference = train(workers, shape, 5, scale, 17, exchange, values)
    np.testing.assert_allclose(x.reshape(-1).numpy(), reference.x, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state.shared["momentum"].numpy(), reference.m, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(state.elements["error"].numpy(), reference.worker_error, rtol=1e-10, atol=1e-12)
    owned = [row[: len(chunk)] for row, chunk in zip(state.rows["owned"].numpy(), reference.chunks, strict=True)]
    np.testing.assert_allclose(np.concatenate(owned), reference.server_error, rtol=1e-10, atol=1e-12)


def test_before_the_freeze_it_is_adam_without_bias_correction(exchange, values):
    x, _, _ = train(4, (30,), 100, "rms", 40, exchange, values)
    own, m, v = np.zeros(30), np.zeros(30), np.zeros(30)
    for step in range(40):
        g = (values(4, 30, seed=step, dtype=torch.float64) + torch.linspace(-1, 1, 30)).mean(0).numpy()
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        own -= LR * m / (np.sqrt(v) + EPS)
    np.testing.assert_allclose(x.numpy(), own, rtol=1e-12, atol=1e-14)


def test_nothing_is_lost_after_the_freeze(exchange, values):
    """The sum of what workers wanted to send, beta1 m + (1 - beta1) g, is in the means and the memories."""
    scheme, state, wanted, means = OneBitAdamScheme(1), None, torch.zeros(50).double(), torch.zeros(50).double()
    for step in range(50):
        x = values(4, 50, seed=step, dtype=torch.float64)
        before = torch.zeros(50) if state is None else state.shared["momentum"]
        outcome, _ = exchange(scheme, x, state, step)
        state = outcome.state
        if step:
            wanted, means = wanted + 0.9 * before + 0.1 * x.mean(0), means + outcome.mean
    owned = torch.cat([state.rows["owned"][r, : max(0, min(16, 50 - 16 * r))] for r in range(4)])
    np.testing.assert_allclose((means + state.elements["error"].mean(0) + owned).numpy(), wanted.numpy(), atol=1e-12)


def test_bytes_of_either_phase(exchange, values):
    """100 values of 4 workers: chunks of 32, 4 bytes of signs, a scale of 4 bytes with each."""
    state = exchange("onebitadam(freeze_step=1)", values(4, 100))[0].state
    _, log = exchange("onebitadam(freeze_step=1)", values(4, 100), state, 1)
    assert [c.sent_bytes for c in log.collectives] == [(4 * (4 + 4),) * 4, (8 + 4 + 4,) * 4]


@pytest.mark.parametrize("scale", ["rms", "mean"])
def test_regression_padding_has_no_part_in_a_scale(scale, exchange):
    """Of 9 equal values on one worker, the 7 zeros that fill the second byte would pull both scales down."""
    text, x = f"onebitadam(freeze_step=1, beta1=0, scale={scale})", torch.full((1, 9), 0.7, dtype=torch.float64)
    state = exchange(text, x)[0].state
    outcome, _ = exchange(text, x, state, 1)
    torch.testing.assert_close(outcome.mean, x[0], rtol=1e-15, atol=0)
    assert float(outcome.state.elements["error"].abs().max()) < 1e-15


def test_rms_keeps_the_norm_and_mean_errs_least(values):
    x = values(1, 1000, dtype=torch.float64)
    found = {}
    for scale in ("rms", "mean"):
        _, _, sent = OneBitAdamScheme(scale=scale)._signs(x, torch.tensor([1000]))
        found[scale] = sent
    assert float(found["rms"].norm()) == pytest.approx(float(x.norm()), rel=1e-14)
    size = float(x.abs().mean())
    assert float(found["mean"].abs().max()) == pytest.approx(size, rel=1e-14)
    best = float(x.square().sum()) - 1000 * size**2
    assert float((found["mean"] - x).square().sum()) == pytest.approx(best, rel=1e-12)
    error = 2 * (1 - size * math.sqrt(1000) / float(x.norm())) * float(x.square().sum())
    assert float((found["rms"] - x).square().sum()) == pytest.approx(error, rel=1e-12)


def test_zeros_are_sent_as_plus_and_remembered_as_such(exchange):
    x = torch.tensor([[1.0, -1.0, 0.0, 0.0]], dtype=torch.float64)
    state = exchange("onebitadam(freeze_step=1, beta1=0)", x)[0].state
    outcome, _ = exchange("onebitadam(freeze_step=1, beta1=0)", x, state, 1)
    rms = math.sqrt(0.5)
    np.testing.assert_allclose(outcome.mean.numpy(), [rms, -rms, rms, rms], rtol=1e-15)
    np.testing.assert_allclose(outcome.state.elements["error"].numpy(), [[1 - rms, rms - 1, -rms, -rms]], rtol=1e-14)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: OneBitAdam(p, freeze_step=11),
        lambda p: OneBitAdam(p, freeze_step=10, betas=(0.8, 0.999)),
        lambda p: OneBitAdam(
            [{"params": p}, {"params": [nn.Parameter(torch.zeros(1))], "freeze_step": 9}], freeze_step=10
        ),
        torch.optim.Adam,
        torch.optim.SGD,
    ],
)
def test_demands_its_own_optimizer_with_the_same_numbers(optimizer):
    with pytest.raises(SchemeError, match="the optimizer must be OneBitAdam with freeze_step = 10 and"):
        OneBitAdamScheme(freeze_step=10).check_optimizer(optimizer([nn.Parameter(torch.zeros(1))]))


def test_error_feedback_around_it_is_refused(values):
    with pytest.raises(SchemeError, match="error feedback needs at most 1"):
        parse_scheme("ef(onebitadam)").init((5,), 2, values(5))


def test_an_experiment_finds_the_optimizer_by_name():
    plan = Training(
        optimizer="OneBitAdam", optimizer_options={"freeze_step": 7, "betas": [0.8, 0.9]}, learning_rate=0.1
    )
    optimizer = make_optimizer(plan, [nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, OneBitAdam)
    OneBitAdamScheme(freeze_step=7, beta1=0.8).check_optimizer(optimizer)
    with pytest.raises(OptimizerError, match="has no option 'freeze'; did you mean freeze_step"):
        make_optimizer(
            Training(optimizer="OneBitAdam", optimizer_options={"freeze": 7}), [nn.Parameter(torch.zeros(1))]
        )


@pytest.mark.parametrize("option", [{"lr": -1.0}, {"betas": (1.0, 0.9)}, {"eps": 0.0}, {"freeze_step": 0}])
def test_the_optimizer_refuses_numbers_out_of_range(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} = .* must be"):
        OneBitAdam([nn.Parameter(torch.zeros(1))], **option)


def test_the_optimizer_goes_on_from_its_state_dict(values):
    def steps(optimizer: OneBitAdam, parameter: nn.Parameter, numbers: range) -> None:
        for seed in numbers:
            parameter.grad = values(5, seed=seed)
            optimizer.step()

    straight = nn.Parameter(torch.zeros(5))
    steps(OneBitAdam([straight], freeze_step=3), straight, range(6))
    parameter = nn.Parameter(torch.zeros(5))
    first = OneBitAdam([parameter], freeze_step=3)
    steps(first, parameter, range(2))
    again = OneBitAdam([parameter], freeze_step=3)
    again.load_state_dict(first.state_dict())
    steps(again, parameter, range(2, 6))
    assert torch.equal(parameter, straight)


def test_a_state_survives_a_checkpoint(exchange, values):
    state = exchange("onebitadam(freeze_step=1)", values(4, 50))[0].state
    state = exchange("onebitadam(freeze_step=1)", values(4, 50), state, 1)[0].state
    again = State.join([state.take(slice(0, 3)), state.take(slice(3, 4))])
    one, _ = exchange("onebitadam(freeze_step=1)", values(4, 50, seed=2), state, 2)
    two, _ = exchange("onebitadam(freeze_step=1)", values(4, 50, seed=2), again, 2)
    assert torch.equal(one.mean, two.mean)
