"""`gradwire measure` as a person uses it: what it prints, what it keeps, and what bad input says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gradwire.analysis.measurement.machine import this_machine
from gradwire.analysis.measurement.records import StepRecord, median, read_records
from gradwire.analysis.measurement.tables import machine_line, steps_table
from gradwire.cli import app

HERE = Path(__file__).parent
SMALL = ["--task-option", "hidden=16", "--batch", "4", "--steps", "3", "--workers", "2"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*arguments: str):
    return CliRunner().invoke(app, ["measure", *arguments], prog_name="gradwire")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scheme", "topk(density=2)"], "density"),
        (["--task", "mnits"], "task.name = 'mnits': no such task; did you mean 'mnist'?"),
        (["--task-option", "hidden"], "--task-option 'hidden': must be KEY=VALUE"),
        (["--task-option", "hidden=0"], "task.hidden = 0"),
        (["--batch", "4000"], "training.batch_size = 4000: 4 workers need 16000 examples a step"),
        (["--bucket", "12"], "--bucket: size '12' has no unit"),
        (["--time-limit", "soon"], "--time-limit: duration 'soon' is not a number with a unit"),
        (["--unit", "model"], "unit = 'model' is larger than message = 'bucket'"),
        (["--scheme", "onebitadam"], "onebitadam(freeze_step=1000): the optimizer must be OneBitAdam"),
        (["--out", "no/where"], "--out no/where: the folder no is not there"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(arguments, said, tmp_path):
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("gradwire: ")
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_the_table_holds_medians_and_spreads_in_one_unit():
    machine = this_machine("gloo", 2).model_copy(update={"cpu": "a processor", "cores": 8})
    shape = {"task": "mnist", "batch_size": 8, "workers": 4, "unit": "layer", "message": "bucket"}
    shape |= {"bucket_bytes": 1, "first_bucket_bytes": 1, "overlap": True, "agree": True}
    phases = ("forward_s", "backward_s", "encode_s", "communication_s", "exposed_communication_s", "decode_s")
    times = {name: (i / 1000, i / 1000, (i + 1) / 1000) for i, name in enumerate((*phases, "optimizer_s", "step_s"))}
    done = StepRecord(**shape, scheme="dense", **times)
    text = _plain(steps_table([done, StepRecord(**shape, scheme="odd", error="it cannot")]))
    (row,) = [line.split() for line in text.splitlines() if line.strip().startswith("dense")]
    assert row == ["dense", *(part for i in range(8) for part in (f"{i}.00" if i else "0", "±0.50"))]
    (row,) = [line.split() for line in text.splitlines() if line.strip().startswith("odd")]
    assert row == ["odd", *"--------"]
    assert "Medians of 3 steps in ms" in text
    assert machine_line(machine, 4) == "4 processes over gloo, 2 threads each, on a processor, 8 cores"


def _plain(table) -> str:
    from rich.console import Console

    console = Console(width=160)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


@pytest.mark.slow
def test_it_measures_keeps_and_goes_on(tmp_path):
    result = call(*SMALL, "--scheme", "dense")
    assert result.exit_code == 0, result.output
    first = (tmp_path / "measured.jsonl").read_bytes()
    result = call(*SMALL, "--scheme", "ef(topk(density=0.1))", "--scheme", "dense")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "measured.jsonl").read_bytes().startswith(first)
    _, records = read_records(tmp_path / "measured.jsonl")
    assert [record.scheme for record in records] == ["dense(dtype=native)", "ef(topk(density=0.1))"]
    lines = result.output.splitlines()
    rows = [line.split() for line in lines if line.strip().startswith(("ef(", "dense"))]
    assert [row[0] for row in rows] == [record.scheme for record in records[::-1]]
    assert all(len(record.step_s) == 3 and median(record.encode_s) > 0 for record in records)
    assert "Written to measured.jsonl." in lines
    result = call(*SMALL, "--scheme", "dense", "--threads", "3")
    assert result.exit_code == 2
    assert "measured.jsonl: was measured with threads = 1, here it is 3" in result.stderr
    assert call(*SMALL, "--scheme", "dense", "--threads", "3", "--force").exit_code == 0
    assert len(read_records(tmp_path / "measured.jsonl")[1]) == 1


@pytest.mark.slow
def test_a_worker_that_fails_is_shown_with_status_1(tmp_path):
    (tmp_path / "own.py").write_text((HERE / "faulty.py").read_text())
    result = call("--task", "own:Faulty", "--task-option", "fault=raise", *SMALL[2:])
    assert result.exit_code == 1, result.output
    said = result.stderr.splitlines()
    assert said[0] == "gradwire: worker 1 of 2 failed during: steps of own:Faulty with dense(dtype=native)"
    assert "gradwire:   RuntimeError: the disk is full of water" in said
    assert said[-1].endswith("the same command goes on from there")


@pytest.mark.slow
def test_torchrun_starts_the_workers_as_well(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "gradwire.cli", "measure", *SMALL, "--scheme", "dense", "--no-overlap"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Written to measured.jsonl.") == 1  # worker 0 alone speaks
    assert done.stdout.count("dense(dtype=native)") == 1
    machine, (record,) = read_records(tmp_path / "measured.jsonl")
    assert (machine.backend, record.workers, record.overlap, len(record.step_s)) == ("gloo", 2, False, 3)
