"""`gradwire validate` as a person uses it: on loopback and in a laboratory, what it keeps, and what goes wrong."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gradwire.analysis.laboratory import check_lab
from gradwire.analysis.measurement.records import StepRecord, median, read_records
from gradwire.analysis.validation.frozen import read_frozen
from gradwire.analysis.validation.predict import PHASES
from gradwire.cli import app
from gradwire.compressors.errors import InputError
from gradwire.sim.profile import load_profile

HERE = Path(__file__).parent
FAULTY = HERE.parent / "measurement" / "faulty.py"
SMALL = ["--workers", "2", "--task", "quadratic", "--batch", "4", "--steps", "3", "--out", "kept"]
TWO = ["--scheme", "dense", "--scheme", "topk(density=0.1)"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def call(*arguments: str):
    return CliRunner().invoke(app, ["validate", *arguments], prog_name="gradwire")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rate", "1 Gbit/s"], "--rate 1 Gbit/s: links can be shaped in a laboratory only; add --lab"),
        (["--task-option", "hidden=16"], "--task-option hidden=16: needs --task"),
        (["--lab", "--rate", "12"], "--rate: bandwidth '12' has no unit"),
        (["--time-limit", "soon"], "--time-limit: duration 'soon' is not a number with a unit"),
        (["--scheme", "topk(density=2)"], "density"),
        (["--task", "mnits"], "task.name = 'mnits': no such task; did you mean 'mnist'?"),
        (["--task", "mnist", "--task-option", "hidden=0"], "task.hidden = 0"),
        (["--scheme", "onebitadam"], "onebitadam(freeze_step=1000): the optimizer must be OneBitAdam"),
        (["--batch", "4000"], "training.batch_size = 4000: 4 workers need 16000 examples a step"),
        (["--from-profile", "nowhere.toml", *SMALL], "profile nowhere.toml cannot be read: No such file or directory"),
    ],
)
def test_mistakes_are_one_line_with_status_2(arguments, said, tmp_path):
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("gradwire: ")
    assert said in line
    assert not (tmp_path / "validation").exists()


def test_a_file_in_the_folders_place_is_left_alone(tmp_path):
    (tmp_path / "kept").write_text("mine")
    result = call(*SMALL)
    assert result.exit_code == 2, result.output
    assert result.stderr == "gradwire: --out kept: is a file; give a folder\n"
    assert (tmp_path / "kept").read_text() == "mine"


# --------------------------------------------------------------------------------------------------- real processes


def rows(output: str) -> list[list[str]]:
    """Return the cells of the table of steps."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]
    return [cells for cells in lines if len(cells) == 6 + len(PHASES)][1:]


def check_kept(folder: Path) -> dict:
    """Check what a validation left against its own records; return its numbers."""
    data = json.loads((folder / "validation.json").read_text())
    _, records = read_records(folder / "measured.jsonl")
    predictions = read_frozen(folder / "predictions.json").predictions
    assert {record.key for record in records} == predictions.keys()
    assert not any(isinstance(record, StepRecord) for record in read_records(folder / "calibration.jsonl")[1])
    assert len(data["steps"]) == len(records)
    for step, record in zip(data["steps"], records, strict=True):
        predicted = predictions[record.key]
        assert step["scheme"] == record.scheme
        assert step["measured_s"] == median(record.step_s)
        assert (step["predicted_s"], step["predicted_phases_s"]) == (predicted.step_s, predicted.phases)
        assert step["error"] == pytest.approx(predicted.step_s / median(record.step_s) - 1)
        assert sum(predicted.phases.values()) == pytest.approx(predicted.step_s)
        assert predicted.sent_bytes == pytest.approx(sum(use.bytes for use in record.collectives))
    return data


@pytest.mark.slow
def test_it_calibrates_predicts_measures_and_keeps_everything(tmp_path):
    result = call(*SMALL, *TWO)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "kept"
    assert {path.name for path in folder.iterdir()} == {
        "agreement.png",
        "calibration.jsonl",
        "measured.jsonl",
        "phases.png",
        "predictions.json",
        "profile.toml",
        "report.html",
        "validation.json",
    }
    data = check_kept(folder)
    assert "Links are as they are: to shape them, add --lab, which needs root on Linux." in result.output
    shown = rows(result.output)
    assert [cells[2] for cells in shown] == ["dense(dtype=native)", "topk(density=0.1)"]
    for cells, step in zip(shown, data["steps"], strict=True):
        assert cells[5] == f"{100 * step['error']:+.1f} %"
        for cell, name in zip(cells[6:], PHASES, strict=True):
            off = (step["predicted_phases_s"][name] - step["measured_phases_s"][name]) / step["measured_s"]
            assert cell == f"{100 * off:+.1f} %"
    assert f"2 predicted steps: median error {100 * data['summary']['median']:.1f} %" in result.output

    measured = ("calibration.jsonl", "measured.jsonl", "predictions.json")
    before = [(folder / name).read_bytes() for name in measured]
    again = call(*SMALL, *TWO)
    assert again.exit_code == 0, again.output
    assert again.output == result.output
    assert [(folder / name).read_bytes() for name in measured] == before

    (folder / "profile.toml").rename(tmp_path / "own.toml")
    assert load_profile(tmp_path / "own.toml").cluster is not None
    given = call(*SMALL[:-1], "given", *TWO, "--from-profile", "own.toml")
    assert given.exit_code == 0, given.output
    assert not (tmp_path / "given" / "calibration.jsonl").exists()
    found = [read_frozen(tmp_path / name / "predictions.json").predictions for name in ("given", "kept")]
    assert found[0] == found[1]


@pytest.mark.slow
def test_other_predictions_need_another_folder(tmp_path):
    """A second scheme is measured anew and changes what was predicted."""
    assert call(*SMALL, "--scheme", "dense").exit_code == 0
    before = (tmp_path / "kept" / "predictions.json").read_bytes()
    result = call(*SMALL, *TWO)
    assert result.exit_code == 2, result.output
    assert "predictions.json: holds other predictions, which are not changed; give another folder" in result.stderr
    assert (tmp_path / "kept" / "predictions.json").read_bytes() == before


@pytest.mark.slow
def test_a_worker_that_fails_is_shown_with_status_1(tmp_path):
    (tmp_path / "own.py").write_text(FAULTY.read_text())
    task = ["--task", "own:Faulty", "--task-option", "fault=raise"]
    result = call("--workers", "2", *task, "--batch", "4", "--steps", "3", "--out", "kept", "--scheme", "dense")
    assert result.exit_code == 1, result.output
    said = result.stderr.splitlines()
    assert said[0] == "gradwire: worker 1 of 2 failed during: computation of own:Faulty"
    assert "gradwire:   RuntimeError: the disk is full of water" in said
    assert said[-1] == ("gradwire: what was measured until then is in kept, and the same command goes on from there")
    assert read_records(tmp_path / "kept" / "calibration.jsonl")[1] == []
    assert not (tmp_path / "kept" / "predictions.json").exists()


def _no_lab() -> str:
    try:
        check_lab()
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.skipif(bool(_no_lab()), reason=_no_lab())
def test_in_the_laboratory_links_have_a_rate(tmp_path):
    result = call("--lab", "--rate", "100 Mbit/s", *SMALL, *TWO)
    assert result.exit_code == 0, result.output
    data = check_kept(tmp_path / "kept")
    assert [step["link_bps"] for step in data["steps"]] == [1e8, 1e8]
    assert all(step["burst_bytes"] > 0 for step in data["steps"])
    (rate,) = data["rates"]
    assert rate["nominal_bps"] == 1e8
    assert 0.8e8 < rate["alone_bps"] < 1e8
    assert "link of 100 Mbit/s: TCP reaches " in result.output
    (tmp_path / "kept" / "profile-100-mbit.toml").rename(tmp_path / "own.toml")

    given = ["--lab", "--rate", "100 Mbit/s", *SMALL[:-1], "given", *TWO, "--from-profile", "own.toml"]
    assert call(*given).exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "given").glob("*.json*")}
    again = call(*given)
    assert again.exit_code == 0, again.output  # the rate, on which predictions rest here, is not measured again
    assert {path.name: path.read_bytes() for path in (tmp_path / "given").glob("*.json*")} == before
