"""gTop-k and CLT-k against their definitions, written anew with dictionaries and exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from gradwire.compressors.base import SchemeError, State, Turn
from gradwire.compressors.drivers import Frame, Item, StackedDriver
from gradwire.compressors.registry import SCHEMES
from gradwire.compressors.requests import Permute
from gradwire.compressors.spec import parse_scheme

Entries = dict[int, Fraction]


def largest(entries: Entries, k: int) -> Entries:
    """Keep the k entries of largest magnitude, of equal ones those with the lowest index."""
    chosen = sorted(entries, key=lambda i: (-abs(entries[i]), i))[:k]
    return {i: entries[i] for i in chosen}


def plus(one: Entries, other: Entries, sign: int = 1) -> Entries:
    return {i: one.get(i, Fraction(0)) + sign * other.get(i, Fraction(0)) for i in {*one, *other}}


def tree(rows: list[Entries], k: int) -> tuple[Entries, list[Entries]]:
    """Return the root's sums and each worker's contribution: what it offered, less what its own merges have dropped."""
    held = [largest(row, k) for row in rows]
    sent = list(held)
    distance = 1
    while distance < len(rows):
        for root in range(0, len(rows) - distance, 2 * distance):
            merged = plus(held[root], held[root + distance])
            held[root] = largest(merged, k)
            sent[root] = plus(sent[root], {i: v for i, v in merged.items() if i not in held[root]}, -1)
        distance *= 2
    return held[0], sent


def whole_numbers(workers: int, size: int, seed: int = 0) -> torch.Tensor:
    """Return small whole numbers, with ties and cancellations, whose sums are exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-9, 10, (workers, size), generator=generator).float()


def dense(entries: Entries, size: int) -> list[float]:
    return [float(entries.get(i, 0)) for i in range(size)]


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13])
@pytest.mark.parametrize("density", [0.05, 0.3])
def test_gtopk_is_the_tree_of_merges_for_any_number_of_workers(workers, density, exchange):
    size, k = 40, {0.05: 2, 0.3: 12}[density]
    for seed in range(5):
        x = whole_numbers(workers, size, seed)
        total, sent = tree([{i: Fraction(int(v)) for i, v in enumerate(row)} for row in x], k)
        outcome, _ = exchange(f"gtopk(density={density})", workers * x)  # so that the mean is whole, too
        assert outcome.mean.tolist() == dense(total, size)
        assert outcome.sent.dense(x[0]).tolist() == [dense(plus({}, row), size) for row in scaled(sent, workers)]


def scaled(rows: list[Entries], factor: int) -> list[Entries]:
    return [{i: factor * v for i, v in row.items()} for row in rows]


def test_gtopk_by_hand(exchange):
    """Worker 0 drops 3 + 1 at position 0, of which it owns 3: it takes back its own 3 and holds 1 of worker 1's."""
    x = torch.tensor([[3.0, 5.0, 0.0, 0.0], [1.0, 0.0, 9.0, 0.0]])
    outcome, _ = exchange("gtopk(density=0.5)", x)
    assert outcome.mean.tolist() == [0, 2.5, 4.5, 0]
    assert outcome.sent.dense(x[0]).tolist() == [[-1, 5, 0, 0], [1, 0, 9, 0]]
    outcome, _ = exchange("ef(gtopk(density=0.5))", x)
    assert outcome.state.elements["residual"].tolist() == [[4, 0, 0, 0], [0, 0, 0, 0]]


def test_gtopk_sends_a_dropped_sum_again(exchange):
    """What was dropped is in the memory of the worker that dropped it, which offers the whole sum at the next step."""
    x = torch.tensor([[3.0, 5.0, 0.0, 0.0], [1.0, 0.0, 9.0, 0.0]])
    state = exchange("ef(gtopk(density=0.5))", x)[0].state
    outcome, _ = exchange("ef(gtopk(density=0.5))", torch.zeros(2, 4), state, 1)
    assert outcome.mean.tolist() == [2, 0, 0, 0]


@pytest.mark.parametrize("workers", range(1, 10))
def test_gtopk_takes_log2_rounds_of_fixed_size_and_a_broadcast(workers, exchange, values):
    _, log = exchange("gtopk(density=0.1)", values(workers, 100))
    entries = 10 * 4 + 9  # ten values, ten indices of 7 bits
    *rounds, last = log.collectives
    assert len(rounds) == int(np.ceil(np.log2(workers)))
    assert sum(sum(c.sent_bytes) for c in rounds) == (workers - 1) * (8 + entries)
    senders = [worker for c in rounds for worker, sent in enumerate(c.sent_bytes) if sent]
    assert sorted(senders) == list(range(1, workers))  # everyone but the root sends exactly once
    assert (last.operation, last.peers) == ("broadcast", (0,))
    assert last.sent_bytes == (entries,) + (0,) * (workers - 1)


def test_regression_gtopk_loses_no_mass_that_the_tree_drops(exchange, values):
    """Released code that clears all of a worker's own top-k loses what higher merges drop."""
    state, means, inputs = None, torch.zeros(60, dtype=torch.float64), torch.zeros(60, dtype=torch.float64)
    for step in range(50):
        x = values(5, 60, seed=step, dtype=torch.float64)
        outcome, _ = exchange("ef(gtopk(density=0.05))", x, state, step)
        state = outcome.state
        assert int((outcome.mean != 0).sum()) == 3  # exactly k
        means, inputs = means + outcome.mean, inputs + x.mean(0)
    np.testing.assert_allclose(means + state.elements["residual"].mean(0), inputs, rtol=0, atol=1e-12)


def test_gtopk_merges_without_dense_vectors(exchange, values, monkeypatch):
    """Of 2^20 values a merge touches the k = 11 of either side: tensors made while merging stay that small."""
    from gradwire.compressors.sparsifiers import gtopk

    made: list[int] = []
    real = gtopk._Held.merged

    def watched(self, indices, values, k):
        merged = real(self, indices, values, k)
        made.extend(t.untyped_storage().nbytes() for t in vars(merged).values())
        return merged

    monkeypatch.setattr(gtopk._Held, "merged", watched)
    exchange("gtopk(density=0.00001)", values(4, 2**20))
    assert made
    assert max(made) <= 8 * 2 * 3 * 11


# --------------------------------------------------------------------------------------------------------------- CLT-k


def test_cltk_sends_the_leaders_positions_of_everyone(exchange, values):
    for step in range(5):
        x = values(3, 50, seed=step, dtype=torch.float64)
        outcome, log = exchange("cltk(density=0.1)", x, step=step)
        leader = step % 3
        places = sorted(np.argsort(-x[leader].abs().numpy())[:5])
        expected = np.zeros((3, 50))
        expected[:, places] = x.numpy()[:, places]
        assert np.array_equal(outcome.sent.dense(x[0]).numpy(), expected)
        np.testing.assert_allclose(outcome.mean.numpy(), expected.mean(0), rtol=1e-15)
        broadcast, reduction = log.collectives
        assert broadcast.peers == (leader,)
        assert broadcast.sent_bytes[leader] == sum(broadcast.sent_bytes) == 4  # five indices of six bits
        assert (reduction.operation, reduction.sent_bytes) == ("all-reduce", (40,) * 3)


def test_cltk_bytes_do_not_grow_with_the_number_of_workers(exchange, values):
    for workers in (2, 8, 32):
        _, log = exchange("cltk(density=0.1)", values(workers, 1000))
        assert max(sum(c.sent_bytes[w] for c in log.collectives) for w in range(workers)) == 100 * 4 + 125


def test_cltk_is_top_k_where_workers_agree(exchange, values):
    """Perfectly alike memories: the case for which the paper proves top-k's contraction."""
    x = values(1, 80).expand(4, -1)
    for step in range(3):
        one, _ = exchange("ef(cltk(density=0.05))", x, step=step)
        two, _ = exchange("ef(topk(density=0.05))", x, step=step)
        assert torch.equal(one.mean, two.mean)


@pytest.mark.parametrize("name", ["cltk", "gtopk"])
@pytest.mark.parametrize("density", [0.0, 1.1, -1.0])
def test_density_is_checked(name, density):
    with pytest.raises(SchemeError, match=rf"{name}: density = .* must be in \(0, 1\]"):
        SCHEMES[name](density=density)


def test_only_the_leader_selects(values):
    """Others hand over no positions of their own; their rows of the broadcast are empty."""
    x = values(4, 50)
    request = next(parse_scheme("cltk(density=0.1)").rounds(x, State(), Turn(1, 2, "u", (0, 1, 2, 3), 4)))
    assert request.payload.fixed(0).any(1).tolist() == [False, False, True, False]


def test_gtopk_permutes_are_fused_over_units(values):
    scheme = parse_scheme("gtopk(density=0.5)")
    items = [Item(values(4, n), scheme, State(), Turn(1, 0, f"u{n}", (0, 1, 2, 3), 4)) for n in (8, 12, 20)]
    frames: list[Frame] = []

    class Spy(StackedDriver):
        def _perform(self, given, number):
            frames.extend(given)
            return super()._perform(given, number)

    _, log = Spy(4).exchange(items)
    assert [c.operation for c in log.collectives] == ["permute", "permute", "broadcast"]
    assert sum(isinstance(frame.request, Permute) for frame in frames) == 6
