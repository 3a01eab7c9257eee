"""``feedmill rollout``: what people do with a ModelRollout, through ``kubectl``, which knows cluster and user."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import click

from feedmill.errors import FeedmillError
from feedmill_local.terminal import printable

KUBECTL_SECONDS = 60
SHOWN_CHARS = 500
GROUP = "feedmill.dev"
FINAL = ("Completed", "Aborted")
ENDING = ("RollingBack", "Draining", "Restoring", "Dropping")
"""Phases that nothing turns round."""
KLOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d")
"""How kubectl's own log lines begin: one for each try, before what it has to say."""


def _checked(_: click.Context, __: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", value):
        raise click.BadParameter("expected the name of a ModelRollout, such as toxic")
    return value


_name = click.argument("name", callback=_checked)
_namespace = click.option("-n", "--namespace", help="The rollout's namespace; default: kubectl's own.")


class KubectlError(FeedmillError):
    """kubectl is missing, or refused. The text is its own."""


@click.group(short_help="Look at a model's rollout on a cluster, promote, pause or abort it.")
def command() -> None:
    """Rollouts of models on Kubernetes (docs/rollouts.md). NAME is that of the ModelRollout; kubectl must be set up."""


@command.command()
@_name
@_namespace
@click.option("--json", "as_json", is_flag=True, help="The whole status as JSON.")
def status(name: str, namespace: str | None, as_json: bool) -> None:
    """Show where the rollout is, and its last checks."""
    rollout = _get(name, namespace)
    known = rollout.get("status") or {}
    if as_json:
        click.echo(json.dumps(known, indent=2))
        return
    lines = [
        ("phase", known.get("phase", "Pending")),
        ("share", f"{known['share']:g} %" if known.get("share") else ""),
        ("message", known.get("message", "")),
        ("stable", _model(known.get("stableModel"))),
        ("candidate", _model(known.get("candidateModel"))),
        ("rollout", known.get("rolloutId", "")),
        ("paused", "yes" if rollout["spec"].get("paused") else ""),
        ("backfill", _pairs(known.get("backfill"))),
        ("spaces", _pairs(known.get("spaces"))),
    ]
    for what, value in lines:
        if value:
            click.echo(f"{what:<10} {printable(str(value), SHOWN_CHARS)}")
    for condition in known.get("conditions") or []:
        if condition["status"] == "False" and condition["type"] in ("SpecValid", "TargetFound", "TargetClaimed"):
            text = printable(condition.get("message") or condition.get("reason", ""), SHOWN_CHARS)
            click.echo(f"{condition['type']} is False: {text}")
    for check in known.get("checks") or []:
        figures = _pairs(check.get("figures"))
        click.echo(
            f"check      {check['at']} {check['verdict']}: {printable(check['reason'], SHOWN_CHARS)} {figures}".rstrip()
        )
    for pod in (known.get("checks") or [{}])[-1].get("unreachable") or []:
        click.echo(f"unreachable {pod}")


@command.command()
@_name
@_namespace
@click.option("--json", "as_json", is_flag=True, help="As JSON, an array.")
def history(name: str, namespace: str | None, as_json: bool) -> None:
    """Show past rollouts, the latest first; `spec.rollbackTo` takes the id of a completed one."""
    entries = (_get(name, namespace).get("status") or {}).get("history") or []
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    for entry in entries:
        words = (entry["rolloutId"], entry["outcome"], entry.get("endedAt", ""), _model(entry.get("model")))
        click.echo(f"{'  '.join(words)}  {entry.get('reason', '')}: {printable(entry.get('message', ''), SHOWN_CHARS)}")


@command.command()
@_name
@_namespace
def promote(name: str, namespace: str | None) -> None:
    """Approve the step that waits for it. Exit code 1 where none does."""
    known = _running(_get(name, namespace), name)
    if not str(known.get("message", "")).startswith("waits for approval"):
        raise KubectlError(f"{name} is {known['phase']}: no step waits for approval ({known.get('message', '')})")
    _annotate(name, namespace, "approve", f"{known['rolloutId']}-{known.get('step', 0)}")


@command.command()
@_name
@_namespace
def abort(name: str, namespace: str | None) -> None:
    """End the rollout and go back to the stable model. Exit code 1 where none runs, or where it ends already."""
    known = _running(_get(name, namespace), name)
    if known["phase"] in ENDING:
        raise KubectlError(f"{name} is {known['phase']}: the rollout ends already, as {known.get('outcome', '?')}")
    _annotate(name, namespace, "abort", known["rolloutId"])


@command.command()
@_name
@_namespace
def retry(name: str, namespace: str | None) -> None:
    """Start an aborted rollout again, from its first step."""
    known = _get(name, namespace).get("status") or {}
    if known.get("phase") != "Aborted":
        raise KubectlError(f"{name} is {known.get('phase', 'Pending')}: expected an aborted rollout")
    _annotate(name, namespace, "retry", known["rolloutId"])


def _pause_command(verb: str, is_paused: bool, text: str) -> Callable[..., None]:
    @command.command(verb, help=text)
    @_name
    @_namespace
    def run(name: str, namespace: str | None) -> None:
        patch = json.dumps({"spec": {"paused": is_paused}})
        click.echo(_kubectl(namespace, "patch", "modelrollout", name, "--type", "merge", "--patch", patch).strip())

    return run


pause = _pause_command("pause", True, "Stop the rollout's clock; what is routed stays routed.")
resume = _pause_command("resume", False, "Let the rollout go on.")


def _running(rollout: dict[str, Any], name: str) -> dict[str, Any]:
    known: dict[str, Any] = rollout.get("status") or {}
    if not known.get("rolloutId") or known.get("phase") in FINAL:
        raise KubectlError(f"{name} is {known.get('phase', 'Pending')}: no rollout is running")
    return known


def _annotate(name: str, namespace: str | None, verb: str, value: str) -> None:
    annotation = f"{GROUP}/{verb}={value}"
    click.echo(_kubectl(namespace, "annotate", "modelrollout", name, annotation, "--overwrite").strip())


def _get(name: str, namespace: str | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_kubectl(namespace, "get", "modelrollout", name, "--output", "json"))
    return found


def _kubectl(namespace: str | None, verb: str, *arguments: str) -> str:
    program = shutil.which("kubectl")
    if program is None:
        raise KubectlError("kubectl: not found, expected it in PATH, set up for the cluster")
    where = ["--namespace", namespace] if namespace else []
    try:
        done = subprocess.run(
            [program, verb, *where, *arguments],
            capture_output=True, text=True, check=False, timeout=KUBECTL_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise KubectlError(f"kubectl {verb}: no answer within {KUBECTL_SECONDS} s") from None
    if done.returncode:
        raise KubectlError(f"kubectl {verb}: {_reason(done.stderr)}")
    return done.stdout


def _reason(output: str) -> str:
    """What kubectl has to say in the end, in one line, without a log line for every try."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = [line for line in lines if not KLOG.match(line)] or lines[-1:]
    return printable(" ".join(said), SHOWN_CHARS) or "it failed and said nothing"


def _model(value: dict[str, Any] | None) -> str:
    if not value:
        return ""
    uri = value.get("uri") or "(the worker's default)"
    revision = f"@{value['revision'][:12]}" if value.get("revision") else ""
    return f"{uri}{revision} {' '.join(value.get('environment') or [])}".strip()


def _pairs(values: dict[str, Any] | None) -> str:
    return " ".join(f"{name}={value}" for name, value in (values or {}).items())
