"""Numbers as people read them, at the edges where a unit or a digit changes."""

import doctest
from math import inf, nan

import pytest

from gradwire.analysis import formatting
from gradwire.analysis.formatting import (
    format_bytes,
    format_count,
    format_metric,
    format_percent,
    format_ratio,
    format_seconds,
    significant,
    time_unit,
)


def test_the_examples_hold():
    result = doctest.testmod(formatting)
    assert result.attempted == 7
    assert result.failed == 0


@pytest.mark.parametrize("write", [significant, format_bytes, format_seconds, format_ratio])
@pytest.mark.parametrize("value", [None, nan, inf])
def test_what_is_missing_is_a_dash(write, value):
    assert write(value) == "-"
    assert format_count(None) == "-"
    assert format_metric(value, "accuracy") == format_metric(value, "loss") == "-"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9.995, "9.99"),
        (9.996, "10.0"),
        (99.96, "100"),
        (0, "0"),
        (-1.5, "-1.50"),
        (123456, "123,000"),
        (1e6, "1.00e+06"),
    ],
)
def test_three_digits_even_where_rounding_adds_one(value, text):
    assert significant(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2e-10, "0.200 ns"),
        (9.996e-7, "1.00 us"),
        (0.9994, "999 ms"),
        (119, "119 s"),
        (120, "2.00 min"),
        (7200, "2.00 h"),
        (86400, "24.0 h"),
        (4 * 86400, "4.00 d"),
    ],
)
def test_durations_take_the_unit_that_suits(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (12.5, "12.5 B"), (999.4, "999 B"), (1e6, "1.00 MB"), (2.5e9, "2.50 GB"), (3e12, "3.00 TB")],
)
def test_bytes_take_the_unit_that_suits(size, text):
    assert format_bytes(size) == text


def test_time_units_convert_back():
    assert all(
        format_seconds(value).endswith(f" {time_unit(value)[1]}") for value in (3e-9, 4e-5, 0.2, 7, 600, 9e3, 9e5)
    )
    assert time_unit(nan) == time_unit(-1) == (1.0, "s")


def test_ratios_counts_and_percentages():
    assert (format_ratio(0.5471), format_ratio(6.213), format_ratio(123.4)) == ("0.547x", "6.21x", "123x")
    assert format_count(12345) == "12,345"
    assert (format_percent(0), format_percent(0.006), format_percent(1)) == ("0 %", "1 %", "100 %")
