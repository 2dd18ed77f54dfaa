"""Fits of published all-reduce times, within the bars that a simulator of collectives has to respect."""

import csv
from pathlib import Path

import numpy as np
import pytest

from gradwire.analysis.calibration.pieces import Points, predict_held_out

DATA = Path(__file__).parent / "data" / "nccl_a100.csv"


def published(workers):
    lines = [line for line in DATA.read_text().splitlines() if not line.startswith("#")]
    rows = [row for row in csv.DictReader(lines) if int(row["workers"]) == workers]
    sizes = np.array([int(row["bytes"]) for row in rows])
    seconds = np.array([float(row["time_us"]) * 1e-6 for row in rows])
    return Points("all-reduce", np.full(len(rows), workers), sizes, seconds)


@pytest.mark.parametrize("workers", [8, 32])
def test_held_out_published_times_are_predicted_within_the_bars(workers):
    """At most 6 % on average from 1 MiB on, at most 15 % from 64 KiB to there."""
    points = published(workers)
    predicted, held = predict_held_out(points)
    errors = np.abs(predicted / points.seconds - 1)
    large = held & (points.sizes >= 2**20)
    middle = held & (points.sizes >= 2**16) & ~large
    assert large.sum() >= 10
    assert middle.sum() == 4
    assert errors[large].mean() <= 0.06
    assert errors[middle].mean() <= 0.15
