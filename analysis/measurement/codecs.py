"""Encoding and decoding alone: a message of equal units through the driver of real processes, collectives left out."""

import torch

from ...compressors.base import State, Turn
from ...compressors.drivers import Item
from ...compressors.processes import ProcessGroupDriver
from ...compressors.spec import parse_scheme
from .group import Group
from .jobs import CodecJob
from .phases import MarkingWatch, total, work_of
from .records import CodecRecord

_RATE = 0.1


def measure_codec(job: CodecJob, group: Group) -> CodecRecord:
    """Measure a job's message; return its record, the same on every worker.

    Raises
    ------
    InputError
        If the scheme does not work on such units.
    """
    watch = MarkingWatch(group.clock)
    driver = ProcessGroupDriver(agree=False, watch=watch)
    names = [f"unit{i}" for i in range(job.units)]
    scheme = parse_scheme(job.scheme)
    schemes = [scheme.for_unit(name, job.shape) for name in names]
    like = torch.zeros((), device=group.device)
    states: list[State] = [own.init(job.shape, 1, like) for own in schemes]
    draws = torch.Generator(group.device).manual_seed((job.seed + group.rank) % 2**63)
    found = []
    for step in range(job.warmup + job.repeats):
        inputs = [torch.randn(1, *job.shape, generator=draws, device=group.device) for _ in names]
        turns = [Turn(job.seed, step, name, driver.ranks, driver.size, _RATE) for name in names]
        items = [Item(*parts) for parts in zip(inputs, schemes, states, turns, strict=True)]
        watch.clear()
        group.barrier()
        outcomes, _ = driver.exchange(items)
        states = [outcome.state for outcome in outcomes]
        group.clock.settle()
        (exchange,) = watch.exchanges
        found.append([total(spans) for spans in work_of(exchange, group.clock, exchange.begin)])
    encode, between, decode = (group.slowest(kind) for kind in zip(*found[job.warmup :], strict=True))
    times = {"encode_s": encode, "between_s": between, "decode_s": decode}
    return job.blank(group.size, group.link).model_copy(update=times)
