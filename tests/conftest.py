"""What all tests share: threads that wait for others sleep, as under the command line; test processes have one each."""

import os

# Before any test module loads torch and with it an OpenMP runtime; child processes inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core, which need not compete for the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
