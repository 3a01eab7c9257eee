"""From exec to ready: how soon a worker that is started answers its probes, and says that it can work."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from processes import cpu_seconds, resident_mb
from running import DATABASE, START_SECONDS, Servers, environment_of, started
from systems import System

LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Start:
    """One start on servers that are there, weights on local disk. Seconds are from the start of the process."""

    system: str
    listening_seconds: float
    """``/livez`` answers."""
    ready_seconds: float
    """``/readyz`` says yes: the model is loaded and warm, broker and database are connected, messages are taken."""
    cpu_seconds: float
    """What all that took of all cores."""
    resident_mb: float


def start(system: System, servers: Servers) -> Start:
    """Start ``system`` and stop it again. Raises RuntimeError where it does not get ready."""
    port = _free_port()
    settings = environment_of(system, servers) | {
        "FEEDMILL_PROBE_PORT": str(port),
        "DATABASE_NAME": f"{DATABASE}_starts",
    }
    began = time.monotonic()
    with started(system, settings) as process:
        _await(process, lambda: _says_yes(port, "/livez"))
        listening = time.monotonic() - began
        _await(process, lambda: _says_yes(port, "/readyz"))
        ready = time.monotonic() - began
        return Start(system.name, listening, ready, cpu_seconds(process.pid), resident_mb(process.pid))


def _await(process: subprocess.Popen[bytes], is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"not ready; the process: {process.poll()}")
        time.sleep(LOOK_SECONDS)


def _says_yes(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
