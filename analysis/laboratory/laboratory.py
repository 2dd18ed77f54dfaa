"""The laboratory itself: hosts, their links, the processes started in them, and the end of it all."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from ...compressors.errors import InputError
from .checks import check_lab
from .links import Link, check_link
from .namespaces import Namespace, has_ended, identity, network_of, processes_in, processes_marked
from .shaping import INTERFACE, build_host, build_switch, port, prepare, shape
from .transfer import MeasuredRate, measure_rates

File = int | IO[bytes] | IO[str] | None

MARK = "GRADWIRE_LABORATORY"
"""Environment variable of every process in a host; its value identifies the process that made the laboratory."""
SUBNET = "10.77.0"
PREFIX = 24
FEWEST_HOSTS, MOST_HOSTS = 2, 250
END_S = 10.0


class Laboratory:
    """Hosts of this machine, joined by a bridge; a context manager.

    Each host is a network namespace with one interface, linked to a bridge. What the host sends is shaped at its own
    end of the link, what it receives at the bridge's. Hosts and bridge are in namespaces without names, cut off from
    the machine's own network: their addresses and its own cannot meet, its firewall does not see them, and the kernel
    removes them with the process that made them, even if that is killed.

    Parameters
    ----------
    hosts : int
        Number of hosts, from 2 to 250.
    link : Link or None
        The link of every host, in both directions. None: not shaped.

    Attributes
    ----------
    addresses : tuple of str
        IPv4 address of each host.
    namespaces : tuple of str
        Path of each host's namespace, as ``nsenter --net=PATH`` and ``ip netns exec PATH`` take it.
    interface : str
        Name of a host's interface, as ``GLOO_SOCKET_IFNAME`` takes it.
    congestion_control : str
        What TCP uses in the hosts: "cubic", or "reno" where the kernel has no cubic.
    link : Link or None
        How the links are shaped now.

    Raises
    ------
    InputError
        This machine cannot have one (see :func:`check_lab`), or hosts or link are out of range.
    """

    def __init__(self, hosts: int, link: Link | None) -> None:
        if not FEWEST_HOSTS <= hosts <= MOST_HOSTS:
            raise InputError(f"hosts = {hosts!r}: a laboratory has from {FEWEST_HOSTS} to {MOST_HOSTS} hosts")
        check_link(link)
        check_lab()
        end_orphans()
        self.addresses = tuple(f"{SUBNET}.{host + 1}" for host in range(hosts))
        self.interface = INTERFACE
        self._mark = identity(os.getpid())
        self._all: list[Namespace] = []
        self._started: list[subprocess.Popen[bytes]] = []
        try:
            self._build(hosts, link)
        except BaseException:
            self.close()
            raise

    def _build(self, hosts: int, link: Link | None) -> None:
        """Make the namespaces, hosts first, and everything in them."""
        for _ in range(hosts + 1):
            self._all.append(Namespace())
            self._all[-1].call(prepare)
        *self._hosts, self._switch = self._all
        self.namespaces = tuple(host.path for host in self._hosts)
        self._switch.call(build_switch, [host.descriptor for host in self._hosts])
        for host, address in zip(self._hosts, self.addresses, strict=True):
            self.congestion_control = host.call(build_host, address, PREFIX)
        self.shape(link)

    def shape(self, link: Link | None) -> None:
        """Shape all links anew, in place: connections stay, and buckets start full.

        Raises
        ------
        InputError
            The link is out of range.
        """
        check_link(link)
        for number, host in enumerate(self._hosts):
            host.call(shape, INTERFACE, link)
            self._switch.call(shape, port(number), link)
        self.link = link

    def start(
        self,
        host: int,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        stdout: File = None,
        stderr: File = None,
    ) -> "subprocess.Popen[bytes]":
        """Start a command in a host.

        It is a session of its own, so that Ctrl-C reaches the caller alone, and the kernel kills it when this process
        ends, however it ends.

        Parameters
        ----------
        host : int
        command : sequence of str
            The program, looked up in ``PATH``, and its arguments. If it cannot be run, the status is 1 and stderr says
            why.
        env : mapping, optional
            Its environment. Default: that of this process.
        stdout, stderr : optional
            As in :class:`subprocess.Popen`.
        """
        whole = [sys.executable, "-I", "-S", str(Path(__file__).with_name("enter.py")), str(os.getpid()), *command]
        environment = {**(os.environ if env is None else env), MARK: self._mark}
        process = self._hosts[host].call(
            subprocess.Popen, whole, env=environment, stdout=stdout, stderr=stderr, start_new_session=True
        )
        self._started.append(process)
        return process

    def measure(self, seconds: float = 2.0) -> list[MeasuredRate]:
        """Measure what a plain TCP transfer from each host to the next achieves, alone and while all others run.

        Parameters
        ----------
        seconds : float
            How long each of the transfers is measured: hosts + 1 times this in all, and what precedes them.
        """
        return measure_rates(self._hosts, self.addresses, self.link, seconds)

    def close(self) -> None:
        """End the processes in the hosts, and remove hosts and links. Closing twice does nothing more."""
        for process in self._started:
            process.kill()
        end_processes([namespace.inode for namespace in self._all])
        for process in self._started:
            process.wait()
        for namespace in self._all:
            namespace.close()
        self._all, self._started = [], []

    def __enter__(self) -> "Laboratory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def end_processes(inodes: Sequence[int]) -> None:
    """Kill what is in these network namespaces, again until nothing is, since what is killed may just have forked."""
    deadline = time.monotonic() + END_S
    while inside := processes_in(inodes):
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {inside} of the laboratory do not end")
        for pid in inside:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def end_orphans() -> None:
    """Kill what processes in laboratories have started and left, whose own process has been killed.

    The kernel kills those that :meth:`Laboratory.start` has started, but not their children.
    """
    for pid, owner in processes_marked(MARK):
        if has_ended(owner) and network_of(pid) != network_of("self"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
