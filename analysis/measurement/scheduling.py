"""Scheduling: how processes that are more than the cores share these, so that what is measured can be repeated."""

import os


def share_cores(place: int, processes: int) -> None:
    """Give this process its core, if there are fewer cores than processes on this machine; here on Linux only.

    Processes of a core take turns as batch jobs do: what wakes up waits for the one that runs. With Linux's default, by
    which it may interrupt, and move to another core, a collective of a kilobyte among four processes on two cores takes
    anything from 1 to 15 ms, and so one time in two something else was measured.

    Parameters
    ----------
    place : int
        Of this process among those of this machine.
    processes : int
        Of the measurement, on this machine.
    """
    if not hasattr(os, "sched_setscheduler"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if processes <= len(cores):
        return
    os.sched_setaffinity(0, {cores[place % len(cores)]})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
