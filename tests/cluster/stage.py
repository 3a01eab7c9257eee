"""What the end-to-end story is told with: helm and kubectl against the cluster that KUBECONFIG names."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.tools import CHARTS, program

DRIVER = Path(__file__).with_name("driver.py")
RELEASE = "feedmill"
WORKERS = ("toxic", "encode", "hint")
# The first process of a container gets no signal that it does not wait for.
IDLE = "from signal import *; pthread_sigmask(SIG_BLOCK, [SIGTERM]); sigwait([SIGTERM])"
LABEL = "app.kubernetes.io/name=feedmill"
READY_SECONDS = 900.0  # images may have to be pulled
COMMAND_SECONDS = 1200.0

Object = dict[str, Any]


class CommandError(AssertionError):
    """A command failed; the text is what it printed."""


@dataclass
class Stage:
    """One release in one namespace. Methods are named for what they are in the story: given, when, then."""

    namespace: str
    values: Object
    folder: Path
    sent: dict[str, tuple[str, int]] = field(default_factory=dict)

    # --- Tools ---

    def run(self, name: str, *arguments: str, standard_input: str | None = None) -> str:
        done = subprocess.run(
            [str(program(name)), "--namespace", self.namespace, *arguments],
            input=standard_input,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise CommandError(f"{name} {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def kubectl(self, *arguments: str, standard_input: str | None = None) -> str:
        return self.run("kubectl", *arguments, standard_input=standard_input)

    def get(self, *arguments: str) -> Object:
        found: Object = json.loads(self.kubectl("get", *arguments, "--output", "json"))
        return found

    def until(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        """Ask until it holds; fails with what the pods say."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise CommandError(f"not within {seconds:.0f} s: {what}\n{self.kubectl('get', 'pods,events')}")
            time.sleep(1)

    def has_api(self, group: str) -> bool:
        return f"{group}/" in self.kubectl("api-versions")

    def replicas(self, worker: str) -> int:
        """How many are wanted."""
        return int(self.get(f"deployment/{RELEASE}-{worker}")["spec"]["replicas"])

    def ready_replicas(self, worker: str) -> int:
        return int(self.get(f"deployment/{RELEASE}-{worker}")["status"].get("readyReplicas", 0))

    def rollout(self, name: str) -> Object:
        return self.get(f"modelrollout/{name}")

    def drive(self, *arguments: str) -> str:
        return self.kubectl(
            "exec", "--stdin", "driver", "--", "python3", "-", *arguments, standard_input=DRIVER.read_text()
        )

    # --- Given ---

    def given_an_empty_namespace_that_enforces_restricted_pods(self) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}}
        self.kubectl("create", "--filename", "-", standard_input=json.dumps(namespace))

    def given_a_producer_in_the_cluster(self) -> None:
        self.kubectl("apply", "--filename", "-", standard_input=json.dumps(self.driver_pod()))
        self.kubectl("wait", "--for=condition=Ready", "pod/driver", "--timeout=600s")

    def driver_pod(self) -> Object:
        """The toxic worker's own pod, with another command and under another label: no policy, no probes."""
        deployment = self.get(f"deployment/{RELEASE}-toxic")
        spec = deployment["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        for key in ("startupProbe", "livenessProbe", "readinessProbe", "ports"):
            container.pop(key, None)
        container["command"] = ["python3", "-c", IDLE]
        container["resources"] = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
        spec.pop("topologySpreadConstraints", None)
        metadata = {"name": "driver", "labels": {"app": "driver"}}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    # --- When ---

    def when_helm_installs_it(self, **more: Object) -> None:
        """Install or upgrade with the values so far and ``more``: each worker's own."""
        self.values = {**self.values, **{name: {**self.values.get(name, {}), **own} for name, own in more.items()}}
        path = self.folder / "values.yaml"
        path.write_text(yaml.safe_dump(self.values), encoding="utf-8")
        self.run("helm", "upgrade", "--install", RELEASE, str(CHARTS / "feedmill"), "--values", str(path))

    def when_helm_test_runs(self) -> None:
        self.run("helm", "test", RELEASE, "--timeout", "10m")

    def when_sent(self, worker: str, count: int) -> None:
        prefix = f"e2e-{time.monotonic_ns()}"
        self.drive("send", worker, str(count), prefix)
        self.sent[worker] = (prefix, count)

    def when_scaled(self, worker: str, replicas: int) -> None:
        self.kubectl("scale", f"deployment/{RELEASE}-{worker}", f"--replicas={replicas}")

    def when_restarted(self, worker: str) -> None:
        self.kubectl("rollout", "restart", f"deployment/{RELEASE}-{worker}")

    def when_a_rollout_is_wanted(self, worker: str, **spec: Object) -> None:
        """A ModelRollout with the worker's name, made or changed by server-side apply."""
        body = json.dumps(self._rollout(worker, spec))
        self.kubectl("apply", "--server-side", "--filename", "-", standard_input=body)
        known = self.rollout(worker)["metadata"]["generation"]
        seen = lambda: (self.rollout(worker).get("status") or {}).get("observedGeneration", 0) >= known  # noqa: E731
        self.until(f"{worker}: the operator sees the spec", seen, 120)

    def _rollout(self, worker: str, spec: Object) -> Object:
        return {
            "apiVersion": "feedmill.dev/v1alpha1",
            "kind": "ModelRollout",
            "metadata": {"name": worker},
            "spec": {"worker": worker, "targetRef": {"name": f"{RELEASE}-{worker}"}, **spec},
        }

    def when_messages_come_until(self, worker: str, phase: str, batch: int, seconds: float = 900.0) -> None:
        """Batch by batch, each answered in full, so that every window of the analysis has its messages."""
        deadline = time.monotonic() + seconds
        while (self.rollout(worker).get("status") or {}).get("phase") != phase:
            if time.monotonic() > deadline:
                raise CommandError(f"not within {seconds:.0f} s: {phase}\n{json.dumps(self.rollout(worker)['status'])}")
            self.when_sent(worker, batch)
            self.then_everything_is_answered(worker)

    def when_the_rollout_is_deleted(self, name: str) -> None:
        self.kubectl("delete", f"modelrollout/{name}", "--timeout=900s")

    def when_removed(self) -> None:
        self.kubectl("delete", "pod/driver", "--wait=true")
        self.run("helm", "uninstall", RELEASE, "--wait", "--timeout", "5m")

    # --- Then ---

    def then_ready(self, *workers: str) -> None:
        for worker in workers or WORKERS:
            timeout = f"--timeout={READY_SECONDS:.0f}s"
            self.kubectl("rollout", "status", f"deployment/{RELEASE}-{worker}", timeout)

    def then_everything_is_answered(self, worker: str, seconds: float = 600.0) -> None:
        prefix, count = self.sent[worker]
        found = json.loads(self.drive("collect", worker, str(count), prefix, f"{seconds:.0f}"))
        assert found["missing"] == 0, found
        assert found["dead"] == 0, found

    def then_replicas_become(self, worker: str, wanted: Callable[[int], bool], seconds: float) -> None:
        self.until(f"{worker}: replicas", lambda: wanted(self.replicas(worker)), seconds)

    def then_the_rollout_becomes(self, name: str, phase: str, seconds: float = 900.0) -> None:
        def is_there() -> bool:
            return (self.rollout(name).get("status") or {}).get("phase") == phase

        self.until(f"rollout {name}: {phase}", is_there, seconds)

    def then_a_rollout_is_refused(self, worker: str, text: str, **spec: Object) -> None:
        body = json.dumps(self._rollout(worker, {"model": {"uri": ""}, **spec}))
        with pytest.raises(CommandError, match=text):
            self.kubectl("apply", "--server-side", "--dry-run=server", "--filename", "-", standard_input=body)

    def then_there_is_no_candidate(self, worker: str) -> None:
        names = [item["metadata"]["name"] for item in self.get("deployments")["items"]]
        assert f"{RELEASE}-{worker}-candidate" not in names

    def then_the_operator_owns_the_models_annotation(self, worker: str) -> None:
        """By the API server's own account of who manages the field."""
        found = self.get(f"deployment/{RELEASE}-{worker}", "--show-managed-fields=true")
        owners = {
            entry["manager"]
            for entry in found["metadata"]["managedFields"]
            if "feedmill.dev/model" in json.dumps(entry)
        }
        assert owners == {"feedmill-rollouts"}

    def then_nothing_is_left(self) -> None:
        kinds = "deployments,pods,services,configmaps,secrets,serviceaccounts,networkpolicies,poddisruptionbudgets"
        kinds += ",scaledobjects,triggerauthentications" if self.has_api("keda.sh") else ""
        self.until("nothing left", lambda: not self.get(kinds, "--selector", LABEL)["items"], 120)


def cluster_named() -> bool:
    return bool(os.environ.get("KUBECONFIG"))
