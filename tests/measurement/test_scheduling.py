"""Cores that processes share: checked in processes of their own, which scheduling cannot leave a trace of."""

import json
import os
import subprocess
import sys

import pytest

CHILD = """
import json, os, sys
from gradwire.analysis.measurement.scheduling import share_cores

os.sched_setaffinity(0, set(json.loads(sys.argv[1])))
share_cores(int(sys.argv[2]), int(sys.argv[3]))
print(json.dumps([sorted(os.sched_getaffinity(0)), os.sched_getscheduler(0)]))
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="cores are shared so on Linux only")


def shared(cores: list[int], place: int, processes: int) -> tuple[list[int], int]:
    """Return the cores and the policy of a process that may use some cores, once it shares them."""
    command = [sys.executable, "-c", CHILD, json.dumps(cores), str(place), str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    affinity, policy = json.loads(done.stdout)
    return affinity, policy


def usable() -> list[int]:
    return sorted(os.sched_getaffinity(0))[:2]


def test_each_of_too_many_processes_takes_turns_on_a_core_of_its_own():
    cores = usable()
    processes = len(cores) + 1
    found = [shared(cores, place, processes) for place in range(processes)]
    assert found == [([cores[place % len(cores)]], os.SCHED_BATCH) for place in range(processes)]


def test_processes_with_a_core_each_are_left_as_they_are():
    cores, policy = usable(), os.sched_getscheduler(0)
    for processes in range(1, len(cores) + 1):
        assert shared(cores, processes - 1, processes) == (cores, policy)
