"""The engine: plays schedules of transfers on a cluster's links in simulated time.

Transfers share links max-min fairly (:mod:`gradwire.sim.network.fairshare`). They are not processes of simpy: compiled
code advances all of them from event to event, at most to the next moment at which simpy has something else to do.
"""

import math
from collections.abc import Generator
from typing import Any

from simpy import Environment, Event

from ...compressors.errors import InputError
from ..cluster import Cluster
from ..cluster.topology import Terms
from .schedule import Schedule
from .traffic import Traffic

Steps = Generator[Event, Any, None]
"""What simpy runs as a process: it yields what it waits for."""


class Network:
    """A cluster's network in a simpy environment.

    At equal times, transfers come before whatever else simpy does.

    Parameters
    ----------
    env : simpy.Environment
        Its time is in seconds.
    cluster : Cluster
    workers : int
    start_s : float
        How much of the run is over at the environment's time 0: background traffic and changes of bandwidth are
        counted from the start of the run.
    """

    def __init__(self, env: Environment, cluster: Cluster, workers: int, start_s: float = 0.0) -> None:
        self.env = env
        self.traffic = Traffic(cluster.topology(workers), start_s)
        self._reduce_bytes_s = math.inf if cluster.reduce is None else cluster.reduce
        self._waiting: dict[int, tuple[Schedule, Event]] = {}
        self._woken = env.event()
        env.process(self._drive())

    def play(self, schedule: Schedule, terms: Terms) -> Event:
        """Start a collective now.

        Parameters
        ----------
        schedule : Schedule
            Nothing is launched, and no time passes, if it is empty.
        terms : Terms
            What it pays besides sharing links.

        Returns
        -------
        simpy.Event
            Happens when the last transfer is done.

        Raises
        ------
        InputError
            As :meth:`Traffic.add`; where the environment runs, if transfers wait for each other, or for a link that has
            no bandwidth left.
        """
        done = self.env.event()
        if not len(schedule):
            return done.succeed()
        number = self.traffic.add(schedule, self.env.now, terms, self._reduce_bytes_s)
        self._waiting[number] = schedule, done
        if not self._woken.triggered:
            self._woken.succeed()
        return done

    def _drive(self) -> Steps:
        """Advance the traffic whenever there is some, as far as nothing else happens."""
        while True:
            if not self._waiting:
                self._woken = self.env.event()
                yield self._woken
            horizon_s = self.env.peek()
            ended = self.traffic.advance(horizon_s)
            reached_s = self.traffic.now_s if ended else horizon_s
            if math.isinf(reached_s):
                for schedule, _ in self._waiting.values():
                    schedule.check()
                raise InputError("cluster: transfers stand still, for some link has no bandwidth left")
            yield self.env.timeout(max(0.0, reached_s - self.env.now))
            for number in [number for number in self._waiting if self.traffic.done(number)]:
                self._waiting.pop(number)[1].succeed()
