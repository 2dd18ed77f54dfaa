"""The store: exact, keyed by all that matters, safe against damage and concurrent writers."""

import gzip
import json
import pickletools
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch

from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wirelog import Collective, MessageLog, Work
from gradwire.sim.tasks import make_task
from gradwire.sim.training.plan import Training, fingerprint
from gradwire.sim.training.store import Store, StoreWarning, default_folder
from gradwire.sim.training.train import train
from gradwire.sim.training.trajectory import _message

TASK = make_task("quadratic", {"dimension": 5, "examples": 32})
PLAN = Training(workers=2, batch_size=4, steps=6, evaluate_every=2)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trajectory():
    return train(TASK, parse_scheme("ef(topk(density=0.4))"), PLAN)


def test_what_is_stored_comes_back_exactly(tmp_path, trajectory):
    store = Store(tmp_path)
    assert store.get("ab" * 32) is None
    store.put("ab" * 32, trajectory)
    found = store.get("ab" * 32)
    assert found is not None
    assert found.to_json() == trajectory.to_json()
    assert found.logs == trajectory.logs
    np.testing.assert_array_equal(found.train_loss, trajectory.train_loss)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{'ab' * 32}.json.gz"]


def test_an_entry_is_plain_json(tmp_path, trajectory):
    store = Store(tmp_path)
    store.put("cd" * 32, trajectory)
    data = gzip.decompress(store.path("cd" * 32).read_bytes())
    json.loads(data)
    with pytest.raises(ValueError, match=r"opcode|unknown|pickle"):
        list(pickletools.genops(data))


@pytest.mark.parametrize("damage", ["truncate", "flip", "content", "empty"])
def test_damage_is_noticed_said_and_trained_anew(tmp_path, trajectory, damage):
    store = Store(tmp_path)
    store.put("ef" * 32, trajectory)
    path = store.path("ef" * 32)
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        envelope = json.loads(gzip.decompress(data))
        envelope["content"] = envelope["content"].replace("completed", "diverged!")
        path.write_bytes(gzip.compress(json.dumps(envelope).encode()))
    with pytest.warns(StoreWarning, match="is damaged"):
        assert store.get("ef" * 32) is None
    store.put("ef" * 32, trajectory)
    assert store.get("ef" * 32) is not None


WRITER = """
import sys
from pathlib import Path
from gradwire.sim.training.store import Store
from gradwire.sim.training.trajectory import Trajectory
text = Path(sys.argv[2]).read_text()
for _ in range(30):
    Store(Path(sys.argv[1])).put("0a" * 32, Trajectory.from_json(text))
    assert Store(Path(sys.argv[1])).get("0a" * 32).to_json() == text
"""


@pytest.mark.slow
def test_concurrent_writers_and_readers_see_whole_entries(tmp_path, trajectory):
    (tmp_path / "trajectory.json").write_text(trajectory.to_json())
    command = [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path / "store"), str(tmp_path / "trajectory.json")]
    writers = [subprocess.Popen(command) for _ in range(3)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    assert len(list(tmp_path.rglob("*.part"))) == 0


def test_the_fingerprint_moves_with_all_that_matters():
    base = fingerprint("t", "dense", PLAN, CPU)
    assert base == fingerprint("t", "dense", PLAN, CPU)
    others = [
        fingerprint("u", "dense", PLAN, CPU),
        fingerprint("t", "topk", PLAN, CPU),
        *(
            fingerprint("t", "dense", PLAN.model_copy(update={key: value}), CPU)
            for key, value in {
                "workers": 3, "batch_size": 5, "steps": 7, "seed": 1, "optimizer": "Adam", "learning_rate": 0.5,
                "optimizer_options": {"momentum": 0.9}, "evaluate_every": 3, "unit": "model", "message": "model",
                "bucket": 7, "first_bucket": 7, "dtype": "float64", "gradients": "looped", "processes": 2,
            }.items()
        ),
    ]  # fmt: skip
    assert len({base, *others}) == 1 + len(others)


def test_the_target_only_reads_a_trajectory():
    assert fingerprint("t", "dense", PLAN.model_copy(update={"target": 0.5}), CPU) == fingerprint(
        "t", "dense", PLAN, CPU
    )


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADWIRE_STORE", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own"
    monkeypatch.delenv("GRADWIRE_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "gradwire" / "trajectories"


@pytest.mark.parametrize("chunks", [(), ((0, 5), (7, 0))])
def test_chunks_of_an_all_to_all_survive_as_json(chunks):
    collective = Collective("all-to-all", 1, "bytes", (5, 7), chunks=chunks)
    message = MessageLog(0, (Work("oktopk(density=0.01)", (3, 4), 1),), (collective,))
    assert _message(json.loads(json.dumps(asdict(message)))) == message


def test_a_log_from_before_chunks_were_logged_is_read():
    message = MessageLog(0, (), (Collective("all-gather", 0, "bytes", (5, 7)),))
    data = json.loads(json.dumps(asdict(message)))
    del data["collectives"][0]["chunks"]
    assert _message(data) == message
