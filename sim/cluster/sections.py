"""The tables of a cluster file besides its plain numbers: what each holds and what is refused in it alone."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ...compressors.wirelog import Operation
from ..units import Bandwidth, Duration, Size, SizeOrZero

MOST = 2**20
"""Hosts, GPUs and uplinks have an entry each in tables, so that numbers of them are limited."""
Count = Annotated[int, Field(strict=True, ge=1, le=MOST)]
Share = Annotated[float, Field(strict=True, gt=0, le=1)]
Factor = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A table of a cluster file: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Intra(Section):
    """What connects the GPUs of a host: NVLink or PCIe.

    Each GPU has a full-duplex port of its own into a switch that is never the bottleneck, or all share one bus. What
    goes to the NIC or comes from it crosses the GPU's port, or the bus, too.
    """

    bandwidth: Annotated[Bandwidth, Field(description="of a GPU's port, each way, or of the shared bus")]
    latency: Annotated[Duration, Field(description="one way from GPU to GPU of a host, for each transfer")]
    efficiency: Annotated[Share, Field(description="share of this bandwidth that is payload")] = 1.0
    shared: Annotated[bool, Field(strict=True, description="one half-duplex bus for all GPUs of a host")] = False


class Host(Section):
    """What sets some hosts apart from the others."""

    which: Annotated[int | str, Field(description='a number, 3, a name, "host3", or a range, "0-3" or "host0-host3"')]
    bandwidth: Annotated[Bandwidth | None, Field(description="of their NICs, both ways")] = None
    upload: Annotated[Bandwidth | None, Field(description="of their NICs, outwards")] = None
    download: Annotated[Bandwidth | None, Field(description="of their NICs, inwards")] = None
    latency: Annotated[Duration | None, Field(description="of transfers among them; to others the mean of both")] = None

    @field_validator("which", mode="before")
    @classmethod
    def _is_range(cls, which: object) -> object:
        host_range(which)
        return which

    @model_validator(mode="after")
    def _says_something(self) -> "Host":
        if not self.model_fields_set - {"which"}:
            raise ValueError(f"host {self.which!r}: give bandwidth, upload, download or latency")
        return self

    def numbers(self) -> range:
        """Return the numbers of the hosts that are meant."""
        return host_range(self.which)


class Fabric(Section):
    """What connects the hosts."""

    kind: Annotated[Literal["switch", "leaf-spine", "graph"], Field(description="which of the three")] = "switch"
    core: Annotated[Bandwidth | None, Field(description="switch: what all transfers between hosts share")] = None
    hosts_per_leaf: Annotated[Count | None, Field(description="leaf-spine: hosts on one leaf switch")] = None
    spines: Annotated[Count | None, Field(description="leaf-spine: spine switches, each linked to each leaf")] = None
    uplink: Annotated[Bandwidth | None, Field(description="leaf-spine: of each link of leaf and spine, each way")] = (
        None
    )
    oversubscription: Annotated[
        Factor | None, Field(description="leaf-spine: bandwidth of a leaf's hosts over that of its uplinks")
    ] = None
    ecmp: Annotated[
        Literal["hash", "spread"] | None,
        Field(description="leaf-spine: each pair of hosts on one spine by a fixed hash, or packets over all alike"),
    ] = None
    latency: Annotated[Duration | None, Field(description="leaf-spine: what crossing a spine adds")] = None
    switches: Annotated[tuple[Name, ...] | None, Field(description="graph: the names of the nodes besides hosts")] = (
        None
    )
    routing: Annotated[Literal["hops", "latency"] | None, Field(description="graph: what a way has least of")] = None

    @model_validator(mode="after")
    def _fits_kind(self) -> "Fabric":
        allowed = _FABRIC_KEYS[self.kind]
        for key in sorted(self.model_fields_set - allowed - {"kind"}):
            if getattr(self, key) is not None:
                keys = ", ".join(sorted(allowed))
                raise ValueError(f"fabric.{key}: not for kind = {self.kind!r}, which takes {keys}")
        if self.kind == "leaf-spine":
            missing = [key for key in ("hosts_per_leaf", "spines") if getattr(self, key) is None]
            if missing:
                raise ValueError(f"fabric: kind = 'leaf-spine' also needs {', '.join(missing)}")
            if (self.uplink is None) == (self.oversubscription is None):
                raise ValueError("fabric: kind = 'leaf-spine' needs either uplink or oversubscription")
        return self


_FABRIC_KEYS = {
    "switch": {"core"},
    "leaf-spine": {"hosts_per_leaf", "spines", "uplink", "oversubscription", "ecmp", "latency"},
    "graph": {"switches", "routing"},
}


class Link(Section):
    """A cable of a graph."""

    between: Annotated[tuple[str, str], Field(description="two hosts or switches")]
    bandwidth: Annotated[Bandwidth | None, Field(description="by default the cluster's")] = None
    latency: Annotated[Duration, Field(description="what it adds to the latency of each way over it")] = 0.0
    duplex: Annotated[
        Literal["full", "half", "one-way"],
        Field(description="each way the whole bandwidth, both ways share it, or from the first to the second only"),
    ] = "full"


class Route(Section):
    """A way through a graph that is not left to the routing."""

    path: Annotated[tuple[str, ...], Field(min_length=2, description="nodes from host to host, in this direction")]


class Piece(Section):
    """What differs for collectives from some size on, as when NCCL changes its protocol."""

    from_bytes: Annotated[SizeOrZero, Field(alias="from", description="least size, of the largest buffer handed over")]
    launch: Annotated[Duration | None, Field(description="by default the cluster's")] = None
    latency: Annotated[Duration | None, Field(description="by default the cluster's")] = None
    intra_latency: Annotated[Duration | None, Field(description="by default intra.latency")] = None
    efficiency: Annotated[Share, Field(description="factor on the payload that every link carries")] = 1.0
    operation: Annotated[
        Operation | None, Field(description="only this one's; by default of all that have no pieces of their own")
    ] = None


class Shaper(Section):
    """A token bucket at every NIC, as cloud providers and ``tc tbf`` use them.

    What is sent spends tokens, which fill up at a rate. As long as there are some, the NIC sends at its bandwidth, and
    then at that rate. So what is sent after a rest goes faster.
    """

    rate: Annotated[Bandwidth, Field(description="at which tokens fill up, each way; payload, as the bandwidth is")]
    burst: Annotated[Size, Field(description="how many there are after a rest")]


class MeasuredRange(Section):
    """For which collectives a cluster's numbers were measured; others are extrapolated, and marked."""

    operation: Annotated[Operation, Field(description="which was measured")]
    from_bytes: Annotated[SizeOrZero, Field(alias="from", description="least size, of what a worker hands over")]
    to_bytes: Annotated[SizeOrZero, Field(alias="to", description="largest size")]
    workers: Annotated[tuple[Count, Count], Field(description="the fewest and the most")]

    @model_validator(mode="after")
    def _rises(self) -> "MeasuredRange":
        if self.from_bytes > self.to_bytes:
            raise ValueError(f"measured: from = {self.from_bytes} B is above to = {self.to_bytes} B")
        if self.workers[0] > self.workers[1]:
            raise ValueError(f"measured: workers = {list(self.workers)}; allowed: the fewest, then the most")
        return self


class Background(Section):
    """Traffic of others: one flow from host to host."""

    src: Annotated[str, Field(alias="from", description="a host, or a switch of a graph")]
    dst: Annotated[str, Field(alias="to", description="another one")]
    rate: Annotated[Bandwidth | None, Field(description="at most; none: greedy, whatever its fair share is")] = None
    start: Annotated[Duration, Field(description="since the start of the run")] = 0.0
    stop: Annotated[Duration | None, Field(description="since the start of the run; none: it never ends")] = None

    @model_validator(mode="after")
    def _starts_before_it_stops(self) -> "Background":
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"background: stop = {self.stop:g} s must be after start = {self.start:g} s")
        if self.src == self.dst:
            raise ValueError(f"background: from and to are both {self.src!r}; they must differ")
        return self


class Profile(Section):
    """How the bandwidth of a link changes in the course of a run."""

    link: Annotated[str, Field(description="a link's name, as 'host3 up', or nics: those of all hosts")]
    times: Annotated[tuple[Duration, ...], Field(min_length=1, description="since the start of the run, rising")]
    factors: Annotated[
        tuple[Factor, ...], Field(min_length=1, description="from each of these times on, of the link's bandwidth")
    ]

    @model_validator(mode="after")
    def _matches(self) -> "Profile":
        if len(self.times) != len(self.factors):
            raise ValueError(
                f"profile {self.link!r}: there are {len(self.times)} times and {len(self.factors)} factors; "
                "each time needs one factor"
            )
        if any(later <= earlier for earlier, later in pairwise(self.times)):
            raise ValueError(f"profile {self.link!r}: times must rise")
        return self


class Price(Section):
    """What the cluster costs to rent."""

    per_gpu_hour: Annotated[Factor, Field(description="of one GPU for one hour")]
    currency: Annotated[str, Field(description="of the price")] = "USD"


def host_range(which: object) -> range:
    """Return the hosts that a number, a name or a range of either means.

    >>> host_range("host2-host4")
    range(2, 5)
    """
    ends = [which] if isinstance(which, int) else [part.strip() for part in str(which).split("-")]
    numbers = [_host_number(end) for end in ends]
    if isinstance(which, bool) or len(numbers) > 2 or numbers[0] > numbers[-1]:
        raise _no_hosts(which)
    return range(numbers[0], numbers[-1] + 1)


def _host_number(end: object) -> int:
    digits = str(end).removeprefix("host")
    if not (digits.isascii() and digits.isdigit()):
        raise _no_hosts(end)
    return int(digits)


def _no_hosts(which: object) -> ValueError:
    return ValueError(f'{which!r} means no host; allowed: 3, "host3", "0-3", "host0-host3"')
