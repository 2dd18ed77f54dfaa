"""The plan of a calibration: which collectives, computations and codecs to measure for a task under some schemes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import ceil, log10, prod, sqrt
from pathlib import Path
from typing import Any, get_args

from ...compressors.base import Shape
from ...compressors.partition import partition
from ...compressors.spec import parse_scheme
from ...compressors.wirelog import Operation
from ...sim.models.base import Model
from ...sim.step.measured import family
from ...sim.step.synthetic import synthetic_log
from ..measurement.jobs import CodecJob, CollectiveJob, ComputeJob, Job
from ..measurement.subject import find

_ALWAYS: tuple[Operation, ...] = ("all-reduce", "all-gather")
_OF_BYTES = ("all-gather", "broadcast", "permute")
"""What moves bytes of any number; the others sum or cut values of four bytes."""
_LEAST_POWER, _MOST_POWER = 10, 20
"""Powers of two are measured from one to the other, or up to the largest message."""
_DECADE = 2
"""Sizes of units in each decade."""
_NEAR = 10 ** (1 / (2 * _DECADE))
"""A unit of the model this much larger or smaller than a size of the plan, or less, is measured in its place."""
_SEVERAL = 4
"""Units of a message from which its cost besides the units is told."""
_FP32 = 4


def plan_calibration(
    task: str,
    options: Mapping[str, Any],
    schemes: Sequence[str],
    workers: int,
    batch_size: int,
    rest_s: float = 0.0,
    search: Path | None = None,
) -> list[Job]:
    """Return what to measure, so that steps of a task under these schemes lie within what was measured.

    Parameters
    ----------
    task, options
        As in :class:`gradwire.analysis.measurement.records.ComputeRecord`.
    schemes : sequence of str
    workers, batch_size : int
    rest_s : float
        Where links are shaped: after which a bucket is full again. Collectives are then measured after such a rest,
        and back to back besides.
    search : Path, optional
        A folder in which import paths are looked up first.

    Raises
    ------
    InputError
        If there is no such task, or a scheme cannot be read.
    """
    named = _parameters(task, options, search)
    cut = partition(named)
    logs = [synthetic_log(cut, parse_scheme(text), workers) for text in ("dense", *schemes)]
    used = [collective for log in logs for message in log for collective in message.collectives]
    operations = [one for one in get_args(Operation) if one in {*_ALWAYS, *(found.operation for found in used)}]
    jobs: list[Job] = []
    jobs += collective_plan(operations, max(max(found.sent_bytes) for found in used), workers, rest_s)
    jobs += [ComputeJob(task=task, options=dict(options), batch_size=batch_size)]
    return [*jobs, *codec_plan(schemes, [unit.shape for message in cut.messages for unit in message])]


def collective_plan(
    operations: Sequence[Operation], largest_bytes: int, workers: int, rest_s: float = 0.0
) -> list[CollectiveJob]:
    """Return jobs for some operations at sizes up to the largest: powers of two, coarser below 1 KiB."""
    powers = range(_LEAST_POWER, max(_MOST_POWER, (largest_bytes - 1).bit_length()) + 1)
    jobs = []
    for operation in operations:
        multiple = 1 if operation in _OF_BYTES else _FP32 * workers
        sizes = (multiple * -(-size // multiple) for size in (4, 64, 256, *(2**power for power in powers)))
        job = CollectiveJob(operations=(operation,), sizes=tuple(dict.fromkeys(sizes)))
        jobs += [job.model_copy(update={"pause_s": pause_s}) for pause_s in dict.fromkeys((rest_s, 0.0))]
    return jobs


def codec_plan(schemes: Sequence[str], shapes: Sequence[Shape]) -> list[CodecJob]:
    """Return messages whose times cover units of these shapes, for each scheme at each density that it comes with.

    Vectors and matrices are apart: sizes run from the smallest to the largest of each, two in a decade. Where the model
    has a unit of about such a size, that one is measured. Two of the messages hold several units.

    Raises
    ------
    InputError
        If a scheme cannot be read.
    """
    groups: dict[tuple[str, int], dict[str, set[Shape]]] = defaultdict(lambda: defaultdict(set))
    for scheme in map(parse_scheme, schemes):
        for shape in shapes:
            text = str(scheme.for_unit("", shape))
            dims = 1 if len(shape) < 2 else 2
            groups[family(text)[0], dims][text].add(shape if dims == 1 else (shape[0], prod(shape[1:])))
    jobs = []
    for group in groups.values():
        covered = _covering(sorted(set().union(*group.values()), key=prod))
        for number, text in enumerate(group):
            jobs += [CodecJob(scheme=text, shape=shape) for shape in covered]
            several = (covered[0], covered[len(covered) // 2]) if number == 0 else ()
            jobs += [CodecJob(scheme=text, shape=shape, units=_SEVERAL) for shape in dict.fromkeys(several)]
    return jobs


def _parameters(task: str, options: Mapping[str, Any], search: Path | None) -> list[tuple[str, Shape]]:
    """Return names and shapes of a model's trained parameters."""
    found = find(task, dict(options), search)
    if isinstance(found, Model):
        return found.parameters()
    return [(name, tuple(p.shape)) for name, p in found.model().named_parameters() if p.requires_grad]


def _covering(shapes: Sequence[Shape]) -> list[Shape]:
    """Return shapes from the smallest to the largest, evenly spaced in the logarithm of their size."""
    low, high = prod(shapes[0]), prod(shapes[-1])
    count = 1 + ceil(_DECADE * log10(high / low) - 1e-9)
    covering = [shapes[0]]
    for i in range(1, count):
        size = low * (high / low) ** (i / (count - 1))
        nearest = min(shapes, key=lambda shape: abs(log10(prod(shape) / size)))
        near = max(prod(nearest) / size, size / prod(nearest)) <= _NEAR
        covering.append(nearest if near else _resized(nearest, size))
    return sorted(dict.fromkeys(covering), key=prod)


def _resized(shape: Shape, size: float) -> Shape:
    """Return a shape of about another size and about the same proportions."""
    factor = sqrt(size / prod(shape)) if len(shape) > 1 else size / prod(shape)
    return tuple(max(1, round(length * factor)) for length in shape)
