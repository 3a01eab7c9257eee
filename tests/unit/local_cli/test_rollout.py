"""``feedmill rollout`` with the real kubectl against an emulated API server, and what it says where there is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from charts.tools import program
from feedmill.errors import FeedmillError
from feedmill_local import cli
from feedmill_local.ports import free_ports
from support.kube import NAMESPACE, World, rollout, world

RUNNING = {
    "phase": "Canary",
    "rolloutId": "abc-1",
    "step": 1,
    "share": 5,
    "message": "step 2 of 2: 5 % to the candidate",
}
HISTORY = [{"rolloutId": "abc-1", "outcome": "Aborted", "endedAt": "2026-01-01T00:00:00Z", "reason": "Aborted",
            "message": "aborted by hand", "model": {"uri": "pkg://new_model"}}]  # fmt: skip


def configure(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE}}],
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": {"token": "none"}}],
    }
    (folder / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(folder / "kubeconfig"))
    monkeypatch.setenv("HOME", str(folder))  # where kubectl keeps what it has discovered
    (folder / "bin").mkdir()
    (folder / "bin" / "kubectl").symlink_to(program("kubectl"))
    monkeypatch.setenv("PATH", str(folder / "bin"))


@pytest.fixture
async def it(kmock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with world(kmock) as found:
        kmock.resources["feedmill.dev/v1alpha1/modelrollouts"] = {
            "kind": "ModelRollout", "namespaced": True, "singular": "modelrollout", "shortnames": ["mr"],
            "verbs": ["get", "list", "watch", "patch"],
        }  # fmt: skip
        configure(tmp_path, found.server, monkeypatch)
        yield found


def put(it: World, status: dict[str, Any]) -> None:
    it.put("rollouts", {**rollout("toxic"), "status": status})


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, cli.feedmill, ["rollout", *arguments])


def refusal(done: Result) -> str:
    """What the command ends with: its main turns the error into that line and exit code 1."""
    assert isinstance(done.exception, FeedmillError), done.exception
    return str(done.exception)


def annotations(it: World) -> dict[str, str]:
    found: dict[str, str] = it.get("rollouts", "toxic").raw["metadata"].get("annotations") or {}
    return found


async def test_status_and_history(it: World) -> None:
    invalid = {"type": "SpecValid", "status": "False", "reason": "Invalid", "message": "spec.worker: expected toxic"}
    put(it, {**RUNNING, "history": HISTORY, "conditions": [invalid]})
    shown = await run("status", "toxic")
    assert shown.exit_code == 0, shown.output
    assert "phase      Canary" in shown.output
    assert "share      5 %" in shown.output
    assert "SpecValid is False: spec.worker: expected toxic" in shown.output
    assert json.loads((await run("history", "toxic", "--json")).output) == HISTORY
    assert (
        "abc-1  Aborted  2026-01-01T00:00:00Z  pkg://new_model  Aborted: aborted by hand"
        in (await run("history", "toxic")).output
    )


async def test_verbs_do_what_the_documented_patches_do(it: World) -> None:
    put(it, {**RUNNING, "message": "waits for approval: feedmill.dev/approve=abc-1-1"})
    for verb in ("promote", "abort", "pause"):
        done = await run(verb, "toxic")
        assert done.exit_code == 0, done.output
    assert annotations(it) == {"feedmill.dev/approve": "abc-1-1", "feedmill.dev/abort": "abc-1"}
    assert it.get("rollouts", "toxic").raw["spec"]["paused"] is True
    await run("resume", "toxic")
    assert it.get("rollouts", "toxic").raw["spec"]["paused"] is False


@pytest.mark.parametrize(
    ("verb", "status", "said"),
    [
        ("promote", RUNNING, "no step waits for approval"),
        ("promote", {"phase": "Completed", "rolloutId": "abc-1"}, "no rollout is running"),
        ("abort", {"phase": "Aborted", "rolloutId": "abc-1"}, "no rollout is running"),
        ("abort", {}, "no rollout is running"),
        ("abort", {"phase": "RollingBack", "rolloutId": "abc-1", "outcome": "Aborted"}, "ends already, as Aborted"),
        ("retry", RUNNING, "expected an aborted rollout"),
    ],
)
async def test_a_verb_that_would_do_nothing_says_so(it: World, verb: str, status: dict[str, Any], said: str) -> None:
    put(it, status)
    done = await run(verb, "toxic")
    assert said in refusal(done)
    assert annotations(it) == {}


async def test_a_rollout_that_is_not_there(it: World) -> None:
    put(it, RUNNING)
    done = await run("status", "another")
    assert len(refusal(done).splitlines()) == 1


def test_an_api_that_is_away_takes_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    configure(tmp_path, f"http://127.0.0.1:{port}", monkeypatch)
    done = CliRunner().invoke(cli.feedmill, ["rollout", "status", "toxic"])
    (line,) = refusal(done).splitlines()
    assert "was refused" in line
    assert "memcache" not in line


def test_without_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(cli.feedmill, ["rollout", "status", "toxic"])
    assert "kubectl: not found" in refusal(done)
