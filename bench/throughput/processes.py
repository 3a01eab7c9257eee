"""What a process and all that it started cost: CPU seconds and resident memory, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """``pid`` and its descendants that are alive."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the family, with those of children that have ended."""
    return sum(sum(int(ticks) for ticks in fields[11:15]) for one in family(pid) if (fields := _stat(one))) / TICKS


def resident_mb(pid: int) -> float:
    """Resident memory of the family together. What processes share is counted for each."""
    return sum(_size(one, "VmRSS") for one in family(pid))


def peak_mb(pid: int) -> float:
    """The sum of the family's peaks."""
    return sum(_size(one, "VmHWM") for one in family(pid))


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name; none where the process has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _size(pid: int, name: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)
