"""The engine: plays a schedule of transfers on a cluster in simulated time."""

from collections.abc import Generator
from typing import Any

from simpy import Environment, Event, Process

from ..cluster import Cluster
from .schedule import Schedule, Transfer

Steps = Generator[Event, Any, None]
"""What simpy runs as a process: it yields what it waits for."""


class Network:
    """A cluster's network in a simpy environment.

    Links are full duplex and collectives run one at a time, in rounds in which a host sends to one other: nothing
    contends, so every transfer has the whole bandwidth.

    Parameters
    ----------
    env : simpy.Environment
        Its time is in seconds.
    cluster : Cluster
    """

    def __init__(self, env: Environment, cluster: Cluster) -> None:
        self.env = env
        self.cluster = cluster

    def play(self, schedule: Schedule) -> Process:
        """Start a collective now.

        Parameters
        ----------
        schedule : Schedule
            Nothing is launched, and no time passes, if it is empty.

        Returns
        -------
        simpy.Process
            An event that happens when the last transfer is done.
        """
        return self.env.process(self._play(schedule))

    def _play(self, schedule: Schedule) -> Steps:
        if len(schedule):
            yield self.env.timeout(self.cluster.launch)
        done: list[Process] = []
        for transfer in schedule.transfers():
            done.append(self.env.process(self._carry(transfer, [done[i] for i in transfer.after])))
        yield from done

    def _carry(self, transfer: Transfer, after: list[Process]) -> Steps:
        """Wait for other transfers, then for the first byte to arrive, then for all of them."""
        yield from after
        if transfer.src != transfer.dst:
            yield self.env.timeout(self.cluster.latency)
        yield self.env.timeout(8 * transfer.bytes / self.cluster.bandwidth)
