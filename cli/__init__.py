"""The command line: thin commands that parse, call and show."""

import os

# Before torch loads its OpenMP runtime: a thread that waits for the others sleeps instead of spinning. On an idle
# machine spinning makes a training step up to a third faster; on a busy one it makes it ten times slower and more.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from .app import app

__all__ = ["app"]
