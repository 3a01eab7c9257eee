"""Another wall clock for a worker: Debian's libfaketime, unpacked beside RabbitMQ's packages, preloaded."""

from __future__ import annotations

import subprocess
from pathlib import Path

from feedmill_local.locks import locked
from feedmill_local.rabbitmq_packages import cache_folder

LOCK_SECONDS = 300.0


def environment(offset_file: Path) -> dict[str, str]:
    """What makes a process read its offset from the file, again each time it asks for the time."""
    return {
        "LD_PRELOAD": str(_library()),
        "FAKETIME_TIMESTAMP_FILE": str(offset_file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        "FAKETIME_DONT_RESET": "1",
        "PYTHONPATH": str(Path(__file__).with_name("steady")),
    }


def _library() -> Path:
    folder = cache_folder() / "faketime"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", LOCK_SECONDS):
        found = next(folder.glob("usr/lib/*/faketime/libfaketimeMT.so.1"), None)
        if found is None:
            subprocess.run(["apt-get", "download", "-q", "libfaketime"], cwd=folder, check=True, capture_output=True)
            archive = next(folder.glob("libfaketime_*.deb"))
            subprocess.run(["dpkg", "-x", str(archive), "."], cwd=folder, check=True, capture_output=True)
            found = next(folder.glob("usr/lib/*/faketime/libfaketimeMT.so.1"))
    return found
