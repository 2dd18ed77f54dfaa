"""Started inside a namespace: ties this process to the life of the thread that started it, then runs a command.

It is run as a file, ``python -I -S enter.py PARENT COMMAND...``, and imports nothing of gradwire, to be quick.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Let the kernel kill this process when the thread that started it ends, and become the command."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606  a command of the user's own, without a shell
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
