"""What the stacked driver and real processes both run: a protocol of every request, and a list of messages.

As a script it is one of the processes: ``python exchanges.py RANK STORE RESULT``. It runs all messages in each group
and with each number of rows, and writes what came out to the file RESULT.
"""

import copy
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from gradwire.compressors.base import Memory, Outcome, Passes, Protocol, Rounds, Scheme, SchemeError, Shape, State, Turn
from gradwire.compressors.decoded import Dense
from gradwire.compressors.drivers import Driver, Item
from gradwire.compressors.payload import Buffer, Payload, Ragged
from gradwire.compressors.processes import ProcessGroupDriver
from gradwire.compressors.registry import SCHEMES
from gradwire.compressors.requests import AllReduce, AllToAll, Broadcast, Gather, Permute, ReduceScatter
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wire import WireError

SHAPES: tuple[Shape, ...] = ((1,), (7,), (6, 3, 2, 2), (24, 20))
STEPS = 3
GROUPS = {4: (1,), 2: (3,)}
"""For each number of processes, the first so many, the workers that each of them holds in turn."""
MEMORIES = (
    "ef(topk(density=0.25), units=gradient)",
    "ef(phases(dense, topk(density=0.5), at=1))",
    "ef21(topk(density=0.25) | qsgd(bits=4, bucket=7))",
    "lowpass(randomk(density=0.25) | dense(dtype=bf16))",
    "momentum(dense)",
    "momentum(qsgd, clip=1)",
    "twosided(topk(density=0.25))",
    "twosided(qsgd(bits=3))",
    "twosided(randomk(density=0.25))",
    "twosided(dense)",
)
SELDOM = ("threshold(value=100)", "ef(threshold(value=2.5))", "momentum(threshold(value=3))")
"""Schemes that send nothing at all, or nothing from some workers."""


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


def _accepted(scheme: Scheme) -> tuple[tuple[Scheme, Shape], ...]:
    """Return the units that a scheme takes: error feedback refuses those on which what is inside can expand."""
    found = []
    for shape in SHAPES:
        with suppress(SchemeError):
            scheme.init(shape, 1, torch.zeros(shape))
            found.append((scheme, shape))
    return tuple(found)


def messages() -> list[Message]:
    """Return every listed scheme on several units, alone and under error feedback, and other memories.

    Units share a message, and so their collectives, which keeps the processes from waiting for each other all the time.
    """
    defaults = {str(scheme()): SHAPES for scheme in SCHEMES.values()}
    listed = defaults | {text: SHAPES[1::2] for scheme in SCHEMES.values() for text in scheme.examples}
    plain = [(parse_scheme(text), shape) for text, shapes in listed.items() for shape in shapes]
    bare = [text for text in defaults if not any(isinstance(part, Memory) for part in parse_scheme(text).parts())]
    fed_back = [unit for text in bare for unit in _accepted(parse_scheme(f"ef({text})"))]
    remembered = [_accepted(parse_scheme(text)) for text in MEMORIES]
    assert all(remembered)
    everything = tuple((EveryRequest(), shape) for shape in ((2,), (5,), (1,)))
    found = {
        "listed": plain,
        "error feedback": fed_back,
        "memories": [unit for units in remembered for unit in units],
        **{text: _accepted(parse_scheme(text)) for text in SELDOM},
        "everything": everything,
        "mixed": (*plain[::5], *everything),
    }
    return [Message(name, tuple(units)) for name, units in found.items()]


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


def main(rank: int, store: str, result: str) -> None:
    """Run everything as one of the processes."""
    torch.set_num_threads(1)
    limit = timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=max(GROUPS), timeout=limit)
    launched = count_all_reduces()
    found: dict[tuple[int, int, str], Any] = {}
    for processes, counts in GROUPS.items():
        group = dist.new_group(list(range(processes)))
        for rows in counts if rank < processes else ():
            exact, quick = (ProcessGroupDriver(rows, exact, group, agree=False) for exact in (True, False))
            found[processes, rows, "exact"] = [run(exact, message, torch.float32) for message in messages()]
            launched.clear()
            found[processes, rows, "quick"] = [run(quick, message, torch.float64) for message in messages()]
            found[processes, rows, "launched"] = list(launched)
            found[processes, rows, "refusals"] = refusals(quick)
    torch.save(found, result)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    # Pickles name this module as the tests do.
    sys.modules["exchanges"] = sys.modules["__main__"]
    Result.__module__ = "exchanges"
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
