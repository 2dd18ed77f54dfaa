"""Gradient dropping, the hard threshold and MSTopK against their definitions in float64."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta, binom, kstest

from gradwire.compressors.base import Codec, SchemeError, Turn
from gradwire.compressors.decoded import RaggedSparse
from gradwire.compressors.keys import Purpose, stream
from gradwire.compressors.payload import Ragged
from gradwire.compressors.sparsifiers.graddrop import GradDrop, place_of, quantile
from gradwire.compressors.sparsifiers.mstopk import MSTopK, enclose
from gradwire.compressors.sparsifiers.threshold import Threshold
from gradwire.compressors.sparsifiers.thresholds import above, at_least
from gradwire.compressors.spec import parse_scheme

LEVEL = 1e-6
"""Chance of a statistical test to fail although the scheme is right."""


def sent_positions(codec: Codec, x: torch.Tensor, step: int = 0, size: int | None = None) -> list[list[int]]:
    """Return where each worker's entries lie, after checking that they are the input's own."""
    turn = Turn(1, step, "u", tuple(range(len(x))), size or len(x))
    payload, sent, _ = codec.encode(x, codec.init(tuple(x.shape[1:]), len(x), x[0]), turn)
    read = codec.decode(payload, tuple(x.shape[1:]), turn)
    like = x[0].reshape(-1)
    assert torch.equal(read.dense(like), sent.dense(like))
    indices, values = read.indices, read.values
    rows = [indices.row(r) for r in range(len(x))] if isinstance(indices, Ragged) else list(indices)
    numbers = [values.row(r) for r in range(len(x))] if isinstance(values, Ragged) else list(values)
    for row, found, kept in zip(x, rows, numbers, strict=True):
        assert torch.equal(row.reshape(-1)[found], kept)
    return [row.tolist() for row in rows]


# ------------------------------------------------------------------------------------------------------- comparisons


@given(
    values=st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=20),
    threshold=st.floats(0, 2.0**101) | st.just(math.inf),
    data=st.data(),
)
@settings(deadline=None)
def test_comparisons_are_those_of_the_real_numbers(values, threshold, data):
    """A threshold in float64 lies between neighbours in float32, so rounding it would let one of them pass."""
    one = data.draw(st.sampled_from(values))
    for cut in (threshold, one, math.nextafter(one, math.inf), math.nextafter(one, -math.inf)):
        magnitude = torch.tensor(values, dtype=torch.float32)
        assert above(magnitude, cut).tolist() == [i for i, v in enumerate(values) if v > cut]
        assert at_least(magnitude, cut).tolist() == [i for i, v in enumerate(values) if v >= cut]


# -------------------------------------------------------------------------------------------------- gradient dropping


def cut_of(magnitude: NDArray[np.float64], rate: float, convention: str) -> float:
    """Return the quantile as numpy or Marian's code defines it, from all magnitudes sorted."""
    size = len(magnitude)
    match convention:
        case "numpy":
            return float(np.quantile(magnitude, rate))
        case "marian2017":
            return float(np.sort(magnitude)[min(int(Fraction(str(rate)) * size), size - 1)])
        case _:
            return float(np.sort(magnitude)[max(0, int(Fraction(str(rate)) * size) - 1)])


@pytest.mark.parametrize("convention", ["numpy", "marian2017", "marian2018"])
@pytest.mark.parametrize("rate", [0.0, 0.29, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("size", [1, 2, 7, 100, 1003])
def test_graddrop_sends_what_lies_above_the_quantile(convention, rate, size, values):
    x = values(3, size)
    found = sent_positions(GradDrop(rate, convention=convention), x)
    for row, positions in zip(np.abs(x.double().numpy()), found, strict=True):
        assert positions == np.flatnonzero(row > cut_of(row, rate, convention)).tolist()


@pytest.mark.parametrize("convention", ["numpy", "marian2017", "marian2018"])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.95, 0.999])
@pytest.mark.parametrize("kind", ["normal", "few levels", "ascending", "mostly zero", "float64"])
def test_graddrop_of_a_long_row_looks_at_few_entries_and_sends_the_same(kind, rate, convention, values):
    """Whether or not a sample tells the largest from the others."""
    x = values(2, 50_021, dtype=torch.float64 if kind == "float64" else torch.float32)
    match kind:
        case "few levels":
            x = (2 * x).round()
        case "ascending":
            x = x.abs().sort().values
        case "mostly zero":
            x *= torch.arange(50_021) % 400 == 7
    found = sent_positions(GradDrop(rate, convention=convention), x)
    for row, positions in zip(np.abs(x.double().numpy()), found, strict=True):
        assert positions == np.flatnonzero(row > cut_of(row, rate, convention)).tolist()


def test_graddrop_by_hand():
    x = torch.tensor([[1.0, -5, 3, -2, 4]])
    assert sent_positions(GradDrop(0.6, convention="numpy"), x) == [[1, 4]]  # the quantile is 3.4
    assert sent_positions(GradDrop(0.6, convention="marian2017"), x) == [[1]]  # index 3 of 1 2 3 4 5
    assert sent_positions(GradDrop(0.6, convention="marian2018"), x) == [[1, 4]]  # index 2
    assert sent_positions(GradDrop(0.6), -x) == [[1, 4]]
    assert quantile(np.array([5.0, 2, 4, 1, 3]), place_of(5, 0.6, "numpy")) == pytest.approx(3.4)


@pytest.mark.parametrize("convention", ["numpy", "marian2017", "marian2018"])
def test_regression_a_strict_comparison_sends_nothing_of_equal_magnitudes_and_leaves_the_smallest(convention):
    equal = torch.tensor([[0.5, -0.5, 0.5, -0.5]])
    assert sent_positions(GradDrop(0.5, convention=convention), equal) == [[]]
    assert sent_positions(GradDrop(0.0, convention=convention), torch.tensor([[3.0, -1, 2, 4]])) == [[0, 2, 3]]
    assert sent_positions(GradDrop(0.5, convention=convention), torch.tensor([[2.0]])) == [[]]


def test_regression_nothing_is_lost_at_low_rates_or_where_much_is_sent(exchange, values):
    """Marian of 2017 cleared the residual of what did not fit into n / 10, and never compacted below a rate of 0.9."""
    x, state, total, sent = values(2, 40, dtype=torch.float64), None, 0.0, 0.0
    for step in range(3):
        outcome, log = exchange("ef(graddrop(rate=0.2), units=gradient)", x, state, step)
        state, total = outcome.state, total + x
        sent = sent + outcome.sent.dense(x[0])
        rows = [len(outcome.sent.values.row(r)) for r in range(2)]
        assert log.collectives[-1].sent_bytes == tuple(8 + 8 * k + math.ceil(6 * k / 8) for k in rows)
        assert max(rows) <= 32
    assert torch.allclose(sent + state.elements["residual"], total, rtol=0, atol=1e-14)


def test_graddrop_sees_each_shard_alone(values):
    x = values(3, 11)
    x[:, 4:8] *= 1000  # shards of 4, 4 and 3 entries
    found = sent_positions(GradDrop(0.5, scope="shard"), x)
    for row, positions in zip(np.abs(x.double().numpy()), found, strict=True):
        pieces = np.array_split(np.arange(11), 3)
        assert positions == [int(i) for piece in pieces for i in piece if row[i] > np.quantile(row[piece], 0.5)]
        assert min(positions) < 4
    assert all(set(positions) <= set(range(4, 8)) for positions in sent_positions(GradDrop(0.7), x))
    assert sent_positions(GradDrop(0.5, scope="shard"), x[:, :2]) == [[], [], []]  # more workers than entries


def test_graddrop_of_a_strided_sample_takes_entries_at_equal_distances(values):
    """Marian: data[i * (n / m)] for i < m, whatever the seed."""
    x = values(2, 1003)
    found = sent_positions(GradDrop(0.9, threshold="sampled", fraction=0.05), x, step=7)
    for row, positions in zip(np.abs(x.double().numpy()), found, strict=True):
        m = 51
        sample = row[np.arange(m) * (1003 // m)]
        assert positions == np.flatnonzero(row > np.quantile(sample, 0.9)).tolist()


def test_graddrop_of_a_random_sample_follows_from_the_key(values):
    x = values(2, 1000)
    found = sent_positions(GradDrop(0.9, threshold="sampled", fraction=0.05, sampling="random"), x, step=3)
    for rank, positions in enumerate(found):
        generator = np.random.Generator(stream(1, Purpose.SELECTION, 3, "u", rank))
        sample = np.abs(x[rank].double().numpy())[generator.choice(1000, 50, replace=False, shuffle=False)]
        assert positions == np.flatnonzero(np.abs(x[rank].double().numpy()) > np.quantile(sample, 0.9)).tolist()


@pytest.mark.parametrize(("convention", "index"), [("marian2017", 90), ("marian2018", 89)])
@pytest.mark.parametrize("sampling", ["strided", "random"])
def test_density_under_a_sampled_threshold_is_beta_distributed(sampling, convention, index):
    """1 - F of the order statistic at ``index`` of m independent draws is Beta(m - index, index + 1).

    Rows are permutations of 0..n-1, so the sent fraction tells the order statistic; drawing without replacement from
    n = 50 m, and counting in steps of 1 / n, move the distribution function by far less than 400 rows resolve, 0.1.
    """
    m, rows = 100, 400
    generator = np.random.default_rng(4)
    x = torch.from_numpy(generator.permuted(np.tile(np.arange(50 * m), (rows, 1)), axis=1)).float()
    scheme = GradDrop(0.9, "sampled", 0.02, sampling, convention)
    density = np.array([len(found) for found in sent_positions(scheme, x)]) / (50 * m)
    law = beta(m - index, index + 1)
    assert kstest(density, law.cdf).pvalue > LEVEL
    assert kstest(density, beta(m - index - 4, index + 5).cdf).pvalue < LEVEL  # which another index would fail
    assert law.std() == pytest.approx(math.sqrt(0.9 * 0.1 / m), rel=0.05)


# ------------------------------------------------------------------------------------------------------ hard threshold


def test_threshold_by_hand():
    x = torch.tensor([[0.5, -0.25, -0.5, 0.49999997, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert sent_positions(Threshold(0.5), x) == [[0, 2], []]


def test_threshold_is_rounded_to_the_gradients_dtype():
    """0.01 in float32 is below 0.01, and must pass all the same."""
    assert sent_positions(Threshold(0.01), torch.tensor([[0.01]])) == [[0]]
    assert sent_positions(Threshold(0.01), torch.tensor([[0.01]], dtype=torch.float64)) == [[0]]


def test_threshold_leaves_less_than_its_square_for_each_entry(values, exchange):
    """Sahu et al. 2021: the error is absolute, ||x - C(x)||^2 < n lambda^2 whatever the input."""
    for scale in (0.01, 1.0, 100.0):
        x = scale * values(4, 300, dtype=torch.float64)
        left = x - exchange("threshold(value=0.3)", x)[0].sent.dense(x[0])
        assert float(left.square().sum(1).max()) < 300 * 0.3**2
        assert float(left.abs().max()) < 0.3


def test_regression_an_all_negative_tensor_is_not_sent_whole():
    """GRACE takes min(tau, max(x)) of signed values as its threshold, which lets all negative entries pass."""
    x = -torch.linspace(0.001, 0.5, 1000)[None]
    assert sent_positions(Threshold(0.4), x)[0] == np.flatnonzero(-x[0].numpy() >= np.float32(0.4)).tolist()
    assert sent_positions(Threshold(2.0), x) == [[]]


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_threshold_must_be_a_positive_number(value):
    with pytest.raises(SchemeError, match="threshold: value = .* must be above 0"):
        Threshold(value)


@pytest.mark.parametrize("text", ["threshold(value=9)", "ef(threshold(value=9))", "momentum(threshold(value=9))"])
def test_rows_of_which_nothing_passes_are_empty_and_cost_a_header_and_their_sizes(text, exchange, values):
    x = values(3, 20)
    outcome, log = exchange(text, x)
    assert isinstance(outcome.sent, RaggedSparse)
    assert outcome.sent.values.lengths == [0, 0, 0]
    assert not outcome.mean.any()
    assert [c.sent_bytes for c in log.collectives] == [(16,) * 3, (8,) * 3]
    state = outcome.state
    x = torch.zeros(3, 20)
    x[1, 7] = 50.0
    outcome, log = exchange(text, x, state, 1)
    assert outcome.sent.values.lengths == [0, 1, 0]
    assert [c.sent_bytes for c in log.collectives] == [(16,) * 3, (8, 13, 8)]
    assert torch.equal(outcome.mean.nonzero()[:, 0], torch.tensor([7]))


# -------------------------------------------------------------------------------------------------------------- MSTopK


def search(values: NDArray[np.float64], k: int, iterations: int) -> tuple[float, float]:
    """Halve the interval as Shi et al. 2021 do, with counts of all entries at every step."""
    mean, most = values.mean(), values.max()
    left, right, lower, upper, most_k, least_k = 0.0, 1.0, 0.0, math.inf, 0, len(values)
    for _ in range(iterations):
        ratio = left + (right - left) / 2
        cut = mean + ratio * (most - mean)
        count = int((values >= cut).sum())
        if count <= k:
            right = ratio
            if count >= most_k:
                most_k, upper = count, cut
        else:
            left = ratio
            if count <= least_k:
                least_k, lower = count, cut
    return float(lower), float(upper)


@pytest.mark.parametrize("iterations", [1, 2, 5, 30])
@pytest.mark.parametrize("density", [0.001, 0.01, 0.1, 0.5, 0.9, 1.0])
def test_mstopk_encloses_the_kth_largest(iterations, density, values):
    magnitude = values(5000, dtype=torch.float64).abs()
    k = math.ceil(density * 5000)
    found = enclose(magnitude, k, iterations)
    assert found == pytest.approx(search(magnitude.numpy(), k, iterations), rel=1e-12)
    assert int((magnitude >= found.upper).sum()) <= k <= int((magnitude >= found.lower).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_mstopk_of_many_iterations_is_topk(dtype, values):
    x = values(4, 3000, dtype=dtype)
    found = sent_positions(MSTopK(0.01), x)
    assert found == [sorted(np.argsort(-np.abs(row.numpy()))[:30].tolist()) for row in x]


def test_mstopk_takes_a_run_of_the_band_that_wraps_around(values):
    x = values(3, 400, dtype=torch.float64)
    x[1] += 3
    starts = set()
    for step in range(8):
        for row, positions in zip(x.abs().numpy(), sent_positions(MSTopK(0.05, iterations=1), x, step), strict=True):
            lower, upper = search(row, 20, 1)
            top = set(np.flatnonzero(row >= upper).tolist())
            band = np.flatnonzero((row >= lower) & (row < upper)).tolist()
            assert len(positions) == 20
            assert top <= set(positions)
            runs = [set((band + band)[s : s + 20 - len(top)]) for s in range(len(band))]
            assert set(positions) - top in runs
            starts.add(runs.index(set(positions) - top))
    assert len(starts) > 12


def test_regression_each_entry_of_mstopks_band_has_the_same_chance():
    """A run that keeps within the band seldom holds its first and last entries."""
    x = torch.full((2000, 10), -1.0)
    counts = np.zeros(10)
    for positions in sent_positions(MSTopK(0.4), x):
        assert len(positions) == 4
        counts[positions] += 1
    tail = 2 * np.minimum(binom.cdf(counts, 2000, 0.4), binom.sf(counts - 1, 2000, 0.4))
    assert tail.min() > LEVEL / 10


@pytest.mark.parametrize("iterations", [1, 2, 4])
@pytest.mark.parametrize("power", [0.3, 1, 4])
@pytest.mark.parametrize("k", [1, 7, 30, 49])
def test_mstopk_loses_no_more_than_random_k_on_average(k, power, iterations, values):
    """Exactly, over all starts: entries above the band are certain, those within it have a chance of j / b."""
    for row in values(50, 50, dtype=torch.float64).abs().numpy() ** power:
        lower, upper = search(row, k, iterations)
        top, band = row >= upper, (row >= lower) & (row < upper)
        p = top + band * (k - top.sum()) / max(1, band.sum())
        assert p.sum() == pytest.approx(k)
        assert np.sum((1 - p) * row**2) <= MSTopK(k / 50).error_bound((50,)) * np.sum(row**2) * (1 + 1e-12)


@pytest.mark.parametrize("text", ["graddrop(rate=0.99)", "dgcsample(density=0.01)", "mstopk(density=0.01)"])
def test_estimate_of_the_bytes_is_met_where_as_many_pass_as_expected(text, exchange, values):
    _, log = exchange(text, values(3, 1000))
    charged = [sum(c.sent_bytes[worker] for c in log.collectives) for worker in range(3)]
    assert charged == pytest.approx([parse_scheme(text).wire_bytes((1000,))] * 3, abs=1e-6)


@pytest.mark.parametrize("x", [[0.7], [0.0, 0.0, 0.0], [0.7] * 1000, [1e-45] * 7, [0.0, 0.0, -2.0], [3e38] * 9])
@pytest.mark.parametrize("density", [0.01, 0.3, 1.0])
def test_mstopk_sends_exactly_k_whatever_comes(x, density):
    (positions,) = sent_positions(MSTopK(density), torch.tensor([x]))
    assert len(set(positions)) == max(1, math.ceil(Fraction(str(density)) * len(x)))
    if x[-1] == -2:
        assert 2 in positions
