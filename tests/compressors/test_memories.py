"""Memories other than plain error feedback: decay, the low pass and EF21, against their recursions in float64."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gradwire.compressors.base import SchemeError
from gradwire.compressors.feedback import EF21, ErrorFeedback, LowPass
from gradwire.compressors.quantizers.dense import Dense
from gradwire.compressors.remember import remember
from gradwire.compressors.spec import parse_scheme

WORKERS, SIZE, STEPS = 3, 40, 25
RATES = [0.1, 0.1, 0.05, 0.2, 0.0, 0.2, *[0.01] * 19]


def top(x: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Keep the k largest magnitudes of each row."""
    out = np.zeros_like(x)
    for row, kept in zip(x, out, strict=True):
        chosen = np.argsort(-np.abs(row), kind="stable")[:k]
        kept[chosen] = row[chosen]
    return out


def gradients() -> NDArray[np.float64]:
    return np.random.default_rng(1).standard_normal((STEPS, WORKERS, SIZE))


def play(text, exchange, rates=RATES):
    """Return means, sent rows and memories of all steps."""
    state, means, sent, states = None, [], [], []
    for step, x in enumerate(gradients()):
        outcome, _ = exchange(text, torch.from_numpy(x), state, step, lr=rates[step])
        state = outcome.state
        means.append(outcome.mean.numpy().copy())
        sent.append(outcome.sent.dense(outcome.mean).numpy())
        states.append({**state.elements, **state.rows, **state.shared})
        states[-1] = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in states[-1].items()}
    return np.array(means), np.array(sent), states


@pytest.mark.parametrize("units", ["update", "gradient"])
def test_decay_forgets_what_waits(units, exchange):
    means, _, _ = play(f"ef(topk(density=0.1), units={units}, decay=0.8)", exchange)
    residual, last = np.zeros((WORKERS, SIZE)), 1.0
    for mean, x, lr in zip(means, gradients(), RATES, strict=True):
        if units == "update" and lr == 0:
            assert not mean.any()
            continue
        p = x + 0.8 * (last / lr if units == "update" else 1) * residual
        sent = top(p, 4)
        residual, last = p - sent, lr
        np.testing.assert_allclose(mean, sent.mean(0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("units", ["update", "gradient"])
@pytest.mark.parametrize("beta", [0.1, 0.6, 1])
def test_low_pass_follows_its_recursion(beta, units, exchange):
    means, sent, _ = play(f"lowpass(topk(density=0.1), beta={beta}, units={units})", exchange)
    memory, last = np.zeros((WORKERS, SIZE)), 1.0
    for mean, own, x, lr in zip(means, sent, gradients(), RATES, strict=True):
        if units == "update" and lr == 0:
            assert not mean.any()
            continue
        memory = memory * (last / lr if units == "update" else 1)
        expected = top(x + memory, 4)
        memory, last = memory + beta * (x - expected), lr
        np.testing.assert_allclose(own, expected, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "inner", ["topk(density=0.1)", "randomk(density=0.1)", "powersgd(rank=1)", "dense(dtype=bf16)"]
)
def test_low_pass_conserves_what_is_put_in(inner, exchange):
    """Sum of means + average memory / beta = sum of average inputs, at a constant rate."""
    state, means, total = None, 0.0, 0.0
    for step, x in enumerate(gradients()):
        outcome, _ = exchange(f"lowpass({inner}, beta=0.3)", torch.from_numpy(x).view(WORKERS, 5, 8), state, step)
        state = outcome.state
        means, total = means + outcome.mean.reshape(-1), total + x.mean(0)
    memory = state.elements["residual"].mean(0) / 0.3
    rounding = 1e-11 if "bf16" not in inner else WORKERS * 2.0**-8 * STEPS * 5  # sums of bf16 are rounded to bf16
    assert np.abs((means + memory).numpy() - total).max() < rounding


def test_low_pass_of_1_is_error_feedback(exchange):
    one, two = play("lowpass(topk(density=0.1), beta=1)", exchange), play("ef(topk(density=0.1))", exchange)
    assert np.array_equal(one[0], two[0])


@pytest.mark.parametrize("memory", ["ef", "lowpass"])
def test_rates_that_differ_between_parameters(memory, exchange):
    """Two halves with rates of their own, one standing still at times, equal two units with one rate each."""
    scheme = f"{memory}(dense(dtype=bf16))"
    rates = [(0.1, 0.3), (0.2, 0.3), (0.0, 0.1), (0.4, 0.2), (0.4, 0.0), (0.1, 0.1)]
    whole, halves = None, [None, None]
    for step, pair in enumerate(rates):
        x = torch.from_numpy(gradients()[step]).float()
        rate = torch.tensor(pair).repeat_interleave(SIZE // 2)
        outcome, _ = exchange(scheme, x, whole, step, lr=rate)
        whole = outcome.state
        for i, lr in enumerate(pair):
            part = x[:, i * 20 : i * 20 + 20]
            own, _ = exchange(scheme, part, halves[i], step, lr=float(torch.tensor(lr)))
            halves[i] = own.state
            torch.testing.assert_close(outcome.mean[i * 20 : i * 20 + 20], own.mean, rtol=2**-7, atol=2**-7)


def test_ef21_follows_algorithm_2(exchange):
    means, sent, states = play("ef21(topk(density=0.1))", exchange)
    own, shared = np.zeros((WORKERS, SIZE)), np.zeros(SIZE)
    for mean, c, state, x in zip(means, sent, states, gradients(), strict=True):
        expected = top(x - own, 4)
        own, shared = own + expected, shared + expected.mean(0)
        np.testing.assert_allclose(c, expected, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(mean, shared, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(state["own estimate"].numpy(), own, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(state["own estimate"].mean(0).numpy(), shared, atol=1e-13)


@pytest.mark.parametrize("inner", ["topk(density=0.2)", "randomk(density=0.2)", "powersgd(rank=1)", "qsgd(bits=8)"])
def test_ef21_shared_estimate_is_the_average_of_the_workers(inner, exchange):
    state = None
    for step, x in enumerate(gradients()):
        values = torch.from_numpy(x).view(WORKERS, 5, 8)
        before = 0 if state is None else state.rows["own estimate"].clone()
        outcome, _ = exchange(f"ef21({inner})", values, state, step)
        state = outcome.state
        own = state.rows["own estimate"]
        torch.testing.assert_close(own, before + outcome.sent.dense(outcome.mean.reshape(-1)), rtol=0, atol=1e-13)
        torch.testing.assert_close(own.mean(0).view(5, 8), outcome.mean, rtol=0, atol=1e-12)


def test_ef21_converges_linearly_where_compressed_gradient_descent_stalls(exchange):
    """Theorem 2: with alpha = k / n the Lyapunov function shrinks by 1 - gamma mu a step, workers' minima differing.

    f_i(x) = (x - b_i)' A_i (x - b_i) / 2 with diagonal A_i; mu and L are the extreme curvatures of the mean.
    """
    rng = np.random.default_rng(2)
    curvature, centres = rng.uniform(0.5, 1.5, (WORKERS, SIZE)), rng.standard_normal((WORKERS, SIZE))
    mean = curvature.mean(0)
    minimum = (curvature * centres).mean(0) / mean
    alpha = 8 / SIZE
    theta, beta = 1 - math.sqrt(1 - alpha), (1 - alpha) / (1 - math.sqrt(1 - alpha))
    smooth = math.sqrt(np.mean(curvature.max(1) ** 2))
    rate = min(1 / (mean.max() + smooth * math.sqrt(2 * beta / theta)), theta / (2 * mean.min()))

    def values(point):
        return curvature * (point - centres)

    def lyapunov(point, own):
        gap = 0.5 * np.sum(mean * (point - minimum) ** 2)
        return gap + rate / theta * np.mean(np.sum((own - values(point)) ** 2, axis=1))

    point, state = np.zeros(SIZE), None
    for step in range(200):
        outcome, _ = exchange("ef21(topk(density=0.2))", torch.from_numpy(values(point)), state, step, lr=rate)
        state = outcome.state
        if step == 0:
            start = lyapunov(point, state.rows["own estimate"].numpy())
        assert lyapunov(point, state.rows["own estimate"].numpy()) <= start * (1 - rate * mean.min()) ** step * 1.000001
        point = point - rate * outcome.mean.numpy()


def test_ef21_says_that_it_estimates():
    scheme = parse_scheme("ef21(topk)")
    assert scheme.law == "estimate"
    assert parse_scheme("lowpass(topk)").law == "mean of sent"


@pytest.mark.parametrize("memory", [ErrorFeedback(), LowPass(), EF21()], ids=lambda memory: memory.name)
def test_what_expands_or_votes_or_estimates_is_refused(memory):
    class Votes(Dense):
        @property
        def law(self):
            return "vote"

    refused = {
        parse_scheme("qsgd(bits=2)"): r"can be 10.8 times its input's squared norm",
        parse_scheme("topk(density=0.1) | qsgd(bits=2)"): r"can be 10.8 times",
        parse_scheme("phases(qsgd(bits=2), topk, at=10)"): r"the error of qsgd\(bits=2\) can be 10.8 times",
        Votes(): rf"^{memory.name}\(dense\(dtype=native\)\): .* needs the mean .* \(law: vote\)$",
    }
    for scheme, reason in refused.items():
        with pytest.raises(SchemeError, match=reason):
            remember(memory, scheme).init((10_000,), 2, torch.zeros(()))


@pytest.mark.parametrize("text", ["ef(ef21(topk))", "ef21(ef(topk))", "lowpass(ef(topk))", "ef(warmup(dgc))"])
def test_no_memory_goes_around_another(text):
    with pytest.raises(SchemeError, match="already has a memory|write the memory"):
        parse_scheme(text)
