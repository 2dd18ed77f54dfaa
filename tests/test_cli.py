"""The command line as a person uses it: what works, and what bad input says."""

import json
import subprocess
import sys
import tomllib

import pytest
from typer.testing import CliRunner

from gradwire.cli import app

RUNNER = CliRunner()
SMALL = [
    "--set", "task.name=logistic", "--set", "training.steps=30", "--set", "training.evaluate_every=10",
    "--set", "training.learning_rate=1.0", "--set", "training.batch_size=8", "--set", "training.target=0.9",
    "--set", 'task={name="logistic"}', "--set", "training.workers=4",
    "--scheme", "dense(dtype=fp32)", "--scheme", "ef(topk(density=0.2))",
]  # fmt: skip


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Each test runs in a folder of its own, with a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADWIRE_STORE", str(tmp_path / "store"))


def call(*arguments: str):
    """Run a command in this process."""
    return RUNNER.invoke(app, list(arguments), prog_name="gradwire")


def test_run_writes_a_whole_folder_and_says_what_it_found(tmp_path):
    result = call("run", *SMALL, "--out", "first")
    assert result.exit_code == 0, result.output
    assert "ef(topk(density=0.2))" in result.output
    assert "Written to first" in result.output
    names = {path.name for path in (tmp_path / "first").iterdir()}
    assert {"experiment.toml", "summary.json", "run.nc", "report.html", "trace.json"} <= names
    assert sum(name.endswith(".png") for name in names) >= 4
    summary = json.loads((tmp_path / "first" / "summary.json").read_text())
    assert summary["verdict"] in result.output
    assert [row["scheme"] for row in summary["schemes"]] == ["dense(dtype=fp32)", "ef(topk(density=0.2))"]


def test_the_experiment_in_the_folder_gives_the_same_run(tmp_path):
    assert call("run", *SMALL, "--out", "a").exit_code == 0
    written = tomllib.loads((tmp_path / "a" / "experiment.toml").read_text())
    assert written["training"]["steps"] == 30
    assert written["cluster"]["bandwidth"]
    assert call("run", "a/experiment.toml", "--out", "b", "--store", "another").exit_code == 0
    assert (tmp_path / "a" / "summary.json").read_bytes() == (tmp_path / "b" / "summary.json").read_bytes()


def test_show_repeats_the_table_and_the_verdict(tmp_path):
    assert call("run", *SMALL, "--out", "shown").exit_code == 0
    result = call("show", "shown")
    assert result.exit_code == 0
    assert json.loads((tmp_path / "shown" / "summary.json").read_text())["verdict"] in result.output


def test_the_default_folder_is_the_next_free_one(tmp_path):
    for expected in ("mnist", "mnist-2"):
        assert call("run", *SMALL).exit_code == 0
        assert (tmp_path / "runs" / expected / "summary.json").is_file()


def test_cp_gives_a_file_that_runs(tmp_path):
    assert call("cp", "mnist", "own.toml").exit_code == 0
    assert "ethernet-1g" in (tmp_path / "own.toml").read_text()
    again = call("cp", "mnist", "own.toml")
    assert again.exit_code == 2
    assert "exists already" in again.output
    assert call("run", "own.toml", *SMALL, "--out", "x").exit_code == 0


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("schemes", ["topk", "powersgd", "ef(", "all-gather", "1809.07599"]),
        ("tasks", ["mnist", "logistic", "quadratic", "accuracy"]),
        ("clusters", ["ethernet-1g", "Gbit/s"]),
        ("devices", ["v100", "a100", "h100"]),
        ("experiments", ["mnist"]),
    ],
)
def test_ls(kind, words):
    result = call("ls", kind)
    assert result.exit_code == 0
    assert all(word in result.output for word in words), result.output


def test_version_and_module_call():
    result = subprocess.run(
        [sys.executable, "-m", "gradwire.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == call("--version").output
    assert result.stdout.startswith("gradwire ")


def test_help_has_the_words_of_the_file():
    from gradwire.sim.experiment import Experiment

    result = RUNNER.invoke(app, ["run", "--help"], prog_name="gradwire", env={"COLUMNS": "300"})
    assert result.exit_code == 0
    for section in Experiment.model_fields.values():
        for key, field in getattr(section.annotation, "model_fields", {}).items():
            assert key in result.output
            assert field.description, f"{key} has no description"
            assert field.description in result.output, key


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "training.stepz=3"], ["training.stepz", "unknown key", "steps"]),
        (["--set", "trainig.steps=3"], ["trainig", "unknown key", "training"]),
        (["--scheme", "topc(density=0.1)"], ["topc", "topk"]),
        (["--scheme", "topk(density=0)"], ["density = 0", "(0, 1]"]),
        (["--scheme", "topk(density=1.5)"], ["density = 1.5", "(0, 1]"]),
        (["--scheme", "topk(densty=0.5)"], ["densty", "density"]),
        (["--scheme", "ef(ef(topk))"], ["already"]),
        (["--set", "task.name=mnits"], ["task.name = 'mnits'", "mnist"]),
        (["--set", "task.netwrk=cnn"], ["netwrk", "network"]),
        (["--set", "task.source=mnist"], ["folder"]),
        (["--set", "task.source=mnist", "--set", "task.folder=nowhere"], ["nowhere"]),
        (["--set", "task.name=mine.here:Task"], ["mine.here:Task"]),
        (["--set", "cluster.preset=ethernet-2g"], ["ethernet-2g", "ethernet-25g"]),
        (["--set", "cluster.bandwidth=0 Gbit/s"], ["cluster.bandwidth", "0 Gbit/s", "above 0"]),
        (["--set", "cluster.bandwidth=-1 Gbit/s"], ["cluster.bandwidth", "-1 Gbit/s"]),
        (["--set", "cluster.bandwidth=10 ms"], ["cluster.bandwidth", "unknown unit 'ms'", "Gbit/s"]),
        (["--set", "cluster.latency=5"], ["cluster.latency", "us"]),
        (["--set", "workload.device=v1000"], ["v1000", "v100"]),
        (["--set", "training.learning_rate=0"], ["training.learning_rate = 0", "greater than 0"]),
        (["--set", "training.device=cuda:99"], ["training.device = 'cuda:99'"]),
        (["--set", "training.device=tpu"], ["training.device = 'tpu'", "auto, cpu, cuda"]),
        (["--set", "overhead.factor=-1"], ["overhead.factor = -1"]),
        (["--set", "training.workers=4000"], ["4000 workers", "examples"]),
        (["--set", "training.steps"], ["key=value"]),
        (["--set", "training.steps=true"], ["training.steps = True", "integer"]),
        (["--set", "training=5"], ["training = 5", "section"]),
        (["--set", "schemes='dense'"], ["schemes = 'dense'", "list"]),
        (["--set", "training.target=nan"], ["training.target", "finite"]),
        (["--set", "training.learning_rate=inf"], ["training.learning_rate", "finite"]),
        (["--set", "training.optimizer_options={lr=0.1}"], ["lr is training.learning_rate"]),
        (["--set", "training.optimizer_options={weight_decay=nan}"], ["not finite"]),
        (["--set", 'title="a\\u0000b"'], ["title", "control characters"]),
        (["--store", "/dev/null/store"], ["/dev/null/store", "cannot be written to"]),
        (["nowhere.toml"], ["nowhere.toml"]),
        (["mnits"], ["mnits", "mnist"]),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(tmp_path, arguments, words):
    result = call("run", *arguments, "--out", "never")
    assert result.exit_code == 2, result.output
    lines = result.output.strip().splitlines()
    assert len(lines) == 1, result.output
    assert lines[0].startswith("gradwire: ")
    assert all(word in lines[0] for word in words), lines[0]
    assert not (tmp_path / "never").exists()
    assert not list(tmp_path.glob(".never*"))


def test_several_faults_are_a_line_each():
    result = call("run", "--set", "training.steps=0", "--set", "training.batch_size=0")
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 2


def test_a_broken_file_is_said(tmp_path):
    (tmp_path / "bad.toml").write_text("schemes = [")
    result = call("run", "bad.toml")
    assert result.exit_code == 2
    assert "bad.toml is no valid TOML" in result.output


def test_an_existing_folder_is_kept_unless_forced(tmp_path):
    assert call("run", *SMALL, "--out", "kept").exit_code == 0
    before = (tmp_path / "kept" / "summary.json").read_bytes()
    refused = call("run", *SMALL, "--out", "kept", "--set", "training.steps=20")
    assert refused.exit_code == 2
    assert "--force" in refused.output
    assert (tmp_path / "kept" / "summary.json").read_bytes() == before
    assert call("run", *SMALL, "--out", "kept", "--set", "training.steps=20", "--force").exit_code == 0
    assert (tmp_path / "kept" / "summary.json").read_bytes() != before


def test_force_does_not_replace_what_is_no_run_folder(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years")
    result = call("run", *SMALL, "--out", "thesis", "--force")
    assert result.exit_code == 2
    assert "holds chapter.txt, which no run writes" in result.output
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years"


def test_force_does_not_replace_a_folder_that_holds_more_than_a_run(tmp_path):
    assert call("run", *SMALL, "--out", "project").exit_code == 0
    (tmp_path / "project" / "notes.txt").write_text("mine")
    result = call("run", *SMALL, "--out", "project", "--force")
    assert result.exit_code == 2
    assert "notes.txt" in result.output
    assert (tmp_path / "project" / "notes.txt").read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "experiment.toml").write_text("schemes = []")
    assert call("run", *SMALL, "--out", "other", "--force").exit_code == 2
    assert (tmp_path / "other" / "experiment.toml").read_text() == "schemes = []"


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    from pathlib import Path

    assert call("run", *SMALL, "--out", "kept").exit_code == 0
    before = (tmp_path / "kept" / "summary.json").read_bytes()
    rename = Path.rename

    def refuse(self, target):
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    result = call("run", *SMALL, "--out", "kept", "--force", "--set", "training.steps=20")
    assert result.exit_code == 2
    assert "No space left on device" in result.output
    assert (tmp_path / "kept" / "summary.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".kept")] == []


def test_a_model_that_blows_up_at_the_last_step_has_diverged(tmp_path):
    changes = ["--set", "task={name='quadratic', dimension=10}", "--set", "training={steps=1, workers=2}"]
    changes += ["--set", "training.learning_rate=1e30", "--scheme", "dense", "--scheme", "ef(topk(density=0.5))"]
    result = call("run", *changes, "--out", "blown")
    assert result.exit_code == 2
    assert "diverged at step 1: a loss or metric of the evaluation is not finite" in result.output
    verdict = json.loads((tmp_path / "blown" / "summary.json").read_text())["verdict"]
    assert not verdict.startswith("Compress")


def test_a_task_that_fails_is_the_users_to_mend(tmp_path):
    (tmp_path / "broken.py").write_text(
        "from dataclasses import dataclass\n"
        "from gradwire.sim.tasks.mnist import Mnist\n"
        "@dataclass(frozen=True)\n"
        "class Broken(Mnist):\n"
        "    def loss(self, model, batch):\n"
        "        raise RuntimeError('shapes do not\\nfit')\n"
    )
    result = call("run", "--set", "task={name='broken:Broken'}")
    assert result.exit_code == 2
    assert result.output.strip() == "gradwire: task.name: Broken fails: RuntimeError: shapes do not fit"


def test_a_target_nobody_reaches_is_said_and_the_run_is_kept(tmp_path):
    result = call("run", *SMALL, "--set", "training.target=1.1", "--out", "far")
    assert result.exit_code == 2
    assert "training.target = 1.1: no scheme reached it in 30 steps" in result.output
    rows = json.loads((tmp_path / "far" / "summary.json").read_text())["schemes"]
    assert all(row["steps_to_target"] is None and row["time_to_target_s"] is None for row in rows)


def test_a_divergence_is_said_and_the_others_are_kept(tmp_path):
    options = ["--set", "task={name='quadratic', dimension=10}", "--set", "training={steps=400, workers=2}"]
    rate = ["--set", "training.learning_rate=1.9", "--set", "training.evaluate_every=100"]
    schemes = ["--scheme", "dense", "--scheme", "randomk(density=0.1, scaled=True)"]
    result = call("run", *options, *rate, *schemes, "--set", "training.target=0.001", "--out", "mixed")
    rows = {row["scheme"]: row for row in json.loads((tmp_path / "mixed" / "summary.json").read_text())["schemes"]}
    assert rows["dense(dtype=native)"]["status"] == "completed"
    assert rows["randomk(density=0.1, scaled=True)"]["status"].startswith("diverged at step")
    assert result.exit_code == 2
    assert "randomk(density=0.1, scaled=True) diverged at step" in result.output


def test_a_damaged_store_entry_is_said_and_trained_anew(tmp_path):
    assert call("run", *SMALL, "--out", "a").exit_code == 0
    for entry in (tmp_path / "store").rglob("*.gz"):
        entry.write_bytes(entry.read_bytes()[:40])
    result = call("run", *SMALL, "--out", "b")
    assert result.exit_code == 0
    assert "is damaged" in result.output
    assert (tmp_path / "a" / "summary.json").read_bytes() == (tmp_path / "b" / "summary.json").read_bytes()


def test_show_of_what_is_no_run(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, words in (("empty", "is no run folder"), ("absent", "is not there")):
        result = call("show", name)
        assert result.exit_code == 2
        assert words in result.output


def test_a_fault_of_gradwire_shows_a_traceback(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("gradwire.cli.run.run_experiment", broken)
    result = call("run", *SMALL)
    assert isinstance(result.exception, ZeroDivisionError)
