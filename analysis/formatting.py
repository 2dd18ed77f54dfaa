"""Numbers as people read them: three significant digits and the unit that suits, for tables, axes and sentences."""

from math import floor, isfinite, log10

MISSING = "-"
"""What stands where there is no value."""

_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_LONG_SECONDS = ((2 * 86400.0, "d", 86400.0), (7200.0, "h", 3600.0), (120.0, "min", 60.0))


def significant(value: float | None, digits: int = 3) -> str:
    """Write a number with so many significant digits, trailing zeros kept so that columns line up.

    >>> [significant(value) for value in (0.04, 1.2, 12, 1234, 1.5e9, 2e-7)]
    ['0.0400', '1.20', '12.0', '1,230', '1.50e+09', '2.00e-07']
    """
    if value is None or not isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    if not 1e-4 <= abs(rounded) < 1e6:
        return f"{rounded:.{digits - 1}e}"
    decimals = max(0, digits - 1 - floor(log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def format_bytes(size_bytes: float | None, digits: int = 3) -> str:
    """Write a number of bytes with a decimal prefix.

    >>> format_bytes(12_345_678), format_bytes(999.9), format_bytes(17), format_bytes(2e6, digits=1)
    ('12.3 MB', '1.00 kB', '17 B', '2 MB')
    """
    if size_bytes is None or not isfinite(size_bytes):
        return MISSING
    rounded = float(f"{size_bytes:.{digits}g}")
    if rounded < 1000:
        return f"{rounded:g} B"
    factor, unit = next((factor, unit) for factor, unit in _BYTES if rounded >= factor)
    return f"{significant(size_bytes / factor, digits)} {unit}"


def time_unit(largest_s: float) -> tuple[float, str]:
    """Return the unit, in seconds and by name, in which durations up to ``largest_s`` read well.

    >>> time_unit(0.4), time_unit(300), time_unit(0)
    ((0.001, 'ms'), (60.0, 'min'), (1.0, 's'))
    """
    if largest_s <= 0 or not isfinite(largest_s):
        return 1.0, "s"
    rounded = float(f"{largest_s:.3g}")
    for least, unit, factor in _LONG_SECONDS:
        if rounded >= least:
            return factor, unit
    return next(((factor, unit) for factor, unit in _SECONDS if rounded >= factor), _SECONDS[-1])


def format_seconds(duration_s: float | None) -> str:
    """Write a duration in the unit that suits, from ns to days.

    >>> format_seconds(0.00123), format_seconds(0.9999), format_seconds(5400)
    ('1.23 ms', '1.00 s', '90.0 min')
    """
    if duration_s is None or not isfinite(duration_s):
        return MISSING
    factor, unit = time_unit(duration_s)
    return f"{significant(duration_s / factor)} {unit}"


def format_ratio(ratio: float | None) -> str:
    """Write a speed-up, as in ``6.21x``."""
    text = significant(ratio)
    return text if text == MISSING else f"{text}x"


def format_count(count: float | None) -> str:
    """Write a whole number with its thousands apart."""
    return MISSING if count is None else f"{count:,}"


def format_percent(share: float) -> str:
    """Write a share of one in whole percent.

    >>> format_percent(0.834), format_percent(0.0012)
    ('83 %', 'less than 1 %')
    """
    return "less than 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def is_share(metric: str) -> bool:
    """Return whether a metric is a share of one that reads as a percentage, as accuracies do."""
    return "accuracy" in metric.lower()


def format_metric(value: float | None, metric: str) -> str:
    """Write a measured metric: an accuracy in percent to a tenth, anything else with three significant digits.

    >>> format_metric(0.9725, "accuracy"), format_metric(0.0123, "loss")
    ('97.2 %', '0.0123')
    """
    if value is None or not isfinite(value):
        return MISSING
    return f"{100 * value:.1f} %" if is_share(metric) else significant(value)


def format_target(value: float, metric: str) -> str:
    """Write a target as it was asked for, not rounded to what is measured.

    >>> format_target(0.9, "accuracy"), format_target(0.955, "accuracy"), format_target(0.05, "loss")
    ('90 %', '95.5 %', '0.05')
    """
    return f"{100 * value:.6g} %" if is_share(metric) else f"{value:.6g}"
