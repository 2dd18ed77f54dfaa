"""The laboratory as a place where workers live: one in each host."""

import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

from ..laboratory import Laboratory


class Hosts:
    """A worker in each host of a laboratory.

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
