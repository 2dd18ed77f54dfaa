"""The cluster: equal hosts on one switch, described by three numbers and where they come from."""

import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from ...compressors.errors import InputError
from ..units import Bandwidth, Duration

_PRESETS = files("gradwire.sim.cluster") / "presets"

CLUSTERS: tuple[str, ...] = tuple(
    sorted(entry.name.removesuffix(".toml") for entry in _PRESETS.iterdir() if entry.name.endswith(".toml"))
)
"""The names of the presets."""


class Sources(BaseModel):
    """Where each of a cluster's numbers comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bandwidth: str = "given"
    latency: str = "given"
    launch: str = "given"


class Cluster(BaseModel):
    """Equal hosts, one worker each, on one switch that is never the bottleneck.

    Attributes
    ----------
    bandwidth : float, bit/s
        Of payload that a host's link carries in each direction at once: what is left of the line rate after framing.
    latency : float, s
        One way from host to host, paid once by each transfer before its bytes move.
    launch : float, s
        Paid once by each collective operation, whatever its size.
    description : str
    source : Sources
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bandwidth: Bandwidth
    latency: Duration
    launch: Duration
    description: str = ""
    source: Sources = Sources()


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
    if name not in CLUSTERS:
        raise unknown_name("cluster", name, CLUSTERS)
    return Cluster.model_validate(tomllib.loads((_PRESETS / f"{name}.toml").read_text(encoding="utf-8")))


def unknown_name(kind: str, name: str, known: Sequence[str]) -> InputError:
    """Return the error that says which known names come nearest to an unknown one."""
    nearest = get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"there are {', '.join(known)}"
    return InputError(f"{kind} {name!r} is unknown; {hint}")
