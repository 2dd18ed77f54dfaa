"""Executors: processes of this machine and a Dask cluster give the same; what is not there is said in one line."""

import time
from operator import neg

import pytest
import xarray as xr

from gradwire.analysis.sweep.dataset import assemble
from gradwire.analysis.sweep.executors import Dask, Here, Pool
from gradwire.analysis.sweep.sweep import sweep
from gradwire.compressors.errors import InputError
from gradwire.sim.training.order import Order
from gradwire.sim.training.store import Store

from .small import grid

AXES = {"density": [0.1, 0.4], "cost": [0, 1], "seed": [0, 1]}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return assemble(sweep(grid(AXES), Store(tmp_path_factory.mktemp("here")), Here()))


def misplaced():
    """Return an order that no machine can fill: its key is not that of what is ordered."""
    experiment = grid(AXES).first
    task = experiment.make_task()
    order = Order.of(task, task.digest(), "dense", experiment.training)
    return Order(order.task, order.scheme, order.plan, "0" * 64)


WORDS = "has another gradwire, torch, numpy, Python or device"


def test_a_pool_gives_what_one_process_gives(here, tmp_path):
    stages = []
    found = sweep(grid(AXES), Store(tmp_path), Pool(2), lambda *stage: stages.append(stage))
    xr.testing.assert_identical(assemble(found), here)
    assert stages == [("training", done, 10) for done in range(11)]


def test_a_pool_yields_as_things_are_done_and_passes_mistakes_on():
    assert sorted(Pool(2).run(neg, [1, 2, 3])) == [(1, -1), (2, -2), (3, -3)]
    assert list(Pool(2).run(neg, [])) == []
    with pytest.raises(InputError, match=WORDS):
        list(Pool(1).run(Order.train_elsewhere, [misplaced()]))


@pytest.mark.slow
def test_a_dask_cluster_gives_what_one_process_gives(here, tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra gradwire[dask] is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        executor = Dask(cluster.scheduler_address)
        found = sweep(grid(AXES), Store(tmp_path), executor)
        with pytest.raises(InputError, match=WORDS):
            list(executor.run(Order.train_elsewhere, [misplaced()]))
        executor.close()
    xr.testing.assert_identical(assemble(found), here)


def test_a_scheduler_that_is_not_there(monkeypatch):
    pytest.importorskip("distributed", reason="the extra gradwire[dask] is not installed")
    monkeypatch.setattr("gradwire.analysis.sweep.executors._CONNECT_S", 0.5)
    start = time.monotonic()
    for address in ("tcp://127.0.0.1:9", "nonsense://127.0.0.1:9"):
        with pytest.raises(InputError, match=f"--scheduler {address}: no Dask scheduler answers there"):
            Dask(address)
    assert time.monotonic() - start < 60


def test_a_machine_that_would_compute_something_else_is_refused():
    """As if a worker had another version: its own fingerprint is not the one that was ordered."""
    with pytest.raises(InputError, match=WORDS):
        misplaced().train_elsewhere()
