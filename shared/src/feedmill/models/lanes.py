"""How the cores are shared out: lanes, which run batches side by side, and the threads inside one lane."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from feedmill.settings import ModelSettings

# More lanes than this starve behind the default prefetch; a bigger machine gets more threads in each, or more pods.
MAX_LANES = 4


@dataclass(frozen=True, slots=True)
class Lanes:
    """``count`` batches in the model at the same time, ``threads`` cores for each."""

    count: int
    threads: int


def share_cores(settings: ModelSettings, cores: int | None = None) -> Lanes:
    """What the settings ask for; where they are silent, a lane of one thread for each core.

    Two single-threaded forward passes side by side beat one on two threads: the small operations between the matrix
    products use one core only (docs/adr/0005).
    """
    cores = cores or usable_cores()
    lanes = settings.lanes or min(MAX_LANES, max(1, cores // (settings.threads or 1)))
    return Lanes(lanes, settings.threads or max(1, cores // lanes))


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, and the container's CPU limit (cgroup v2), rounded up.

    Without the limit, a pod with two CPUs on a node of 64 would start 64 threads and be throttled by them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cgroup.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
