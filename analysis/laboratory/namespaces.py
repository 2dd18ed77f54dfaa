"""Network namespaces without names, which the kernel removes when the process that made them ends, however it ends.

A namespace lives while something is in it or holds it open. Here that is one thread and one file descriptor of this
process, and whatever the thread has started. Nothing is mounted under ``/run/netns``, so nothing is left behind by a
process that is killed.
"""

import ctypes
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from ...compressors.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")

CLONE_NEWNET = 0x40000000
THREAD_NAMESPACE = "/proc/thread-self/ns/net"


class Namespace:
    """A new network namespace, with a thread of its own that works inside it.

    Raises
    ------
    OSError
        The kernel does not let this process make one.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "gradwire-laboratory")
        try:
            self.descriptor = self.call(_leave)
        except BaseException:
            self._thread.shutdown()
            raise
        self.inode = os.stat(self.descriptor).st_ino
        self.path = f"/proc/{os.getpid()}/fd/{self.descriptor}"
        self._closed = False

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function inside the namespace: its sockets and the processes it starts are there for good."""
        return self._thread.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """Let go of the namespace, and end the thread and with it what :func:`bound` ties to it."""
        if not self._closed:
            self._closed = True
            self._thread.shutdown()
            os.close(self.descriptor)


def _leave() -> int:
    """Move this thread into a new network namespace and return a descriptor of it."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return os.open(THREAD_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)


def netlink() -> Any:
    """Return an open connection of pyroute2 to the kernel, in the namespace of the calling thread."""
    try:
        from pyroute2 import IPRoute  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            "the laboratory needs the package pyroute2, which is missing here; pip install 'gradwire[lab]' installs it"
        ) from error
    return IPRoute()


def processes_in(inodes: Collection[int]) -> list[int]:
    """Return the processes whose network namespace has one of these inodes."""
    return [pid for pid in _processes() if network_of(pid) in inodes]


def processes_marked(variable: str) -> list[tuple[int, str]]:
    """Return the processes that were started with an environment variable, with its value."""
    found = []
    key = variable.encode() + b"="
    for pid in _processes():
        with suppress(OSError):  # it has ended, or is another user's
            parts = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found += [(pid, os.fsdecode(part.removeprefix(key))) for part in parts if part.startswith(key)]
    return found


def network_of(pid: int | Literal["self"]) -> int | None:
    """Return the inode of a process's network namespace, None if it has ended or is another user's."""
    with suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    return None


def identity(pid: int) -> str:
    """Return what tells a process from all others since the machine started, or "" if it has ended.

    A process number is used again; with the time at which the process started, and in one PID namespace, it is not.
    """
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{os.stat('/proc/self/ns/pid').st_ino}-{pid}-{fields[19]}"
    return ""


def has_ended(process: str) -> bool:
    """Say whether the process of an :func:`identity` has ended; of one in another PID namespace that is not known."""
    space, pid, _ = process.split("-")
    return int(space) == os.stat("/proc/self/ns/pid").st_ino and identity(int(pid)) != process


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
