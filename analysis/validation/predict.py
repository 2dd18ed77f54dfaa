"""Predictions of measured steps: the simulator's timeline of the same step, from a profile."""

from typing import NamedTuple

from ...compressors.base import Shape
from ...compressors.errors import InputError
from ...compressors.wirelog import StepLog
from ...sim.profile import Profile, ProfileError
from ...sim.step.device import load_device
from ...sim.step.options import StepOptions
from ...sim.step.overhead import Overhead, cost_of
from ...sim.step.timeline import timeline
from ...sim.step.workload import ready_after
from ..measurement.jobs import StepJob
from .grid import partition_of, wire_log

PHASES = (
    "forward_s",
    "backward_s",
    "encode_s",
    "exposed_communication_s",
    "decode_s",
    "optimizer_s",
)
"""What adds up to a step."""
_DEVICE = "v100"
"""Prices what was not measured, which predictions of measured steps refuse."""


class Predicted(NamedTuple):
    """A predicted step.

    Attributes
    ----------
    step_s : float
    phases : dict of str to float
        The seconds of each of :data:`PHASES`.
    sent_bytes : float
        What a worker hands over.
    extrapolated : tuple of str
        What of it was not measured.
    """

    step_s: float
    phases: dict[str, float]
    sent_bytes: float
    extrapolated: tuple[str, ...]


def predict_step(job: StepJob, shapes: dict[str, Shape], workers: int, profile: Profile) -> Predicted:
    """Predict a step that is to be measured.

    Parameters
    ----------
    job : StepJob
    shapes : mapping of str to shape
        Of the parameters that are trained.
    workers : int
    profile : Profile
        With a cluster, the subject's computation and what the scheme costs.

    Raises
    ------
    InputError
        If the profile lacks one of these.
    """
    if profile.cluster is None:
        raise ProfileError("the profile has no cluster; calibrate collectives too")
    workload = profile.workload(job.task, dict(job.options), job.batch_size).times.workload(shapes)
    overhead, device = Overhead(codecs=profile.codecs), load_device(_DEVICE)
    log, ready = wire_log(job, shapes, workers), ready_after(partition_of(job, shapes), workload)
    options = StepOptions(overlap=job.overlap, blocking=not job.overlap)  # as the measured steps are
    beyond = _beyond(log, overhead, workers)
    times = timeline([log], ready, workload, profile.cluster, overhead, device, options)
    phases = {name: float(getattr(times, name)[0]) for name in PHASES}
    return Predicted(
        float(times.step_s[0]), phases, float(times.sent_bytes[0]), tuple(sorted({*beyond, *times.extrapolated}))
    )


def _beyond(log: StepLog, overhead: Overhead, workers: int) -> set[str]:
    """Return the schemes that are extrapolated; those that were not measured at all are refused."""
    found = set()
    for work in {work for message in log for work in message.work}:
        for charge in cost_of(work, overhead, load_device(_DEVICE), workers=workers):
            if charge.origin == "extrapolated":
                found.add(f"{work.scheme} on units of {' x '.join(map(str, work.shape))}")
            elif charge.origin != "measured":
                raise InputError(f"scheme {work.scheme}: the profile does not say what it costs; calibrate with it")
    return found
