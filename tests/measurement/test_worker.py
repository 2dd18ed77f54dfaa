"""The jobs of a worker, in a group of one: where time that is spent on purpose shows up, and what records hold."""

import time
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from gradwire.analysis.measurement.group import Group
from gradwire.analysis.measurement.jobs import CodecJob, CollectiveJob, ComputeJob, StepJob
from gradwire.analysis.measurement.records import median
from gradwire.analysis.measurement.worker import do_job
from gradwire.compressors.base import State, Turn
from gradwire.compressors.payload import Payload
from gradwire.compressors.quantizers.dense import Dense
from gradwire.compressors.registry import SCHEMES

NAP_S = 0.05
AWAKE_S = 0.025
"""What takes less has not slept, even on a busy machine."""
PHASES = ("forward_s", "backward_s", "encode_s", "decode_s", "optimizer_s", "exposed_communication_s")


@dataclass(frozen=True)
class Sleepy(Dense):
    """Sends everything, and sleeps."""

    when: str = "encode"

    name = "sleepy"

    def encode(self, x: Tensor, state: State, turn: Turn) -> Any:
        self._sleep("encode")
        return super().encode(x, state, turn)

    def decode(self, payload: Payload, shape: tuple[int, ...], turn: Turn) -> Any:
        self._sleep("decode")
        return super().decode(payload, shape, turn)

    def _sleep(self, now: str) -> None:
        if self.when == now:
            time.sleep(NAP_S)


@pytest.fixture
def sleepy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheme is in the list of schemes."""
    monkeypatch.setitem(SCHEMES, "sleepy", Sleepy)


@pytest.mark.usefixtures("sleepy")
@pytest.mark.parametrize("when", ["encode", "decode"])
@pytest.mark.parametrize("overlap", [False, True])
def test_what_sleeps_in_a_phase_of_a_step_shows_there_and_nowhere_else(when, overlap, alone):
    job = StepJob(
        task="faulty:Faulty", scheme=f"sleepy(when={when})", overlap=overlap, unit="model", message="model", repeats=5
    )
    record = do_job(job, alone)
    assert record.error is None
    found = {name: median(getattr(record, name)) for name in PHASES}
    assert found[f"{when}_s"] >= NAP_S
    assert {name for name, seconds in found.items() if seconds > AWAKE_S} == {f"{when}_s"}, found
    assert median(record.communication_s) < AWAKE_S
    assert median(record.step_s) == pytest.approx(sum(found.values()), abs=AWAKE_S)


@pytest.mark.usefixtures("sleepy")
@pytest.mark.parametrize("when", ["encode", "decode"])
def test_what_sleeps_in_a_codec_shows_there_and_nowhere_else(when, alone):
    record = do_job(CodecJob(scheme=f"sleepy(when={when})", shape=(3, 4), units=2, repeats=3), alone)
    found = {name: median(getattr(record, name)) for name in ("encode_s", "between_s", "decode_s")}
    assert found[f"{when}_s"] >= 2 * NAP_S  # both units
    assert sum(found.values()) - found[f"{when}_s"] < AWAKE_S
    assert len(record.encode_s) == 3


def test_layers_add_up_to_the_passes_and_the_slow_one_is_found(alone: Group, monkeypatch: pytest.MonkeyPatch):
    real = torch.nn.Linear.forward

    def slow(self: torch.nn.Linear, x: Tensor) -> Tensor:
        if self.out_features == 16:
            time.sleep(NAP_S)
        return real(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", slow)
    record = do_job(ComputeJob(task="mnist", options={"hidden": "32,16"}, batch_size=2, repeats=3), alone)
    assert [layer.name for layer in record.layers] == ["1", "3", "5"]
    assert [layer.parameters for layer in record.layers][1] == ("3.weight", "3.bias")
    assert [layer.elements for layer in record.layers] == [784 * 32 + 32, 32 * 16 + 16, 160 + 10]
    forward, backward = (sum(getattr(layer, name) for layer in record.layers) for name in ("forward_s", "backward_s"))
    assert forward == pytest.approx(median(record.forward_s), rel=1e-9)
    assert backward == pytest.approx(median(record.backward_s), rel=1e-9)
    assert record.layers[1].forward_s >= NAP_S / 2
    assert max(record.layers[0].forward_s, record.layers[2].forward_s) < AWAKE_S
    assert min(layer.backward_s for layer in record.layers) >= 0


@pytest.mark.parametrize(
    "operation", ["all-reduce", "all-gather", "broadcast", "all-to-all", "reduce-scatter", "permute"]
)
def test_every_operation_is_measured_as_often_as_its_budget_allows(operation, alone):
    job = CollectiveJob(operations=(operation,), sizes=(64,), repeats=7)
    record = do_job(job, alone)
    assert len(record.seconds) == 7
    assert min(record.seconds) > 0
    assert (record.operation, record.workers, record.bytes, record.source) == (operation, 1, 64, "measured")
    assert len(do_job(job.model_copy(update={"budget_s": 0.0, "least": 2}), alone).seconds) == 2
    rested = do_job(job.model_copy(update={"pause_s": 0.01, "repeats": 2}), alone)
    assert max(rested.seconds) < 1
    assert rested.pause_s == 0.01
