"""ATOMO against its paper: the law of the atoms, exact expectations, bytes, and mistakes of other implementations."""

import itertools

import numpy as np
import pytest
import torch
from scipy.fft import dct
from scipy.stats import binom

from gradwire.compressors.base import SchemeError, State, Turn
from gradwire.compressors.lowrank import atomo
from gradwire.compressors.lowrank.atomo import Atomo
from gradwire.compressors.payload import Ragged
from gradwire.compressors.sparsifiers.waterfill import probabilities

LEVEL = 1e-9
"""Chance of a test's comparisons to fail although the scheme is right."""


def algorithm_1(magnitudes: list[float], budget: float) -> np.ndarray:
    """Wang et al. 2018, Algorithm 1, step by step."""
    order = np.argsort(-np.asarray(magnitudes), kind="stable")
    p, s = np.zeros(len(magnitudes)), budget
    for i, place in enumerate(order):
        rest = sum(magnitudes[j] for j in order[i:])
        if magnitudes[place] * s <= rest:
            for j in order[i:]:
                p[j] = magnitudes[j] * s / rest if rest else 0.0
            return p
        p[place], s = 1.0, s - 1
    return p


def turn(step: int = 0, workers: int = 1) -> Turn:
    return Turn(1, step, "u", tuple(range(workers)), workers)


def coordinates(scheme: Atomo, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return rows [R, *shape] in the scheme's orthonormal basis for x, computed by other means."""
    if scheme.basis == "singular":
        values, left = np.linalg.eigh(x @ x.T)  # of the smaller side, so that all vectors are determined
        left = left[:, ::-1]
        right = left.T @ x / np.sqrt(values[::-1])[:, None]
        return np.einsum("ai,rab,ib->ri", left, rows, right)
    flat = rows.reshape(len(rows), -1)
    if scheme.basis == "elements":
        return flat
    n, k = flat.shape[1], np.arange(flat.shape[1])
    waves = np.sqrt(2 / n) * np.cos(np.pi * (k[None] + 0.5) * k[:, None] / n)
    waves[0] /= np.sqrt(2)
    return flat @ waves.T


SCHEMES = [
    Atomo(budget=2),
    Atomo(budget=4.5),
    Atomo(budget=1 / 3),
    Atomo(budget=6, basis="elements"),
    Atomo(budget=6, basis="cosine"),
    Atomo(budget=300, basis="elements", unit="bytes"),
    Atomo(budget=516, unit="bytes"),
]


def budget_in_atoms(scheme: Atomo) -> float:
    """For a unit of 6 x 9 values of 8 bytes, with a header of 8 bytes and 8 for the length of each buffer."""
    if scheme.unit == "atoms":
        return scheme.budget
    if scheme.basis == "singular":
        return (scheme.budget - 16) / ((6 + 9 + 1) * 8)
    return (scheme.budget - 24) / (8 + 6 / 8)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_atom_is_sent_with_its_probability_and_divided_by_it(scheme, values):
    """So the expectation is x and the mean squared error is the sum of lambda^2 (1 / p - 1), both exactly."""
    x = values(6, 9, dtype=torch.float64)
    x[0] *= 5  # so that some atoms are certain
    own = coordinates(scheme, x.numpy(), x[None].numpy())[0]
    p = algorithm_1(list(np.abs(own)), budget_in_atoms(scheme))
    np.testing.assert_allclose(p.sum(), budget_in_atoms(scheme), rtol=1e-12)
    draws = 1500
    drawn = many_draws(scheme, x, draws).numpy()
    found = coordinates(scheme, x.numpy(), drawn.reshape(draws, 6, 9))
    hit = np.abs(found) > np.abs(own) / 2
    np.testing.assert_allclose(found, np.where(hit, own / p, 0), rtol=0, atol=1e-11 * np.abs(own / p).max())
    tail = 2 * np.minimum(binom.cdf(hit.sum(0), draws, p), binom.sf(hit.sum(0) - 1, draws, p))
    assert tail.min() > LEVEL / len(p)
    assert (p == 1).any() == bool(hit.all(0).any())


def many_draws(scheme: Atomo, x: torch.Tensor, workers: int) -> torch.Tensor:
    """Return what as many workers send of the same values, [workers, n]."""
    _, sent, _ = scheme.encode(x.expand(workers, *x.shape), State(), turn(workers=workers))
    return sent.dense(x.reshape(-1))


@pytest.mark.parametrize("basis", ["singular", "elements", "cosine"])
def test_the_expectation_over_all_draws_is_the_input(basis, values, monkeypatch):
    """All 2^4 outcomes of the draws with their probabilities, for both workers at once."""
    shape = {"singular": (4, 5)}.get(basis, (4,))
    x = values(2, *shape, dtype=torch.float64)
    scheme = Atomo(budget=1.5, basis=basis)
    expectation, seen = torch.zeros(2, x[0].numel(), dtype=torch.float64), []
    for outcome in itertools.product([False, True], repeat=4):

        def drawn(p, _, outcome=outcome):
            seen.append(p)
            return torch.tensor(outcome).expand_as(p)

        monkeypatch.setattr(atomo, "_draw", drawn)
        _, sent, _ = scheme.encode(x, State(), turn(workers=2))
        happened = torch.tensor(outcome)
        chance = torch.where(happened, seen[-1], 1 - seen[-1]).prod(1, keepdim=True)
        expectation += chance * sent.dense(x[0].reshape(-1))
    torch.testing.assert_close(expectation.view_as(x), x, rtol=1e-12, atol=1e-12)


def test_regression_one_shot_clipping_spends_less_than_the_budget():
    """min(1, s lambda / sum) of (10, 1, 1, 1) and s = 2 adds up to 1.46; Algorithm 1 gives 1, 1/3, 1/3, 1/3."""
    p = probabilities(torch.tensor([[10.0, 1.0, 1.0, 1.0]]), 2)
    np.testing.assert_allclose(p[0].numpy(), [1, 1 / 3, 1 / 3, 1 / 3], rtol=1e-15)
    x = torch.diag(torch.tensor([10.0, 1, 1, 1])).expand(900, 4, 4)
    payload, _, _ = Atomo(2).encode(x, State(), turn(workers=900))
    atoms = sum(payload.row_bytes) // (4 * 9)
    # One atom is certain; the number of others is binomial(2700, 1/3), its standard deviation 24.5.
    assert abs(atoms - 1800) < 6.2 * 24.5


def test_regression_drawing_again_when_nothing_was_drawn_is_biased():
    """Two atoms of p = 1/4 each are both missing with probability 9/16, and then nothing is sent."""
    totals = many_draws(Atomo(budget=0.5), torch.diag(torch.tensor([3.0, 3.0])), 600).sum(1).numpy()
    empty = 600 - np.count_nonzero(totals)
    tail = 2 * min(binom.cdf(empty, 600, 9 / 16), binom.sf(empty - 1, 600, 9 / 16))  # (1 - 1/4)^2
    assert tail > LEVEL


def test_regression_the_number_of_atoms_is_not_forced_to_the_rank(values):
    """Drawing until there are exactly `rank` atoms changes their probabilities, of which the values are divided."""
    payload, _, _ = Atomo(budget=3).encode(values(8, 8).expand(60, 8, 8), State(), turn(workers=60))
    assert {length // (4 * 17) for length in payload.row_bytes} >= {2, 3, 4}


def test_qsgd_with_one_level_and_terngrad_are_special_cases(values):
    """Section 5 of the paper: with the budgets ||g||_1 / ||g||_2 and ||g||_1 / ||g||_inf, p is |g| over that norm."""
    g = values(200, dtype=torch.float64).abs()
    for norm in (g.norm(), g.max()):
        p = probabilities(g[None], float(g.sum() / norm))
        np.testing.assert_allclose(p[0].numpy(), (g / norm).numpy(), rtol=1e-12)
        second_moment = float((g.square() / p[0]).sum())
        assert second_moment == pytest.approx(float(g.sum() * norm), rel=1e-12)


@pytest.mark.parametrize("basis", ["singular", "elements", "cosine"])
def test_error_bound_is_attained_by_equal_atoms(basis):
    x = torch.eye(6, dtype=torch.float64)
    if basis == "cosine":
        x = torch.from_numpy(dct(np.eye(36)[:6].sum(0), type=3, norm="ortho")).view(6, 6)  # six equal waves
    scheme, atoms = Atomo(budget=2, basis=basis), {"singular": 6}.get(basis, 36)
    assert scheme.error_bound((6, 6)) == pytest.approx(atoms / 2 - 1)
    p = algorithm_1(list(np.abs(coordinates_of(scheme, x))), 2)
    variance = np.sum(coordinates_of(scheme, x)[p > 0] ** 2 * (1 / p[p > 0] - 1))
    assert variance <= scheme.error_bound((6, 6)) * float(x.square().sum()) * (1 + 1e-12)
    if basis == "singular":
        assert variance == pytest.approx(scheme.error_bound((6, 6)) * 6)


def coordinates_of(scheme: Atomo, x: torch.Tensor) -> np.ndarray:
    return (
        np.linalg.svd(x.numpy())[1]
        if scheme.basis == "singular"
        else coordinates(scheme, x.numpy(), x[None].numpy())[0]
    )


@pytest.mark.parametrize("basis", ["singular", "elements", "cosine"])
def test_a_budget_of_all_atoms_sends_the_input(basis, exchange, values):
    x = values(3, 5, 7, dtype=torch.float64)
    outcome, _ = exchange(Atomo(budget=100, basis=basis), x)
    torch.testing.assert_close(outcome.mean, x.mean(0), rtol=0, atol=1e-13)
    assert Atomo(budget=100, basis=basis).error_bound((5, 7)) == 0


@pytest.mark.parametrize("shape", [(9,), (1, 9), (9, 1)], ids=str)
def test_what_has_one_singular_atom_travels_as_it_is(shape, exchange, values):
    x = values(2, *shape)
    outcome, log = exchange("atomo(budget=0.5)", x)
    assert torch.equal(outcome.mean, (x[0] + x[1]) / 2)
    assert [c.sent_bytes for c in log.collectives] == [(8 + 36,) * 2]


@pytest.mark.parametrize("basis", ["singular", "elements", "cosine"])
@pytest.mark.parametrize("budget", [200.0, 420.0])
def test_a_budget_in_bytes_is_met_on_average(basis, budget, values):
    scheme, x = Atomo(budget=budget, basis=basis, unit="bytes"), values(12, 20)
    assert scheme.wire_bytes((12, 20)) == pytest.approx(budget)
    payload, _, _ = scheme.encode(x.expand(600, 12, 20), State(), turn(workers=600))
    fixed = 16 if basis == "singular" else 24  # the header, and the length of each buffer
    sizes = fixed + np.array(payload.row_bytes)
    # Indices are padded to whole bytes, half a byte on average. The variance of a sum of independent draws is known.
    own = coordinates_of(scheme, x.double())
    atom = {"singular": 33 * 4}.get(basis, 5)
    p = algorithm_1(list(np.abs(own)), (budget - fixed) / atom)
    deviation = atom * np.sqrt(np.sum(p * (1 - p)) / 600)
    assert abs(sizes.mean() - budget) < 6.2 * deviation + 0.5


def test_a_budget_below_the_header_is_refused(values):
    with pytest.raises(SchemeError, match=r"atomo: budget = 16 is out of range: budget must be above 16 bytes"):
        Atomo(budget=16, unit="bytes").init((3, 4), 2, values(3, 4))


def test_wire_form_is_u_scale_v(values):
    """A receiver needs nothing else: the triplets of the payload add up to what was sent."""
    x = values(1, 4, 6, dtype=torch.float64)
    payload, sent, _ = Atomo(budget=2.5).encode(x, State(), turn())
    (buffer,) = payload.buffers
    assert isinstance(buffer, Ragged)
    triplets = buffer.row(0).view(-1, 4 + 1 + 6).numpy()
    assert len(triplets)
    total = sum(t[4] * np.outer(t[:4], t[5:]) for t in triplets)
    np.testing.assert_allclose(sent.dense(x[0].view(-1)).view(4, 6).numpy(), total, atol=1e-14)
    np.testing.assert_allclose([np.linalg.norm(t[:4]) for t in triplets], 1, rtol=1e-14)


def test_zero_gradients_send_nothing(exchange):
    for basis in ("singular", "elements", "cosine"):
        outcome, log = exchange(Atomo(budget=2, basis=basis), torch.zeros(3, 5, 6))
        assert not outcome.mean.any()
        assert log.collectives[-1].sent_bytes == (8,) * 3
