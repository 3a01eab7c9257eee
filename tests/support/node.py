"""A node for the emulated cluster: its Deployments and Jobs run as real processes on this machine.

It does what a kubelet and the controllers do, as far as a rollout needs it: pods with the environment of their template
and of the ConfigMaps that it names, replaced one by one when the template changes, gone when their Deployment is; Jobs
with their last words; and the routing ConfigMap as a file.
"""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feedmill_rollouts.objects import fingerprint
from support.kube import NAMESPACE, World
from support.workers import Servers, WorkerProcess, worker


@dataclass
class Pod:
    owner: str
    template: str
    process: WorkerProcess
    is_ending: bool = False


@dataclass
class Node:
    """:meth:`control` does one round; it never waits for a process."""

    it: World
    servers: Servers
    folder: Path
    stack: ExitStack
    pods: dict[str, Pod] = field(default_factory=dict)
    jobs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)
    """Of the Jobs, in the order of their start."""
    _number: int = 0

    def mounted(self, config_map: str) -> Path:
        """Where pods find a ConfigMap's file."""
        return self.folder / f"{config_map}.json"

    def is_ready(self, deployment: str) -> bool:
        own = [pod.process for pod in self.pods.values() if pod.owner == deployment and not pod.is_ending]
        return bool(own) and all(process.is_ready() for process in own)

    def control(self) -> None:
        self._mount()
        deployments = self.it.objects("deployments")
        for name, found in deployments.items():
            self._control_deployment(name, found.raw)
        for name, pod in list(self.pods.items()):
            if pod.owner not in deployments and not pod.is_ending:
                self._end(name)
            if pod.is_ending and pod.process.process.poll() is not None:
                assert pod.process.process.returncode == 0, pod.process.tail()
                self.it.remove("pods", name)
                del self.pods[name]
        jobs = self.it.objects("jobs")
        for name, found in jobs.items():
            if not found.raw.get("status"):
                self._control_job(name, found.raw)
        for name, process in self.jobs.items():
            if name not in jobs and process.poll() is None:
                process.terminate()

    def _mount(self) -> None:
        for name, found in self.it.objects("configmaps").items():
            content = found.raw["data"].get("routing.json")
            path = self.mounted(name)
            if content is not None and (not path.exists() or path.read_text() != content):
                path.with_suffix(".new").write_text(content)
                path.with_suffix(".new").replace(path)

    def _control_deployment(self, name: str, raw: dict[str, Any]) -> None:
        wanted, template = int(raw["spec"].get("replicas", 1)), fingerprint(raw["spec"]["template"])
        own = {pod_name: pod for pod_name, pod in self.pods.items() if pod.owner == name and not pod.is_ending}
        fresh = {pod_name for pod_name, pod in own.items() if pod.template == template}
        ready = {pod_name for pod_name, pod in own.items() if pod.process.is_ready()}
        for _ in range(wanted - len(fresh)):
            self._start(name, raw["spec"]["template"], template)
        if len(fresh & ready) >= wanted:
            for pod_name in sorted(own.keys() - fresh) + sorted(fresh)[wanted:]:
                self._end(pod_name)
        present = [pod for pod in self.pods.values() if pod.owner == name and not pod.is_ending]
        status = {
            "observedGeneration": raw["metadata"].get("generation", 0),
            "replicas": len(present),
            "updatedReplicas": sum(pod.template == template for pod in present),
            "availableReplicas": len(ready),
        }
        if raw.get("status") != status:
            self.it.change("deployments", name, {"status": status})

    def _start(self, owner: str, template: dict[str, Any], mark: str) -> None:
        self._number += 1
        name = f"{owner}-{self._number}"
        module = template["spec"]["containers"][0]["command"][-1].removeprefix("feedmill_")
        process = self.stack.enter_context(worker(module, self.servers, self.folder, **self._environment(template)))
        self.pods[name] = Pod(owner, mark, process)
        body = copy.deepcopy(template)
        body["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": process.port}]
        metadata = {"name": name, "namespace": NAMESPACE, "labels": body["metadata"]["labels"], "annotations": {}}
        status = {"phase": "Running", "podIP": "127.0.0.1"}
        self.it.put("pods", {"metadata": metadata, "spec": body["spec"], "status": status})

    def _end(self, name: str) -> None:
        self.pods[name].is_ending = True
        self.pods[name].process.process.send_signal(signal.SIGTERM)
        self.it.change("pods", name, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})

    def _environment(self, template: dict[str, Any]) -> dict[str, str]:
        """As a kubelet puts it together. Secrets are not emulated: what they hold comes from the test's servers."""
        container = template["spec"]["containers"][0]
        environment: dict[str, str] = {}
        for source in container.get("envFrom") or []:
            found = self.it.get("configmaps", source["configMapRef"]["name"])
            environment |= found.raw["data"] if found else {}
        return environment | {entry["name"]: entry["value"] for entry in container.get("env") or [] if "value" in entry}

    def _control_job(self, name: str, raw: dict[str, Any]) -> None:
        template, word = raw["spec"]["template"], self.folder / f"{name}.word"
        if name not in self.jobs:
            self._start_job(name, template, word)
            return
        code = self.jobs[name].poll()
        if code is None:
            return
        terminated = {"state": {"terminated": {"exitCode": code, "message": word.read_text()}}}
        self.it.put("pods", {
            "metadata": {"name": f"{name}-pod", "namespace": NAMESPACE, "labels": {"job-name": name}},
            "spec": template["spec"],
            "status": {"phase": "Succeeded" if code == 0 else "Failed", "containerStatuses": [terminated]},
        })  # fmt: skip
        failed = {"conditions": [{"type": "Failed", "status": "True"}]}
        self.it.change("jobs", name, {"status": {"succeeded": 1} if code == 0 else failed})

    def _start_job(self, name: str, template: dict[str, Any], word: Path) -> None:
        command = list(template["spec"]["containers"][0]["command"])
        assert command[0] == "python3"
        word.touch()
        environment = {
            **os.environ,
            **self.servers.environment(),
            **self._environment(template),
            "FEEDMILL_TERMINATION_LOG": str(word),
        }
        with (self.folder / f"{name}.log").open("wb") as output:
            self.jobs[name] = subprocess.Popen(
                [sys.executable, *command[1:]], env=environment, cwd=self.folder, stdout=output, stderr=output
            )
        self.commands.append(command[1:])


@contextmanager
def node(it: World, servers: Servers, folder: Path) -> Iterator[Node]:
    """Nothing of it runs on afterwards."""
    with ExitStack() as stack:
        found = Node(it, servers, folder, stack)
        try:
            yield found
        finally:
            for process in found.jobs.values():
                if process.poll() is None:
                    process.kill()
                    process.wait(60)
