"""Axes: lists and ranges of any key, short names, and mistakes in one line."""

import tomllib

import pytest

from gradwire.analysis.sweep.axes import read_axes
from gradwire.compressors.errors import InputError


def values(text):
    return {axis.name: axis.values for axis in read_axes(tomllib.loads(text))}


def test_lists_and_ranges():
    read = values("""
        density = [0.001, 0.1]
        cost = {from = 0, to = 10, points = 3}
        workers = {from = 2, to = 64, points = 6, scale = "log"}
        latency = {from = "10 us", to = "1 ms", points = 3, scale = "log"}
        "timing.all_reduce" = ["ring", "double-tree"]
        training.batch_size = [8, 16]
    """)
    assert read["density"] == (0.001, 0.1)
    assert read["cost"] == (0, 5, 10)
    assert read["workers"] == (2, 4, 8, 16, 32, 64)
    assert read["latency"] == ("10 us", "100 us", "1 ms")
    assert read["timing.all_reduce"] == ("ring", "double-tree")
    assert read["training.batch_size"] == (8, 16)


def test_a_logarithmic_range_has_equal_ratios_to_four_digits():
    (axis,) = read_axes({"bandwidth": {"from": "100 Mbit/s", "to": "100 Gbit/s", "points": 12, "scale": "log"}})
    assert (axis.values[0], axis.values[-1]) == ("100 Mbit/s", "100 Gbit/s")
    units = {"Mbit/s": 1e6, "Gbit/s": 1e9, "kbit/s": 1e3}
    numbers = [float(number) * units[unit] for number, unit in (text.split() for text in axis.values)]
    exact = [10 ** (8 + 3 * i / 11) for i in range(12)]
    assert numbers == pytest.approx(exact, rel=5e-4)  # half a unit of the fourth digit, at most


def test_a_range_of_bytes_a_second_may_be_a_bandwidth():
    (axis,) = read_axes({"bandwidth": {"from": "1 GB/s", "to": "3 GB/s", "points": 3}})
    assert axis.values == ("1 GB/s", "2 GB/s", "3 GB/s")


def test_short_names_and_whole_keys_are_the_same_axis():
    (axis,) = read_axes({"cluster": {"bandwidth": ["1 Gbit/s"]}})
    assert (axis.name, axis.key) == ("bandwidth", "cluster.bandwidth")
    (axis,) = read_axes({"scheme.density": [0.1]})
    assert (axis.name, axis.key, axis.parameter) == ("density", "scheme.density", "density")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "needs at least one axis"),
        ({"density": []}, "axes.density = []: an axis needs at least one value"),
        ({"density": 0.1}, "axes.density = 0.1: write a list"),
        ({"density": [0.1, 0.1]}, "a value comes twice"),
        ({"density": [0.1, [0.2]]}, "is neither a number nor a text"),
        ({"density": [0.1], "scheme.density": [0.2]}, "scheme.density has two axes"),
        ({"cost": {"from": 1, "to": 2}}, "axes.cost.points: this key is needed"),
        ({"cost": {"from": 1, "to": 2, "points": 1}}, "axes.cost.points = 1"),
        ({"cost": {"from": 0, "to": 2, "points": 5, "scale": "log"}}, "needs ends above 0"),
        ({"cost": {"from": 1, "to": 2, "points": 5, "scale": "cubic"}}, "axes.cost.scale = 'cubic'"),
        ({"latency": {"from": "1 us", "to": "1 Gbit/s", "points": 2}}, "no two quantities of one kind"),
        ({"latency": {"from": "1 us", "to": 5, "points": 2}}, "write both as numbers, or both with units"),
        ({"cost": list(range(4000)), "training.seed": list(range(4000))}, "16,000,000 points; allowed: at most"),
    ],
)
def test_mistakes_are_one_line(table, words):
    with pytest.raises(InputError, match=".*") as caught:
        read_axes(table)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
