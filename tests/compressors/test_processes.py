"""Real processes over Gloo against workers stacked in one process: the same values, states and wire logs."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gradwire.compressors.base import Codec, Scheme
from gradwire.compressors.drivers import StackedDriver

pytestmark = pytest.mark.slow

SECONDS = 300
"""After which a group counts as hanging. It takes some ten seconds on two processors with nothing else to do."""
LAYOUTS = [(4, 1), (2, 3)]
"""Processes, and workers of each."""

Found = dict[tuple[int, int, str], Any]


def start(processes: int, folder: Path) -> list[Found]:
    """Run the processes to their end and return what each of them found."""
    script = [sys.executable, "-W", "error", str(Path(__file__).with_name("exchanges.py"))]
    files = [folder / f"result{rank}" for rank in range(processes)]
    started = []
    for rank, file in enumerate(files):
        with (folder / f"errors{rank}").open("w") as errors:
            words = [str(rank), str(folder / "store"), str(file)]
            started.append(subprocess.Popen([*script, *words], stdout=errors, stderr=errors))
    try:
        deadline = time.monotonic() + SECONDS
        codes = [process.wait(max(0.0, deadline - time.monotonic())) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    said = "\n".join((folder / f"errors{rank}").read_text()[-2000:] for rank in range(processes))
    assert codes == [0] * processes, said
    return [torch.load(file, weights_only=False) for file in files]


@pytest.fixture(scope="module")
def found(exchanges: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """What all processes found; they are started once for all tests."""
    assert exchanges.messages()
    assert [(n, rows) for n, counts in exchanges.GROUPS.items() for rows in counts] == LAYOUTS
    return start(max(exchanges.GROUPS), tmp_path_factory.mktemp("processes"))


class Pair(NamedTuple):
    """One step of one message, stacked and by processes whose rows are joined; ``means`` is per process."""

    name: str
    units: tuple[tuple[Scheme, tuple[int, ...]], ...]
    stacked: Any
    parts: list[Any]

    def of(self, unit: int) -> str:
        """Name a unit, for failures."""
        scheme, shape = self.units[unit]
        return f"{self.name}: {scheme} on {shape}"

    def joined(self, unit: int) -> Tensor:
        """Return all workers' ``sent`` of a unit."""
        return torch.cat([part.sent[unit] for part in self.parts])

    def states(self, unit: int) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield name, stacked and joined value of everything that is remembered of a unit."""
        return leaves(self.stacked.states[unit], [part.states[unit] for part in self.parts])


def leaves(stacked: dict[str, Any], parts: list[dict[str, Any]]) -> Iterator[tuple[str, Tensor, Tensor]]:
    for kind in ("elements", "rows"):
        assert stacked[kind].keys() == parts[0][kind].keys()
        for key, value in stacked[kind].items():
            yield key, value, torch.cat([part[kind][key] for part in parts])
    assert stacked["shared"].keys() == parts[0]["shared"].keys()
    for key, value in stacked["shared"].items():
        for part in parts:
            yield key, torch.as_tensor(value), torch.as_tensor(part["shared"][key])
    if stacked["inner"] is not None:
        yield from leaves(stacked["inner"], [part["inner"] for part in parts])


Pairs = Callable[[int, int, str], list[Pair]]


@pytest.fixture(scope="module")
def pairs(exchanges: ModuleType, found: list[Found]) -> Pairs:
    """Stacked results beside those of a group, for every step of every message."""

    @cache
    def build(processes: int, rows: int, how: str) -> list[Pair]:
        driver = StackedDriver(processes * rows)
        dtype = torch.float32 if how == "exact" else torch.float64
        whole = []
        for i, message in enumerate(exchanges.messages()):
            for step, stacked in enumerate(exchanges.run(driver, message, dtype)):
                parts = [process[processes, rows, how][i][step] for process in found[:processes]]
                whole.append(Pair(f"{message.name}, step {step}", message.units, stacked, parts))
        return whole

    return build


@pytest.mark.parametrize(("processes", "rows"), LAYOUTS)
def test_sums_in_rank_order_equal_the_stacked_ones_bit_for_bit(processes, rows, pairs):
    for pair in pairs(processes, rows, "exact"):
        for unit in range(len(pair.units)):
            for part in pair.parts:
                assert torch.equal(part.means[unit], pair.stacked.means[unit]), pair.of(unit)
            assert torch.equal(pair.joined(unit), pair.stacked.sent[unit]), pair.of(unit)
            for key, one, other in pair.states(unit):
                assert torch.equal(one, other), (pair.of(unit), key)


def allowed(scheme: Scheme, sent: Tensor) -> Tensor | float:
    """Return how far two orders of summing N values may be apart; where nothing is summed they must agree.

    In a coarser dtype than the values', N - 1 additions and a rounding err by N u / (1 - N u) of the sum of
    magnitudes, either way. In float64 that is 1e-15, and a factorisation of well-conditioned matrices makes less than
    1e-9 of it.
    """
    if isinstance(scheme, Codec) and scheme.combine == "gather":
        return 0.0
    u = {"dense(dtype=bf16)": 2.0**-8, "dense(dtype=fp32)": 2.0**-24}.get(str(scheme.parts()[-1]))
    if u is None:
        return 1e-9
    return 2 * len(sent) * u / (1 - len(sent) * u) * sent.abs().mean(0)


@pytest.mark.parametrize(("processes", "rows"), LAYOUTS)
def test_the_backends_own_sums_agree_but_for_their_order(processes, rows, pairs):
    for pair in pairs(processes, rows, "quick"):
        for unit, (scheme, _) in enumerate(pair.units):
            limit = allowed(scheme, pair.stacked.sent[unit])
            for part in pair.parts:
                assert torch.equal(part.means[unit], pair.parts[0].means[unit]), pair.of(unit)
                difference = (part.means[unit] - pair.stacked.means[unit]).reshape(-1).abs()
                assert (difference <= limit).all(), pair.of(unit)
            # What a codec's worker sends and remembers is its own affair: no sum enters it.
            near = 0.0 if isinstance(scheme, Codec) else 1e-9
            assert ((pair.joined(unit) - pair.stacked.sent[unit]).abs() <= near).all(), pair.of(unit)
            for key, one, other in pair.states(unit):
                assert one.dtype == other.dtype, (pair.of(unit), key)
                whole = not one.is_floating_point()
                torch.testing.assert_close(one, other, rtol=0, atol=0 if whole else near, msg=f"{pair.of(unit)} {key}")


@pytest.mark.parametrize("how", ["exact", "quick"])
@pytest.mark.parametrize(("processes", "rows"), LAYOUTS)
def test_the_wire_log_is_the_same_everywhere(processes, rows, how, pairs):
    for pair in pairs(processes, rows, how):
        assert pair.stacked.log.collectives, pair.name
        for part in pair.parts:
            assert part.log == pair.stacked.log, pair.name


@pytest.mark.parametrize(("processes", "rows"), LAYOUTS)
def test_each_logged_all_reduce_is_one_real_all_reduce(processes, rows, pairs, found):
    logs = [pair.stacked.log for pair in pairs(processes, rows, "quick")]
    reductions = [c for log in logs for c in log.collectives if c.operation == "all-reduce"]
    for process in found[:processes]:
        assert process[processes, rows, "launched"] == [(c.dtype, c.sent_bytes[0]) for c in reductions]


@pytest.mark.parametrize(("processes", "rows"), LAYOUTS)
def test_processes_that_disagree_are_told_so_on_every_rank(processes, rows, found):
    for rank, process in enumerate(found[:processes]):
        scheme, size = process[processes, rows, "refusals"]
        odd_one_out = rows if rank == 0 else 0  # worker 0's process sees the first worker of the next
        assert scheme.startswith(f"worker {odd_one_out} sent another scheme than"), scheme
        other, own = (16, 15) if rank == 0 else (15, 16)
        assert size.startswith(f"worker {odd_one_out} sent a unit of {other} values instead of {own}"), size
