"""The workers' images, run as a cluster would run them: only /tmp writable, no capabilities, a memory limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from feedmill_local.ports import free_ports
from support.amqp import poll
from support.workers import Probed, Servers

START_SECONDS = 180.0
GRACE_SECONDS = 30
ENGINE_SECONDS = 60.0
USER = "10001:10001"


def docker(*arguments: str, check: bool = True, text: str | None = None, timeout: float = ENGINE_SECONDS) -> str:
    """What a docker command prints; raises AssertionError with its errors where it fails."""
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if text is None else {"input": text}
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False, **source
    )
    assert not check or done.returncode == 0, f"docker {arguments[0]}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def image(worker: str) -> str:
    """The image's name, as `make images` builds it."""
    return f"{os.environ.get('IMAGE_PREFIX', 'feedmill-')}{worker}:{os.environ.get('IMAGE_TAG', 'dev')}"


def restricted(memory: str) -> list[str]:
    """``docker run``'s options for what Kubernetes calls restricted, with a memory limit and no swap."""
    return [
        *("--user", USER, "--read-only", "--tmpfs", "/tmp:mode=1777,size=64m"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "256"),
        *("--memory", memory, "--memory-swap", memory),
    ]


@dataclass
class WorkerContainer(Probed):
    """A running container of a worker."""

    name: str
    container: str
    port: int
    started: float = field(default_factory=time.monotonic)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", self.container))
        return found

    def is_ready(self) -> bool:
        if not self.state()["Running"]:
            raise AssertionError(f"{self.name} ended: {self.state()}\n{self.tail()}")
        return self.get("/readyz")[0] == 200

    def until_ready(self) -> float:
        """Seconds since the container was started."""
        assert poll(self.is_ready, START_SECONDS, 0.05), f"{self.name}: {self.get('/readyz')}\n{self.tail()}"
        return time.monotonic() - self.started

    def signal_term(self) -> None:
        docker("kill", "--signal", "TERM", self.container)

    def wait(self, seconds: float = GRACE_SECONDS) -> int:
        """The exit code; raises where it does not end in time, as a kubelet would kill it then."""
        try:
            return int(docker("wait", self.container, timeout=seconds))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs {seconds} s after SIGTERM\n{self.tail()}") from None

    def terminate(self) -> int:
        self.signal_term()
        return self.wait()

    def python(self, code: str) -> str:
        """Run Python in the container, as its user and within its limits."""
        return docker("exec", self.container, "python3", "-c", code)

    def takes_sigterm(self) -> bool:
        """Whether the worker has a handler for SIGTERM."""
        status = self.python("print(open('/proc/1/status').read())")
        (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
        return bool(int(caught, 16) & 1 << signal.SIGTERM - 1)

    def peak_mb(self) -> int:
        """The most memory that the worker's process had in use, files that it maps included."""
        status = self.python("print(open('/proc/1/status').read())")
        (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        return int(peak) // 1024

    def tail(self, lines: int = 30) -> str:
        done = subprocess.run(
            ["docker", "logs", "--tail", str(lines), self.container],
            capture_output=True,
            text=True,
            timeout=ENGINE_SECONDS,
            check=False,
        )
        return done.stdout + done.stderr


@contextmanager
def container(worker: str, servers: Servers, memory: str, **settings: object) -> Iterator[WorkerContainer]:
    """A worker's container on the host's network, where the tests' servers are; removed at the end."""
    (port,) = free_ports(1)
    environment = {**servers.environment(), "FEEDMILL_PROBE_PORT": str(port)}
    environment |= {key: str(value) for key, value in settings.items()}
    variables = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
    name = f"feedmill-test-{worker}-{uuid.uuid4().hex[:8]}"
    options = ("--detach", "--name", name, "--network", "host")
    started = time.monotonic()
    docker("run", *options, *restricted(memory), *variables, image(worker))
    try:
        yield WorkerContainer(worker, name, port, started)
    finally:
        docker("rm", "--force", "--volumes", name)
