"""Watching workers from outside: probes several times a second, and what the processes hold."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROBE_EVERY_SECONDS = 0.25
PROBE_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one worker's probes said. A status is 0 where nobody answered in time."""

    at: float
    worker: str
    pid: int
    live: int
    ready: int
    missing: dict[str, str]


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which some workers could not work. ``within_seconds``: how long they may take to notice."""

    workers: tuple[str, ...]
    began: float
    ended: float
    within_seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a process holds, from /proc."""

    rss_mb: float
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Holdings:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return cls(int(fields["VmRSS"].split()[0]) / 1024, files, int(fields["Threads"]))


class Watch:
    """Asks each worker's /livez and /readyz on a thread of its own for each, until stopped."""

    def __init__(self, targets: Callable[[], dict[str, tuple[int, int]]]) -> None:
        self._targets = targets
        """Worker to (pid, port) at this moment."""
        self.samples: list[Sample] = []
        self.windows: list[Window] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(worker,), name=f"watch-{worker}", daemon=True)
            for worker in targets()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    @contextmanager
    def cannot_work(self, workers: tuple[str, ...], why: str, within_seconds: float) -> Iterator[None]:
        """The block is a time in which these workers can't work, so that /readyz must come to say so."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.windows.append(Window(workers, began, time.monotonic(), within_seconds, why))

    def violations(self) -> list[str]:
        """Where a probe lied: ready in a time of no work, or not live although the process could work."""
        return [*self._false_ready(), *self._false_dead()]

    def _false_ready(self) -> list[str]:
        lies = []
        for window in self.windows:
            for worker in window.workers:
                late = [
                    sample.at - window.began
                    for sample in self.samples
                    if sample.worker == worker
                    and window.began + window.within_seconds < sample.at < window.ended
                    and sample.ready == 200
                ]
                if late:
                    lies.append(
                        f"{worker} was ready {late[0]:.1f} to {late[-1]:.1f} s into '{window.why}' ({len(late)} x), "
                        f"which lasted {window.ended - window.began:.1f} s"
                    )
        return lies

    def _false_dead(self) -> list[str]:
        return [
            f"{sample.worker}: /livez answered {sample.live} although it could work"
            for sample in self.samples
            if sample.live not in (0, 200)
        ]

    def _run(self, worker: str) -> None:
        while not self._stop.wait(PROBE_EVERY_SECONDS):
            pid, port = self._targets()[worker]
            live, _ = _get(port, "/livez")
            ready, body = _get(port, "/readyz")
            missing: dict[str, str] = {}
            with suppress(ValueError):
                missing = json.loads(body).get("missing", {}) if body else {}
            if self._targets()[worker][0] == pid:  # else it was replaced while we asked
                self.samples.append(Sample(time.monotonic(), worker, pid, live, ready, missing))


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()
