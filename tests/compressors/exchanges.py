"""What the stacked driver and real processes both run: a protocol of every request, and a list of messages.

As a script it is one process of a group: ``python exchanges.py RANK PROCESSES ROWS,... STORE RESULT``. It runs all
messages for each number of rows and writes what came out to the file RESULT.
"""

import copy
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from gradwire.compressors.base import (
    AllReduce,
    AllToAll,
    Broadcast,
    Gather,
    Outcome,
    Passes,
    Permute,
    Protocol,
    ReduceScatter,
    Rounds,
    Scheme,
    Shape,
    State,
    Turn,
)
from gradwire.compressors.decoded import Dense
from gradwire.compressors.drivers import Driver, Item
from gradwire.compressors.payload import Buffer, Payload, Ragged
from gradwire.compressors.processes import ProcessGroupDriver
from gradwire.compressors.registry import SCHEMES
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wire import WireError

SHAPES: tuple[Shape, ...] = ((1,), (7,), (6, 3, 2, 2), (24, 20))
STEPS = 3
TWO_SIDED = (
    "twosided(topk(density=0.25))",
    "twosided(qsgd(bits=3))",
    "twosided(randomk(density=0.25))",
    "twosided(dense)",
)


@dataclass(frozen=True)
class EveryRequest(Protocol):
    """Asks for every kind of exchange once and keeps the replies; the units' values travel, and whole numbers."""

    name = "everything"
    title = "every request"
    paper = "none"
    collective = "all of them"

    @property
    def unbiased(self) -> bool:
        return True

    def init(self, shape: Shape, workers: int, like: Tensor) -> State:
        return State()

    def error_bound(self, shape: Shape) -> float:
        return 0.0

    def wire_bytes(self, shape: Shape, itemsize: int = 4) -> float:
        return 0.0

    def passes(self, shape: Shape) -> Passes:
        return Passes(0, 0, 0)

    def rounds(self, x: Tensor, state: State, turn: Turn) -> Rounds:
        flat = x.reshape(len(x), -1)
        ranks = torch.tensor(turn.ranks)[:, None]
        own = (10 * ranks + torch.arange(3)).to(torch.int32)  # worker r: 10 r, 10 r + 1, 10 r + 2
        pairs = (100 * ranks + torch.arange(2 * turn.size)).to(torch.int16)  # two numbers for every worker
        growing = Ragged.of([flat[row].repeat(2)[:rank] for row, rank in enumerate(turn.ranks)])  # worker 0 is idle
        summed = yield AllReduce(Payload((flat, own)))
        largest = yield AllReduce(Payload((flat, own)), op="max")
        scattered = yield ReduceScatter(Payload((flat.repeat(1, turn.size), pairs.to(torch.int32))))
        gathered = yield Gather(Payload((flat, own.to(torch.uint8))))
        ragged = yield Gather(Payload((growing, own)))
        told = yield Broadcast(Payload((flat, own)), root=turn.size - 1)
        exchanged = yield AllToAll(Payload((flat.repeat(1, turn.size), pairs)))
        shifted = yield Permute(Payload((flat, growing)), to=(*range(1, turn.size), -1))
        swapped = yield Permute(Payload((own,)), to=tuple(reversed(range(turn.size))))
        # Worker r sends worker s (r + 2 s) % 3 times the number 10 r + s, and all of its values unless that is 0.
        counts = [((rank + 2 * s) % 3, 10 * rank + s) for rank in turn.ranks for s in range(turn.size)]
        numbers = Ragged.of([torch.full((count,), number, dtype=torch.int16) for count, number in counts])
        own_or_none = Ragged.of([flat[i // turn.size][: count * flat.shape[1]] for i, (count, _) in enumerate(counts)])
        uneven = yield AllToAll(Payload((numbers, pairs, own_or_none)))
        everyone = {"sum": summed, "max": largest, "gather": gathered, "ragged": ragged, "broadcast": told}
        each = {"scatter": scattered, "all-to-all": exchanged, "shift": shifted, "swap": swapped, "uneven": uneven}
        width = 2 * max(flat.shape[1] * turn.size, 100)
        state = State(rows=_kept(each, width), shared=dict(_kept(everyone, width)))
        return Outcome((summed.fixed(0)[0] / turn.size).view(x.shape[1:]), Dense(flat), state)


def _kept(replies: dict[str, Payload], width: int) -> dict[str, Tensor]:
    """Return replies as tensors; where rows differ in length, the first column tells it, and zeros fill up."""

    def table(buffer: Buffer) -> Tensor:
        if isinstance(buffer, Tensor):
            return buffer.clone()
        out = buffer.flat.new_zeros(len(buffer.lengths), 1 + width)
        for r, length in enumerate(buffer.lengths):
            out[r, 0] = length
            out[r, 1 : 1 + length] = buffer.row(r)
        return out

    return {f"{key} {i}": table(buffer) for key, reply in replies.items() for i, buffer in enumerate(reply.buffers)}


class Message(NamedTuple):
    """A name for failures, and the message's units: how each is compressed, and its shape."""

    name: str
    units: tuple[tuple[Scheme, Shape], ...]


def messages() -> list[Message]:
    """Return every listed scheme on several units, alone and under error feedback, and mixed messages."""
    plain = [text for scheme in SCHEMES.values() for text in dict.fromkeys((str(scheme()), *scheme.examples))]
    found = []
    for text in [*plain, *(f"ef({text})" for text in plain), "ef(topk(density=0.25), units=gradient)", *TWO_SIDED]:
        scheme = parse_scheme(text)
        wrapped = len(scheme.parts()) > 1
        shapes = [shape for shape in SHAPES if not wrapped or scheme.error_bound(shape) <= 1]
        if shapes:
            found.append(Message(text, tuple((scheme, shape) for shape in shapes)))
    everything = tuple((EveryRequest(), shape) for shape in ((2,), (5,), (1,)))
    texts = ("topk(density=0.1)", "dense", "ef(powersgd(rank=2))", "qsgd(bits=3)", "ef(randomk(density=0.25))")
    mixed = tuple((parse_scheme(text), shape) for text in texts for shape in ((24, 20), (7,)))
    return [*found, Message("everything", everything), Message("mixed", (*mixed, *everything))]


class Result(NamedTuple):
    """What one step of a message left: for each unit mean, sent and state, and the log."""

    means: list[Tensor]
    sent: list[Tensor]
    states: list[dict[str, Any]]
    log: Any


def run(driver: Driver, message: Message, dtype: torch.dtype) -> list[Result]:
    """Exchange a message for several steps; the inputs depend on nothing but step, unit and worker."""
    states: list[State] = []
    results = []
    for step in range(STEPS):
        items = []
        for i, (scheme, shape) in enumerate(message.units):
            generator = torch.Generator().manual_seed(1000 * step + i)
            everyone = torch.randn(driver.size, *shape, generator=generator, dtype=torch.float64).to(dtype)
            x = everyone[list(driver.ranks)]
            if step == 0:
                states.append(scheme.init(shape, len(x), x[0]))
            turn = Turn(7, step, f"unit{i}", driver.ranks, driver.size, lr=(0.1, 0.04, 0.3)[step])
            items.append(Item(x, scheme, states[i], turn))
        outcomes, log = driver.exchange(items, message=step)
        states = [outcome.state for outcome in outcomes]
        means = [outcome.mean for outcome in outcomes]
        sent = [outcome.sent.dense(outcome.mean.reshape(-1)) for outcome in outcomes]
        results.append(Result(means, sent, copy.deepcopy([state.state_dict() for state in states]), log))
    return results


# -------------------------------------------------------------------------------------------------------- one process


def refusals(driver: Driver) -> list[str]:
    """Return what is raised where worker 0's process runs another scheme, or another size, than the others."""
    odd = driver.ranks[0] == 0
    return [
        _refusal(driver, "topk(density=0.25)" if odd else "ef(topk(density=0.25))", 16),
        _refusal(driver, "topk(density=0.25)", 15 if odd else 16),  # of either, 4 are kept
    ]


def _refusal(driver: Driver, text: str, size: int) -> str:
    scheme = parse_scheme(text)
    x = torch.ones(len(driver.ranks), size)
    turn = Turn(0, 0, "u", driver.ranks, driver.size)
    try:
        driver.exchange([Item(x, scheme, scheme.init((size,), len(x), x[0]), turn)])
    except WireError as error:
        return str(error)
    return ""


def count_all_reduces() -> list[tuple[str, int]]:
    """Make every real all-reduce from now on leave its dtype and bytes in the list that is returned."""
    launched: list[tuple[str, int]] = []
    real = dist.all_reduce

    def counted(tensor: Tensor, *args: Any, **options: Any) -> Any:
        launched.append((str(tensor.dtype).removeprefix("torch."), tensor.numel() * tensor.element_size()))
        return real(tensor, *args, **options)

    dist.all_reduce = counted
    return launched


def main(rank: int, processes: int, rows: Iterable[int], store: str, result: str) -> None:
    """Run everything as one process of a group."""
    torch.set_num_threads(1)
    limit = timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes, timeout=limit)
    launched = count_all_reduces()
    found: dict[tuple[int, str], Any] = {}
    for count in rows:
        exact, quick = ProcessGroupDriver(count, exact=True), ProcessGroupDriver(count)
        found[count, "exact"] = [run(exact, message, torch.float32) for message in messages()]
        launched.clear()
        found[count, "quick"] = [run(quick, message, torch.float64) for message in messages()]
        found[count, "launched"] = list(launched)
        found[count, "refusals"] = refusals(quick)
    torch.save(found, result)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    # Pickles name this module as the tests do.
    sys.modules["exchanges"] = sys.modules["__main__"]
    Result.__module__ = "exchanges"
    main(int(sys.argv[1]), int(sys.argv[2]), map(int, sys.argv[3].split(",")), sys.argv[4], str(Path(sys.argv[5])))
