"""Where a sweep's explorer starts, and what it leaves out."""

from gradwire.analysis.sweep.executors import Here
from gradwire.analysis.sweep.explore import candidates, start_point
from gradwire.analysis.sweep.sweep import sweep
from gradwire.sim.training.store import Store

from .small import grid


def found(store, axes, **sections):
    return sweep(grid(axes, training={"steps": 5}, **sections), Store(store), Here())


def test_it_starts_at_the_plain_cost_and_in_the_middle(tmp_path):
    axes = {"density": [0.1, 0.2, 0.4], "cost": [0, 1, 9], "bandwidth": ["1 Gbit/s", "2 Gbit/s", "4 Gbit/s"]}
    start = start_point(found(tmp_path, {**axes, "workers": [2, 4]}))
    assert (start.density, start.factor, start.bandwidth_bps, start.workers) == (0.2, 1, 2e9, 4)


def test_it_starts_where_there_is_a_closed_form(tmp_path):
    """Beyond one host of four GPUs the event engine plays everything here."""
    intra = {"bandwidth": "100 Gbit/s", "latency": "3 us"}
    cluster = {"gpus": 4, "intra": intra, "latency": "50 us"}
    swept = found(tmp_path, {"workers": [4, 6, 8]}, cluster=cluster, schemes=["dense", "qsgd"])
    assert {cell.experiment.training.workers for cell in swept.cells if not cell.whole} == {6, 8}
    assert start_point(swept).workers == 4
    assert {one.workers for one in candidates(swept) if one.curves} == {4}
