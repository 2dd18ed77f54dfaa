"""`gradwire theory` as a person uses it: tables, files, exit statuses, and what is kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gradwire.analysis.theory.cases import ProbeCase, Result, cases_of
from gradwire.analysis.theory.check import Finding
from gradwire.analysis.theory.registry import STATEMENTS
from gradwire.cli import app
from gradwire.cli import theory as command

RUNNER = CliRunner()
TOPK = "topk(density=0.05)"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADWIRE_STORE", str(tmp_path / "store"))


def call(*arguments):
    return RUNNER.invoke(app, ["theory", *arguments], prog_name="gradwire")


class Here:
    """Runs cases in this process, where a test can watch them."""

    def __init__(self, *_):
        self.ran = []

    def run(self, function, items):
        for item in items:
            self.ran.append(item)
            yield item, function(item)


@pytest.fixture
def here(monkeypatch):
    executor = Here()
    monkeypatch.setattr(command, "Pool", lambda _: executor)
    return executor


@pytest.mark.usefixtures("here")
def test_a_scheme_gets_its_constants_checks_rates_and_what_does_not_apply():
    result = call("scheme", TOPK, "--json", "theory.json", "--plot", "theory.png")
    assert result.exit_code == 0, result.output
    out = result.stdout
    assert "1 - delta of topk(density=0.05): E||C(x) - x||^2 / ||x||^2, stated at most 0.950" in out
    row = next(line.split() for line in out.splitlines() if line.strip().startswith("beznosikov.divergence"))
    assert row[-5:] == ["hold", "1.22", "1.22", "1.00", "holds"]
    assert "Not applicable (needed: an unbiased scheme): operator.variance" in out
    assert "geometric" in out
    assert out.splitlines()[-1].startswith(f"Convergence guarantees that apply to {TOPK}: khirirat.product (holds), ")
    assert Path("theory.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads(Path("theory.json").read_text())
    assert data["constants"]["stated"] == 0.95
    flat = data["constants"]["measured"]["flat"]
    assert flat["low"] == flat["mean"] == pytest.approx(0.95)
    assert {check["verdict"] for check in data["checks"]} == {"holds", "not applicable"}
    assert [rate["against"] for rate in data["rates"]] == ["steps", "bits"]
    assert {row["symbol"] for row in data["assumptions"]} == {"E||g||^2", "1 - delta", "xi"}


def test_a_policy_is_refused_before_any_work(here):
    spec = "layers(topk(density=0.1), below=10)"
    result = call("scheme", spec)
    told = f"gradwire: scheme {spec!r}: layers gives units schemes of their own; check one of these at a time\n"
    assert (result.exit_code, result.stderr) == (2, told)
    assert here.ran == []


def test_schemes_for_matrices_are_tried_on_matrices():
    """On a vector they lose nothing, which says nothing of them."""
    assert cases_of("ef(powersgd(rank=2))") == [ProbeCase("ef(powersgd(rank=2))", (10, 10))]
    assert {vector.shape for vector in ProbeCase("powersgd(rank=2)", (10, 10)).probe().vectors.values()} == {(10, 10)}
    assert cases_of("dense(dtype=native)")[0] == ProbeCase("dense(dtype=native)", (100,))


def test_what_was_checked_is_kept_and_not_run_again(here):
    first = call("scheme", TOPK)
    cases = list(here.ran)
    assert cases == cases_of(TOPK)
    assert call("scheme", TOPK).stdout == first.stdout
    assert here.ran == cases
    assert call("scheme", TOPK, "--store", "elsewhere").stdout == first.stdout
    assert here.ran == cases * 2


def test_an_interrupted_suite_goes_on_where_it_was(monkeypatch):
    cases = [ProbeCase(TOPK), ProbeCase("dense(dtype=native)")]
    monkeypatch.setattr(command, "suite_cases", lambda: cases)

    class Stops(Here):
        def run(self, function, items):
            yield items[0], function(items[0])
            raise KeyboardInterrupt

    executor = Here()
    monkeypatch.setattr(command, "Pool", Stops)
    stopped = call("suite")
    assert (stopped.exit_code, stopped.stdout) == (130, "")
    assert (
        stopped.stderr == "gradwire: interrupted; what was checked is stored, and the same command goes on from there\n"
    )
    monkeypatch.setattr(command, "Pool", lambda _: executor)
    assert call("suite").exit_code == 0
    assert executor.ran == cases[1:]


@pytest.mark.usefixtures("here")
def test_a_violated_bound_is_status_1_and_is_told(monkeypatch):
    statement = STATEMENTS["karimireddy.memory"]
    steps, bound = np.array([1.0]), np.array([1.0])
    wrong = Finding(statement, "a broken scheme", (), steps, np.array([[2.0]]), bound, exact=True)
    right = replace(wrong, subject="a sound scheme", values=np.array([[0.5]]))
    monkeypatch.setattr(command, "suite_cases", lambda: [ProbeCase(TOPK)])
    monkeypatch.setattr(ProbeCase, "result", lambda _: Result([right, wrong], [], []))
    result = call("suite", "--json", "theory.json")
    assert result.exit_code == 1
    assert "2 checks: 1 holds, 1 violated." in result.stdout
    assert "a broken scheme" in result.stdout
    assert "a sound scheme" not in result.stdout  # the gravest instance stands for all, until all are asked for
    assert "a sound scheme" in call("suite", "--all").stdout
    assert [one["verdict"] for one in json.loads(Path("theory.json").read_text())["checks"]] == ["holds", "violated"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("scheme", "topk(density=2)"), "topk: density = 2 is out of range: density must be in (0, 1]"),
        (("scheme", TOPK, "--plot", "theory.gif"), "--plot theory.gif: allowed endings: .png, .svg, .pdf"),
        (("suite", "--json", "nowhere/theory.json"), "--json nowhere/theory.json: the folder nowhere is not there"),
        (("suite", "--json", "."), "--json .: is a folder; give a file in it"),
        (("run", "nowhere"), "nowhere is not there, so neither is its run.nc"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, said):
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"gradwire: {said}\n"


def test_a_recorded_run_is_checked_from_its_folder_alone():
    made = RUNNER.invoke(
        app,
        [
            *("run", "mnist", "--set", "task={name = 'logistic'}", "--set", "training.workers=4"),
            *("--set", "training.batch_size=8", "--set", "training.steps=20", "--set", "training.record=theory"),
            *("--set", "training.dtype=float64", "--set", "training.optimizer_options={}", "--out", "recorded"),
            *("--set", "training.target=0.5", "--scheme", "ef(topk(density=0.1))", "--scheme", "dense"),
        ],
    )
    assert made.exit_code == 0, made.output
    result = call("run", "recorded", "--json", "theory.json")
    assert result.exit_code == 0, result.output
    assert "smoothness of the loss" in result.stdout
    last = result.stdout.splitlines()[-2:]
    assert [line.split(":")[0] for line in last] == [
        f"Convergence guarantees that apply to {scheme} on logistic"
        for scheme in ("ef(topk(density=0.1))", "dense(dtype=native)")
    ]
    data = json.loads(Path("theory.json").read_text())
    assert data["landscape"]["ef(topk(density=0.1))"]["L"]["known"] == "exact"
    verdicts = {(check["check"], check["on"]): check["verdict"] for check in data["checks"]}
    assert verdicts["karimireddy.identity", "ef(topk(density=0.1)) on logistic"] == "holds"
    assert verdicts["karimireddy.average", "ef(topk(density=0.1)) on logistic"] == "not refuted"
    assert verdicts["ef21.pl", "dense(dtype=native) on logistic"] == "not applicable"
    assert "violated" not in verdicts.values()
