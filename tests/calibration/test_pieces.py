"""The fit of collectives: known models are found again, in noise and among outliers; what is held out is not seen."""

import numpy as np
import pytest

from gradwire.analysis.calibration.collectives import fit_network
from gradwire.analysis.calibration.heldout import Errors, folds
from gradwire.analysis.calibration.pieces import Points, fit_pieces, predict_held_out
from gradwire.analysis.measurement.records import CollectiveRecord
from gradwire.sim.network.costs import Batch, Costs

SIZES = 2 ** np.arange(10, 27)
FEW = SIZES[::3]


def ring_s(sizes, workers, launch, latency, bandwidth):
    """The duration of a ring all-reduce by the definition in the background pages; sizes are multiples of N."""
    return launch + 2 * (workers - 1) * (latency + 8 * sizes / workers / bandwidth)


def two_protocols(sizes, workers=4):
    """An all-reduce that is five times as fast a byte from 256 KiB on, where both protocols take as long."""
    small = ring_s(sizes, workers, 50e-6, 0, 1e9)
    at = ring_s(2.0**18, workers, 50e-6, 0, 1e9)
    large = at + 2 * (workers - 1) / workers * 8 * (sizes - 2.0**18) / 5e9
    return np.where(sizes < 2**18, small, large)


def points(sizes, seconds, workers=4, operation="all-reduce"):
    counts = np.broadcast_to(np.asarray(workers), np.shape(sizes))
    return Points(operation, counts, np.asarray(sizes), np.asarray(seconds, float))


def test_a_model_of_several_numbers_of_workers_is_found_again():
    workers = np.repeat([2, 4, 8, 16], len(SIZES))
    sizes = np.tile(SIZES, 4)
    pieces = fit_pieces(points(sizes, ring_s(sizes, workers, 30e-6, 4e-6, 10e9), workers))
    assert pieces.starts == (0,)
    assert pieces.launch_s[0] == pytest.approx(30e-6, rel=1e-5)
    assert pieces.latency_s[0] == pytest.approx(4e-6, rel=1e-5)
    assert 8 / pieces.byte_s[0] == pytest.approx(10e9, rel=1e-5)


def test_a_knot_is_found_where_it_is():
    pieces = fit_pieces(points(SIZES, two_protocols(SIZES)))
    assert pieces.starts == (0, 2**18)
    assert [8 / byte_s for byte_s in pieces.byte_s] == pytest.approx([1e9, 5e9], rel=1e-4)
    assert pieces.launch_s[0] == pytest.approx(50e-6, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_noise_and_outliers_do_not_bend_the_fit(seed):
    """Three measurements of 17 are three times too long; a fit of plain squares would follow them."""
    draws = np.random.default_rng(seed)
    seconds = ring_s(SIZES, 4, 100e-6, 0, 2e9) * (1 + 0.02 * draws.standard_normal(len(SIZES)))
    seconds[draws.choice(np.arange(1, 16), 3, replace=False)] *= 3
    pieces = fit_pieces(points(SIZES, seconds))
    found = pieces.seconds(np.full(17, 4), SIZES)
    assert np.median(np.abs(found / ring_s(SIZES, 4, 100e-6, 0, 2e9) - 1)) < 0.02
    assert 8 / pieces.byte_s[-1] == pytest.approx(2e9, rel=0.05)


def test_what_is_held_out_does_not_change_its_own_prediction():
    seconds = two_protocols(SIZES) * (1 + 0.05 * np.sin(np.arange(len(SIZES))))
    predicted, held = predict_held_out(points(SIZES, seconds))
    assert held.tolist() == [False] + [True] * 15 + [False]
    other = seconds.copy()
    other[6] *= 10
    moved, _ = predict_held_out(points(SIZES, other))
    assert moved[6] == predicted[6]
    assert (moved[5:8:2] != predicted[5:8:2]).all()  # its neighbours' predictions have seen it


def test_each_inner_size_is_held_out_once_and_with_all_its_measurements():
    values = np.array([1, 2, 2, 3, 4, 5, 6, 7])
    held = np.array(list(folds(values)))
    assert held.sum(axis=0).tolist() == [0, 1, 1, 1, 1, 1, 1, 0]
    assert (held[:, 1] == held[:, 2]).all()
    assert list(folds(np.array([1, 2]))) == []


@pytest.mark.parametrize("workers", [(4,), (2, 8)], ids=str)
def test_pieces_are_continuous_and_never_fall(workers):
    """Measurements that rise in jumps and slow down again."""
    sizes = np.tile(SIZES, len(workers))
    counts = np.repeat(workers, len(SIZES))
    seconds = ring_s(sizes, counts, 40e-6, 5e-6, 8e9) * np.where((sizes > 2**14) & (sizes < 2**20), 1.6, 1)
    pieces = fit_pieces(points(sizes, seconds, counts))
    assert len(pieces.starts) > 1
    fine = np.unique(np.geomspace(1024, 2**26, 4000).astype(int))
    for count in workers:
        along = pieces.seconds(np.full(len(fine), count), fine)
        assert (np.diff(along) >= -1e-12).all()
        for start, launch_s, latency_s in zip(
            pieces.starts[1:], pieces.launch_s[1:], pieces.latency_s[1:], strict=True
        ):
            step = np.array([start - count, start])
            before, after = pieces.seconds(np.full(2, count), step)
            if launch_s > 0 and latency_s >= 0:
                assert after == pytest.approx(before, rel=1e-3)


def test_costs_that_grow_faster_than_in_proportion_begin_higher_and_not_below_zero():
    """Beyond a cache a byte takes four times as long; a continuous line would need a negative launch."""
    seconds = ring_s(SIZES, 4, 10e-6, 0, 8e9) * np.where(SIZES >= 2**20, 4, 1)
    pieces = fit_pieces(points(SIZES, seconds))
    assert min(pieces.launch_s) >= 0
    found = pieces.seconds(np.full(17, 4), SIZES)
    assert found == pytest.approx(seconds, rel=0.02)


@pytest.mark.parametrize("operation", ["all-reduce", "all-gather", "broadcast", "all-to-all", "reduce-scatter"])
def test_the_simulator_takes_as_long_on_the_fitted_cluster_as_the_fit(operation):
    workers = np.repeat([4, 8], len(FEW))
    sizes = np.tile(FEW, 2)
    seconds = 2e-5 * workers + sizes * workers * np.where(sizes < 2**17, 4e-9, 2e-9)
    records = [
        CollectiveRecord(operation=operation, workers=n, bytes=s, seconds=(t,))
        for n, s, t in zip(workers.tolist(), sizes.tolist(), seconds.tolist(), strict=True)
    ]
    other = [CollectiveRecord(operation="permute", workers=4, bytes=s, seconds=(1e-8 * s,)) for s in FEW.tolist()]
    fit = fit_network([*records, *other])
    assert max(piece.efficiency for piece in fit.cluster.pieces) == 1
    for count in (4, 8):
        costs = Costs(fit.cluster, count)
        uniform = costs.check_uniform()
        sent = np.repeat(FEW[:, None], count, axis=1)
        peers = (0,) if operation == "broadcast" else ()
        sent[:, 1:] *= operation != "broadcast"
        cost = costs.cost(Batch(operation, peers, sent))
        found = cost.seconds(uniform.bandwidth_bps, uniform.latency_s, uniform.launch_s)
        expected = fit.pieces[operation].seconds(np.full(len(FEW), count), FEW)
        assert found == pytest.approx(expected, rel=1e-9)
        assert not costs.extrapolated


def test_a_number_of_workers_is_held_out_too():
    workers = np.repeat([2, 4, 8], len(FEW))
    sizes = np.tile(FEW, 3)
    seconds = ring_s(sizes, workers, 30e-6, 4e-6, 10e9)
    seconds[workers == 4] *= 1.25
    records = [
        CollectiveRecord(operation="all-reduce", workers=n, bytes=s, seconds=(t,))
        for n, s, t in zip(workers.tolist(), sizes.tolist(), seconds.tolist(), strict=True)
    ]
    errors = fit_network(records).errors["all-reduce, other workers"]
    assert errors.cases == len(FEW)
    assert errors.median == pytest.approx(0.2, abs=1e-3)  # predicted as if it were no slower


def test_errors_are_summed_up_without_their_signs():
    assert Errors.of(np.array([-0.3, 0.1, 0.2])) == (3, pytest.approx(0.2), pytest.approx(0.29), pytest.approx(0.3))
    assert Errors.of(np.array([])).cases == 0
