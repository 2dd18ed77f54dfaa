"""Encoding and decoding alone: a message of equal units through the driver of real processes, collectives left out."""

from functools import partial

import torch

from ...compressors.base import State, Turn
from ...compressors.drivers import Item
from ...compressors.processes import ProcessGroupDriver
from ...compressors.spec import parse_scheme
from .group import Group
from .jobs import CodecJob
from .phases import MarkingWatch, codec_segments
from .records import CodecRecord
from .walls import totals

_RATE = 0.1


def measure_codec(job: CodecJob, group: Group) -> CodecRecord:
    """Measure a job's message; return its record, the same on every worker.

    Raises
    ------
    InputError
        If the scheme does not work on such units.
    """
    watch = MarkingWatch(group.clock)
    driver = ProcessGroupDriver(watch=watch)  # the agreement is left out as a collective, and not what it costs besides
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
        found.append(codec_segments(exchange, partial(group.at, exchange.begin)))
    parts = [totals(one) for one in group.together(found[job.warmup :])]
    times = {f"{kind}_s": tuple(one[kind] for one in parts) for kind in ("encode", "between", "decode")}
    return job.blank(group.size, group.link).model_copy(update=times)
