"""Calibrated ranges: what of a job lies outside of what its figures were measured for, and what was validated."""

from collections.abc import Iterable, Iterator, Sequence
from math import prod

from ...compressors.spec import parse_scheme
from ...compressors.wirelog import StepLog, Work
from ...sim.cluster import Cluster
from ...sim.models.times import Times, nearest_step
from ...sim.prediction import Inputs
from ...sim.step.device import Device
from ...sim.step.overhead import ESTIMATES, TABLE, Charge, Origin, cost_of
from ...sim.step.validated import find_setup
from ..comparison import is_uncompressed
from .advice import ModelError

_ASSUMED = "assum"
_OF_ROOFLINE = ("memory", "kernel_launch")
"""Numbers of a device that costs of compression rest on."""
_OF_COMPUTING = ("peak", "efficiency")


def works_of(logs: Iterable[StepLog]) -> list[Work]:
    """Return the different pieces of work in some steps."""
    return list(dict.fromkeys(work for log in dict.fromkeys(logs) for message in log for work in message.work))


def estimated_parts(works: Iterable[Work], inputs: Inputs) -> tuple[str, ...]:
    """Return the parts of schemes whose cost nobody has measured on the device.

    Where only some of a part's phases are estimates, they are named, as in ``topk (decode)``.
    """
    charges = [charge for work in works for charge in cost_of(work, inputs.overhead, inputs.device)]
    return _parts(charges, ESTIMATES)


def _parts(charges: Sequence[Charge], origins: frozenset[Origin]) -> tuple[str, ...]:
    """Return the parts with costs of these origins, with the phases where not all are."""
    phases: dict[str, dict[str, None]] = {}
    for charge in charges:
        if charge.origin in origins:
            phases.setdefault(charge.part, {})[charge.phase] = None
    others = {charge.part for charge in charges if charge.origin not in origins}
    return tuple(f"{part} ({', '.join(some)})" if part in others else part for part, some in phases.items())


def outside_costs(works: Iterable[Work], inputs: Inputs) -> Iterator[str]:
    """Yield which published costs of compression are used beyond what was measured, and which parts have none."""
    works = list(works)
    largest: dict[str, int] = {}
    charges: list[Charge] = []
    for work in works:
        shapes = {part.name: shape for part, shape in parse_scheme(work.scheme).shaped_parts(work.shape)}
        own = cost_of(work, inputs.overhead, inputs.device)
        charges += own
        for charge in own:
            if charge.origin in ("published", "scaled"):
                largest[charge.part] = max(largest.get(charge.part, 0), prod(shapes[charge.part]))
    for part, elements in largest.items():
        row = TABLE[part]
        if row.device != inputs.device.name:
            yield f"cost of {part}: measured on {row.device}, scaled to {inputs.device.name} by memory bandwidth"
        sizes = [cost.up_to[0] for cost in (row.encode, row.decode) if cost is not None and cost.up_to is not None]
        if sizes and elements > min(sizes):
            yield (
                f"cost of {part}: measured for up to {min(sizes):,} values, taken in proportion for units of up to "
                f"{elements:,}"
            )
    roofline = _parts(charges, frozenset({"roofline"}))
    if roofline:
        yield f"cost of {', '.join(roofline)}: not measured, a roofline estimate"


def outside_model_times(model: str, device: Device, batch: int, times: Times) -> Iterator[str]:
    """Yield where compute times of a listed model were not measured."""
    nearest = None if times == "analytic" else nearest_step(model, device.name, batch)
    if nearest is None:
        why = "" if times == "analytic" else f", since nothing is published for {model} on {device.name}"
        yield f"compute times: not measured, a roofline estimate{why}"
    elif nearest.batch != batch:
        yield f"compute times: measured at a batch of {nearest.batch}, taken in proportion for {batch}"


def outside_numbers(cluster: Cluster, device: Device, workers: int, computed: bool, encoded: bool) -> Iterator[str]:
    """Yield which numbers of the cluster and the device are assumptions.

    Parameters
    ----------
    cluster : Cluster
    device : Device
    workers : int
        With one host, nothing depends on what is between hosts; with one worker a host, nothing on what is inside.
    computed, encoded : bool
        Whether compute times, and costs of compression, rest on the device's numbers.
    """
    used = ["launch"]
    if workers > cluster.gpus:
        used += ["bandwidth", "latency", "efficiency", "fabric", "pieces"]
    if min(workers, cluster.gpus) > 1:
        used.append("intra")
    yield from _assumptions("cluster", used, dict(cluster.source))
    used = [*(_OF_COMPUTING if computed else ()), *(_OF_ROOFLINE if computed or encoded else ())]
    yield from _assumptions("device", used, dict(device.source))


def _assumptions(section: str, keys: Sequence[str], sources: dict[str, str]) -> Iterator[str]:
    for key in keys:
        sentences = (sentence.strip() for sentence in sources[key].split(". "))
        assumed = [sentence for sentence in sentences if _ASSUMED in sentence.lower()]
        if assumed:
            yield f"{section}.{key}: {assumed[0]}"


def model_error(model: str, cluster: Cluster, workers: int, schemes: Iterable[str], overlap: bool) -> ModelError | None:
    """Return how far predictions were from measurements in a set-up like this; None if nobody compared them.

    Parameters
    ----------
    schemes : iterable of str
        Those that the answer speaks of.
    overlap : bool
        Whether communication overlaps with the backward pass.
    """
    setup = find_setup(model, cluster, workers)
    if setup is None:
        return None
    differs = [scheme for scheme in dict.fromkeys(schemes) if scheme != setup.scheme]
    differs = ["steps with " + (s if is_uncompressed(s) else f"compression ({s})") for s in differs]
    if overlap != setup.overlap:
        differs.append("steps with overlap" if overlap else "steps without overlap")
    return ModelError(setup.error, setup.scheme, setup.workers, setup.source, tuple(differs))
