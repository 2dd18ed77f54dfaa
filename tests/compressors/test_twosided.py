"""Two-sided error feedback against a direct simulation, its law of conservation, and what it refuses."""

import math
import pickle

import numpy as np
import pytest
import torch

from gradwire.compressors.base import NonFiniteError, SchemeError, State, Turn
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.remember import remember
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.twosided import cut


def top(values: np.ndarray, density: float) -> np.ndarray:
    """Keep the largest entries of a vector, of equal ones the first."""
    kept = np.zeros_like(values)
    chosen = np.argsort(-np.abs(values), kind="stable")[: max(1, math.ceil(density * len(values)))]
    kept[chosen] = values[chosen]
    return kept


class SparsePushAndPull:
    """Aji & Heafield 2017 with N shards: workers push top-k and keep the rest, so does each shard's owner."""

    def __init__(self, workers: int, size: int, density: float) -> None:
        self.density = density
        self.shards = np.array_split(np.arange(size), workers)
        self.residual = np.zeros((workers, size))
        self.owners = np.zeros(size)

    def step(self, gradients: np.ndarray, scale: float) -> np.ndarray:
        """Return what all pull; ``scale`` converts memories to the units of this step's learning rate."""
        p, pulled = gradients + scale * self.residual, np.zeros(gradients.shape[1])
        for shard in self.shards:
            pushed = np.stack([top(row[shard], self.density) for row in p])
            self.residual[:, shard] = p[:, shard] - pushed
            q = pushed.mean(0) + scale * self.owners[shard]
            pulled[shard] = top(q, self.density)
            self.owners[shard] = q - pulled[shard]
        return pulled


def owners_of(state: State, size: int) -> torch.Tensor:
    """Return the owners' memories in the order of the unit."""
    rows = state.rows["owned"]
    return torch.cat([rows[r, : part.stop - part.start] for r, part in enumerate(cut(size, len(rows)))])


@pytest.mark.parametrize("units", ["update", "gradient"])
@pytest.mark.parametrize(("workers", "size"), [(4, 50), (3, 31), (1, 20)])
def test_with_top_k_it_is_sparse_push_and_sparse_pull_with_residuals(workers, size, units, exchange, values):
    simulation, state, last = SparsePushAndPull(workers, size, 0.1), None, 1.0
    for step, lr in enumerate((1.0, 1.0, 0.3, 0.3, 0.01, 2.0, 2.0, 0.7)):
        x = values(workers, size, seed=step, dtype=torch.float64)
        expected = simulation.step(x.numpy(), last / lr if units == "update" else 1.0)
        outcome, _ = exchange(f"twosided(topk(density=0.1), units={units})", x, state, step, lr)
        state, last = outcome.state, lr
        np.testing.assert_allclose(outcome.mean.numpy(), expected, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(state.elements["residual"].numpy(), simulation.residual, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(owners_of(state, size).numpy(), simulation.owners, rtol=1e-12, atol=1e-13)


INSIDE = ["topk(density=0.1)", "randomk(density=0.2)", "randomblock(density=0.2)", "qsgd(bits=4)", "dense(dtype=bf16)"]


@pytest.mark.parametrize("inner", INSIDE)
@pytest.mark.parametrize("shape", [(1,), (3,), (6, 3, 2, 2), (30, 4)], ids=str)
def test_nothing_is_lost_over_fifty_steps(inner, shape, exchange, values):
    size = math.prod(shape)
    means = gradients = torch.zeros(size, dtype=torch.float64)
    state = None
    for step in range(50):
        x = values(4, *shape, seed=step, dtype=torch.float64)
        outcome, _ = exchange(f"twosided({inner})", x, state, step)
        state = outcome.state
        means, gradients = means + outcome.mean.reshape(-1), gradients + x.reshape(4, -1).mean(0)
        average = outcome.sent.dense(means).mean(0)
        np.testing.assert_allclose(average.numpy(), outcome.mean.reshape(-1).numpy(), rtol=0, atol=1e-12)
    left = state.elements["residual"].mean(0) + owners_of(state, size)
    np.testing.assert_allclose((means + left).numpy(), gradients.numpy(), rtol=0, atol=1e-11)
    assert float(gradients.abs().max()) > 1


def test_a_lossless_codec_leaves_nothing_in_memory(exchange, values):
    x = values(4, 37, dtype=torch.float64)
    outcome, _ = exchange("twosided(dense)", x)
    np.testing.assert_allclose(outcome.mean.numpy(), x.mean(0).numpy(), rtol=0, atol=1e-15)
    assert not outcome.state.elements["residual"].any()
    assert not outcome.state.rows["owned"].any()


def test_wire_is_chunks_there_and_one_chunk_back(exchange, values):
    """50 values in chunks of 13, 13, 12, 12: two entries of each, of 4 bytes and indices of 4 bits; a flag back."""
    _, log = exchange("twosided(topk(density=0.1))", values(4, 50))
    there, back = log.collectives
    assert (there.operation, there.sent_bytes) == ("all-to-all", (4 * (2 * 4 + 1),) * 4)
    assert (back.operation, back.sent_bytes) == ("all-gather", (8 + 2 * 4 + 1 + 1,) * 4)


@pytest.mark.parametrize("workers", [2, 5, 8])
def test_fewer_values_than_workers(workers, exchange, values):
    state, total = None, torch.zeros(3, dtype=torch.float64)
    for step in range(6):
        x = values(workers, 3, seed=step, dtype=torch.float64)
        outcome, _ = exchange("twosided(topk(density=0.5))", x, state, step)
        state, total = outcome.state, total + x.mean(0) - outcome.mean
    left = state.elements["residual"].mean(0) + owners_of(state, 3)
    np.testing.assert_allclose(left.numpy(), total.numpy(), rtol=0, atol=1e-13)


def test_owners_draw_from_streams_of_their_own(exchange, values):
    """With one worker both sides compress the same chunk; the second must not repeat the first one's draws."""
    x = values(1, 400)
    once, _ = exchange("randomk(density=0.5)", x)
    outcome, _ = exchange("twosided(randomk(density=0.5))", x)
    # About half of the half: the same draws again would keep all 200.
    assert 60 < int((outcome.mean != 0).sum()) < 140
    assert int((once.mean != 0).sum()) == 200


def test_a_step_at_rate_zero_sends_and_changes_nothing(exchange, values):
    state = exchange("twosided(topk(density=0.1))", values(4, 50), None, 0, 0.5)[0].state
    kept = {**state.elements, **state.rows}
    idle, log = exchange("twosided(topk(density=0.1))", values(4, 50, seed=1), state, 1, 0.0)
    assert log.collectives == ()
    assert not idle.mean.any()
    for key, value in {**idle.state.elements, **idle.state.rows}.items():
        assert torch.equal(value, kept[key])


def test_parameters_that_stand_still_keep_both_memories(exchange, values):
    """A whole chunk with rate 0, and some entries of others."""
    rates = torch.ones(40, dtype=torch.float64)
    rates[:10] = rates[25] = 0
    state = exchange("twosided(topk(density=0.1))", values(4, 40, dtype=torch.float64))[0].state
    residual, owned = state.elements["residual"].clone(), owners_of(state, 40)
    x = values(4, 40, seed=1, dtype=torch.float64)
    outcome, _ = exchange("twosided(topk(density=0.1))", x, state, 1, rates)
    still = rates == 0
    assert torch.equal(outcome.state.elements["residual"][:, still], residual[:, still])
    assert torch.equal(owners_of(outcome.state, 40)[still], owned[still])
    assert not outcome.mean[still].any()
    left = outcome.state.elements["residual"].mean(0) + owners_of(outcome.state, 40) + outcome.mean
    put_in = x.mean(0) + residual.mean(0) + owned
    np.testing.assert_allclose(left[~still].numpy(), put_in[~still].numpy(), rtol=0, atol=1e-13)


def test_goes_on_from_a_checkpoint(exchange, values):
    straight, stopped = None, None
    for step in range(5):
        x = values(4, 50, seed=step)
        one, _ = exchange("twosided(qsgd(bits=3))", x, straight, step)
        two, _ = exchange("twosided(qsgd(bits=3))", x, stopped, step)
        straight = one.state
        parts = [two.state.take(slice(0, 1)), two.state.take(slice(1, 4))]
        stopped = State.from_dict(pickle.loads(pickle.dumps(State.join(parts).state_dict())))
        assert torch.equal(one.mean, two.mean)


@pytest.mark.parametrize("inner", ["powersgd", "gtopk", "ef(topk)", "twosided(topk)"])
def test_goes_around_codecs_without_memory_only(inner):
    with pytest.raises(
        SchemeError, match="must be a scheme of one round that remembers nothing|already has (this|a) memory"
    ):
        parse_scheme(f"twosided({inner})")


def test_error_feedback_around_it_is_refused():
    with pytest.raises(SchemeError, match="already has a memory"):
        remember(ErrorFeedback(), parse_scheme("twosided(topk)"))


def test_a_codec_that_can_expand_is_refused(values):
    with pytest.raises(SchemeError, match=r"^twosided\(qsgd\(bits=2"):
        parse_scheme("twosided(qsgd(bits=2, norm=l2))").init((500,), 4, values(500))


@pytest.mark.parametrize("text", ["twosided(topk(density=0.05))", "twosided(qsgd(bits=3), units=gradient)"])
def test_text_form_round_trips(text):
    assert str(parse_scheme(text)) == text
    assert [part.name for part in parse_scheme(text).parts()] == ["twosided", text[9:13]]


def test_non_finite_averages_are_refused(exchange):
    """Each gradient is finite, their sum is not, and the owner would hide it."""
    from gradwire.compressors.base import NonFiniteError

    with pytest.raises(NonFiniteError):
        exchange("twosided(topk(density=0.5))", torch.full((2, 4), 3e38))


def test_a_turn_without_rank_zero_serves_its_own_chunks(values):
    """Rows of a later process: the chunks that its workers own are the last ones."""
    scheme = parse_scheme("twosided(topk(density=0.5))")
    x = values(2, 10)
    rounds = scheme.rounds(x, scheme.init((10,), 2, x[0]), Turn(1, 0, "u", (2, 3), 4))
    request = next(rounds)
    assert request.payload.fixed(0).shape == (2, 4 * 2)


def test_regression_what_overflows_at_a_chunks_owner_is_told_to_all(exchange):
    """Each worker's values are finite; their sum, which only the owner computes, is not."""
    x = torch.full((2, 6), 3e38)
    x[:, 3:] = 1.0
    with pytest.raises(NonFiniteError, match=r"twosided\(topk\(density=0.4\)\) makes an infinity .* on worker 0$"):
        exchange("twosided(topk(density=0.4))", x)
