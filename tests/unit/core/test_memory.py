"""Blocks of a forward pass are used again instead of being mapped anew."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from feedmill.memory import reuse_blocks
if sys.argv[1] == "reuse":
    assert reuse_blocks()
block = bytearray(8_000_000)
del block
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    block = bytearray(8_000_000)
    block[::4096] = b"x" * len(block[::4096])
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    command = [sys.executable, "-c", PROGRAM, how]
    environment = {"MALLOC_TRIM_THRESHOLD_": "131072", "PYTHONMALLOC": "malloc"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the options are glibc's")
def test_large_blocks_are_reused() -> None:
    assert page_faults("reuse") < page_faults("plain") / 4
