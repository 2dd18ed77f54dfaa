"""The cluster: hosts, their GPUs, and what connects them, as a TOML file describes it."""

import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...compressors.errors import InputError
from ...compressors.wirelog import Operation
from ..faults import fault_lines
from ..units import Bandwidth, ByteRate, Duration
from .build import topology
from .check import check
from .sections import (
    Background,
    Count,
    Fabric,
    Host,
    Intra,
    Link,
    MeasuredRange,
    Piece,
    Price,
    Profile,
    Route,
    Section,
    Shaper,
    Share,
)
from .topology import Terms, Topology
from .uniform import Uniform, uniform

_PRESETS = files("gradwire.sim.cluster") / "presets"

CLUSTERS: tuple[str, ...] = tuple(
    sorted(entry.name.removesuffix(".toml") for entry in _PRESETS.iterdir() if entry.name.endswith(".toml"))
)
"""The names of the presets."""


class Sources(BaseModel):
    """Where each of a cluster's numbers comes from; empty for what the cluster does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bandwidth: str = "given"
    latency: str = "given"
    launch: str = "given"
    efficiency: str = ""
    intra: str = ""
    fabric: str = ""
    pieces: str = ""
    shaper: str = ""
    reduce: str = ""
    price: str = ""


class Details(Section):
    """All keys of a cluster that have a default."""

    efficiency: Annotated[Share, Field(description="share of the bandwidth of NICs and fabric that is payload")] = 1.0
    upload: Annotated[Bandwidth | None, Field(description="of a NIC outwards, where it differs")] = None
    download: Annotated[Bandwidth | None, Field(description="of a NIC inwards, where it differs")] = None
    gpus: Annotated[Count, Field(description="of each host; workers fill hosts in rank order")] = 1
    intra: Annotated[Intra | None, Field(description="what connects the GPUs of a host")] = None
    hosts: Annotated[Count | None, Field(description="how many there are; by default as many as workers need")] = None
    host: Annotated[tuple[Host, ...], Field(description="what sets some hosts apart")] = ()
    fabric: Annotated[Fabric, Field(description="what connects the hosts; by default a switch that never binds")] = (
        Fabric()
    )
    links: Annotated[tuple[Link, ...], Field(description="the cables of a graph")] = ()
    routes: Annotated[tuple[Route, ...], Field(description="ways through a graph that are given")] = ()
    pieces: Annotated[tuple[Piece, ...], Field(description="what differs by the size of a collective")] = ()
    shaper: Annotated[Shaper | None, Field(description="a token bucket at every NIC; by default there is none")] = None
    measured: Annotated[
        tuple[MeasuredRange, ...], Field(description="for which collectives all this was measured")
    ] = ()
    reduce: Annotated[ByteRate | None, Field(description="at which a device adds what arrived; none: it is free")] = (
        None
    )
    background: Annotated[tuple[Background, ...], Field(description="traffic of others")] = ()
    profile: Annotated[tuple[Profile, ...], Field(description="bandwidths that change in the course of a run")] = ()
    price: Annotated[Price | None, Field(description="what it costs to rent")] = None
    description: Annotated[str, Field(description="what this cluster is")] = ""
    source: Annotated[Sources, Field(description="where each number comes from")] = Sources()


class Cluster(Details):
    """Hosts, each with one NIC, and a fabric between them.

    Attributes
    ----------
    bandwidth : float, bit/s
        Of a host's NIC in each direction at once. Payload, unless ``efficiency`` says how much of it is. In a graph the
        bandwidth of those links that give none.
    latency : float, s
        One way from host to host, paid once by each transfer before its bytes move.
    launch : float, s
        Paid once by each collective operation, whatever its size.
    """

    bandwidth: Annotated[Bandwidth, Field(description="payload rate of a host's NIC, each way")]
    latency: Annotated[Duration, Field(description="one way from host to host, for each transfer")]
    launch: Annotated[Duration, Field(description="of each collective operation")]

    @model_validator(mode="after")
    def _consistent(self) -> "Cluster":
        check(self)
        return self

    @property
    def kind(self) -> str:
        """What it is in a few words, such as "leaf-spine, 8 GPUs a host"."""
        return self.fabric.kind + (f", {self.gpus} GPUs a host" if self.gpus > 1 else "")

    def all_terms(self, operation: Operation | None = None) -> tuple[Terms, ...]:
        """Return what collectives pay besides the bandwidth, by rising size, the first from 0 bytes.

        Parameters
        ----------
        operation : str, optional
            Whose own pieces come first; by default those of operations that have none.
        """
        own = [piece for piece in self.pieces if piece.operation == operation]
        pieces = own or [piece for piece in self.pieces if piece.operation is None]
        intra_s = 0.0 if self.intra is None else self.intra.latency
        if not pieces:
            return (Terms(0, self.launch, self.latency, intra_s, 1.0),)
        return tuple(
            Terms(
                piece.from_bytes,
                self.launch if piece.launch is None else piece.launch,
                self.latency if piece.latency is None else piece.latency,
                intra_s if piece.intra_latency is None else piece.intra_latency,
                piece.efficiency,
            )
            for piece in pieces
        )

    def terms(self, size_bytes: int, operation: Operation | None = None) -> Terms:
        """Return what a collective pays to which a worker hands over at most so many bytes."""
        return next(terms for terms in reversed(self.all_terms(operation)) if terms.from_bytes <= size_bytes)

    def topology(self, workers: int) -> Topology:
        """Return the links between so many workers, which fill the hosts in rank order.

        Raises
        ------
        InputError
            If there are more workers than GPUs, or a profile's link does not exist.
        """
        return topology(self, workers)

    def uniform(self, workers: int) -> Uniform | str:
        """Return the numbers that a closed form needs, or one sentence why they do not describe the cluster.

        Raises
        ------
        InputError
            If there are more workers than GPUs.
        """
        return uniform(self, workers)


def load_cluster(name: str) -> Cluster:
    """Return a preset.

    Parameters
    ----------
    name : str
        One of :data:`CLUSTERS`.

    Raises
    ------
    ValueError
        If there is no preset of this name; the message has the nearest names.
    """
    return make_cluster(preset_keys(name))


def preset_keys(name: str) -> dict[str, Any]:
    """Return the keys of a preset's file; raises as :func:`load_cluster` does."""
    if name not in CLUSTERS:
        raise unknown_name("cluster", name, CLUSTERS)
    return tomllib.loads((_PRESETS / f"{name}.toml").read_text(encoding="utf-8"))


def file_keys(path: Path | str) -> dict[str, Any]:
    """Return the keys of a cluster's file, unchecked.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cluster file {str(path)!r} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"cluster file {str(path)!r} is no valid TOML: {error}") from error


def read_cluster(path: Path | str) -> Cluster:
    """Read a cluster from a TOML file.

    Raises
    ------
    InputError
        If it cannot be read, or not be built; a line for each fault, with its key, value and what is allowed.
    """
    return make_cluster(file_keys(path))


def make_cluster(keys: dict[str, Any]) -> Cluster:
    """Return the cluster that keys describe; raises as :func:`read_cluster` does."""
    try:
        return Cluster.model_validate(keys)
    except ValidationError as error:
        raise InputError("\n".join(fault_lines(error.errors(), Cluster))) from error


def unknown_name(kind: str, name: str, known: Sequence[str]) -> InputError:
    """Return the error that says which known names come nearest to an unknown one."""
    nearest = get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"there are {', '.join(known)}"
    return InputError(f"{kind} {name!r} is unknown; {hint}")
