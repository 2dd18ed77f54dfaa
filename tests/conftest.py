"""What all tests share: threads that wait for others sleep, as under the command line."""

import os

# Before any test module loads torch and with it an OpenMP runtime; child processes inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
