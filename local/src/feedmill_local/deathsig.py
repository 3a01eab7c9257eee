"""``python deathsig.py OWNER SIGNAL PROGRAM ARGUMENT...``: become PROGRAM, and get SIGNAL when the process OWNER dies.

Linux keeps the parent-death signal over ``execve`` (prctl(2), PR_SET_PDEATHSIG). Run as a plain file by
:func:`feedmill_local.processes.spawn`; it imports nothing of ours so that it starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(arguments: list[str]) -> None:
    owner, signal_number, program = int(arguments[0]), int(arguments[1]), arguments[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)
        if os.getppid() != owner:  # it died before the call above
            sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 (a list, and no shell)


if __name__ == "__main__":
    main(sys.argv[1:])
