"""Compositions against their definition: positions of the sparsifier, values as the quantizer sends them."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradwire.compressors.base import Passes, SchemeError, Shape, State, Turn
from gradwire.compressors.compose import Composition, compose
from gradwire.compressors.decoded import RaggedSparse
from gradwire.compressors.feedback import ErrorFeedback
from gradwire.compressors.payload import Ragged
from gradwire.compressors.quantizers.dense import Dense
from gradwire.compressors.quantizers.qsgd import QSGD
from gradwire.compressors.remember import remember
from gradwire.compressors.sparsifiers.randomk import RandomK
from gradwire.compressors.sparsifiers.sparse import Sparsifier
from gradwire.compressors.sparsifiers.topk import TopK
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wirelog import Work
from gradwire.sim.step.device import DEVICES
from gradwire.sim.step.overhead import Overhead, cost_of


def turn(workers: int, step: int = 0) -> Turn:
    return Turn(1, step, "u", tuple(range(workers)), workers)


@dataclass(frozen=True)
class Above(Sparsifier):
    """Entries of magnitude above a threshold: as many as there are, possibly none."""

    threshold: float = 1.0

    name = "above"
    title = "entries above a threshold"
    paper = "none"
    collective = "all-gather"

    @property
    def unbiased(self) -> bool:
        return False

    @property
    def selects(self) -> bool:
        return True

    @property
    def ragged(self) -> bool:
        return True

    @property
    def varying(self) -> bool:
        return True

    def error_bound(self, shape: Shape) -> float:
        return 1.0

    def count(self, shape: Shape) -> float:
        return math.prod(shape) / 2

    def passes(self, shape: Shape) -> Passes:
        return Passes(1, 0, 0)

    def select(self, x: Tensor, state: State, turn: Turn) -> tuple[RaggedSparse, State]:
        flat = x.reshape(len(x), -1)
        indices = [(row.abs() > self.threshold).nonzero()[:, 0] for row in flat]
        values = [row[chosen] for row, chosen in zip(flat, indices, strict=True)]
        return RaggedSparse(Ragged.of(values), Ragged.of(indices), flat.shape[1]), state


# -------------------------------------------------------------------------------------------------------- on the wire


def test_topk_then_qsgd_sends_positions_and_codes_of_the_kept_values(values):
    """n = 400, k = 100: codes of 4 bits in 50 bytes, norms of buckets of 30, 30, 30 and 10 values, 9-bit positions."""
    x = values(3, 20, 20)
    payload, sent, _ = parse_scheme("topk(density=0.25) | qsgd(bits=4, bucket=30)").encode(x, State(), turn(3))
    assert payload.row_bytes == [4 * 4 + 50 + math.ceil(100 * 9 / 8)] * 3
    flat = x.reshape(3, -1).numpy()
    dense = sent.dense(torch.zeros(400)).numpy()
    for row, decoded in zip(flat, dense, strict=True):
        chosen = np.sort(np.argsort(-np.abs(row), kind="stable")[:100])
        assert not decoded[np.setdiff1d(np.arange(400), chosen)].any()
        kept = row[chosen]
        norms = np.array([np.abs(kept[i : i + 30]).max() for i in range(0, 100, 30)], np.float64).repeat(30)[:100]
        levels = decoded[chosen] / norms * 7
        assert np.abs(levels - levels.round()).max() < 1e-5
        assert (np.abs(levels - kept / norms * 7) < 1 + 1e-5).all()
        assert (decoded[chosen] * kept >= 0).all()


def test_values_on_levels_travel_exactly(exchange):
    """Of 7 and whole numbers below it, 4 bits round nothing; the sparsifier's ties go to the lowest index."""
    x = torch.tensor([[0.0, 7, -3, 1, 3, 0], [1.0, 2, -7, 2, 2, 2]])
    outcome, _ = exchange("topk(density=0.5) | qsgd(bits=4)", x)
    assert outcome.sent.dense(x[0]).tolist() == [[0, 7, -3, 0, 3, 0], [0, 2, -7, 2, 0, 0]]
    assert outcome.mean.tolist() == [0, 4.5, -5, 1, 1.5, 0]


def test_aligned_values_are_summed_under_the_quantizers_own_collective(exchange, values):
    x = values(4, 100)
    outcome, log = exchange("randomk(density=0.1) | dense(dtype=bf16)", x)
    assert [(c.operation, c.dtype, c.sent_bytes) for c in log.collectives] == [("all-reduce", "bfloat16", (20,) * 4)]
    plain, _ = exchange("randomk(density=0.1)", x)
    places = plain.mean.nonzero()[:, 0]
    total = torch.zeros(10, dtype=torch.bfloat16)
    for row in x:
        total += row[places].bfloat16()
    expected = torch.zeros(100).index_copy_(0, places, total.float() / 4)
    assert torch.equal(outcome.mean, expected)


def test_aligned_values_with_norms_are_gathered(exchange, values):
    x = values(4, 100)
    outcome, log = exchange("randomblock(density=0.2) | qsgd(bits=8, bucket=20)", x)
    assert [(c.operation, c.sent_bytes) for c in log.collectives] == [("all-gather", (8 + 4 + 20,) * 4)]
    plain, _ = exchange("randomblock(density=0.2)", x)
    assert torch.equal(outcome.mean != 0, plain.mean != 0)
    assert float((outcome.mean - plain.mean).abs().max()) < float(x.abs().max()) / 127


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rows_of_different_lengths_and_empty_ones(dtype, exchange):
    x = torch.tensor([[0, 7.0, -3, 0, 2, 0, 0], [0.0, 0.5, -1, 0, 0, 0, 0], [1.5, 0, 0, 0, 0, 0, -1.5]], dtype=dtype)
    scheme = compose(Above(), QSGD(bits=4))
    outcome, log = exchange(scheme, x)
    expected = x.clone()
    expected[1] = 0
    assert torch.equal(outcome.sent.dense(x[0]), expected)
    assert torch.equal(outcome.mean, ((expected[0] + expected[1]) + expected[2]) / 3)
    # A count of 4 bytes; a norm, codes of 4 bits and positions of 3 bits; 3 ragged buffers announce 8 bytes each.
    own = [4 + dtype.itemsize + 2 + 2, 4, 4 + dtype.itemsize + 1 + 1]
    assert [c.sent_bytes for c in log.collectives] == [(24,) * 3, tuple(8 + length for length in own)]


def test_ragged_rows_do_not_depend_on_how_they_are_spread(values):
    x = values(4, 50)
    scheme = compose(Above(0.5), QSGD(bits=3, bucket=8))
    _, whole, _ = scheme.encode(x, State(), turn(4))
    parts = []
    for first in (0, 2):
        payload, sent, _ = scheme.encode(x[first : first + 2], State(), Turn(1, 0, "u", (first, first + 1), 4))
        parts.append(sent.dense(x[0]))
        assert torch.equal(scheme.decode(payload, (50,), turn(4)).dense(x[0]), parts[-1])
    assert torch.equal(torch.cat(parts), whole.dense(x[0]))
    assert whole.clear_(x.clone()).count_nonzero() == int((x.abs() <= 0.5).sum())


def test_ragged_rows_lose_nothing_under_error_feedback(exchange, values):
    scheme = remember(ErrorFeedback(), compose(Above(0.8), Dense("bf16")))
    state, total, means = None, 0.0, 0.0
    for step in range(20):
        x = values(3, 60, seed=step, dtype=torch.float64)
        outcome, _ = exchange(scheme, x, state, step)
        state = outcome.state
        total, means = total + x.mean(0), means + outcome.mean
    torch.testing.assert_close(means + state.elements["residual"].mean(0), total, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------- bounds


def expected_error(x: NDArray[np.float64], k: int, scheme: QSGD) -> float:
    """Return E||C2(C1 x) - x||^2 / ||x||^2 exactly, from the definitions of top-k and of stochastic rounding."""
    order = np.argsort(-np.abs(x), kind="stable")
    kept, dropped = x[np.sort(order[:k])], x[order[k:]]
    error = float(np.square(dropped).sum())
    for start in range(0, k, scheme.bucket):
        part = np.abs(kept[start : start + scheme.bucket])
        norm = part.max() if scheme.norm == "max" else math.sqrt(np.square(part).sum())
        if norm:
            p = np.modf(part * scheme.levels / norm)[0]
            error += float(np.sum(p * (1 - p))) * (norm / scheme.levels) ** 2
    return error / float(np.square(x).sum())


def worst_for_max_norm(k: int, levels: int) -> NDArray[np.float64]:
    """One entry at the maximum and the others at the fraction of a level that loses most, by a fine search."""
    m = k - 1
    p = np.linspace(1e-6, 1, 200_001)
    best = p[np.argmax(m * p * (1 - p) / (levels**2 + m * p**2))]
    return np.concatenate([[1.0], np.full(m, best / levels)])


def test_maximum_norm_is_within_what_error_feedback_takes_and_the_bound_is_attained():
    """Top-k keeps an input of k entries whole, so the supremum is the quantizer's own or top-k's, not their sum."""
    scheme = parse_scheme("topk(density=0.01) | qsgd(bits=4, bucket=150)")
    assert isinstance(scheme, Composition)
    shape, k = (15_000,), 150
    quantizer = QSGD(bits=4, bucket=150)
    x = np.zeros(15_000)
    x[:k] = worst_for_max_norm(k, 7)
    attained = expected_error(x, k, quantizer)
    assert attained == pytest.approx(quantizer.error_bound((k,)), rel=1e-6)
    assert attained == pytest.approx(0.512, abs=0.01)
    assert scheme.error_bound(shape) == pytest.approx(0.99 + 0.01 * attained, rel=1e-6)
    remember(ErrorFeedback(), scheme).init(shape, 2, torch.zeros(()))


def test_euclidean_norm_with_4_bits_expands_and_is_refused():
    scheme = parse_scheme("topk(density=0.01) | qsgd(bits=4, norm=l2)")
    x = np.zeros(30_000)
    x[:300] = 1.0  # kept whole, each entry at 7 / sqrt(300) of a level
    error = expected_error(x, 300, QSGD(bits=4, norm="l2"))
    assert error > 1.4
    assert scheme.error_bound((30_000,)) >= error
    with pytest.raises(SchemeError, match="error feedback needs at most 1"):
        remember(ErrorFeedback(), scheme).init((30_000,), 2, torch.zeros(()))


@pytest.mark.parametrize("norm", ["max", "l2"])
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("density", [0.05, 0.5])
def test_no_input_exceeds_the_bound(density, bits, norm):
    rng = np.random.default_rng(0)
    quantizer = QSGD(bits=bits, bucket=16, norm=norm)
    scheme, k = Composition(TopK(density), quantizer), math.ceil(200 * density)
    bound = scheme.error_bound((200,))
    flat = np.full(200, 0.4)
    inputs = [rng.standard_normal(200), rng.standard_cauchy(200), flat, np.eye(200)[3] + 1e-3]
    inputs += [np.where(np.arange(200) < m, rng.choice([1, 0.1 / m], 200), 1e-9) for m in (2, k, 3 * k)]
    assert max(expected_error(x, k, quantizer) for x in inputs) <= bound * (1 + 1e-12)
    assert max(expected_error(x, k, quantizer) for x in inputs) > bound / 3


def test_two_unbiased_schemes_make_an_unbiased_one_with_the_known_variance():
    """w1 w2 + w1 + w2 (Horvath et al. 2019), for random-k attained by the quantizer's worst input."""
    scheme = Composition(RandomK(0.5, scaled=True), QSGD(bits=4, bucket=64))
    one, other = 1.0, QSGD(bits=4, bucket=64).error_bound((64,))
    assert scheme.unbiased
    assert not scheme.selects
    assert scheme.error_bound((128,)) == pytest.approx(one * other + one + other)
    assert not Composition(RandomK(0.5, scaled=True), Dense("bf16")).unbiased
    assert not Composition(TopK(), QSGD()).unbiased


def test_biased_rounding_after_a_scaled_selection_stays_below_the_bound(values):
    scheme = Composition(RandomK(0.5, scaled=True), Dense("bf16"))
    x = values(1, 64, dtype=torch.float64)
    errors = [
        float((scheme.encode(x, State(), turn(1, step))[1].dense(x[0]) - x).square().sum()) for step in range(400)
    ]
    assert np.mean(errors) / float(x.square().sum()) == pytest.approx(1.0, rel=0.1)  # n / k - 1
    assert 1.0 < scheme.error_bound((64,)) < 1.02


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dense | qsgd", r"dense\(dtype=native\) \| qsgd\(bits=4\): the first must select entries"),
        ("qsgd | topk", r"the first must select entries"),
        ("powersgd | qsgd", r"the first must select entries"),
        ("topk | powersgd", r"the second must be a quantizer of one round"),
        ("topk | topk", r"the second must be a quantizer"),
        ("topk | qsgd | dense", r"the first must select entries"),
        ("topk | (topk | qsgd)", r"the second must be a quantizer"),
        ("ef(topk) | qsgd", r"the first must select entries"),
        ("topk | ef(qsgd(bits=8))", r"the second must be a quantizer .*; a memory or schedule goes around the whole"),
        ("topk | warmup(qsgd, start=8, key=bits)", r"the second must be a quantizer"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(text, reason):
    with pytest.raises(SchemeError, match=reason):
        parse_scheme(text)


def test_codes_of_varying_length_need_a_fixed_number_of_entries():
    class Varying(Dense):
        @property
        def varying(self) -> bool:
            return True

    with pytest.raises(SchemeError, match="either how many entries are kept may vary, or the length of a code"):
        compose(Above(), Varying())


def test_a_quantizer_that_votes_or_remembers_is_refused():
    class Votes(Dense):
        @property
        def law(self):
            return "vote"

    class Remembers(Dense):
        def init(self, shape: Shape, workers: int, like: Tensor) -> State:
            return State(elements={"momentum": torch.zeros(workers, math.prod(shape))})

    with pytest.raises(SchemeError, match="they cannot vote"):
        compose(TopK(), Votes())
    with pytest.raises(SchemeError, match="remembers values, but the kept entries change"):
        compose(TopK(), Remembers()).init((10,), 2, torch.zeros(()))


# -------------------------------------------------------------------------------------------------------------- costs


def test_costs_are_charged_for_what_each_part_works_on():
    """The quantizer is charged for the kept values alone, the sparsifier as if it were by itself."""
    overhead, device = Overhead(), DEVICES["v100"]
    both = cost_of(Work("topk(density=0.01) | qsgd(bits=4)", (1000, 1000), 2), overhead, device)
    one = cost_of(Work("topk(density=0.01)", (1000, 1000), 2), overhead, device)
    other = cost_of(Work("qsgd(bits=4)", (10_000,), 2), overhead, device)
    assert both == one + other
