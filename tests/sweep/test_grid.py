"""Grids: the experiment at each point, labels, coordinates, and mistakes told with their point."""

import re

import pytest

from gradwire.analysis.sweep.grid import SWEEPS, load_grid, make_grid
from gradwire.compressors.errors import InputError

from .small import BASE, grid


def test_each_point_is_the_experiment_with_its_values():
    found = grid()
    assert found.shape == (2, 3, 3, 2, 2)
    one = found.experiment((1, 2, 0, 1, 1))
    assert one.schemes == ("dense(dtype=fp32)", "dense(dtype=bf16)", "ef(topk(density=0.4))", "qsgd(bits=4)")
    assert (one.overhead.factor, one.cluster.bandwidth, one.cluster.latency) == (30, 1e6, 500e-6)
    assert (one.training.seed, one.training.steps, one.training.target) == (1, 30, 0.9)


def test_labels_leave_open_what_is_an_axis():
    found = grid({"density": [0.1], "scheme.bits": [2, 8]})
    assert found.labels == ("dense(dtype=fp32)", "dense(dtype=bf16)", "ef(topk(density))", "qsgd(bits)")
    assert found.experiment((0, 1)).schemes[2:] == ("ef(topk(density=0.1))", "qsgd(bits=8)")


def test_coordinates_are_numbers_in_si_units_or_texts():
    axes = {"bandwidth": ["1 Gbit/s", "1 GB/s"], "latency": ["5 us"], "timing.all_reduce": ["ring"], "density": [0.1]}
    found = grid({**axes, "training.bucket": ["1 MiB"], "timing.overlap": [True, False]})
    coordinates = [found.coordinate(i) for i in range(len(found.axes))]
    assert coordinates == [
        ([1e9, 8e9], "bit/s"), ([5e-6], "s"), (["ring"], ""), ([0.1], "1"), ([2**20], "B"), (["True", "False"], ""),
    ]  # fmt: skip


def test_the_shipped_sweeps_can_be_read():
    assert "three-parameters" in SWEEPS
    for name in SWEEPS:
        found = load_grid(name)
        assert found.first.schemes
    three = load_grid("three-parameters")
    assert dict(zip((axis.name for axis in three.axes), three.shape, strict=True)) == {
        "density": 5, "cost": 5, "bandwidth": 12, "latency": 2, "seed": 3,
    }  # fmt: skip
    assert three.first.training.steps >= 400
    assert sum("dense" not in label for label in three.labels) == 3


def test_any_experiment_becomes_a_sweep_with_axes_from_the_command_line():
    found = load_grid("mnist", ["training.steps=3"], ["dense", "ef(topk)"], ["density=[0.1, 0.2]", "workers=[2, 4]"])
    assert [axis.name for axis in found.axes] == ["density", "workers"]
    assert found.first.training.steps == 3
    assert found.labels == ("dense(dtype=native)", "ef(topk(density))")
    with pytest.raises(InputError, match="--axis 'density': write key=value, as in bandwidth"):
        load_grid("mnist", axes=["density"])


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"training.stepz": [1]}, "at training.stepz = 1: training.stepz: unknown key; did you mean steps"),
        ({"densty": [0.1]}, "axes.densty: no key of an experiment; did you mean density"),
        ({"schemes": ["dense"]}, "axes.schemes: no key of an experiment"),
        ({"seed.deep": [1]}, "at seed.deep = 1: seed: unknown key"),
        ({"cluster.preset": ["ethernet-1g", "ethernet-9g"]}, "cluster 'ethernet-9g' is unknown"),
        ({"density": [0.1, 2.0]}, "axes.density = 2.0"),
        ({"scheme.rank": [1, 2]}, "axes.scheme.rank: none of the schemes has a parameter rank"),
        ({"bandwidth": ["1 Gbit/s", "1 furlong"]}, "at bandwidth = '1 furlong': cluster.bandwidth"),
        ({"workers": [4, 0]}, "at workers = 0: training.workers = 0"),
        ({"training.steps.deep": [1]}, "steps is no section"),
    ],
)
def test_mistakes_name_the_axis_and_the_value(axes, words):
    with pytest.raises(InputError, match=re.escape(words)):
        every_experiment(axes)


def every_experiment(axes):
    found = grid(axes)
    return [found.experiment(index) for index in found.indices(range(len(found.axes)))]


def test_a_rate_is_tuned_or_swept_but_not_both():
    with pytest.raises(InputError, match="training.learning_rate is tuned by tune.learning_rates"):
        grid({"training.learning_rate": [0.1]}, tune={"learning_rates": [0.1, 0.2]})


def test_schemes_that_differ_only_in_what_is_an_axis_are_one():
    with pytest.raises(InputError, match=r"ef\(topk\(density\)\) stands there more than once"):
        make_grid({**BASE, "schemes": ["dense", "ef(topk(density=0.1))", "ef(topk(density=0.2))"]}, {"density": [0.1]})
