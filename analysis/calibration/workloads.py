"""Calibrated computation: medians of measured passes, layer by layer."""

from collections import defaultdict
from collections.abc import Sequence

from pydantic import ValidationError

from ...compressors.errors import InputError
from ...sim.faults import fault_lines
from ...sim.profile import MeasuredWorkload
from ...sim.units import format_duration
from ..measurement.records import ComputeRecord, median


def fit_workloads(records: Sequence[ComputeRecord], source: str = "measured") -> tuple[MeasuredWorkload, ...]:
    """Return the times of each task's model; records of one task, batch and number of workers are repeats.

    Raises
    ------
    InputError
        If repeats differ in their optimizer or layers, or an option of a task is no plain value.
    """
    groups: dict[str, list[ComputeRecord]] = defaultdict(list)
    for record in records:
        groups[f"{record.task} {sorted(record.options.items())} {record.batch_size} {record.workers}"].append(record)
    return tuple(_workload(group, source) for group in groups.values())


def _workload(group: Sequence[ComputeRecord], source: str) -> MeasuredWorkload:
    first = group[0]
    label = f"{first.task}, batch_size = {first.batch_size}, {first.workers} workers"
    if len({str((record.optimizer, sorted(record.optimizer_options.items()))) for record in group}) > 1:
        raise InputError(f"{label}: was measured with several optimizers; give the records of one")
    if len({tuple(layer.parameters for layer in record.layers) for record in group}) > 1:
        raise InputError(f"{label}: its records have different layers; give those of one model")
    forward, backward, optimizer = (
        median([seconds for record in group for seconds in getattr(record, key)])
        for key in ("forward_s", "backward_s", "optimizer_s")
    )
    forward_of = _scaled([layer.forward_s for layer in first.layers], forward)
    backward_of = _scaled([layer.backward_s for layer in first.layers], backward)
    layers = [
        {
            "name": layer.name,
            "forward": format_duration(forward_s),
            "backward": format_duration(backward_s),
            "parameters": layer.parameters,
        }
        for layer, forward_s, backward_s in zip(first.layers, forward_of, backward_of, strict=True)
    ]
    times = {"layers": layers, "optimizer": format_duration(optimizer), "source": source}
    keys = {"task": first.task, "options": first.options, "batch_size": first.batch_size, "workers": first.workers}
    try:
        return MeasuredWorkload.model_validate({**keys, "times": times})
    except ValidationError as error:
        raise InputError(f"{label}: {'; '.join(fault_lines(error.errors(), MeasuredWorkload))}") from error


def _scaled(parts: Sequence[float], whole: float) -> list[float]:
    """Return parts that add up to a whole."""
    together = sum(parts)
    return [whole * part / together if together else 0.0 for part in parts]
