"""The site: where a validation's workers are, in a laboratory whose links are shaped, or on the machine as it is."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple

from ...sim.cluster.sections import Shaper
from ...sim.units import format_bandwidth, format_size
from ..laboratory import Laboratory, Link, burst_for, payload_share
from ..measurement import jobs
from ..measurement.launch import Loopback, Place


class Rate(NamedTuple):
    """What a plain TCP transfer reached over a shaped link, in bit/s of payload.

    Attributes
    ----------
    nominal_bps : float
        What the link was shaped to, frames and all.
    alone_bps, together_bps : float
        Of the slowest host, by itself and while all others send too.
    """

    nominal_bps: float
    alone_bps: float
    together_bps: float

    @property
    def shaper(self) -> Shaper:
        """The token bucket that delivers this."""
        burst = round(burst_for(self.nominal_bps) * payload_share())
        return Shaper.model_validate({"rate": format_bandwidth(self.together_bps), "burst": format_size(burst)})


class Hosts:
    """A worker in each host of a laboratory, as a place of measurements.

    Parameters
    ----------
    laboratory : Laboratory
    """

    def __init__(self, laboratory: Laboratory) -> None:
        self._laboratory = laboratory

    @property
    def interface(self) -> str:
        """The name of each host's network interface."""
        return self._laboratory.interface

    def address(self, rank: int) -> str:
        """Return the address of a worker's host."""
        return self._laboratory.addresses[rank]

    def start(
        self, rank: int, command: Sequence[str], env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes]
    ) -> "subprocess.Popen[bytes]":
        """Start a worker's process in its host."""
        return self._laboratory.start(rank, command, env, stdout, stderr)


class Site:
    """Where workers are, and the rate of their links.

    Parameters
    ----------
    laboratory : Laboratory or None
        None: this machine, over its loopback interface.
    """

    def __init__(self, laboratory: Laboratory | None) -> None:
        self._laboratory = laboratory
        self.place: Place = Loopback() if laboratory is None else Hosts(laboratory)

    def link(self, rate_bps: float | None) -> jobs.Link:
        """Return how records take down links of a rate; None: as they are."""
        if self._laboratory is None or rate_bps is None:
            return jobs.Link()
        return jobs.Link(link_bps=rate_bps, burst_bytes=burst_for(rate_bps))

    def shape(self, rate_bps: float | None) -> jobs.Link:
        """Give all links a rate; return how records take it down."""
        if self._laboratory is not None:
            self._laboratory.shape(None if rate_bps is None else Link(rate_bps, burst_for(rate_bps)))
        return self.link(rate_bps)

    def rate(self, rate_bps: float) -> Rate:
        """Measure what plain TCP reaches over links of a rate."""
        assert self._laboratory is not None
        self.shape(rate_bps)
        found = self._laboratory.measure()
        return Rate(rate_bps, min(one.alone_bps for one in found), min(one.together_bps for one in found))


@contextmanager
def open_site(workers: int, lab: bool) -> Iterator[Site]:
    """Make the place for so many workers, and remove it in the end.

    Raises
    ------
    InputError
        If a laboratory is asked for, and this machine cannot have one.
    """
    if not lab:
        yield Site(None)
        return
    with Laboratory(workers, None) as laboratory:
        yield Site(laboratory)
