"""What the tests of the schemes share: every listed scheme as a parameter, one exchange, and the processes' module."""

import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gradwire.compressors.base import Codec, Outcome, Rate, Scheme, Shape, State, Turn
from gradwire.compressors.drivers import Item, StackedDriver
from gradwire.compressors.registry import SCHEMES
from gradwire.compressors.spec import parse_scheme
from gradwire.compressors.wirelog import MessageLog

from .laws import takes_memory

SHAPES: tuple[Shape, ...] = ((1,), (7,), (6, 3, 2, 2), (30, 41))
DEFAULTS = [str(scheme()) for scheme in SCHEMES.values()]
EXAMPLES = [text for scheme in SCHEMES.values() for text in scheme.examples]
PLAIN = DEFAULTS + EXAMPLES
COMBINED = [
    "topk(density=0.25) | qsgd(bits=4, bucket=7)",
    "randomk(density=0.25) | dense(dtype=bf16)",
    "wangni(density=0.3) | natural",
    "blocktopk(density=0.25, block=4) | int8(block=7)",
    "warmup(topk(density=0.1), start=0.5, steps=3)",
    "phases(dense, topk(density=0.5) | dense(dtype=bf16), at=1)",
]
"""Compositions and schedules: codecs whose payloads are gathered, one whose payloads are summed, a protocol."""


class Case(NamedTuple):
    """A scheme on a unit of one shape."""

    scheme: Scheme
    shape: Shape


def _cases(texts: list[str], shapes: int) -> list[Case]:
    """Return each scheme on so many of the last shapes."""
    return [Case(parse_scheme(text), shape) for text in texts for shape in SHAPES[-shapes:]]


def _remembered(texts: list[str], shapes: int) -> list[Case]:
    """Return the schemes under error feedback on so many of the last shapes of those on which it accepts them."""
    found = []
    for text in texts:
        accepted = [shape for shape in SHAPES if takes_memory(parse_scheme(text), shape)]
        found += [Case(parse_scheme(f"ef({text})"), shape) for shape in accepted[-shapes:]]
    return found


REMEMBERED = _remembered(DEFAULTS, 2) + _remembered(EXAMPLES, 1) + _remembered(COMBINED, 1)
CASES = _cases(DEFAULTS, 4) + _cases(EXAMPLES, 2) + _cases(COMBINED, 1) + REMEMBERED


def _name(value: object) -> str:
    return " on ".join(map(str, value)) if isinstance(value, Case) else str(value)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and threads that wait for a busy processor cost a lot."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=PLAIN)
def sample(request: pytest.FixtureRequest) -> Scheme:
    """Every listed scheme with its defaults, and its examples."""
    return parse_scheme(request.param)


@pytest.fixture(params=[text for text in PLAIN if isinstance(parse_scheme(text), Codec)])
def codec(request: pytest.FixtureRequest) -> Scheme:
    """Those samples that have a payload of their own."""
    return parse_scheme(request.param)


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> Shape:
    return request.param


@pytest.fixture(params=CASES, ids=_name)
def case(request: pytest.FixtureRequest) -> Case:
    """Every listed scheme on every shape, examples on fewer, and both under error feedback where that accepts them."""
    return request.param


@pytest.fixture(params=[case for case in CASES if isinstance(case.scheme, Codec)], ids=_name)
def codec_case(request: pytest.FixtureRequest) -> Case:
    """Those cases that have a payload of their own."""
    return request.param


@pytest.fixture(params=REMEMBERED, ids=_name)
def remembered(request: pytest.FixtureRequest) -> Case:
    """Every sample under error feedback on shapes on which it accepts them."""
    return request.param


Exchange = Callable[..., tuple[Outcome, MessageLog]]


@pytest.fixture(scope="session")
def exchange() -> Exchange:
    """Exchange one unit between stacked workers; without a state, the first step's is made."""

    def run(
        scheme: Scheme | str, x: Tensor, state: State | None = None, step: int = 0, lr: Rate = 1.0, seed: int = 1
    ) -> tuple[Outcome, MessageLog]:
        scheme = parse_scheme(scheme) if isinstance(scheme, str) else scheme
        workers = len(x)
        state = scheme.init(tuple(x.shape[1:]), workers, x[0]) if state is None else state
        turn = Turn(seed, step, "layer.weight", tuple(range(workers)), workers, lr)
        (outcome,), log = StackedDriver(workers).exchange([Item(x, scheme, state, turn)])
        return outcome, log

    return run


@pytest.fixture(scope="session")
def values() -> Callable[..., Tensor]:
    """Draw normal values of a shape, always the same ones for a seed."""

    def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)

    return draw


@pytest.fixture(scope="session")
def exchanges() -> ModuleType:
    """The module beside this file that the tests share with the processes that they start."""
    spec = spec_from_file_location("exchanges", Path(__file__).with_name("exchanges.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["exchanges"] = module
    spec.loader.exec_module(module)
    return module
