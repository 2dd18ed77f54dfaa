"""Profiles: what goes in as records, given times or nccl-tests' text comes out of the simulator."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from gradwire.analysis.calibration.given import read_given
from gradwire.analysis.calibration.profile import Evidence, fit_profile, read_evidence
from gradwire.analysis.calibration.workloads import fit_workloads
from gradwire.analysis.measurement.records import (
    ComputeRecord,
    LayerRecord,
    Machine,
    append_record,
    open_file,
    read_records,
)
from gradwire.cli.app import app
from gradwire.compressors.errors import InputError
from gradwire.compressors.wirelog import Collective
from gradwire.sim.experiment import validate_experiment
from gradwire.sim.network.costs import Batch, Costs
from gradwire.sim.profile import filled, load_profile

MACHINE = Machine(
    cpu="a processor",
    cores=2,
    memory_bytes=2**33,
    system="Linux 6",
    devices=(),
    backend="gloo",
    threads=1,
    torch="2.13.0",
    gradwire="0.1.0",
    started="2026-01-01T00:00:00",
)
LAYERS = tuple(
    LayerRecord(name=name, parameters=(f"{name}.weight", f"{name}.bias"), elements=10, forward_s=f, backward_s=2 * f)
    for name, f in (("1", 4e-3), ("3", 2e-3), ("5", 1e-3))
)
COMPUTE = ComputeRecord(
    task="mnist",
    batch_size=32,
    workers=4,
    forward_s=(7e-3, 7e-3, 90e-3),
    backward_s=(14e-3,),
    optimizer_s=(1e-3,),
    layers=LAYERS,
)
GIVEN = """
[[collective]]
operation = "all-reduce"
workers = 4
sizes = ["1 KiB", "16 KiB", "256 KiB", "4 MiB"]
seconds = ["102 us", "132 us", "612 us", "8292 us"]

[[workload]]
task = "mnist"
batch_size = 16
workers = 4

[workload.times]
optimizer = "40 us"
layers = [
  { name = "1", forward = "50 us", backward = "120 us" },
  { name = "3", forward = "30 us", backward = "70 us" },
  { name = "5", forward = "15 us", backward = "35 us" },
]

[[codec]]
scheme = "ef(topk(density=0.01))"
shape = [235200]
workers = 4
encode = "2 ms"
decode = "400 us"
"""


@pytest.fixture
def given_file(tmp_path):
    path = tmp_path / "given.toml"
    path.write_text(GIVEN)
    return path


@pytest.fixture
def records_file(tmp_path):
    path = tmp_path / "records.jsonl"
    open_file(path, MACHINE)
    append_record(path, COMPUTE)
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def test_layers_are_medians_that_add_up_to_whole_passes():
    (measured,) = fit_workloads([COMPUTE, COMPUTE.model_copy(update={"forward_s": (14e-3,) * 9})])
    layers = measured.times.layers
    assert [layer.forward for layer in layers] == pytest.approx([8e-3, 4e-3, 2e-3])
    assert [layer.backward for layer in layers] == pytest.approx([8e-3, 4e-3, 2e-3])
    assert layers[0].parameters == ("1.weight", "1.bias")
    assert (measured.times.optimizer, measured.times.source) == (1e-3, "measured")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"optimizer": "Adam"}, "mnist, batch_size = 32, 4 workers: was measured with several optimizers"),
        ({"layers": LAYERS[:2]}, "mnist, batch_size = 32, 4 workers: its records have different layers"),
    ],
)
def test_repeats_must_be_of_the_same(changed, said):
    with pytest.raises(InputError, match=said):
        fit_workloads([COMPUTE, COMPUTE.model_copy(update=changed)])


def test_given_times_reach_an_experiment_through_a_profile(given_file, tmp_path):
    """The four all-reduces lie on a line: 100 us, and 1.5 times the bytes at 0.768 GB/s."""
    profile, _ = fit_profile([Evidence(read_given(given_file), "by hand")])
    path = tmp_path / "profile.toml"
    path.write_text(profile.to_toml())
    assert load_profile(path) == profile
    data = {"schemes": ["dense"], "task": {"name": "mnist"}, "training": {"steps": 1, "batch_size": 16, "workers": 4}}
    experiment = validate_experiment(filled(data, load_profile(path)))
    costs = Costs(experiment.cluster.cluster(), 4)
    uniform = costs.check_uniform()
    cost = costs.cost(Batch("all-reduce", (), np.full((1, 4), 2**20)))
    found = cost.seconds(uniform.bandwidth_bps, uniform.latency_s, uniform.launch_s)[0]
    assert found == pytest.approx(100e-6 + 2**20 * 1.953125e-9, rel=2e-3)
    assert [layer.forward for layer in experiment.workload.times.layers] == [50e-6, 30e-6, 15e-6]
    assert experiment.workload.times.source == "by hand"
    (codec,) = experiment.overhead.codecs
    assert codec.cost(235200, 0.01)[:3] == pytest.approx((2e-3, 0, 0.4e-3))
    costs.schedule(Collective("all-reduce", 0, "float32", (2**23,) * 4))
    assert (
        "all-reduce of 8388608 to 8388608 B among 4 workers was measured for 1024 to"
        in costs.extrapolated["all-reduce"]
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('seconds = ["102 us", ', "seconds = [", "collective all-reduce: there are 4 sizes and 3 seconds"),
        ('name = "5"', 'name = "6"', "no layer of the workload has the parameter 5.bias, 5.weight"),
        ("topk(density=0.01)", "topk(density=2)", "given.toml: codec.0.scheme = 'ef(topk(density=2))': "),
        ("[[codec]]", "[[coded]]", "given.toml: coded: unknown key; did you mean codec?"),
        ('"2 ms"', "2", "given.toml: codec.0.encode = 2: duration 2 must be text with a unit"),
        ("[[collective]]", "[[collective]", "given.toml: is no valid TOML"),
    ],
)  # fmt: skip
def test_mistakes_in_given_times_are_said_in_one_line(given_file, old, new, said):
    given_file.write_text(GIVEN.replace(old, new))
    result = run("--given", given_file)
    assert result.exit_code == 2
    assert said in result.output
    assert result.output.count("\n") == 1


def test_nothing_to_fit_and_several_machines_are_refused(records_file, tmp_path):
    with pytest.raises(InputError, match="nothing to calibrate on"):
        fit_profile([])
    other = tmp_path / "other.jsonl"
    open_file(other, MACHINE.model_copy(update={"cpu": "another", "started": "later"}))
    with pytest.raises(InputError, match="records of several machines: cpu = 'a processor' and 'another'"):
        fit_profile(read_evidence([records_file, other], [], []))


def test_the_machine_is_kept_in_words(records_file):
    profile, _ = fit_profile(read_evidence([records_file], [], []))
    assert profile.machine["cpu"] == "a processor"
    assert "devices" not in profile.machine
    assert "started" not in profile.machine


def test_the_command_fits_files_without_measuring(given_file, records_file, tmp_path):
    out = tmp_path / "own.toml"
    result = run("--given", given_file, "--from", records_file, "--out", out)
    assert result.exit_code == 0, result.output
    assert "machine: a processor" in result.output
    assert "mnist with batch_size = 32: forward 7.00 ms, backward 14.0 ms, optimizer 1.00 ms" in result.output
    assert "all-reduce" in result.output
    assert f"Written to {out}." in result.output
    profile = load_profile(out)
    assert len(profile.workloads) == 2
    assert profile.errors["all-reduce: median"] < 0.01


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--link", "1 Gbit/s"], "--link 1 Gbit/s: needs --burst too"),
        (["--burst", "1 MB"], "--burst 1 MB: needs --link too"),
        (["--link", "1 Gb", "--burst", "1 MB"], "--link: bandwidth '1 Gb' has the unknown unit"),
        (["--latency", "5"], "--latency: duration '5' has no unit"),
        (["--from", "nothing.jsonl"], "nothing.jsonl: cannot be read: No such file or directory"),
        (["--out", "nowhere/profile.toml"], "--out nowhere/profile.toml: the folder nowhere is not there"),
        (["--task", "mist"], "mist"),
        (["--scheme", "tokp"], "did you mean topk"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert result.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_files_lack_is_measured_between_real_processes(given_file, tmp_path, monkeypatch):
    """Collectives and codecs are given; the computation of a small network is measured."""
    monkeypatch.chdir(tmp_path)
    text = GIVEN[: GIVEN.index("[[workload]]")] + GIVEN[GIVEN.index("[[codec]]") :]
    given_file.write_text(text)
    result = run(
        "--given", given_file, "--task", "mnist", "--task-option", "hidden=8", "--workers", "2", "--batch", "4"
    )
    assert result.exit_code == 0, result.output
    _, records = read_records(tmp_path / "calibration.jsonl")
    assert [record.kind for record in records] == ["compute"]
    (workload,) = load_profile(tmp_path / "profile.toml").workloads
    assert (workload.workers, workload.batch_size, workload.options) == (2, 4, {"hidden": 8})
    assert sum(layer.forward for layer in workload.times.layers) == pytest.approx(np.median(records[0].forward_s))
    assert json.loads(records[0].model_dump_json())["layers"]
