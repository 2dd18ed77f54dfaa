"""`gradwire time` as a person uses it: what it prints and writes, and what bad input says."""

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from gradwire.analysis.predictions import phases_table
from gradwire.cli import app
from gradwire.sim.prediction import make_job, predict

RUNNER = CliRunner()
TOPK = "ef(topk(density=0.01))"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*arguments):
    return RUNNER.invoke(app, ["time", *arguments], prog_name="gradwire")


def test_a_prediction_says_what_stands_behind_it():
    result = call("resnet50", "--workers", "16", "--scheme", "dense", "--scheme", TOPK)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "resnet50, batch 32 a worker, 16 workers on ethernet-10g, v100"
    row = next(line.split() for line in lines if line.strip().startswith("dense"))
    assert row[1:3] == ["102", "MB"]
    assert row[-5:] == ["ms", "2,560", "7.75x", "48", "%"]
    assert "compute times: published: pytorch/pytorch" in result.stdout
    assert result.stdout.count("  engine: closed-form: hosts and links are equal, and nothing contends") == 2
    assert "  algorithms: all-reduce: ring" in result.stdout
    assert "  busiest links: NICs of all hosts, each way: 81 % of the step" in result.stdout
    assert "  compression costs: published figure and roofline estimate" in result.stdout
    effects = [line for line in lines if line.startswith("  without effect: ")]
    assert "overhead.factor" in effects[0]
    assert "cluster.bandwidth" in effects[1]
    assert "cost" not in result.stdout.replace("compression costs", "")


def test_narrow_tables_add_phases_up():
    wide, narrow = (_phases(width) for width in (160, 80))
    assert "backward" in wide
    assert "compute" in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    for text in ("102 MB", "97.0 ms", "103 ms", "200 ms", "2,560", "7.75x", "48 %"):
        assert text in narrow


def _phases(width):
    console = Console(width=width, file=io.StringIO())
    made = predict(make_job({"model": "resnet50", "training": {"workers": 16}}))
    console.print(phases_table([made], width))
    return console.file.getvalue()


def test_numbers_of_the_file_are_those_of_the_table(tmp_path):
    result = call("resnet50", "--workers", "4", "--json", "out.json", "--price", "3.6", "--steps", "1000")
    assert result.exit_code == 0, result.output
    (one,) = json.loads((tmp_path / "out.json").read_text())["predictions"]
    phases = ("forward_s", "backward_s", "encode_s", "decode_s", "optimizer_s", "exposed_communication_s")
    assert sum(one[phase] for phase in phases) == pytest.approx(one["step_s"], rel=1e-12)
    assert one["step_cost"] == pytest.approx(4 * one["step_s"] * 0.001, rel=1e-12)
    assert f"{1e3 * one['step_s']:.0f} ms" in result.output
    assert "a step, 0.657 for 1,000 steps, at 3.60 a GPU-hour" in result.output
    assert 1000 * one["step_cost"] == pytest.approx(0.657, abs=5e-4)
    assert one["job"]["cluster"]["preset"] == "ethernet-10g"
    assert {i["key"]: i["ratio"] for i in one["influences"]}["overhead.factor"] == 1


def test_scaling_is_shown_drawn_and_written(tmp_path):
    options = ["--scaling", "2..8", "--plot", "scaling.png", "--json", "out.json", "--no-influence"]
    result = call("resnet50", "--cluster", "aws-p3-16xlarge", "--steps", "100000", *options)
    assert result.exit_code == 0, result.output
    assert "weak scaling: each worker's batch is constant" in result.output
    titles = [line.split() for line in result.output.partition("weak scaling")[2].splitlines()[2:4]]
    assert [title[-2:] for title in titles] == [["USD", "of"], ["100,000", "steps"]]
    row = next(line.split() for line in result.output.partition("weak scaling")[2].splitlines() if "dense" in line)
    assert (row[1:3], row[-2:]) == (["2", "32"], ["0.000165", "16.5"])  # 2 x 97.1 ms at 3.06 an hour
    assert "without effect" not in result.output
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((tmp_path / "out.json").read_text())["scaling"]
    assert [point["workers"] for point in data["points"]] == [2, 4, 8]
    assert not data["strong"]
    first = (tmp_path / "scaling.png").read_bytes()
    call("resnet50", "--cluster", "aws-p3-16xlarge", *options)
    assert (tmp_path / "scaling.png").read_bytes() == first


def test_strong_scaling_divides_the_global_batch(tmp_path):
    options = ["--scaling", "2,8", "--strong", "--no-influence", "--json", "out.json"]
    result = call("resnet50", "--batch", "64", "--workers", "4", *options)
    assert result.exit_code == 0, result.output
    assert "strong scaling: the global batch is constant" in result.output
    data = json.loads((tmp_path / "out.json").read_text())["scaling"]
    assert [(point["workers"], point["batch"]) for point in data["points"]] == [(2, 128), (8, 32)]
    for point in data["points"]:
        assert point["throughput"] == pytest.approx(256 / point["step_s"], rel=1e-12)


def test_keys_are_those_of_experiments():
    changes = ["--set", "timing.overlap=false", "--set", "cluster.bandwidth=1 Gbit/s", "--set", "training.unit=bucket"]
    result = call("resnet50", "--no-influence", "--json", "out.json", *changes)
    assert result.exit_code == 0, result.output
    with open("out.json") as file:
        job = json.load(file)["predictions"][0]["job"]
    assert (job["timing"]["overlap"], job["cluster"]["bandwidth"], job["training"]["unit"]) == (
        False, "1 Gbit/s", "bucket",
    )  # fmt: skip


def test_a_cluster_file_and_another_device(tmp_path):
    (tmp_path / "lab.toml").write_text(
        'bandwidth = "25 Gbit/s"\nlatency = "5 us"\nlaunch = "20 us"\n'
        '[[host]]\nwhich = 1\nbandwidth = "10 Gbit/s"\n[price]\nper_gpu_hour = 2.0\ncurrency = "EUR"\n'
    )
    result = call("resnet50", "--cluster", "lab.toml", "--workers", "4", "--device", "a100", "--no-influence")
    assert result.exit_code == 0, result.output
    assert "4 workers on lab, a100" in result.output
    assert "engine: events: hosts differ in bandwidth" in result.output
    assert "compute times: analytic" in result.output
    assert "EUR a step, at 2.00 EUR a GPU-hour" in result.output


def test_links_of_unequal_use_are_said_to_be_bounds():
    result = call("resnet50", "--set", "timing.all_reduce=double-tree", "--no-influence")
    assert "busiest links: NICs of all hosts, each way: at most " in result.output


def test_an_interruption_does_not_speak_of_training(monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gradwire.cli.time.predict", stop)
    result = call("resnet50")
    assert (result.exit_code, result.stderr) == (130, "gradwire: interrupted\n")


def test_models_are_listed():
    result = RUNNER.invoke(app, ["ls", "models"])
    assert result.exit_code == 0
    row = next(line.split() for line in result.output.splitlines() if line.strip().startswith("resnet50"))
    assert row[1] == "25,557,032"
    for word in ("bert-large", "336,226,108", "v100 at 32, v100 at 128", "none", "1512.03385"):
        assert word in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet5"], ["resnet5", "resnet50"]),
        (["resnet50", "--cluster", "ethernet-2g"], ["ethernet-2g", "ethernet-25g"]),
        (["resnet50", "--cluster", "lab.toml"], ["lab.toml", "cannot be read"]),
        (["resnet50", "--scheme", "topc"], ["topc", "topk"]),
        (["resnet50", "--device", "v10"], ["v10", "v100"]),
        (["resnet50", "--workers", "0"], ["training.workers = 0"]),
        (["resnet50", "--workers", "1000000000"], ["training.workers = 1000000000", "1048576"]),
        (["resnet50", "--scaling", "2..1000000000"], ["--scaling", "1000000000", "1048576"]),
        (["resnet50", "--batch", "10000000000"], ["training.batch_size = 10000000000", "1000000000"]),
        (["resnet50", "--scheme", "dense", "--set", "scheme=topk"], ["--set scheme=topk", "--scheme"]),
        (["resnet50", "--batch", "0"], ["training.batch_size = 0"]),
        (["resnet50", "--set", "timing.all_reduce=rings"], ["timing.all_reduce = 'rings'"]),
        (["resnet50", "--set", "training.steps=3"], ["training.steps", "unknown key"]),
        (["resnet50", "--set", "timing"], ["key=value"]),
        (["resnet50", "--scaling", "8..2"], ["--scaling '8..2'"]),
        (["resnet50", "--scaling", "2,3", "--strong"], ["3 workers", "global batch of 256"]),
        (["resnet50", "--strong"], ["--strong needs --scaling"]),
        (["resnet50", "--plot", "x.png"], ["--plot needs --scaling"]),
        (["resnet50", "--scaling", "2", "--plot", "nowhere/x.png"], ["--plot nowhere/x.png", "not there"]),
        (["resnet50", "--scaling", "2", "--plot", "x.docx"], ["--plot x.docx", ".png, .svg, .pdf"]),
        (["resnet50", "--json", "nowhere/x.json"], ["--json nowhere/x.json", "not there"]),
        (["resnet50", "--price", "0"], ["--price 0", "above 0"]),
        (["resnet50", "--price", "nan"], ["--price nan", "above 0"]),
        (["resnet50", "--steps", "9"], ["--steps 9", "ethernet-10g has no price", "--price"]),
        (["resnet50", "--cluster", "ethernet-10g", "--set", "cluster.hosts=4"], ["workers = 8", "4 GPUs"]),
        (["resnet50", "--scaling", "2,64", "--set", "cluster.hosts=8"], ["workers = 64", "8 GPUs"]),
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
