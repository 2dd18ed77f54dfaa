"""A sweep's report in a real browser: what its explorer shows against the sweep's dataset and against predictions."""

import json
from itertools import product

import numpy as np
import pytest

from gradwire.analysis.sweep.breakeven import with_break_even
from gradwire.analysis.sweep.crossings import TITLES, crossings
from gradwire.analysis.sweep.dataset import assemble
from gradwire.analysis.sweep.executors import Here
from gradwire.analysis.sweep.folder import write_sweep
from gradwire.analysis.sweep.grid import make_grid
from gradwire.analysis.sweep.sweep import sweep
from gradwire.sim.prediction import make_job, predict
from gradwire.sim.training.store import Store
from gradwire.sim.units import parse_bandwidth

from ..browser import browser, opened

__all__ = ["browser"]  # the fixture

DENSE, TOPK, QSGD = "dense(dtype=fp32)", "ef(topk(density))", "qsgd(bits=4)"
DENSITIES, WORKERS, COSTS, BANDWIDTHS = (0.01, 0.1), (2, 8), (0, 1), ("1 Gbit/s", "40 Gbit/s")
BETWEEN, BETWEEN_WORKERS = 0.032, 4
BATCH = 16
DATA = {
    "schemes": [DENSE, "ef(topk)", QSGD],
    "task": {"name": "logistic"},
    "training": {
        "batch_size": 8, "steps": 30, "evaluate_every": 5, "learning_rate": 0.5, "target": 0.9, "first_bucket": "1 MiB",
    },
    "cluster": {"preset": "ethernet-10g"},
    "workload": {"model": "resnet18", "device": "a100", "batch": BATCH},
}  # fmt: skip
AXES = {"density": DENSITIES, "workers": WORKERS, "cost": COSTS, "bandwidth": BANDWIDTHS, "seed": (0, 1)}
NUMBERS = ["step_s", "time_to_target_s", "steps_to_target", "final_metric"]
ROWS = """() => [...document.querySelectorAll(".explorer tbody tr")].map((row) => [
  row.querySelector("code").textContent,
  ...[...row.cells].slice(1).map((cell) => ("value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent)),
])"""
HEADS = """() => [...document.querySelectorAll(".explorer thead th")].map((head) => head.textContent)"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep's dataset, and the folder with its report."""
    place = tmp_path_factory.mktemp("sweep")
    found = sweep(
        make_grid(DATA, {name: list(values) for name, values in AXES.items()}), Store(place / "store"), Here()
    )
    data = with_break_even(assemble(found), found)
    write_sweep(data, found, place / "out")
    return data, place / "out"


def go(at, density, workers, cost, bandwidth):
    """Move the sliders; return the rows that are shown by scheme and heading."""
    positions = {
        "density": (DENSITIES[0], BETWEEN, DENSITIES[1]).index(density),
        "workers": (WORKERS[0], BETWEEN_WORKERS, WORKERS[1]).index(workers),
    }
    for name, place in positions.items():
        at.locator(f"#explorer-{name}").fill(str(place))
    for name, text in (("cost", f"{cost}"), ("bandwidth", bandwidth)):
        field = at.locator(f"#explorer-{name}-exact")
        field.fill(text)
        field.press("Enter")
    heads = at.evaluate(HEADS)
    return {row[0]: dict(zip(heads, row, strict=True)) for row in at.evaluate(ROWS)}


def test_trained_points_show_the_numbers_of_the_dataset(browser, swept):
    data, folder = swept
    met = 0
    with opened(browser, folder / "report.html") as at:
        for density, workers, cost, bandwidth in product(DENSITIES, WORKERS, COSTS, BANDWIDTHS):
            shown = go(at, density, workers, cost, bandwidth)
            assert list(shown) == [DENSE, TOPK, QSGD]
            here = data.sel(density=density, workers=workers, cost=cost, bandwidth=parse_bandwidth(bandwidth))
            for label, row in shown.items():
                one = here[NUMBERS].sel(scheme=label).mean("seed", skipna=False)
                assert row["step"] == pytest.approx(float(one["step_s"]), rel=1e-6)
                assert row["final test accuracy"] == pytest.approx(float(one["final_metric"]), rel=1e-6)
                if np.isnan(one["time_to_target_s"]):
                    assert row["time to target"] in ("not reached", "1 of 2 seeds")
                else:
                    met += 1
                    assert row["time to target"] == pytest.approx(float(one["time_to_target_s"]), rel=1e-6)
                    assert row["steps to target"] == pytest.approx(float(one["steps_to_target"]), rel=1e-6)
            fastest = here["baseline_step_s"].mean("seed")
            assert shown[TOPK]["step speed-up"] == pytest.approx(float(fastest) / shown[TOPK]["step"], rel=1e-6)
    assert met > 8


def predicted(scheme, workers, cost, bandwidth, bucket="25 MiB"):
    job = {
        "model": "resnet18",
        "scheme": scheme,
        "training": {"workers": workers, "batch_size": BATCH, "bucket": bucket, "first_bucket": "1 MiB"},
        "cluster": {"preset": "ethernet-10g", "bandwidth": bandwidth},
        "workload": {"device": "a100"},
        "overhead": {"factor": cost},
    }
    return predict(make_job(job)).step_s


@pytest.mark.parametrize(("cost", "bandwidth"), [(1, "1 Gbit/s"), (0, "40 Gbit/s")])
def test_points_between_show_steps_alone_and_as_they_are_predicted(browser, swept, cost, bandwidth):
    _, folder = swept
    with opened(browser, folder / "report.html") as at:
        between = go(at, BETWEEN, WORKERS[0], cost, bandwidth)
        elsewhere = go(at, DENSITIES[1], BETWEEN_WORKERS, cost, bandwidth)
        both = go(at, BETWEEN, BETWEEN_WORKERS, cost, bandwidth)
    untrained = [(between[TOPK], f"ef(topk(density={BETWEEN}))", WORKERS[0])]
    untrained += [(elsewhere[TOPK], f"ef(topk(density={DENSITIES[1]}))", BETWEEN_WORKERS)]
    untrained += [(both[TOPK], f"ef(topk(density={BETWEEN}))", BETWEEN_WORKERS)]
    untrained += [(rows[QSGD], QSGD, BETWEEN_WORKERS) for rows in (elsewhere, both)]
    for row, scheme, workers in untrained:
        assert row["step"] == pytest.approx(predicted(scheme, workers, cost, bandwidth), rel=1e-6)
        assert row["final test accuracy"] == "not trained"
        assert isinstance(row["time to target"], str)
    sizes = ("1 MiB", "5 MiB", "25 MiB", "100 MiB")
    best = min(predicted(DENSE, BETWEEN_WORKERS, cost, bandwidth, size) for size in sizes)
    assert both[DENSE]["step"] == pytest.approx(best, rel=1e-6)
    assert between[DENSE]["final test accuracy"] != "not trained"  # it has no density, so it was trained there


def test_the_break_even_table_is_that_of_the_dataset(browser, swept):
    data, folder = swept
    with opened(browser, folder / "report.html") as at:
        table = at.get_by_role("region", name="Break-even").locator("table")
        heads = table.locator("thead th").all_inner_texts()
        names = table.locator("tbody code").all_inner_texts()
        texts = [row.locator("td").all_inner_texts() for row in table.locator("tbody tr").all()]
    expected = list(crossings(data))
    assert heads == ["scheme", *TITLES]
    assert names == [row.name for row in expected]
    assert len(names) == 2 * 2 + 2
    assert texts == [[text for text, _ in row.cells()] for row in expected]
    where = {"scheme": TOPK, "by": "time to target", "density": 0.01, "workers": 2}
    first = float(data["break_even_bandwidth"].sel({**where, "cost": 1}).isel(root=0))
    (row,) = [row for row in expected if row.name == "ef(topk(density=0.01)), workers 2"]
    assert row.bandwidth_bps == (None if np.isnan(first) else first)


def test_the_summary_and_the_page_say_the_same(browser, swept):
    _, folder = swept
    summary = json.loads((folder / "summary.json").read_text())
    with opened(browser, folder / "report.html") as at:
        assert summary["answer"] in at.locator("body").inner_text()
        names = at.get_by_role("region", name="Schemes swept").locator("tbody code").all_inner_texts()
    assert names == [row["name"] for row in summary["schemes"]]
