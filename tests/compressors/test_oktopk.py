"""Ok-Topk against its algorithm written anew in numpy, its volume, and the index type that loses positions."""

import numpy as np
import pytest
import torch

from gradwire.compressors.base import SchemeError, Turn
from gradwire.compressors.payload import Payload, Ragged
from gradwire.compressors.sparsifiers import oktopk
from gradwire.compressors.spec import parse_scheme


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """Return which entries are among the k of largest magnitude, of equal ones the first, and not zero."""
    chosen = np.zeros(values.shape, bool)
    chosen[np.argsort(-np.abs(values), kind="stable")[:k]] = True
    return chosen & (values != 0)


class Reference:
    """Li & Hoefler 2022, Algorithm 1, with error feedback; regions play no part in what is sent."""

    def __init__(self, workers: int, size: int, k: int, tau: int) -> None:
        self.k, self.tau, self.t = k, tau, 0
        self.residual = np.zeros((workers, size))
        self.local, self.overall = np.zeros(workers), 0.0

    def step(self, gradients: np.ndarray) -> np.ndarray:
        p = self.residual + gradients
        scales = np.abs(p).mean(1)
        chosen = np.abs(p) >= (self.local * scales)[:, None]
        for w, row in enumerate(p):
            if self.t % self.tau == 0 or not 0 < chosen[w].sum() <= 2 * self.k:
                chosen[w] = largest(row, self.k)
                self.local[w] = np.abs(row[chosen[w]]).min() / scales[w]
        total = np.where(chosen, p, 0).sum(0)
        if self.t % self.tau == 0 or not self.overall:
            survive = largest(total, self.k)
            self.overall = np.abs(total[survive]).min() / scales.sum()
        else:
            survive = (np.abs(total) >= self.overall * scales.sum()) & chosen.any(0)
        if not 0 < survive.sum() <= 2 * self.k:
            self.overall = 0.0
        self.residual = np.where(chosen & survive, 0, p)
        self.t += 1
        return np.where(survive, total, 0) / len(p)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("tau", [1, 4])
def test_it_is_the_papers_algorithm_for_any_number_of_workers(workers, tau, exchange, values):
    size, state = 600, None
    reference = Reference(workers, size, 30, tau)
    common = values(size, seed=99, dtype=torch.float64)
    for step in range(10):
        x = values(workers, size, seed=step, dtype=torch.float64) + common
        expected = reference.step(x.numpy())
        outcome, _ = exchange(f"ef(oktopk(density=0.05, tau={tau}, balance=3))", x, state, step)
        state = outcome.state
        np.testing.assert_allclose(outcome.mean.numpy(), expected, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(state.elements["residual"].numpy(), reference.residual, rtol=1e-12, atol=1e-14)


def test_regression_a_residual_is_cleared_only_where_local_and_global_choices_meet(exchange):
    """Worker 1's entry 3 is in its own top-1 but not in the global one; worker 0's entry 5 the other way round."""
    x = torch.zeros(2, 8)
    x[0, 2], x[1, 2] = 9.0, 1.0
    x[1, 3] = 5.0
    outcome, _ = exchange("ef(oktopk(density=0.125))", x)
    assert outcome.mean.tolist() == [0, 0, 4.5, 0, 0, 0, 0, 0]
    assert outcome.state.elements["residual"].tolist() == [[0] * 8, [0, 0, 1, 5, 0, 0, 0, 0]]


def test_exactly_k_are_kept_when_thresholds_are_estimated(exchange, values):
    outcome, _ = exchange("oktopk(density=0.05, tau=1)", values(4, 1000))
    assert int((outcome.mean != 0).sum()) == 50


def test_ties_do_not_send_everything(exchange):
    outcome, _ = exchange("oktopk(density=0.05)", torch.ones(4, 1000))
    assert (outcome.mean != 0).nonzero()[:, 0].tolist() == list(range(50))


def test_fewer_than_six_k_words_cross_a_workers_link_on_average(exchange, values):
    """The paper's bound, averaged over the 8 steps from one estimation to the next; a word is 4 bytes.

    A worker sends its chunks to the others; in a ring, it passes on all blocks but one of every gather.
    """
    workers, size, k = 8, 20_000, 400
    text, state, words = "ef(oktopk(density=0.02, tau=8))", None, []
    common = values(size, seed=77)
    for step in range(24):
        outcome, log = exchange(text, values(workers, size, seed=step) + common, state, step)
        state = outcome.state
        sent = np.zeros(workers)
        for c in log.collectives:
            if c.operation == "all-gather":
                sent += (workers - 1) / workers * sum(c.sent_bytes) / 4
            elif c.chunks or c.operation == "all-reduce":
                sent += np.array(c.sent_bytes) / 4
        words.append(sent.mean())
    steady = np.array(words[8:]).reshape(2, 8)  # twice from one estimation to the next
    assert (steady.mean(1) < 6 * k).all()
    assert steady.min() > k


def test_regions_get_equal_shares_of_what_workers_select(exchange, values):
    """All large entries lie in the first tenth; even cuts of the unit would give one worker almost everything."""
    x = values(4, 4000)
    x[:, :400] *= 100
    _, log = exchange("oktopk(density=0.05)", x)
    chunks = next(np.array(c.chunks) for c in log.collectives if c.chunks)
    received = chunks.sum(0) / chunks.sum()
    assert received.max() < 0.4
    assert (np.diag(chunks) == 0).all()


def test_rounds_are_as_many_as_due(exchange, values):
    state, seen = None, []
    for step in range(5):
        outcome, log = exchange("oktopk(density=0.1, tau=2, balance=4)", values(3, 400), state, step)
        state = outcome.state
        seen.append([c.operation for c in log.collectives if c.chunks or c.operation != "all-to-all"])
    both = ["all-gather", "all-gather"]  # the sizes and the entries
    assert seen == [
        ["all-reduce", "all-to-all", *both, *both],
        ["all-to-all", *both],
        ["all-to-all", *both, *both],
        ["all-to-all", *both],
        ["all-reduce", "all-to-all", *both, *both],
    ]


def test_regression_indices_beyond_2_to_the_24_are_exact():
    """As float32, 2^24 + 1 is 2^24, and 2^24 + 3 is 2^24 + 4."""
    places = torch.tensor([5, 2**24 + 1, 2**24 + 3, 2**30 + 1])
    payload = oktopk._by_region([torch.arange(4.0)], [places], torch.tensor([], dtype=torch.int64), torch.ones(1), 1)
    indices = payload.buffers[1]
    assert isinstance(indices, Ragged)
    assert indices.flat.dtype == torch.int32
    union, sums = oktopk._summed(Payload(payload.buffers), 0, 1)
    assert union.tolist() == places.tolist()
    assert sums.tolist() == [0, 1, 2, 3]


def test_a_step_of_zeros_sends_nothing_and_spoils_nothing(exchange, values):
    text = "ef(oktopk(density=0.05, tau=100))"
    state = exchange(text, torch.zeros(3, 600))[0].state
    x = values(3, 600)
    outcome, _ = exchange(text, x, state, 1)
    first, _ = exchange(text, x)
    assert torch.equal(outcome.mean, first.mean)


@pytest.mark.parametrize("option", ["density=0", "tau=0", "balance=0"])
def test_parameters_are_checked(option):
    with pytest.raises(SchemeError, match=rf"oktopk: {option.partition('=')[0]} = 0 is out of range"):
        parse_scheme(f"oktopk({option})")


def test_regression_regions_are_cut_where_the_entries_are():
    """``meta`` stands for a GPU: torch refuses to stack tensors of two devices."""
    chosen = [torch.empty(count, dtype=torch.int64, device="meta") for count in (0, 5)]
    request = next(oktopk._balanced(chosen, 12, Turn(0, 0, "u", (0, 1), 2)))
    assert request.payload.fixed(0).device.type == "meta"
