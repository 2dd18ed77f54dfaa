"""The messages of a published run's step: which tensors travel together, and what is put on the wire for them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

from ...compressors.base import Scheme
from ...compressors.partition import Message, Parameter, Partition, Unit
from ...compressors.quantizers.dense import Dense
from ...compressors.wirelog import Collective, MessageLog, StepLog, Work
from ...sim.step.synthetic import Cache, synthetic_log
from ...sim.step.workload import Workload
from .models import Tensor, scaled
from .sets import Schedule

Groups = tuple[tuple[Tensor, ...], ...]
Seconds = Callable[[int], float]
"""How long a message of so many bytes travels."""

SLICE = 2**20
"""The values of the largest unit that is compressed as one: 4 MB, as BytePS slices tensors."""


class Step(NamedTuple):
    """A step's log, and after which layer's backward pass each message is complete."""

    log: StepLog
    ready: tuple[int, ...]


def value_bytes(scheme: Scheme) -> int:
    """Return the bytes of a value where gradients travel whole, in the precision in which they are computed."""
    return 2 if isinstance(scheme, Dense) and scheme.dtype in ("fp16", "bf16") else 4


def group(schedule: Schedule, tensors: Sequence[Tensor], width: int, work: Workload, seconds: Seconds) -> Groups:
    """Return which tensors travel together, in the order of sending.

    Parameters
    ----------
    tensors : sequence of Tensor
        As they become ready.
    width : int
        Bytes of a value.
    work : Workload
    seconds : callable
        Used by the schedule that merges by what messages cost.
    """
    match schedule.messages:
        case "one":
            return (tuple(tensors),)
        case "tensors":
            return tuple((tensor,) for tensor in tensors)
        case "merged":
            return tuple(_merged(tensors, width, work, seconds))
        case "buckets":
            return tuple(_buckets(schedule, tensors, width))


def _buckets(schedule: Schedule, tensors: Sequence[Tensor], width: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield buckets; each is closed as soon as it has reached its size."""
    limit = schedule.bucket if schedule.first_bucket is None else schedule.first_bucket
    own: list[Tensor] = []
    for tensor in tensors:
        own.append(tensor)
        if width * sum(one.elements for one in own) >= limit:
            yield tuple(own)
            own, limit = [], schedule.bucket
    if own:
        yield tuple(own)


def _merged(tensors: Sequence[Tensor], width: int, work: Workload, seconds: Seconds) -> Iterator[tuple[Tensor, ...]]:
    """Yield what MG-WFBP merges: a message takes in the next tensor if that is ready before the start-up is over.

    A message costs a start-up and a time for each byte; both are those of the simulated cluster.

    References
    ----------
    .. [1] Shi, Chu, Li. *MG-WFBP: Efficient Data Communication for Distributed Synchronous SGD Algorithms*, 2019,
       arXiv 1912.09268
    """
    ends_s = list(accumulate(layer.backward_s for layer in reversed(work.layers)))
    start_up_s, probe = seconds(1), 2**26
    byte_s = (seconds(probe) - start_up_s) / probe
    own, free_s = [tensors[0]], 0.0
    for tensor in tensors[1:]:
        start_s = max(free_s, ends_s[own[-1].ready])
        if ends_s[tensor.ready] >= start_s + start_up_s:
            yield tuple(own)
            free_s = start_s + start_up_s + byte_s * width * sum(one.elements for one in own)
            own = []
        own.append(tensor)
    yield tuple(own)


def step_of(groups: Groups, scheme: Scheme, workers: int, cache: Cache) -> Step:
    """Return what a scheme puts on the wire in a step; see :func:`gradwire.sim.step.synthetic.synthetic_log`."""
    ready = tuple(max(tensor.ready for tensor in own) for own in groups)
    if isinstance(scheme, Dense):
        return Step(tuple(_whole(i, own, value_bytes(scheme), workers) for i, own in enumerate(groups)), ready)
    return Step(synthetic_log(_partition(groups), scheme, workers, cache=cache), ready)


def _whole(number: int, tensors: Sequence[Tensor], width: int, workers: int) -> MessageLog:
    """Return the log of gradients that are summed as they are."""
    elements = sum(tensor.elements for tensor in tensors)
    exchange = Collective("all-reduce", 0, f"float{8 * width}", (width * elements,) * workers)
    return MessageLog(number, (Work("dense", (elements,), 1, width),), (exchange,))


def _partition(groups: Groups) -> Partition:
    """Return messages of units; larger tensors are sliced."""
    parameters: list[Parameter] = []
    messages: list[Message] = []
    start = 0
    for own in groups:
        units: list[Unit] = []
        for tensor in own:
            for shape in _slices(tensor):
                parameter = Parameter(f"{tensor.name}/{len(units)}", shape, start)
                start = parameter.stop
                parameters.append(parameter)
                units.append(Unit((parameter,)))
        messages.append(tuple(units))
    return Partition(tuple(parameters), tuple(messages))


def _slices(tensor: Tensor) -> Iterator[tuple[int, ...]]:
    """Yield the shapes of what a tensor is compressed as."""
    if tensor.elements <= SLICE:
        yield tensor.shape
        return
    whole, rest = divmod(tensor.elements, SLICE)
    yield from ((SLICE,) for _ in range(whole))
    if rest:
        yield (rest,)


def to_neighbours(log: StepLog, workers: int) -> StepLog:
    """Return the log of a step in which what is gathered from all goes to two neighbours in a ring instead.

    What comes from both is decoded as one, as in the last round of ``twosided``.
    """
    ring = [tuple((i + side) % workers for i in range(workers)) for side in (1, -1)]
    return tuple(
        MessageLog(
            message.message,
            tuple(replace(work, scheme=f"twosided({work.scheme})") for work in message.work),
            tuple(Collective("permute", 0, "bytes", c.sent_bytes, to) for c in message.collectives for to in ring),
        )
        for message in log
    )


def packed(work: Workload, groups: Groups, width: int, memory_bytes_s: float) -> Workload:
    """Return the workload with the copies of tensors that travel together: into a buffer, and out of it.

    Each copy reads and writes; that into the buffer is spread over the backward pass.
    """
    copied_s = 2 * width * sum(tensor.elements for own in groups if len(own) > 1 for tensor in own) / memory_bytes_s
    return scaled(work, work.forward_s, work.backward_s + copied_s, work.optimizer_s + copied_s)
