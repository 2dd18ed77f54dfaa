"""`gradwire advise` as a person uses it: what it prints and writes, and what bad input says."""

import json

import pytest
from typer.testing import CliRunner

from gradwire.cli import app

RUNNER = CliRunner()
BLOCK = "ef(randomblock(density=0.01))"
LOGISTIC = [
    "--set", 'task={name="logistic"}', "--set", "training.steps=20", "--set", "training.evaluate_every=5",
    "--set", "training.learning_rate=1.0", "--set", "training.target=0.9", "--workers", "4", "--batch", "8",
    "--scheme", "ef(topk(density=0.2))",
]  # fmt: skip


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADWIRE_STORE", str(tmp_path / "store"))


def call(*arguments):
    return RUNNER.invoke(app, ["advise", *arguments], prog_name="gradwire")


def test_a_listed_model(tmp_path):
    arguments = ["--workers", "16", "--scheme", BLOCK, "--price", "3.6", "--steps", "1000", "--json", "out.json"]
    result = call("resnet50", "--cluster", "ethernet-10g", *arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "resnet50, batch 32 a worker, 16 workers on ethernet-10g, v100"
    data = json.loads((tmp_path / "out.json").read_text())
    assert lines[2] == data["verdict"]
    assert lines[2].startswith(f"Compress, if training then needs less than 19 % more steps: a step with {BLOCK} in ")
    row = next(line for line in lines if line.strip().startswith(BLOCK))
    own = data["options"][2]
    assert f"{own['gain']['ratio']:.2f}x" in row
    assert "+19 %" in row
    assert f"{own['costs']['run']:.2f}" in row
    for name in ("baseline:", "model error:", "without effect:", "another answer:", "costs that nobody measured:"):
        assert any(line.startswith(name) for line in lines), name
    assert (data["answer"], data["best"]) == ("compress", BLOCK)


def test_a_task_is_trained_from_several_seeds_and_stored(tmp_path):
    first = call("mnist", *LOGISTIC, "--seeds", "2", "--no-sensitivity", "--json", "out.json")
    assert first.exit_code == 0, first.output
    assert "logistic, batch 8 a worker, 4 workers on ethernet-1g, v100; 2 seeds of 20 steps" in first.stdout
    assert "another answer" not in first.stdout
    data = json.loads((tmp_path / "out.json").read_text())
    assert [option["seeds"] for option in data["options"]] == [2, 2, 2]
    assert len(list((tmp_path / "store").rglob("*.json.gz"))) == 6
    faster = call("mnist", *LOGISTIC, "--seeds", "2", "--no-sensitivity", "--cluster", "infiniband-100g")
    assert faster.exit_code == 0, faster.output
    assert "on infiniband-100g" in faster.stdout
    assert len(list((tmp_path / "store").rglob("*.json.gz"))) == 6


def test_an_experiment_file_with_a_cluster_of_its_own(tmp_path):
    (tmp_path / "lab.toml").write_text('bandwidth = "25 Gbit/s"\nlatency = "5 us"\nlaunch = "20 us"\n')
    (tmp_path / "own.toml").write_text(
        'schemes = ["ef(topk(density=0.2))"]\n[task]\nname = "logistic"\n'
        "[training]\nworkers = 4\nbatch_size = 8\nsteps = 5\n"
        '[cluster]\nbandwidth = "1 Gbit/s"\nlatency = "50 us"\nlaunch = "20 us"\n'
    )
    options = ["--seeds", "1", "--no-sensitivity", "--device", "a100"]
    result = call("own.toml", *options)
    assert result.exit_code == 0, result.output
    assert "4 workers on given, a100; 1 seed of 5 steps" in result.stdout
    assert "Note: No target was set" in result.stdout
    assert "4 workers on lab, a100" in call("own.toml", *options, "--cluster", "lab.toml").stdout


def test_a_question_without_an_answer_ends_with_status_2():
    result = call("mnist", *LOGISTIC, "--seeds", "1", "--set", "training.target=1.01")
    assert result.exit_code == 2
    assert "Cannot say: no scheme reached 101 % validation accuracy from every seed." in result.stdout
    assert result.stderr.startswith("gradwire: training.target = 1.01: no scheme reached it")


def test_an_interruption_says_what_is_kept(monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gradwire.cli.advise.advise_task", stop)
    result = call("mnist")
    assert (result.exit_code, result.stderr) == (
        130, "gradwire: interrupted; what was trained is stored, and the same command goes on from there\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet5"], ["model or experiment 'resnet5' is unknown", "resnet50"]),
        (["mnits"], ["'mnits'", "mnist"]),
        (["own.toml"], ["own.toml", "not there"]),
        (["resnet50", "--cluster", "ethernet-2g"], ["ethernet-2g", "ethernet-25g"]),
        (["mnist", "--cluster", "ethernet-2g"], ["ethernet-2g", "ethernet-25g"]),
        (["resnet50", "--scheme", "topc"], ["topc", "topk"]),
        (["mnist", "--scheme", "topc"], ["topc", "topk"]),
        (["resnet50", "--workers", "0"], ["training.workers = 0"]),
        (["mnist", "--workers", "0"], ["training.workers = 0"]),
        (["resnet50", "--device", "v10"], ["v10", "v100"]),
        (["resnet50", "--batch", "0"], ["training.batch_size = 0"]),
        (["resnet50", "--seeds", "2"], ["--seeds 2", "resnet50 is a listed model"]),
        (["resnet50", "--store", "x"], ["--store x", "resnet50 is a listed model"]),
        (["resnet50", "--set", "scheme=topk"], ["--set scheme=topk", "--scheme"]),
        (["resnet50", "--set", "training"], ["key=value"]),
        (["resnet50", "--scheme", "powersgd", "--set", "training.unit=bucket"], ["training.unit", "powersgd"]),
        (["resnet50", "--price", "0"], ["--price 0", "above 0"]),
        (["resnet50", "--steps", "9"], ["--steps 9", "ethernet-10g has no price", "--price"]),
        (["mnist", "--steps", "9"], ["--steps 9", "ethernet-1g has no price", "--price"]),
        (["resnet50", "--json", "nowhere/x.json"], ["--json nowhere/x.json", "not there"]),
        (["resnet50", "--set", "cluster.hosts=4"], ["workers = 8", "4 GPUs"]),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_clear_line_and_status_2(arguments, words):
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.output
    assert lines[0].startswith("gradwire: ")
    assert all(word in lines[0] for word in words), lines[0]
