"""Units: what text means in SI numbers, and that writing and reading lose nothing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gradwire.sim.units import (
    Bandwidth,
    ByteRate,
    Duration,
    FlopRate,
    Size,
    between,
    format_bandwidth,
    format_duration,
    format_size,
    parse_bandwidth,
    parse_duration,
    parse_size,
    spaced,
    unit_of,
)

POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "bits_per_second"),
    [
        ("10 Gbit/s", 1e10),
        ("10Gbit/s", 1e10),
        ("10 Gbps", 1e10),
        ("1.25 GB/s", 1e10),
        ("0.01 Tbit/s", 1e10),
        ("100 Mbit/s", 1e8),
        ("100 MB/s", 8e8),
        ("64 kbit/s", 64e3),
        ("1e3 bit/s", 1e3),
        ("1 B/s", 8.0),
    ],
)
def test_bandwidth_tells_bits_from_bytes(text, bits_per_second: float):
    assert parse_bandwidth(text) == bits_per_second


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("50 us", 50e-6),
        ("1.5 ms", 1.5e-3),
        ("2 s", 2.0),
        ("7 ns", 7e-9),
        ("3 ps", 3e-12),
        ("2 min", 120.0),
        ("0 s", 0.0),
    ],
)
def test_durations_are_seconds(text, seconds: float):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("25 MiB", 26214400),
        ("25 MB", 25000000),
        ("1 KiB", 1024),
        ("1 KB", 1000),
        ("1 kB", 1000),
        ("1.5 GiB", 1610612736),
    ],
)
def test_sizes_are_binary_or_decimal_as_their_unit_says(text, size: int):
    assert parse_size(text) == size
    assert isinstance(parse_size(text), int)


def test_reading_rounds_once():
    """A product of floats would be rounded twice and miss the nearest one."""
    assert parse_duration("0.9 ms") == 0.9e-3
    assert 0.9 * 1e-3 != 0.9e-3


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (format_bandwidth, 1e10, "10 Gbit/s"),
        (format_bandwidth, 1e8, "100 Mbit/s"),
        (format_bandwidth, 9.41e9, "9.41 Gbit/s"),
        (format_duration, 5e-5, "50 us"),
        (format_duration, 0.0, "0 s"),
        (format_duration, 1e-7, "100 ns"),
        (format_size, 26214400, "25 MiB"),
        (format_size, 10**6, "1 MB"),
        (format_size, 1, "1 B"),
    ],
)
def test_numbers_are_written_shortly(write, value, text):
    assert write(value) == text


@settings(deadline=None)
@given(POSITIVE)
def test_bandwidths_and_durations_survive_writing(value: float):
    assert parse_bandwidth(format_bandwidth(value)) == value
    assert parse_duration(format_duration(value)) == value


@settings(deadline=None)
@given(st.integers(1, 2**90))
def test_sizes_survive_writing(value: int):
    assert parse_size(format_size(value)) == value


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_bandwidth, "10", "bandwidth '10' has no unit; allowed: bit/s, kbit/s"),
        (parse_bandwidth, "10 gbit/s", "bandwidth '10 gbit/s' has the unknown unit 'gbit/s'; allowed: bit/s"),
        (parse_bandwidth, "0 Gbit/s", "bandwidth '0 Gbit/s' must be above 0"),
        (parse_bandwidth, "fast", "bandwidth 'fast' is not a number with a unit; allowed: bit/s"),
        (parse_bandwidth, "nan bit/s", "is not a number"),
        (parse_bandwidth, "1e400 bit/s", "too large"),
        (parse_duration, "-1 us", "duration '-1 us' is negative"),
        (parse_duration, "5 MiB", "unknown unit 'MiB'; allowed: s, ms, us, ns, ps, min"),
        (parse_size, "0.3 B", "size '0.3 B' is not a whole number of bytes"),
        (parse_size, "0 B", "must be above 0"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(parse, text, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


class Everything(BaseModel):
    rate: Bandwidth
    time: Duration
    size: Size
    memory: ByteRate
    peak: FlopRate


TEXTS = {"rate": "1.25 GB/s", "time": "50 us", "size": "25 MiB", "memory": "900 GB/s", "peak": "15.7 TFLOP/s"}


def test_fields_are_read_from_text_and_written_as_text():
    model = Everything.model_validate(TEXTS)
    assert (model.rate, model.time, model.size) == (1e10, 5e-5, 26214400)
    assert math.isclose(model.memory, 9e11)
    assert math.isclose(model.peak, 1.57e13)
    assert model.model_dump() == {**TEXTS, "rate": "10 Gbit/s"}
    assert Everything.model_validate(model.model_dump()) == model


@pytest.mark.parametrize("field", list(TEXTS))
def test_a_bare_number_in_a_field_is_refused(field: str):
    with pytest.raises(ValidationError, match="must be text with a unit; allowed: "):
        Everything.model_validate({**TEXTS, field: 5})


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1 Gbit/s", 1e9, "bit/s"),
        ("1 GB/s", 8e9, "bit/s"),
        ("1 GB/s", 1e9, "B/s"),
        ("50 us", 50e-6, "s"),
        ("25 MiB", 25 * 2**20, "B"),
        ("15.7 TFLOP/s", 15.7e12, "FLOP/s"),
        ("50 us", 50, None),
        ("ring", 0, None),
        ("3", 3, None),
    ],
)
def test_the_unit_in_which_a_text_was_read(text, value, unit):
    assert unit_of(text, value) == unit


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize(("first", "last"), [(1, 64), (0.001, 0.1), (5.0, 0.02), (3, 3)])
def test_spaced_numbers_are_numpys_to_four_digits(first, last, logarithmic):
    exact = (np.geomspace if logarithmic else np.linspace)(first, last, 7)
    found = spaced(first, last, 7, logarithmic)
    assert (found[0], found[-1]) == (first, last)
    assert found == pytest.approx(exact.tolist(), rel=5.001e-4)
    assert all(float(f"{value:.4g}") == value for value in found[1:-1])


def test_ranges_of_texts_keep_their_ends_and_read_back_as_numbers():
    texts = between("0.1 Gbit/s", "1e5 Mbit/s", 13, logarithmic=True)
    assert (texts[0], texts[-1]) == ("0.1 Gbit/s", "1e5 Mbit/s")
    exact = np.geomspace(1e8, 1e11, 13).tolist()
    assert [parse_bandwidth(text) for text in texts] == pytest.approx(exact, rel=5.001e-4)
    assert between("1 KiB", "3 KiB", 3, logarithmic=False) == ["1 KiB", "2 KiB", "3 KiB"]
    assert between("1 s", "2 s", 2, logarithmic=False) == ["1 s", "2 s"]
    for first, last in (("1 s", "1 B"), ("1", "2"), ("fast", "faster")):
        with pytest.raises(ValueError, match="no two quantities of one kind"):
            between(first, last, 3, logarithmic=False)
    with pytest.raises(ValueError, match="needs ends above 0"):
        between("0 s", "1 s", 3, logarithmic=True)
