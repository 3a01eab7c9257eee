"""Real worker processes, as in production: ``python -m feedmill_…`` with an environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedmill_local.ports import free_ports
from support.amqp import poll
from support.ci import queue_type

START_SECONDS = 120.0
STOP_SECONDS = 60.0


class Probed:
    """What a worker's probes answer, wherever it runs."""

    port: int

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a probe; status 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        from prometheus_client.parser import text_string_to_metric_families

        families = text_string_to_metric_families(self.get("/metrics")[1])
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@dataclass
class WorkerProcess(Probed):
    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
        return self.get("/readyz")[0] == 200

    def until_ready(self) -> None:
        assert poll(self.is_ready, START_SECONDS), f"{self.name}: {self.get('/readyz')}\n{self.tail()}"

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def events(self) -> list[dict[str, Any]]:
        """The log, one JSON object a line."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line]


@dataclass(frozen=True)
class Servers:
    """Where a test's workers find their broker and database."""

    rabbit_url: str
    mongo_uri: str
    database: str

    def environment(self) -> dict[str, str]:
        # One thread each: the workers share two cores with the broker, the database and the test.
        return {
            "RABBITMQ_URL": self.rabbit_url,
            "MONGO_URI": self.mongo_uri,
            "DATABASE_NAME": self.database,
            "FEEDMILL_PROBE_HOST": "127.0.0.1",
            "FEEDMILL_LOG_FORMAT": "json",
            "FEEDMILL_THREADS": "1",
            "FEEDMILL_QUEUE_TYPE": queue_type(),
        }


@contextmanager
def worker(
    name: str, servers: Servers, folder: Path, *, module: str = "", **settings: object
) -> Iterator[WorkerProcess]:
    """A worker process; killed at the end if it still runs. ``module``: a program of the tests in its place."""
    (port,) = free_ports(1)
    log = folder / f"{name}-{port}.log"
    environment = {**os.environ, **servers.environment(), "FEEDMILL_PROBE_PORT": str(port)}
    environment |= {key: str(value) for key, value in settings.items()}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module or f"feedmill_{name}"],
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    running = WorkerProcess(name, process, port, log)
    try:
        yield running
    finally:
        if process.poll() is None:
            running.kill()
