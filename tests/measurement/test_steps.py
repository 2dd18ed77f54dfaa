"""Measured steps in real processes: they learn what the simulator learns, and send what it sends."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from gradwire.analysis.measurement.records import median
from gradwire.analysis.measurement.subject import find, training_of
from gradwire.compressors.drivers import StackedDriver
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wirelog import Collective, StepLog
from gradwire.sim.training.train import _Trainer

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("equal.py")


@pytest.fixture(scope="module")
def equal() -> ModuleType:
    """The module that the tests share with the processes."""
    spec = spec_from_file_location("equal", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(equal: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the processes left of each job; torchrun starts them once for all tests."""
    result = tmp_path_factory.mktemp("equal") / "result"
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(equal.WORKERS)]
    done = subprocess.run(
        [sys.executable, *words, str(SCRIPT), str(result)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(result, weights_only=False)


@pytest.fixture(scope="module")
def simulated(equal: ModuleType) -> list[Any]:
    """The simulator's trainers after the same steps, with all workers stacked in one process."""
    trainers = []
    for job in equal.JOBS:
        plan = training_of(job, equal.WORKERS)
        trainer = _Trainer(find(job.task, job.options), parse_scheme(job.scheme), plan, StackedDriver(equal.WORKERS))
        for step in range(equal.STEPS):
            assert trainer.step(step) is None
        trainers.append(trainer)
    return trainers


def test_measured_steps_learn_what_the_simulator_learns(equal, found, simulated):
    for job, own, trainer in zip(equal.JOBS, found, simulated, strict=True):
        for name, parameter in trainer._model.named_parameters():
            difference = float((own["parameters"][name] - parameter.detach()).abs().max())
            assert difference <= 1e-6, (str(job), job.overlap, name, difference)


def test_the_parameters_that_are_compared_have_moved(equal, found):
    start = {name: p.detach() for name, p in _Trainer(
        find("mnist", equal.JOBS[0].options), parse_scheme("dense"), training_of(equal.JOBS[0], 3), StackedDriver(3)
    )._model.named_parameters()}  # fmt: skip
    for own in found:
        assert max(float((own["parameters"][name] - p).abs().max()) for name, p in start.items()) > 1e-3


def collectives(log: StepLog) -> list[tuple[int, int, str, float]]:
    return [(m.message, c.round, c.operation, sent(c)) for m in log for c in m.collectives]


def sent(collective: Collective) -> float:
    return sum(collective.sent_bytes) / len(collective.sent_bytes)


def test_collectives_and_bytes_are_those_of_the_simulations_wire_log(equal, found, simulated):
    compared = 0
    for job, own, trainer in zip(equal.JOBS, found, simulated, strict=True):
        if job.overlap:
            continue  # the hook's buckets are cut in the order of use; the log of its own exchanges is tested below
        expected = [collectives(log) for log in trainer._logs]
        assert [[one[:4] for one in step.launches] for step in own["steps"]] == [
            [(operation, message, round_, size) for message, round_, operation, size in log] for log in expected
        ]
        assert {message for message, *_ in expected[0]} == {0, 1, 2}
        measured = [[(c.message, c.round, c.operation) for c in own["record"].collectives]]
        assert measured == [[one[:3] for one in expected[-1]]]
        for use, *logs in zip(own["record"].collectives, *expected[job.warmup :], strict=True):
            assert use.bytes == pytest.approx(sum(log[3] for log in logs) / len(logs))
            assert use.seconds > 0
            compared += 1
    assert compared > 10


def test_every_message_of_the_hook_begins_with_an_agreement(equal, found, simulated):
    for job, own, trainer in zip(equal.JOBS, found, simulated, strict=True):
        if not job.overlap:
            continue
        uses = own["record"].collectives
        for _, of_message in groupby(uses, key=lambda use: use.message):
            assert next(of_message).bytes == 4
        payload = sum(use.bytes for use in uses) - 4 * (1 + uses[-1].message)
        logged = [sum(one[3] for one in collectives(log)) for log in trainer._logs[job.warmup :]]
        assert payload == pytest.approx(
            sum(logged) / len(logged), rel=0.01
        )  # sizes of index codes hang on the units' order
        assert len(own["record"].ready_s) == 1 + uses[-1].message > 1


def test_phases_add_up_to_the_step(equal, found):
    names = ("forward_s", "backward_s", "encode_s", "exposed_communication_s", "decode_s", "optimizer_s")
    for job, own in zip(equal.JOBS, found, strict=True):
        for taken in own["steps"]:
            parts = [getattr(taken, name) for name in names]
            assert sum(parts) == pytest.approx(taken.step_s, rel=1e-9)
            assert min(parts) > 0, str(job)
            if not job.overlap:  # then nothing but exchanges is waited for
                assert taken.communication_s <= taken.exposed_communication_s
        record = own["record"]
        assert len(record.step_s) == job.repeats
        for parts in zip(record.step_s, *(getattr(record, name) for name in names), strict=True):
            assert sum(parts[1:]) == pytest.approx(parts[0], rel=1e-9)
        assert list(record.ready_s) == sorted(record.ready_s)
        assert 0 < record.ready_s[0] < median(record.step_s)
