"""Numbers that the papers give or that follow from their formulas, against the schemes as they run."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradwire.compressors.base import Shape, State, Turn
from gradwire.compressors.decoded import Decoded
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.lowrank import atomo
from gradwire.compressors.lowrank.atomo import Atomo
from gradwire.compressors.payload import Payload
from gradwire.compressors.quantizers.dense import Dense
from gradwire.compressors.remember import remember

# ------------------------------------------------------------------------------------------------------ error feedback


@dataclass(frozen=True)
class Shrink(Dense):
    """C(x) = (1 - sqrt(1 - delta)) x, which loses exactly 1 - delta of the squared norm of any x."""

    delta: float = 0.5

    name = "shrink"

    def error_bound(self, shape: Shape) -> float:
        return 1 - self.delta

    def encode(self, x: Tensor, state: State, turn: Turn) -> tuple[Payload, Decoded, State]:
        return super().encode(x * (1 - math.sqrt(1 - self.delta)), state, turn)


@pytest.mark.parametrize(("delta", "steps"), [(0.75, 40), (0.5, 60), (0.1, 300)])
def test_residual_of_a_constant_gradient_reaches_the_sharp_bound(delta, steps, exchange):
    """Karimireddy et al. 2019, Lemma 3, sharpened: ||e||^2 -> (1 - delta) gamma^2 ||g||^2 / (1 - sqrt(1 - delta))^2.

    With q = sqrt(1 - delta), e_t = q (1 - q^t) / (1 - q) gamma g in units of the update.
    """
    g, gamma, q = torch.tensor([[3.0, -4.0, 12.0]], dtype=torch.float64), 0.125, math.sqrt(1 - delta)
    scheme, state = remember(ErrorFeedback(), Shrink(delta=delta)), None
    sharp = (1 - delta) * gamma**2 * 13**2 / (1 - q) ** 2
    for step in range(steps):
        state = exchange(scheme, g, state, step, gamma)[0].state
        norm = gamma * float(state.elements["residual"].norm())
        # A sum of t terms, each of them rounded three times.
        assert norm**2 == pytest.approx(sharp * (1 - q ** (step + 1)) ** 2, rel=8 * steps * 2**-53)
    assert 1 - norm**2 / sharp < 3 * q**steps
    assert norm**2 < 4 * (1 - delta) * gamma**2 * 13**2 / delta**2  # the lemma's own bound


@pytest.mark.parametrize("inner", ["topk(density=0.25)", "randomk(density=0.25)", "topk(density=0.5) | qsgd(bits=8)"])
@pytest.mark.parametrize("rates", [[2.0**-4], [2.0**-4, 2.0**-2, 2.0**-3, 2.0**-6]], ids=["constant", "changing"])
def test_weights_less_the_residual_are_those_of_sgd(inner, rates, exchange):
    """x_t - e_t = x_0 - sum of gamma_t g_t (Stich et al. 2018; Karimireddy et al. 2019), e in units of the update.

    Of whole numbers and powers of two nothing is rounded, so that the two sides are the same numbers.
    """
    rng, state = np.random.default_rng(3), None
    x = torch.zeros(16, dtype=torch.float64)
    plain = x.clone()
    exact = "qsgd" not in inner
    for step in range(40):
        lr, g = rates[step % len(rates)], torch.from_numpy(rng.integers(-99, 100, (4, 16)).astype(np.float64))
        outcome, _ = exchange(f"ef({inner})", g, state, step, lr)
        state, x, plain = outcome.state, x - lr * outcome.mean, plain - lr * g.mean(0)
        virtual = x - lr * state.elements["residual"].mean(0)
        torch.testing.assert_close(virtual, plain, rtol=0, atol=0 if exact else 1e-12)
        assert state.elements["residual"].any()


VECTORS = np.array([[-3.0, 2, 2], [2, -3, 2], [2, 2, -3]])


def three_gradients(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of f_i(x) = <v_i, x>^2 + ||x||^2 / 4, a row for each of the three workers."""
    return 2 * (VECTORS * x).sum(1, keepdims=True) * VECTORS + x / 2


@pytest.mark.parametrize("eta", [0.05, 0.001])
def test_top_1_without_error_feedback_diverges_at_any_rate(eta, exchange):
    """Beznosikov et al. 2020, the example of three workers: x grows by exactly 1 + 11 eta / 6 a step."""
    x = np.full(3, 0.7)
    for step in range(60):
        outcome, _ = exchange("topk(density=0.3)", torch.from_numpy(three_gradients(x)), None, step, eta)
        after = x - eta * outcome.mean.numpy()
        assert after / x == pytest.approx(np.full(3, 1 + 11 * eta / 6), rel=1e-14)
        x = after


def test_top_1_with_error_feedback_converges(exchange):
    """The mean's curvatures are 7/6, along (1, 1, 1), and 103/6: without compression 180 steps leave 12% of x."""
    x, state = np.full(3, 0.7), None
    start = np.linalg.norm(x)
    for step in range(180):
        outcome, _ = exchange("ef(topk(density=0.3))", torch.from_numpy(three_gradients(x)), state, step, 0.01)
        state, x = outcome.state, x - 0.01 * outcome.mean.numpy()
    assert np.linalg.norm(x) < 0.2 * start


# ---------------------------------------------------------------------------------------------------------------- EF21


def test_ef21_contracts_with_the_constants_of_its_theorems(exchange):
    """Richtárik et al. 2021 at alpha = 0.1: theta = .0513167, beta = 17.5381, sqrt(beta / theta) = 18.4868.

    On f_i(x) = (x - b_i)' A_i (x - b_i) / 2 each step keeps the lemma for every worker, G' <= (1 - theta) G + beta
    ||change of its gradient||^2, and Theorem 2's Psi' <= (1 - gamma mu) Psi with Psi = f - f* + gamma / theta mean(G).
    """
    alpha, theta, beta = 0.1, 0.0513167, 17.5381
    assert theta == pytest.approx(1 - math.sqrt(1 - alpha), rel=1e-6)
    assert beta == pytest.approx((1 - alpha) / (1 - math.sqrt(1 - alpha)), rel=1e-5)
    assert math.sqrt(beta / theta) == pytest.approx(18.4868, rel=1e-5)
    rng = np.random.default_rng(4)
    curvature, centres = rng.uniform(0.5, 1.5, (3, 20)), rng.standard_normal((3, 20))
    mean = curvature.mean(0)
    minimum = (curvature * centres).mean(0) / mean
    smooth = math.sqrt(np.mean(curvature.max(1) ** 2))
    gamma = min(1 / (mean.max() + smooth * math.sqrt(2) * 18.4868), theta / (2 * mean.min()))
    x, state, last = np.zeros(20), None, None
    for step in range(80):
        g = curvature * (x - centres)
        outcome, _ = exchange("ef21(topk(density=0.1))", torch.from_numpy(g), state, step, gamma)
        state = outcome.state
        distance = np.square(state.rows["own estimate"].numpy() - g).sum(1)
        psi = 0.5 * np.sum(mean * (x - minimum) ** 2) + gamma / theta * distance.mean()
        if last is not None:
            before, moved, psi_before = last[0], np.square(g - last[1]).sum(1), last[2]
            assert (distance <= (1 - theta) * before + beta * moved).all()
            assert psi <= (1 - gamma * mean.min()) * psi_before
        last, x = (distance, g, psi), x - gamma * outcome.mean.numpy()


# --------------------------------------------------------------------------------------------------------------- ATOMO


@pytest.mark.parametrize("basis", ["singular", "elements"])
def test_atomo_second_moment_of_an_unbalanced_vector_is_109(basis, exchange, monkeypatch):
    """Of 10, 1, 1, 1 with 2 atoms the first is certain and p = 1/3 for the others: 100 + 3^2 / (2 - 1) = 109."""
    values = torch.tensor([10.0, 1, 1, 1], dtype=torch.float64)
    x = torch.diag(values) if basis == "singular" else values
    mean, second, chances = torch.zeros(x.numel(), dtype=torch.float64), 0.0, 0.0
    for outcome in itertools.product([False, True], repeat=4):
        seen = []

        def drawn(p: Tensor, _: Turn, outcome=outcome, seen=seen) -> Tensor:
            seen.append(p[0])
            return torch.tensor([outcome])

        monkeypatch.setattr(atomo, "_draw", drawn)
        found = exchange(Atomo(2, basis), x[None])[0].mean.reshape(-1)
        chance = float(torch.where(torch.tensor(outcome), seen[0], 1 - seen[0]).prod())
        mean, second, chances = mean + chance * found, second + chance * float(found @ found), chances + chance
    assert chances == pytest.approx(1, rel=1e-14)
    torch.testing.assert_close(mean, x.reshape(-1), rtol=1e-13, atol=1e-13)
    assert second == pytest.approx(109, rel=1e-13)
