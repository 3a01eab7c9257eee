"""SIGTERM before a worker has its own handler."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import signal
from feedmill.starting import prepare
prepare()
signal.raise_signal(signal.SIGTERM)
raise AssertionError("still here")
"""


def test_sigterm_during_the_imports_ends_the_process_in_order():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
