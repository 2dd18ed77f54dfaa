"""Clusters in experiments: from a preset, a file or tables, written completely and read back the same."""

import json
import tomllib

import pytest
import tomli_w
from typer.testing import CliRunner

from gradwire.cli import app
from gradwire.sim.cluster import CLUSTERS, load_cluster
from gradwire.sim.cluster.cluster import make_cluster
from gradwire.sim.experiment import ExperimentError, load_experiment, validate_experiment
from gradwire.sim.run import run
from gradwire.sim.training.store import Store

BASE = {"bandwidth": "10 Gbit/s", "latency": "30 us", "launch": "20 us"}
EVERYTHING = {
    **BASE,
    "efficiency": 0.9,
    "gpus": 2,
    "intra": {"bandwidth": "100 GB/s", "latency": "4 us", "shared": True},
    "hosts": 4,
    "host": [{"which": "host1-host2", "latency": "10 us"}],
    "fabric": {"kind": "graph", "switches": ["s"], "routing": "latency"},
    "links": [{"between": [f"host{h}", "s"], "latency": "1 us", "bandwidth": "7 Gbit/s"} for h in range(4)],
    "routes": [{"path": ["host0", "s", "host3"]}],
    "pieces": [{"from": "0 B", "launch": "10 us"}, {"from": "1 MiB", "efficiency": 0.8}],
    "reduce": "300 GB/s",
    "background": [{"from": "host0", "to": "host1", "rate": "1 Gbit/s", "start": "2 s"}],
    "profile": [{"link": "s > host1", "times": ["1 s"], "factors": [0.5]}],
    "price": {"per_gpu_hour": 2.5},
    "description": "all of it",
    "source": {"bandwidth": "a data sheet"},
}


def experiment(cluster, **training):
    data = {"schemes": ["dense"], "task": {"name": "logistic"}, "cluster": cluster}
    return validate_experiment({**data, "training": {"workers": 8, "steps": 2, **training}})


def read_back(written):
    return validate_experiment(tomllib.loads(written.to_toml(written.make_task())))


def test_a_cluster_in_tables_survives_being_written():
    written = experiment(EVERYTHING)
    assert written.cluster.cluster() == make_cluster(EVERYTHING)
    assert read_back(written).cluster.cluster() == make_cluster(EVERYTHING)


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_preset_survives_being_written(name):
    written = experiment({"preset": name})
    assert written.cluster.cluster() == load_cluster(name)
    text = written.to_toml(written.make_task())
    assert read_back(written).cluster.cluster() == load_cluster(name)
    alone = {key: value for key, value in tomllib.loads(text)["cluster"].items() if key != "preset"}
    assert experiment(alone).cluster.cluster() == load_cluster(name)


def test_keys_replace_those_of_a_preset_and_their_sources():
    own = experiment({"preset": "dgx-a100", "bandwidth": "800 Gbit/s", "fabric": {"core": "1 Tbit/s"}})
    cluster, preset = own.cluster.cluster(), load_cluster("dgx-a100")
    assert (cluster.bandwidth, cluster.fabric.core, cluster.intra) == (800e9, 1e12, preset.intra)
    assert cluster.source.bandwidth == cluster.source.fabric == "given"
    assert cluster.source.intra == preset.source.intra
    assert read_back(own).cluster.cluster() == cluster


FILE = """
bandwidth = "25 Gbit/s"
latency = "5 us"
launch = "20 us"
hosts = 8
"""


def test_a_file_is_found_beside_the_experiment_or_in_the_working_directory(tmp_path, monkeypatch):
    folder = tmp_path / "experiments"
    folder.mkdir()
    text = 'schemes = ["dense"]\n[task]\nname = "logistic"\n[cluster]\nfile = "lab.toml"\nlatency = "9 us"\n'
    (folder / "one.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExperimentError, match=r"cluster: cluster file 'lab.toml' cannot be read"):
        load_experiment(folder / "one.toml")
    (tmp_path / "lab.toml").write_text(FILE)
    found = load_experiment(folder / "one.toml")
    assert (found.cluster.cluster().bandwidth, found.cluster.cluster().latency) == (25e9, 9e-6)
    (folder / "lab.toml").write_text(FILE.replace("25 Gbit/s", "40 Gbit/s"))
    beside = load_experiment(folder / "one.toml")
    assert beside.cluster.cluster().bandwidth == 40e9
    assert beside.cluster.label == "lab"
    whole = beside.to_toml(beside.make_task())
    (folder / "lab.toml").unlink()
    (tmp_path / "lab.toml").unlink()
    assert validate_experiment(tomllib.loads(whole)).cluster.cluster() == beside.cluster.cluster()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("= 1", ["no valid TOML"]),
        ('file = "other.toml"', ["file: not in a cluster's file"]),
        (FILE.replace("hosts", "host_count"), ["cluster.host_count: unknown key", "hosts"]),
        (FILE.replace('launch = "20 us"', ""), ["cluster: needs a preset, or else also launch"]),
        (FILE + "gpus = 4", ["cluster: gpus = 4: needs the table intra"]),
    ],
)
def test_faults_of_a_file_are_said(tmp_path, content, words):
    (tmp_path / "lab.toml").write_text(content)
    with pytest.raises(ExperimentError) as caught:
        experiment({"file": str(tmp_path / "lab.toml")})
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_faults_inside_tables_name_their_key():
    with pytest.raises(ExperimentError, match=r"cluster.intra.latancy: unknown key; did you mean latency"):
        experiment({**BASE, "gpus": 2, "intra": {"bandwidth": "1 GB/s", "latency": "1 us", "latancy": "1 us"}})
    with pytest.raises(ExperimentError, match=r"cluster.links.0.bandwidth = '0 bit/s': .* above 0"):
        experiment({**BASE, "links": [{"between": ["host0", "host1"], "bandwidth": "0 bit/s"}]})
    with pytest.raises(ExperimentError, match=r"^cluster: host: host1 is in more than one table; allowed: one$"):
        experiment({**BASE, "host": [{"which": 1, "latency": "1 s"}, {"which": 1, "latency": "1 s"}]})


def test_more_workers_than_gpus_are_refused():
    with pytest.raises(ExperimentError, match=r"^workers = 8: the cluster has 4 GPUs .* at most 4$"):
        experiment({**BASE, "hosts": 4})
    with pytest.raises(
        ExperimentError, match=r"^profile: link = 'host8 up': there is no such link; allowed: nics, host0"
    ):
        experiment({**BASE, "profile": [{"link": "host8 up", "times": ["1 s"], "factors": [2.0]}]})
    assert experiment({**BASE, "hosts": 4}, workers=4).cluster.cluster().hosts == 4


LEAVES = {"kind": "leaf-spine", "hosts_per_leaf": 2, "spines": 2, "oversubscription": 4.0}
FOUR_GPUS = {"gpus": 4, "intra": {"bandwidth": "50 GB/s", "latency": "4 us"}}


@pytest.mark.parametrize(
    ("cluster", "engine", "note"),
    [
        ({**BASE, "fabric": LEAVES}, "events: the leaf-spine is oversubscribed 4:1", True),
        ({**BASE, **FOUR_GPUS}, "closed-form: hosts and links are equal", False),
        (EVERYTHING, "events: background flows take part", True),
    ],
    ids=["leaf-spine", "4 GPUs a host", "everything"],
)
def test_runs_on_any_cluster_say_what_timed_them(tmp_path, monkeypatch, cluster, engine, note):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.toml").write_text(tomli_w.dumps(cluster))
    changes = ["task={name='logistic'}", "training={workers=8, steps=2, evaluate_every=2}", "cluster={file='lab.toml'}"]
    options = [part for change in changes for part in ("--set", change)]
    result = CliRunner().invoke(app, ["run", *options, "--scheme", "dense", "--store", "store", "--out", "made"])
    assert result.exit_code == 0, result.output
    row = json.loads((tmp_path / "made" / "summary.json").read_text())["schemes"][0]
    assert row["engine"].startswith(engine)
    assert ("played by the event engine" in result.output) == note


def test_a_ring_over_two_hosts_of_four_takes_the_time_of_its_slowest_link(tmp_path):
    """A logistic regression's few parameters cost little but the latency of 14 rounds, and one launch."""
    written = experiment({**BASE, **FOUR_GPUS}, evaluate_every=2)
    data = run(written, Store(tmp_path)).dataset()
    parameters = int(data.attrs["parameters"])
    hops, chunk = 14, parameters * 4 / 8
    expected = 20e-6 + hops * (30e-6 + 8 * chunk / 10e9)
    assert data["communication_s"].values.ravel() == pytest.approx([expected] * 2, rel=1e-4)
