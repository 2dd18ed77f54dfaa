"""The sparsifiers with positions of each worker's own, and several random blocks, against their definitions."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from gradwire.compressors.base import Codec, SchemeError, State, Turn
from gradwire.compressors.indices import Coding, decode_indices
from gradwire.compressors.payload import Ragged
from gradwire.compressors.sparsifiers.blocktopk import BlockTopK
from gradwire.compressors.sparsifiers.chunktopk import ChunkTopK
from gradwire.compressors.sparsifiers.randomblock import RandomBlock
from gradwire.compressors.sparsifiers.randomk import RandomK
from gradwire.compressors.sparsifiers.sampledtopk import SampledTopK
from gradwire.compressors.sparsifiers.topk import TopK
from gradwire.compressors.sparsifiers.wangni import Wangni
from gradwire.compressors.spec import parse_scheme

from .laws import algorithm_1

LEVEL = 1e-9
"""Chance of one of a test's comparisons to fail although the scheme is right, divided by their number."""


def turn(step: int = 0, workers: int = 1) -> Turn:
    return Turn(1, step, "u", tuple(range(workers)), workers)


def sent(scheme: Codec, x: Tensor, step: int = 0) -> NDArray[np.float64]:
    """Return what is sent, as dense rows, after checking that a receiver reads the same."""
    payload, own, _ = scheme.encode(x, State(), turn(step, len(x)))
    rows = own.dense(x[0])
    assert torch.equal(scheme.decode(payload, tuple(x.shape[1:]), turn(step, len(x))).dense(x[0]), rows)
    return rows.double().numpy()


def assert_counts_follow(counts: NDArray[np.int64], draws: int, p: NDArray[np.float64] | float) -> None:
    tail = 2 * np.minimum(binom.cdf(counts, draws, p), binom.sf(counts - 1, draws, p))
    assert tail.min() > LEVEL / np.size(counts)


def heavy(rows: int, size: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_cauchy((rows, size)))


@pytest.mark.parametrize("coding", ["raw", "log2", "bitmap", "rice", "elias", "auto"])
@pytest.mark.parametrize("cls", [TopK, BlockTopK, ChunkTopK, SampledTopK, Wangni])
def test_every_coding_carries_the_same_entries(cls, coding: Coding):
    x = heavy(3, 1111)
    assert np.array_equal(sent(cls(0.1, coding), x), sent(cls(0.1), x))


# ------------------------------------------------------------------------------------------------------- block, chunk


def test_blocktopk_sends_the_blocks_of_largest_norm():
    x = heavy(2, 39).float()
    x[0, 36:] = torch.tensor([1e3, -2e3, 3e3])  # the last block is short, and sent by one worker
    x[1, 36:] = 0
    expected = np.zeros((2, 39))
    for row, out in zip(x.double().numpy(), expected, strict=True):
        norms = [math.fsum(row[start : start + 4] ** 2) for start in range(0, 39, 4)]
        for block in sorted(range(10), key=lambda b: (-norms[b], b))[:3]:  # ceil(ceil(0.3 * 39) / 4)
            out[4 * block : 4 * block + 4] = row[4 * block : 4 * block + 4]
    scheme = BlockTopK(0.3, block=4)
    assert np.array_equal(sent(scheme, x), expected)
    payload, _, _ = scheme.encode(x, State(), turn(workers=2))
    assert payload.row_bytes == [3 * 4 * 4 + 2] * 2  # 3 indices of 4 bits
    assert scheme.wire_bytes((39,)) == 8 + 3 * 4 * 4 + 2


def test_blocktopk_takes_the_lowest_of_equal_blocks_and_attains_its_bound():
    x = torch.ones(1, 40)
    scheme = BlockTopK(0.25, block=4)
    rows = sent(scheme, x)
    assert rows[0].nonzero()[0].tolist() == list(range(12))
    assert 1 - rows.sum() / 40 == pytest.approx(scheme.error_bound((40,)), rel=1e-15)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_blocktopk_compares_norms_whose_squares_are_no_float64(scale):
    x = torch.tensor([[1.0, 1, 1.3, 0, 0.1, 0.2]], dtype=torch.float64) * scale
    assert sent(BlockTopK(0.3, block=2), x)[0].nonzero()[0].tolist() == [0, 1]


def test_chunktopk_sends_the_largest_of_each_chunk():
    rng = np.random.default_rng(3)
    x = rng.integers(-6, 7, (2, 33)).astype(np.float64)
    expected = np.zeros_like(x)
    for row, out in zip(x, expected, strict=True):
        for start in range(0, 33, 10):
            part = row[start : start + 10]
            best = sorted(range(len(part)), key=lambda i: (-abs(part[i]), i))[: math.ceil(0.3 * len(part) - 1e-9)]
            out[start + np.array(best)] = part[best]
    scheme = ChunkTopK(0.3, chunk=10)
    assert np.array_equal(sent(scheme, torch.from_numpy(x)), expected)
    payload, _, _ = scheme.encode(torch.from_numpy(x), State(), turn(workers=2))
    # 3 x 3 of the whole chunks and 1 of the last, at 8 bytes and 4 bits.
    assert payload.row_bytes == [10 * 8 + 5] * 2


def test_chunktopk_bound_is_that_of_the_worst_chunk():
    """Two of ten are kept, of the last seven two: 2/10 < 2/7; and of a chunk of nine 1/9 < 1/3."""
    assert ChunkTopK(0.2, chunk=10).error_bound((27,)) == 0.8
    assert ChunkTopK(0.1, chunk=9).error_bound((12,)) == pytest.approx(8 / 9, rel=1e-15)
    assert ChunkTopK(0.1, chunk=100).error_bound((10,)) == 0.9
    x = torch.zeros(1, 12)
    x[0, :9] = 1
    assert 1 - sent(ChunkTopK(0.1, chunk=9), x).sum() / 9 == pytest.approx(8 / 9, rel=1e-15)


# ------------------------------------------------------------------------------------------------------------- sampled


def test_sampledtopk_sends_all_that_reaches_one_threshold():
    x = heavy(4, 3000)
    rows = sent(SampledTopK(0.05), x)
    for row, out in zip(x.numpy(), rows, strict=True):
        threshold = np.abs(out[out != 0]).min()
        assert np.array_equal(out, np.where(np.abs(row) >= threshold, row, 0))


@pytest.mark.parametrize("density", [0.02, 0.3])
def test_sampledtopk_sends_as_many_as_it_says_on_average(density):
    scheme, size, rounds = SampledTopK(density), 2000, 300
    x = heavy(1, size)
    draws = scheme.draws(size)
    rank = math.ceil(density * draws - 1e-9)
    exact = float(binom.cdf(rank - 1, draws, np.arange(size) / size).sum())
    assert scheme.count((size,)) == pytest.approx(exact, abs=1 / 12)
    counts = np.array([(sent(scheme, x, step) != 0).sum() for step in range(rounds)])
    assert abs(counts.mean() - exact) < 6 * counts.std() / math.sqrt(rounds)
    assert len(set(counts)) > 10


def test_sampledtopk_of_zeros_sends_nothing_and_of_a_constant_all():
    scheme = SampledTopK(0.1)
    payload, _, _ = scheme.encode(torch.zeros(2, 500), State(), turn(workers=2))
    assert payload.row_bytes == [0, 0]
    assert np.array_equal(sent(scheme, torch.full((1, 500), -3.0)), np.full((1, 500), -3.0))


# ---------------------------------------------------------------------------------------------------- random, own seed


def test_randomk_with_own_seeds_sends_no_positions_and_draws_for_each_worker():
    scheme, x = RandomK(0.3, seed="own"), torch.arange(1.0, 61).view(3, 20)
    payload, _, _ = scheme.encode(x, State(), turn(workers=3))
    assert [tuple(payload.fixed(0).shape)] == [(3, 6)]
    assert scheme.wire_bytes((20,)) == 8 + 24
    rows = sent(scheme, x)
    supports = [tuple(row.nonzero()[0]) for row in rows]
    assert len(set(supports)) == 3
    for support, row in zip(supports, payload.fixed(0), strict=True):
        assert [value % 20 for value in (row - 1).tolist()] == list(support)


def test_randomk_with_own_seeds_draws_independently():
    """Both workers send an entry with probability (k / n)^2; shared draws would give k / n."""
    x, draws = torch.ones(2, 20), 2000
    both = sum((sent(RandomK(0.25, seed="own"), x, step) != 0).all(0) for step in range(draws))
    assert_counts_follow(np.asarray(both), draws, 1 / 16)


def test_randomk_with_own_seeds_adds_up_in_an_exchange(exchange, values):
    x = values(3, 50)
    outcome, log = exchange("randomk(density=0.2, seed=own)", x)
    assert [(c.operation, c.sent_bytes) for c in log.collectives] == [("all-gather", (48,) * 3)]
    rows = outcome.sent.dense(x[0])
    assert torch.equal(outcome.mean, (rows[0] + rows[1] + rows[2]) / 3)
    assert torch.equal(rows[rows != 0], x[rows != 0])


# ------------------------------------------------------------------------------------------------------ several blocks


def runs(support: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of the runs of kept entries around the circle."""
    start = int(np.argmin(support))  # an entry that is not kept
    return [len(run) for run in "".join("01"[int(kept)] for kept in np.roll(support, -start)).split("0") if run]


def test_regression_random_blocks_wrap_so_that_every_entry_is_kept_equally_often():
    """Blocks that stay within bounds keep entry 0 with probability 1 / 16 and the middle with 5 / 16, not 1 / 4."""
    for blocks in (1, 2, 5):
        scheme, draws = RandomBlock(0.25, blocks=blocks), 1200
        kept = sum(sent(scheme, torch.ones(1, 20), step)[0] != 0 for step in range(draws))
        assert_counts_follow(np.asarray(kept), draws, 0.25)


def test_several_random_blocks_have_their_lengths_and_never_overlap():
    """11 of 33 entries in 4 blocks of 3, 3, 3 and 2; blocks may touch."""
    seen = set()
    for step in range(300):
        support = sent(RandomBlock(1 / 3, blocks=4), torch.ones(1, 33), step)[0] != 0
        assert support.sum() == 11
        seen.add(tuple(sorted(runs(support))))
    assert (2, 3, 3, 3) in seen
    assert seen <= {(2, 3, 3, 3), (3, 3, 5), (2, 3, 6), (2, 9), (3, 8), (5, 6), (11,)}


def test_two_random_blocks_of_one_entry_are_every_pair_equally_often():
    draws = Counter(
        tuple(np.flatnonzero(sent(RandomBlock(0.3, blocks=9), torch.ones(1, 6), s)[0])) for s in range(3000)
    )
    assert len(draws) == 15
    assert_counts_follow(np.array(list(draws.values())), 3000, 1 / 15)


def test_scaled_random_blocks_are_unbiased_with_their_variance():
    """Over all turns of any arrangement: each entry is kept k times of n, so the error is (n / k - 1) ||x||^2."""
    scheme, x, size = RandomBlock(0.25, scaled=True, blocks=2), heavy(1, 8), 8
    outputs = {tuple(sent(scheme, x, step)[0]) for step in range(600)}
    every = np.array(list(outputs))
    assert len(every) == 28  # two blocks of one entry: all pairs of 8
    np.testing.assert_allclose(every.mean(0), x[0].numpy(), rtol=1e-14)
    error = ((every - x.numpy()) ** 2).sum(1).mean() / float(x.square().sum())
    assert error == pytest.approx(scheme.error_bound((size,)), rel=1e-13)


# -------------------------------------------------------------------------------------------------------------- Wangni


def test_wangni_divides_by_the_probabilities_of_the_published_algorithm():
    x = heavy(2, 200)
    rows = sent(Wangni(0.1), x)
    for row, out in zip(x.numpy(), rows, strict=True):
        p = algorithm_1(np.abs(row), 20)
        kept = out != 0
        np.testing.assert_allclose(out[kept], row[kept] / p[kept], rtol=1e-14)
        assert kept[p == 1].all()
        assert not kept.all()


def test_wangni_keeps_tiny_entries_as_often_as_their_size_demands():
    """At p = 2^-18 one draw in 262,144 hits; draws of 16 bits would hit never or four times too often."""
    x = torch.full((1, 2**18), 1.0)
    hits = sum(int((sent(Wangni(1e-9), x, step) != 0).sum()) for step in range(60))
    assert binom.cdf(hits, 60 * 2**18, 2.0**-18) > LEVEL
    assert binom.sf(hits - 1, 60 * 2**18, 2.0**-18) > LEVEL


def test_wangni_second_moment_is_that_of_the_balanced_case():
    """E ||C||^2 = |x|_1^2 / k, here from the scheme's own values: each is |x|_1 / k, and k are sent on average."""
    x = torch.linspace(1, 2, 100, dtype=torch.float64)[None]
    rows = sent(Wangni(0.1), x.expand(200, -1))
    np.testing.assert_allclose(rows[rows != 0], float(x.sum()) / 10, rtol=1e-14)
    assert_counts_follow((rows != 0).sum(0), 200, 10 * x[0].numpy() / float(x.sum()))


def test_wangni_sends_rows_of_their_own_length():
    payload, _, _ = Wangni(0.2, "rice").encode(heavy(5, 300), State(), turn(workers=5))
    values, coded = payload.buffers
    assert isinstance(values, Ragged)
    assert isinstance(coded, Ragged)
    assert len(set(values.lengths)) > 1
    assert isinstance(decode_indices(coded, values.lengths, 300, "rice"), Ragged)


# -------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("topk(coding=huffman)", "coding must be one of raw, log2, bitmap, rice, elias, auto"),
        ("blocktopk(block=0)", "block = 0 is out of range: block must be at least 1"),
        ("chunktopk(chunk=0)", "chunk = 0 is out of range: chunk must be at least 1"),
        ("sampledtopk(sample=0)", r"sample = 0 is out of range: sample must be in \(0, 1\]"),
        ("sampledtopk(density=2)", r"density = 2 is out of range: density must be in \(0, 1\]"),
        ("wangni(density=0)", r"density = 0 is out of range: density must be in \(0, 1\]"),
        ("randomk(seed=mine)", "seed must be one of shared, own"),
        ("randomblock(blocks=0)", "blocks = 0 is out of range: blocks must be at least 1"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(SchemeError, match=message):
        parse_scheme(text)
