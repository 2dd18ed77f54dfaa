"""A small task's learning timed as a large model's steps is marked as that wherever its numbers show."""

import json
import re
from io import StringIO

import pytest
from rich.console import Console

from gradwire.analysis.comparison import compare
from gradwire.analysis.folder import write_run
from gradwire.analysis.sweep.answer import answer
from gradwire.analysis.sweep.breakeven import with_break_even
from gradwire.analysis.sweep.dataset import assemble
from gradwire.analysis.sweep.executors import Here
from gradwire.analysis.sweep.folder import read_sweep, write_sweep
from gradwire.analysis.sweep.grid import make_grid
from gradwire.analysis.sweep.summary import sweep_table
from gradwire.analysis.sweep.sweep import sweep
from gradwire.analysis.sweep_plots import sweep_figures
from gradwire.analysis.tables import comparison_table
from gradwire.analysis.verdict import verdict
from gradwire.sim.experiment import validate_experiment
from gradwire.sim.run import run
from gradwire.sim.training.store import Store

MARK = "proxy: trained on logistic, timed as resnet18"
DATA = {
    "title": "A question",
    "schemes": ["dense(dtype=fp32)", "ef(topk(density=0.1))"],
    "task": {"name": "logistic"},
    "training": {"workers": 2, "batch_size": 8, "steps": 20, "evaluate_every": 5, "target": 0.9, "learning_rate": 1.0},
    "cluster": {"preset": "ethernet-1g"},
}
PROXY = {**DATA, "workload": {"model": "resnet18"}}


def printed(table):
    console = Console(width=160, record=True, file=StringIO())
    console.print(table)
    return " ".join(console.export_text().split())


def embedded(page, word):
    """Return whether a page's title, first heading, explorer and tables hold a word, in that order."""
    parts = [re.search(pattern, page, re.DOTALL) for pattern in (r"<title>.*?</title>", r"<h1.*?</h1>")]
    figure = re.search(r"<figcaption.*?</figcaption>", page, re.DOTALL)
    regions = re.findall(r'role="region" aria-label="([^"]*)"', page)
    return [word in part.group() for part in (*parts, figure)], [word in region for region in regions]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The run of a proxy, its folder, and those of the same without one."""
    place = tmp_path_factory.mktemp("runs")
    for name, data in (("proxy", PROXY), ("own", DATA)):
        found = run(validate_experiment(data), Store(place / "store"))
        write_run(found, found.dataset(), place / name)
    return place


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    place = tmp_path_factory.mktemp("sweeps")
    for name, data in (("proxy", PROXY), ("own", DATA)):
        grid = make_grid(data, {"density": [0.1, 0.2], "bandwidth": ["1 Gbit/s", "2 Gbit/s"]})
        found = sweep(grid, Store(place / "store"), Here())
        write_sweep(with_break_even(assemble(found), found), found, place / name)
    return place


def test_a_run_is_marked_everywhere(runs):
    found = run(validate_experiment(PROXY), Store(runs / "store")).dataset()
    comparison = compare(found)
    assert verdict(comparison).endswith(f"({MARK})")
    assert MARK in printed(comparison_table(comparison, 160))
    (note,) = [note for note in comparison.notes if note.startswith("A proxy: what is learnt is that of the task")]
    assert "resnet18, which would learn otherwise" in note
    summary = json.loads((runs / "proxy" / "summary.json").read_text())
    assert MARK in summary["verdict"]
    assert "proxy" in json.dumps(summary["notes"])
    page = (runs / "proxy" / "report.html").read_text()
    titles, regions = embedded(page, MARK)
    assert titles == [True] * 3
    assert any(regions)
    assert page.count("A proxy: what is learnt") == 1


def test_a_sweep_is_marked_everywhere(sweeps):
    data = read_sweep(sweeps / "proxy")
    found = answer(data)
    assert found.sentence.endswith(f"({MARK})")
    assert MARK in printed(sweep_table(data, found))
    assert found.notes[0].startswith("A proxy: what is learnt is that of the task logistic")
    summary = json.loads((sweeps / "proxy" / "summary.json").read_text())
    assert summary["proxy"] == "resnet18"
    assert summary["answer"] == found.sentence
    titles, regions = embedded((sweeps / "proxy" / "report.html").read_text(), MARK)
    assert titles == [True] * 3
    assert all(regions)
    assert len(regions) == 3  # schemes, explorer, break-even
    figures = sweep_figures(data)
    assert all("proxy: timed as resnet18" in text_of(figure) for figure in figures.values())


def text_of(figure):
    shown = [axes.get_title(loc=side) for axes in figure.axes for side in ("left", "center", "right")]
    return " ".join([figure.get_suptitle(), *shown])


def test_what_is_no_proxy_is_not_marked(runs, sweeps):
    for folder in (runs / "own", sweeps / "own"):
        assert "proxy:" not in (folder / "report.html").read_text().partition("<script")[0]
        assert "proxy:" not in (folder / "summary.json").read_text()
    data = read_sweep(sweeps / "own")
    assert "proxy" not in printed(sweep_table(data, answer(data)))


def test_several_models_are_all_named(tmp_path):
    grid = make_grid(DATA, {"workload.model": ["resnet18", "resnet50"]})
    data = assemble(sweep(grid, Store(tmp_path), Here()))
    assert answer(data).sentence.endswith("(proxy: trained on logistic, timed as resnet18 or resnet50)")
    sent = data["sent_bytes"].sel(scheme="dense(dtype=fp32)").values.tolist()
    assert sent == [4 * 11_689_512, 4 * 25_557_032]
