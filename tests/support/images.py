"""The workers' images, run as a cluster would run them: as the chart says."""

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
from functools import cache
from typing import Any

from charts.tools import Object, objects, one, pod_spec
from feedmill_local.ports import free_ports
from support.amqp import poll
from support.workers import Probed, Servers

START_SECONDS = 180.0
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


def restricted(memory: str, tmp: str = "64m") -> list[str]:
    """``docker run``'s options for what Kubernetes calls restricted, with a memory limit and no swap."""
    return [
        *("--user", USER, "--read-only", "--tmpfs", f"/tmp:mode=1777,size={tmp}"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "256"),
        *("--memory", memory, "--memory-swap", memory),
    ]


@dataclass(frozen=True)
class ChartPod:
    """A worker's pod as the umbrella chart renders it by default."""

    spec: Object
    model: Object  # the content of the model's ConfigMap

    @classmethod
    def render(cls, worker: str) -> ChartPod:
        found = _rendered()
        name = f"feedmill-{worker}"
        maps = {item["metadata"]["name"]: item["data"] for item in found if item["kind"] == "ConfigMap"}
        return cls(pod_spec(one(found, "Deployment", name)), maps.get(f"{name}-model", {}))

    @property
    def container(self) -> Object:
        (only,) = self.spec["containers"]
        return dict(only)

    @property
    def grace_seconds(self) -> int:
        return int(self.spec["terminationGracePeriodSeconds"])

    @property
    def memory(self) -> str:
        return _docker_size(self.container["resources"]["limits"]["memory"])

    def options(self) -> list[str]:
        """The same for ``docker run``. What it can't say of the pod's security context must be as expected."""
        pod, own = self.spec["securityContext"], self.container["securityContext"]
        assert pod["runAsNonRoot"]
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, "docker's default profile"
        assert own["readOnlyRootFilesystem"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert not own["allowPrivilegeEscalation"]
        assert f"{pod['runAsUser']}:{pod['runAsGroup']}" == USER
        (tmp,) = (volume["emptyDir"] for volume in self.spec["volumes"] if volume["name"] == "tmp")
        return restricted(self.memory, _docker_size(tmp["sizeLimit"]))

    def environment(self, secrets: dict[str, str]) -> dict[str, str]:
        """ConfigMaps resolved, and what comes from Secrets taken from ``secrets`` by the variable's name."""
        plain = {item["name"]: item.get("value") or secrets[item["name"]] for item in self.container["env"]}
        return {**self.model, **plain}


@cache
def _rendered() -> list[Object]:
    return objects("feedmill")


def _docker_size(quantity: str) -> str:
    """1536Mi as docker writes it."""
    assert quantity[-2:] in {"Mi", "Gi"}, quantity
    return quantity[:-1].lower()


@dataclass
class WorkerContainer(Probed):
    """A running container of a worker."""

    name: str
    container: str
    port: int
    grace_seconds: int
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

    def wait(self, seconds: float | None = None) -> int:
        """The exit code; raises where it does not end in the pod's grace period: a kubelet would kill it then."""
        seconds = seconds or self.grace_seconds
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
def container(worker: str, servers: Servers, *, variant: str = "", **settings: object) -> Iterator[WorkerContainer]:
    """A worker's container, run as the chart would run it; removed at the end. ``variant``: its image's, as "-onnx".

    It differs in the network alone: the host's, where the tests' servers are, so with a port of its own on loopback.
    """
    pod = ChartPod.render(worker)
    (port,) = free_ports(1)
    environment = pod.environment({"RABBITMQ_URL": servers.rabbit_url, "MONGO_URI": servers.mongo_uri})
    environment |= {"DATABASE_NAME": servers.database}
    environment |= {"FEEDMILL_PROBE_HOST": "127.0.0.1", "FEEDMILL_PROBE_PORT": str(port)}
    environment |= {key: str(value) for key, value in settings.items()}
    variables = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
    name = f"feedmill-test-{worker}-{uuid.uuid4().hex[:8]}"
    options = ("--detach", "--name", name, "--network", "host")
    started = time.monotonic()
    program, *arguments = pod.container["command"]
    docker("run", *options, *pod.options(), *variables, "--entrypoint", program, image(worker + variant), *arguments)
    try:
        yield WorkerContainer(worker, name, port, pod.grace_seconds, started)
    finally:
        docker("rm", "--force", "--volumes", name)
