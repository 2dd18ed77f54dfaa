"""The profile: everything that was measured or given, fitted, with the errors on what was held out."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...compressors.errors import InputError
from ...sim.cluster.sections import Shaper
from ...sim.profile import MeasuredWorkload, Profile
from ..measurement.records import AnyRecord, CodecRecord, CollectiveRecord, ComputeRecord, Machine, read_records
from .codecs import CodecFit, fit_codecs
from .collectives import Link, fit_network
from .given import read_given
from .heldout import Errors
from .nccl_tests import read_nccl_tests
from .workloads import fit_workloads


class Evidence(NamedTuple):
    """Records of one origin.

    Attributes
    ----------
    records : sequence of Record
        Those of whole steps are not used: they are what predictions are held against.
    source : str
        Such as ``measured``.
    machine : Machine or None
        Where they were measured, if that is known.
    """

    records: Sequence[AnyRecord]
    source: str
    machine: Machine | None = None


class Report(NamedTuple):
    """How good a calibration is.

    Attributes
    ----------
    errors : dict
        Of predictions of what was held out, by what they are of.
    unused : int
        Measured collectives that were of no use: see :class:`gradwire.analysis.calibration.collectives.NetworkFit`.
    """

    errors: dict[str, Errors]
    unused: int


def fit_profile(
    evidence: Sequence[Evidence],
    description: str = "",
    link: Link | None = None,
    shaper: Shaper | None = None,
    latency_s: float = 0.0,
) -> tuple[Profile, Report]:
    """Return the profile of a machine, and how far off it is on what was held out.

    Parameters
    ----------
    evidence : sequence of Evidence
    description : str
    link : Link, optional
        The shaped link that the profile's cluster shall have.
    shaper : Shaper, optional
        What that link is known to deliver, if it shall not be fitted.
    latency_s : float
        As in :func:`gradwire.analysis.calibration.collectives.fit_network`.

    Raises
    ------
    InputError
        If there is nothing to fit, records are of several machines, or a part cannot be fitted.
    """
    machine = _machine(evidence)
    collectives = [r for part in evidence for r in part.records if isinstance(r, CollectiveRecord)]
    codecs = [r for part in evidence for r in part.records if isinstance(r, CodecRecord)]
    workloads: list[MeasuredWorkload] = []
    for part in evidence:
        workloads += fit_workloads([r for r in part.records if isinstance(r, ComputeRecord)], part.source)
    if not (collectives or codecs or workloads):
        raise InputError("nothing to calibrate on: there are no times of collectives, computation or codecs")
    network = fit_network(collectives, link, shaper, latency_s) if collectives else None
    codec_fit = fit_codecs(codecs) if codecs else CodecFit((), {})
    errors = (network.errors if network else {}) | codec_fit.errors
    profile = Profile(
        description=description,
        machine=machine,
        cluster=network.cluster if network else None,
        workloads=tuple(workloads),
        codecs=codec_fit.codecs,
        errors=_flat(errors),
    )
    return profile, Report(errors, network.unused if network else 0)


def read_evidence(records: Sequence[Path], nccl_tests: Sequence[Path], given: Sequence[Path]) -> list[Evidence]:
    """Read files of records, of nccl-tests' text, and of times given by hand.

    Raises
    ------
    InputError
        If one of them cannot be read.
    """
    evidence = []
    for path in records:
        machine, found = read_records(path)
        evidence.append(Evidence(found, "measured", machine))
    evidence += [Evidence(read_nccl_tests(path), f"nccl-tests: {path.name}") for path in nccl_tests]
    evidence += [Evidence(read_given(path), f"given: {path.name}") for path in given]
    return evidence


def _machine(evidence: Sequence[Evidence]) -> dict[str, str]:
    """Return the machine in words.

    Raises
    ------
    InputError
        If there are several.
    """
    machines = [part.machine for part in evidence if part.machine is not None]
    if not machines:
        return {}
    first = machines[0].model_dump(exclude={"started"})
    for other in machines[1:]:
        for key, value in other.model_dump(exclude={"started"}).items():
            if value != first[key]:
                raise InputError(
                    f"records of several machines: {key} = {first[key]!r} and {value!r}; give those of one"
                )
    return {key: ", ".join(value) if isinstance(value, tuple) else str(value) for key, value in first.items() if value}


def _flat(errors: dict[str, Errors]) -> dict[str, float]:
    """Return errors as a profile keeps them."""
    return {
        f"{name}: {which}": round(getattr(found, key), 6)
        for name, found in errors.items()
        for which, key in (("median", "median"), ("95th percentile", "p95"), ("worst", "worst"))
        if found.cases
    }
