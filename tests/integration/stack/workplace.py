"""The command ``feedmill`` as a user runs it, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feedmill_local.processes import Process, wait_until

TIMEOUT_SECONDS = 120.0
FEEDMILL = [sys.executable, "-m", "feedmill_local"]


@dataclass
class Workplace:
    """A folder in which ``feedmill`` is run, and the settings it gets."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "PYTHONUNBUFFERED": "1", **self.settings}

    @property
    def state(self) -> Path:
        return self.folder / ".feedmill"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [*FEEDMILL, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Foreground]:
        """Run it in the foreground for as long as the block lasts."""
        log = self.folder / f"{arguments[0]}-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*FEEDMILL, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Foreground(process, log)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(TIMEOUT_SECONDS)
                finally:
                    process.kill()
            process.wait(10.0)

    def stack(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "stack.json").read_text())
        return found

    def pids(self) -> dict[str, int]:
        return {name: worker["pid"] for name, worker in self.stack()["workers"].items()}

    def processes(self) -> list[Process]:
        """The workers and the private servers' programs that run now."""
        pids = list(self.pids().values())
        for path in self.state.glob("*/processes.json"):
            pids += [pid for pid, _ in json.loads(path.read_text()).values()]
        return [process for pid in pids if (process := Process.find(pid)) is not None]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found


@dataclass
class Foreground:
    """A ``feedmill`` that stays."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition; fail at once where the process has ended."""

        def ended_or_holds() -> bool:
            return self.process.poll() is not None or condition()

        assert wait_until(ended_or_holds, TIMEOUT_SECONDS, 0.1), f"{what}: not in time\n{self.output()}"
        assert condition(), f"{what}: it ended with {self.process.returncode}\n{self.output()}"

    def until_said(self, text: str) -> None:
        self.until(lambda: text in self.output(), text)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.terminate()
        return self.process.wait(TIMEOUT_SECONDS)
