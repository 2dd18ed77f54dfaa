"""How fast the schemes encode and decode, as a share of what ``copy_`` does with the same values.

25,557,032 float32 values, as one flat unit and as the 161 tensors of ResNet-50, and 16 workers' rows of a million. What
is timed is what a driver does but for the exchange: encoding, and decoding into a new vector the one payload that an
all-reduce gives, or adding to a vector that is there each one that a gather gives; of a protocol the whole exchange.
Each time the key of the random draws has another step. Every measurement alternates with one of ``copy_``. Bits are
what a worker hands over per value, and what the textbook says of it, flat and of the tensors.

Run with ``pytest tests/benchmarks/test_compression_speed.py -m benchmark -s``. In the environment,
``GRADWIRE_BENCHMARK_THREADS`` sets the threads (default: all cores), ``GRADWIRE_BENCHMARK_SCHEMES`` the text forms,
separated by semicolons (default: all that are listed), and ``GRADWIRE_BENCHMARK_ROUNDS`` the repetitions (default: 5).
"""

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from itertools import count
from math import prod

import pytest
import torch
from torch import Tensor

from gradwire.compressors.base import Codec, Scheme, SchemeError, Shape, State, Turn
from gradwire.compressors.drivers import Item, StackedDriver
from gradwire.compressors.payload import Payload, Ragged
from gradwire.compressors.registry import SCHEMES
from gradwire.compressors.spec import parse_scheme

pytestmark = pytest.mark.benchmark


def keep_freed_memory() -> None:
    """Let the C library keep large buffers that were freed, as torch's allocator does on a GPU.

    It gives them back by default, and then every new buffer costs a page fault for each 4 KiB, which takes longer than
    writing to it. ``MALLOC_MMAP_THRESHOLD_`` and ``MALLOC_TRIM_THRESHOLD_`` in the environment do the same.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc
        trim_threshold, mmap_threshold = -1, -3
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(mmap_threshold, 2**30)


keep_freed_memory()
THREADS = int(os.environ.get("GRADWIRE_BENCHMARK_THREADS", os.cpu_count() or 1))
TEXTS = os.environ.get("GRADWIRE_BENCHMARK_SCHEMES", ";".join(str(scheme()) for scheme in SCHEMES.values())).split(";")
ROUNDS = int(os.environ.get("GRADWIRE_BENCHMARK_ROUNDS", "5"))
STEPS = count(10_000)
"""Later than what schemes do at first: warm-ups, and 1-bit Adam's steps in full."""


def resnet50() -> Iterator[Shape]:
    """Yield the shapes of ResNet-50's parameters: convolutions, pairs of batch normalisation, the classifier."""

    def convolution(outputs: int, inputs: int, kernel: int) -> Iterator[Shape]:
        yield from ((outputs, inputs, kernel, kernel), (outputs,), (outputs,))

    yield from convolution(64, 3, 7)
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            yield from convolution(width, inputs, 1)
            yield from convolution(width, width, 3)
            yield from convolution(4 * width, width, 1)
            if block == 0:
                yield from convolution(4 * width, inputs, 1)
            inputs = 4 * width
    yield from ((1000, 2048), (1000,))


LAYERS = tuple(resnet50())
SIZE = sum(map(prod, LAYERS))
assert (len(LAYERS), SIZE) == (161, 25_557_032)


def heavy_tailed(*shape: int) -> Tensor:
    """Draw values like gradients: a normal one times the exponential of another."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator) * torch.randn(*shape, generator=generator).exp()


class Units:
    """Some units of W workers, and what a scheme remembers of them."""

    def __init__(self, scheme: Scheme, rows: list[Tensor]) -> None:
        self.scheme, self.rows = scheme, rows
        self.states: list[State] = [scheme.init(tuple(x.shape[1:]), len(x), x[0]) for x in rows]
        self.out = torch.zeros(max(x[0].numel() for x in rows))
        self.bytes = 0.0

    def step(self) -> None:
        """Encode and decode every unit."""
        step, self.bytes = next(STEPS), 0.0
        for i, x in enumerate(self.rows):
            turn = Turn(0, step, f"{i}", tuple(range(len(x))), len(x))
            if isinstance(self.scheme, Codec):
                self._code(self.scheme, i, x, turn)
            else:
                item = Item(x, self.scheme, self.states[i], turn)
                (outcome,), log = StackedDriver(len(x)).exchange([item])
                self.states[i] = outcome.state
                self.bytes += sum(collective.sent_bytes[0] for collective in log.collectives)

    def _code(self, codec: Codec, i: int, x: Tensor, turn: Turn) -> None:
        payload, _, self.states[i] = codec.encode(x, self.states[i], turn)
        if codec.combine == "sum":  # one payload arrives, and what it stands for is the sum
            total = Payload(tuple(_sum_rows(buffer) for buffer in payload.buffers))
            codec.decode(total, tuple(x.shape[1:]), turn).total(self.out[: x[0].numel()])
        else:  # all arrive, and are added one by one
            codec.decode(payload, tuple(x.shape[1:]), turn).add_to_(self.out[: x[0].numel()])
        self.bytes += payload.row_bytes[0]


def _sum_rows(buffer: Tensor | Ragged) -> Tensor:
    """Return the first row, as long as the sum of all."""
    assert isinstance(buffer, Tensor)
    return buffer[:1]


def seconds(what: Callable[[], object]) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def share(text: str, rows: list[Tensor], target: Tensor) -> tuple[str, str, float]:
    """Return milliseconds and share of ``copy_``'s throughput, best against best, and the bytes of a worker.

    ``target`` is what as many values as there are in all rows are copied to.
    """
    try:
        units = Units(parse_scheme(text), rows)
    except SchemeError:  # error feedback refuses it
        return "-", "-", 0.0
    source = torch.zeros_like(target)
    units.step()
    pairs = [(seconds(units.step), seconds(lambda: target.copy_(source))) for _ in range(ROUNDS)]
    own, copy = (min(times) for times in zip(*pairs, strict=True))
    return f"{own * 1e3:.0f}", f"{copy / own:.3f}", units.bytes


def line(text: str, kinds: list[list[Tensor]]) -> str:
    """Return a scheme's row of the table."""
    cells, sent, scheme = [text], [], parse_scheme(text)
    for rows in kinds:
        target = torch.zeros(sum(x.numel() for x in rows))
        for form in (text, f"ef({text})"):
            ms, fraction, size = share(form, rows, target)
            cells += [ms, fraction]
            sent.append(size)
    totals = sent[0], scheme.wire_bytes((SIZE,)), sent[2], sum(map(scheme.wire_bytes, LAYERS))
    return "| " + " | ".join([*cells, *(f"{8 * total / SIZE:.4f}" for total in totals)]) + " |"


def test_table(benchmark: Callable[..., object]) -> None:
    """Print the table: for each kind of units the scheme alone, then under error feedback."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    flat = heavy_tailed(SIZE)
    target = torch.empty_like(flat)
    layers = [x.view(1, *s) for x, s in zip(flat.split([prod(s) for s in LAYERS]), LAYERS, strict=True)]
    kinds = [[flat[None]], layers, [heavy_tailed(16, 1_000_000)]]
    names = [f"{kind}{form}" for kind in ("flat", "layers", "16 rows") for form in ("", " ef")]
    bits = [f"bits {kind} {of}" for kind in ("flat", "layers") for of in ("sent", "formula")]
    titles = ["scheme", *(f"{name} {unit}" for name in names for unit in ("ms", "share")), *bits]
    print(f"\n{THREADS} threads\n\n| " + " | ".join(titles) + " |\n|" + " --- |" * len(titles))
    copy = min(seconds(lambda: target.copy_(flat)) for _ in range(ROUNDS))
    top = min(seconds(lambda: flat.abs().topk(SIZE // 100)) for _ in range(2))
    print(f"| `copy_` | {1e3 * copy:.0f} | 1 |" + " |" * (len(titles) - 3))
    print(f"| `torch.topk` 1 % | {1e3 * top:.0f} | {copy / top:.3f} |" + " |" * (len(titles) - 3))
    benchmark(lambda: target.copy_(flat))
    for text in TEXTS:
        print(line(text, kinds), flush=True)
    torch.set_num_threads(threads)
