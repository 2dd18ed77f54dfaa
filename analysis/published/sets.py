"""Sets of published runs: which schedule and which network terms predict them, and which rows calibrate the terms."""

import tomllib
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from ...sim.step.options import StepOptions
from ...sim.step.overhead import Overhead
from ...sim.units import Bandwidth, Duration, Size
from .table import FOLDER

Term = Literal["inside", "between", "share", "latency", "launch"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Schedule(_Section):
    """When which messages are sent.

    Attributes
    ----------
    messages : {"one", "tensors", "merged", "buckets"}
        All gradients at once; each tensor for itself; as MG-WFBP merges them; or buckets of a size.
    bucket, first_bucket : int, bytes
        Sizes at which a bucket is closed.
    overlap : bool
        Whether messages travel while the backward pass still runs.
    per_host : bool
        Whether one message leaves a host for all its GPUs. What they exchange among themselves is then part of the
        measured time of a host on its own.
    everywhere : bool
        Whether GPUs of a host compress what they exchange among themselves too, each its part of every tensor.
    codec : {"compute", "stream"}
        Where encoding and decoding run.
    overhead : dict of str to Overhead
        By the scheme's name, what replaces the costs of encoding and decoding that gradwire has for the device.
    or_dense : bool
        Whether it sends whole gradients where that is faster.
    neighbours : bool
        Whether a message goes to two neighbours in a ring instead of all others.
    source : str
    """

    messages: Literal["one", "tensors", "merged", "buckets"]
    bucket: Size = 2**62
    first_bucket: Size | None = None
    overlap: bool = True
    per_host: bool = False
    everywhere: bool = False
    codec: Literal["compute", "stream"] = "compute"
    overhead: dict[str, Overhead] = {}
    or_dense: bool = False
    neighbours: bool = False
    source: Annotated[str, Field(min_length=1)]

    @property
    def options(self) -> StepOptions:
        """How a step is played."""
        return StepOptions(overlap=self.overlap, codec=self.codec)

    def sends_nothing(self, hosts: int) -> bool:
        """Return whether there is nobody to send to on so many hosts."""
        return hosts == 1 and self.per_host and not self.everywhere


class Terms(_Section):
    """What a set's cluster is described by.

    Attributes
    ----------
    inside : float or None, bit/s
        Of a GPU's port inside its host; None: only hosts exchange messages.
    between : float or None, bit/s
        The most that a host's NIC carries, whatever its link.
    share : float
        The share of a link's nominal bandwidth that is payload.
    latency : float, s
        From host to host, for each transfer.
    launch : float, s
        Of each collective.
    """

    inside: Bandwidth | None = None
    between: Bandwidth | None = None
    share: Annotated[float, Field(gt=0)] = 1.0
    latency: Duration = 0.0
    launch: Duration = 0.0


class RunSet(_Section):
    """Runs of one source on one network.

    Attributes
    ----------
    title : str
    network : str
        In a few words.
    start : Terms
        Given terms, and where the search for fitted ones starts.
    terms_of : str
        Another set, whose fitted terms are taken for those that this one does not fit.
    fit : tuple of str
        The terms that are fitted.
    calibration : tuple of str
        The runs that they are fitted to.
    steps_per_epoch : int
        Of runs whose time is that of an epoch.
    source : str
        Where the given terms come from.
    """

    title: str
    network: str
    start: Terms
    terms_of: str = ""
    fit: tuple[Term, ...] = ()
    calibration: tuple[str, ...] = ()
    steps_per_epoch: Annotated[int, Field(ge=1)] = 1
    source: str = ""

    @model_validator(mode="after")
    def _determined(self) -> "RunSet":
        if len(self.fit) > len(self.calibration):
            raise ValueError(f"{len(self.fit)} terms cannot be fitted to {len(self.calibration)} runs")
        return self


class Sets(_Section):
    """All schedules and sets by name; a set comes after the one whose terms it takes."""

    schedules: dict[str, Schedule]
    sets: dict[str, RunSet]


@lru_cache(maxsize=1)
def read_sets() -> Sets:
    """Return what ``sets.toml`` holds."""
    data = tomllib.loads((FOLDER / "sets.toml").read_text(encoding="utf-8"))
    return TypeAdapter(Sets).validate_python(data)
