"""`gradwire sweep` and its neighbours as a person uses them: what is written, what is said, and what is refused."""

import json
import os
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tomli_w
import xarray as xr
from typer.testing import CliRunner

from gradwire.analysis.sweep.folder import SWEEP
from gradwire.analysis.sweep.grid import load_grid
from gradwire.cli import app

from .small import BASE

RUNNER = CliRunner()
DATA = {
    **BASE,
    "title": "A small sweep",
    "schemes": ["dense(dtype=fp32)", "ef(topk)"],
    "axes": {"density": [0.1, 0.4], "bandwidth": ["1 Mbit/s", "1 Gbit/s"], "seed": [0, 1]},
}
HERE = ["--processes", "1"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Each test runs in a folder of its own, with a store of its own and a small sweep."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADWIRE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "small.toml").write_text(tomli_w.dumps(DATA))


@pytest.fixture
def quick(monkeypatch):
    """Trainings run in this process."""
    from gradwire.analysis.sweep.executors import Here

    monkeypatch.setattr("gradwire.cli.sweep.Pool", lambda _: Here())


def call(*arguments):
    """Run a command in this process."""
    return RUNNER.invoke(app, list(map(str, arguments)), prog_name="gradwire")


def swept(out, *more, source="small.toml"):
    result = call("sweep", source, *HERE, "--out", out, *more)
    assert result.exit_code == 0, result.output
    return result


class Addresses(HTMLParser):
    """Collects what a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for key, value in attributes if key in ("src", "href", "srcset") and value]


@pytest.mark.usefixtures("quick")
def test_a_sweep_writes_a_whole_folder_says_its_answer_and_repeats(tmp_path):
    """The file in the folder gives the same again from an empty store."""
    said = swept("first").output
    folder = tmp_path / "first"
    names = {path.name for path in folder.iterdir()}
    assert names >= SWEEP.always | {"report.html", "step-phases.png", "speedup-against-density.png"}
    assert all(SWEEP.owns(name) for name in names)
    assert "Written to first" in said
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["answer"] in said
    assert summary["title"] == "A small sweep"
    assert [row["name"] for row in summary["schemes"]] == [
        "dense(dtype=fp32)", "ef(topk(density=0.1))", "ef(topk(density=0.4))",
    ]  # fmt: skip
    written = tomllib.loads((folder / "sweep.toml").read_text())
    assert written["cluster"]["latency"]
    assert written["baseline"]["buckets"]
    assert written["axes"] == DATA["axes"]
    page = Addresses()
    page.feed((folder / "report.html").read_text())
    assert all(address.startswith(("#", "data:")) for address in page.found)

    swept("second", "--store", "another", source="first/sweep.toml")
    with xr.open_dataset("first/sweep.nc") as one, xr.open_dataset("second/sweep.nc") as two:
        xr.testing.assert_identical(one.load(), two.load())
    for name in names - {"sweep.nc"}:
        assert (folder / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name

    shown = call("show", "first")
    assert shown.exit_code == 0
    assert shown.output == said.partition("Written to")[0]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "axes",
    [
        {"cluster.preset": ["ethernet-1g", "ethernet-10g"]},
        {"scheme.coding": ["raw", "bitmap"]},
        {"workload.device": ["v100", "a100"], "timing.overlap": [True, False]},
        {"task.regularisation": [0.001, 0.1]},
    ],
)
def test_the_file_repeats_sweeps_over_other_keys_too(axes):
    data = {**DATA, "axes": axes, "training": {**BASE["training"], "steps": 10}}
    Path("other.toml").write_text(tomli_w.dumps(data))
    swept("first", source="other.toml")
    swept("second", source="first/sweep.toml")
    with xr.open_dataset("first/sweep.nc") as one, xr.open_dataset("second/sweep.nc") as two:
        varied = one["step_s"].std(list(axes)) + one["final_metric"].std()
        assert (varied > 0).any()
        xr.testing.assert_equal(one.load(), two.load())


@pytest.mark.usefixtures("quick")
def test_axes_and_schemes_from_the_command_line():
    more = ["--axis", "density=[0.2]", "--axis", "cost=[0, 1]", "--scheme", "dense", "--scheme", "topk"]
    swept("out", *more, "--set", "training.steps=10")
    with xr.open_dataset("out/sweep.nc") as data:
        assert data.sizes["density"] == 1
        assert data["cost"].values.tolist() == [0, 1]
        assert data["scheme"].values.tolist() == ["dense(dtype=native)", "topk(density)"]
        assert data["completed_steps"].values.max() == 10


@pytest.mark.usefixtures("quick")
def test_a_sweep_without_an_uncompressed_scheme_is_written_too(tmp_path):
    result = swept("out", "--scheme", "ef(topk)", "--axis", "cost=[0, 1, 2]")
    assert "Cannot say: no uncompressed scheme" in result.output
    assert (tmp_path / "out" / "step-phases.png").is_file()
    assert call("show", "out").exit_code == 0


@pytest.mark.usefixtures("quick")
def test_the_default_folder_is_the_next_free_one(tmp_path):
    for expected in ("small", "small-2"):
        assert call("sweep", "small.toml", *HERE).exit_code == 0
        assert (tmp_path / "runs" / expected / "sweep.nc").is_file()


def test_cp_and_ls_of_shipped_sweeps(tmp_path):
    listed = call("ls", "sweeps")
    assert listed.exit_code == 0
    words = ["three-parameters", "density (5)", "bandwidth (12)", "ef(topk(density)"]
    assert all(word in listed.output for word in words), listed.output
    copied = call("cp", "three-parameters", "own.toml")
    assert copied.exit_code == 0
    assert "gradwire sweep own.toml" in copied.output
    own, shipped = load_grid("own.toml"), load_grid("three-parameters")
    assert own == shipped
    again = call("cp", "three-parameters", "own.toml")
    assert again.exit_code == 2
    assert "exists already" in again.output
    missing = call("cp", "three-parameter", "x.toml")
    assert missing.exit_code == 2
    assert "did you mean three-parameters" in missing.output
    assert not (tmp_path / "x.toml").exists()


@pytest.mark.usefixtures("quick")
def test_an_existing_folder_is_kept_unless_forced(tmp_path):
    swept("kept")
    before = (tmp_path / "kept" / "sweep.nc").read_bytes()
    changed = ["--set", "training.steps=10"]
    refused = call("sweep", "small.toml", *HERE, "--out", "kept", *changed)
    assert refused.exit_code == 2
    assert "exists already; give another name, or --force" in refused.output
    assert (tmp_path / "kept" / "sweep.nc").read_bytes() == before
    swept("kept", "--force", *changed)
    assert (tmp_path / "kept" / "sweep.nc").read_bytes() != before
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    refused = call("sweep", "small.toml", *HERE, "--out", "kept", "--force")
    assert refused.exit_code == 2
    assert "holds notes.txt, which no sweep writes" in refused.output
    assert (tmp_path / "kept" / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("quick")
def test_force_does_not_replace_a_run_by_a_sweep(tmp_path):
    run = ["--set", "task={name='logistic'}", "--set", "training={steps=5, workers=2, batch_size=8}"]
    assert call("run", *run, "--scheme", "dense", "--out", "result").exit_code == 0
    refused = call("sweep", "small.toml", *HERE, "--out", "result", "--force")
    assert refused.exit_code == 2
    assert "which no sweep writes" in refused.output
    assert (tmp_path / "result" / "run.nc").is_file()


FILES = {
    "broken.toml": "schemes = [",
    "number.toml": "axes = 3\nschemes = ['dense']",
    "list.toml": "axes = ['density']\nschemes = ['dense']",
    "none.toml": "schemes = ['dense']",
    "empty.toml": "schemes = ['dense']\n[axes]",
}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["small.toml", "--axis", "densty=[0.1]"], "axes.densty: no key of an experiment; did you mean density?"),
        (["small.toml", "--axis", "density=[]"], "axes.density = []: an axis needs at least one value"),
        (["small.toml", "--axis", "density"], "--axis 'density': write key=value"),
        (["small.toml", "--axis", "bandwidth=['1 Gbit/s', '1000 Mbit/s']"], "a value comes twice"),
        (["small.toml", "--axis", "task.name=['logistic', 'quadratic']"], "logistic by accuracy, quadratic by subop"),
        (["small.toml", "--axis", "tune.seed=[1, 2]"], "axes.tune.seed: what is tuned is the same everywhere"),
        (["small.toml", "--axis", "scheme.dtype=['fp32', 'bf16']"], "axes.scheme.dtype: uncompressed schemes have it"),
        (["small.toml", "--scheduler", "tcp://nowhere:1"], "--scheduler tcp://nowhere:1: only with --executor dask"),
        (["small.toml", "--executor", "dask"], "--executor dask needs --scheduler ADDRESS"),
        (["small.toml", "--executor", "dask", "--scheduler", "x", "--processes", "2"], "--processes 2: a Dask cluster"),
        (["small.toml", "--scheme", "dense("], "cannot be read"),
        (["small.toml", "--set", "training.steps=0"], "training.steps = 0"),
        (["absent.toml"], "'absent.toml' is not there"),
        (["absent"], "'absent' is unknown"),
        (["three-parameter"], "did you mean three-parameters?"),
        (["broken.toml"], "broken.toml is no valid TOML"),
        (["number.toml"], "axes = 3: write a section [axes]"),
        (["number.toml", "--axis", "density=[0.1]"], "axes = 3: write a section [axes]"),
        (["list.toml"], "axes = ['density']: write a section [axes]"),
        (["none.toml"], "axes: a sweep needs at least one axis"),
        (["empty.toml"], "axes: a sweep needs at least one axis"),
        (["mnist"], "axes: a sweep needs at least one axis"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, words, tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    own = [] if "dask" in arguments else HERE
    result = call("sweep", *arguments, *own, "--out", "never")
    lines = result.output.strip().splitlines()
    assert result.exit_code == 2
    assert len(lines) == 1, result.output
    assert lines[0].startswith("gradwire: ")
    assert words in lines[0]
    assert not list(tmp_path.glob("*never*"))
    assert not (tmp_path / "store").exists()


def test_run_says_what_to_do_with_a_sweep(tmp_path):
    for name in ("small.toml", "three-parameters"):
        result = call("run", name)
        assert result.exit_code == 2
        assert f"gradwire sweep {name}" in result.output
        assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_show_of_what_is_no_sweep(tmp_path):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "sweep.nc").write_bytes(b"not a dataset")
    result = call("show", "odd")
    assert result.exit_code == 2
    assert "cannot be read" in result.output
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(tmp_path / "odd" / "sweep.nc", engine="h5netcdf")
    result = call("show", "odd")
    assert result.exit_code == 2
    assert "is no sweep: it has no final_metric, run_s, scheme, status, step_s" in result.output


LIMITED = """
import resource, signal, sys
from gradwire.cli import app
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
app(sys.argv[2:], prog_name="gradwire")
"""


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
@pytest.mark.parametrize("most_bytes", [1000, 20_000, 60_000], ids=["summary", "dataset", "page"])
def test_a_disk_that_takes_no_more_leaves_nothing_half_written(tmp_path, most_bytes):
    """A real process whose files may not grow beyond a limit, after everything is trained."""
    swept("first")
    before = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    command = ["sweep", "small.toml", *HERE, "--out", "first", "--force"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(most_bytes), *command],
        check=False, capture_output=True, text=True, timeout=120, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("gradwire: --out first: cannot be written: ")
    assert {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()} == before
    assert not list(tmp_path.glob(".first*"))


@pytest.mark.usefixtures("quick")
def test_axes_of_the_summary_are_those_of_the_file():
    swept("out")
    axes = json.loads(Path("out/summary.json").read_text())["axes"]
    assert axes == {"density": [0.1, 0.4], "bandwidth": [1e6, 1e9], "seed": [0, 1]}
