"""The memory that a scheme needs of a GPU, besides what training without compression needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ...compressors.base import Codec, Scheme, Shape, State, Turn
from ...compressors.drivers import Item
from ...compressors.partition import Partition
from ...compressors.spec import parse_scheme
from ...compressors.wirelog import Collective, MessageLog, StepLog
from ...sim.network.costs import Gathers
from ...sim.step.synthetic import LATE, MirrorDriver


@dataclass(frozen=True)
class Memory:
    """Bytes on each worker's GPU.

    Attributes
    ----------
    state_bytes : int
        What the scheme remembers between steps: residuals, momenta, factors.
    buffer_bytes : int
        Payloads in a step, its own and those that it receives.
    """

    state_bytes: int
    buffer_bytes: int

    @property
    def total_bytes(self) -> int:
        """State and buffers."""
        return self.state_bytes + self.buffer_bytes


def scheme_memory(
    scheme: Scheme,
    partition: Partition,
    workers: int,
    logs: Iterable[StepLog],
    dtype: torch.dtype = torch.float32,
    gathers: Gathers = "padded",
) -> Memory:
    """Return what a scheme needs of a GPU, for a model that is cut like this and steps that were logged.

    Parameters
    ----------
    scheme : Scheme
    partition : Partition
    workers : int
        N.
    logs : iterable of StepLog
        The step that needs the largest buffers counts.
    dtype : torch.dtype
        Of the gradients.
    gathers : {"padded", "exact"}
        As the network is timed.

    Notes
    -----
    ``state = sum over units of all tensors of the unit's state``, each with its elements times the bytes of one; for
    ``ef(...)`` that is 4 bytes a parameter in float32. ``buffers = sum over collectives of (handed over + received) -
    untouched``: a worker holds what it has encoded and received until all is decoded, at the end of the backward pass.
    Received are N payloads in an all-gather, as much as was handed over in an all-to-all or a permute, the root's
    payload in a broadcast, and nothing in reductions, which work in place. ``untouched`` are the gradients that a
    scheme sends from where they lie, as ``dense`` does. What encoding needs for a moment is not counted.
    """
    itemsize = torch.empty((), dtype=dtype).element_size()
    sizes: dict[tuple[str, Shape], int] = {}
    state = 0
    for unit in (unit for message in partition.messages for unit in message):
        own = scheme.for_unit(unit.name, unit.shape)
        key = str(own), unit.shape
        if key not in sizes:
            sizes[key] = state_bytes(own, unit.shape, workers, dtype)
        state += sizes[key]
    buffers = (sum(_buffers(message, itemsize, gathers) for message in log) for log in dict.fromkeys(logs))
    return Memory(state, max(buffers, default=0))


def state_bytes(scheme: Scheme, shape: Shape, workers: int, dtype: torch.dtype = torch.float32) -> int:
    """Return the bytes of all tensors that a scheme remembers of one unit, on one of N workers, after a step.

    A codec has them all from the start, so they need not exist; a protocol is run for a step on zeros.
    """
    if isinstance(scheme, Codec):
        return _tensor_bytes(scheme.init(shape, 1, torch.empty((), dtype=dtype, device="meta")))
    x = torch.zeros(1, *shape, dtype=dtype)
    turn = Turn(0, LATE, "unit", (0,), workers)
    (outcome,), _ = MirrorDriver(workers).exchange([Item(x, scheme, scheme.init(shape, 1, x[0]), turn)])
    return _tensor_bytes(outcome.state)


def _tensor_bytes(state: State) -> int:
    total = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    state.map(count)
    return total


def _buffers(message: MessageLog, itemsize: int, gathers: Gathers) -> int:
    """Return the bytes of a message's payloads on the worker that holds most."""
    if not message.collectives:
        return 0
    untouched = sum(
        work.units * prod(work.shape) * itemsize
        for work in message.work
        if not any(parse_scheme(work.scheme).passes(work.shape))
    )
    return sum(max(c.sent_bytes) + _received(c, gathers) for c in message.collectives) - untouched


def _received(collective: Collective, gathers: Gathers) -> int:
    """Return what arrives at a worker besides what it handed over, where it needs room of its own."""
    sent = collective.sent_bytes
    if collective.operation == "all-gather":
        return sum(sent) if gathers == "exact" else len(sent) * max(sent)
    if collective.operation in ("all-reduce", "reduce-scatter"):
        return 0
    if collective.chunks:
        return max(map(sum, zip(*collective.chunks, strict=True)))
    return max(sent)
