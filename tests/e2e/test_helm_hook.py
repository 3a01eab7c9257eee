"""The scripts that run in pods (the hook of `helm test`, the driver of `make e2e`), as there: against real workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pymongo.database import Database

from feedmill.contract import ROUTES, VECTORS_COLLECTION_PREFIX
from support.workers import Servers, WorkerProcess

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "deploy" / "helm" / "worker" / "files" / "send_one.py"
DRIVER = REPOSITORY / "tests" / "cluster" / "driver.py"
ANSWERS = {"toxic": '"result": "clean"', "encode": '"status": "success"', "hint": '"status": "not_encoded"'}


def run(worker: str, servers: Servers, timeout_seconds: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), worker, str(timeout_seconds)],
        env={**os.environ, **servers.environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("worker", ROUTES)
def test_the_hook_hears_the_answer(worker, workers: dict[str, WorkerProcess], shared_servers: Servers):
    done = run(worker, shared_servers, 90)
    assert done.returncode == 0, done.stderr
    assert ANSWERS[worker] in done.stdout


def test_the_hook_leaves_no_vector(workers: dict[str, WorkerProcess], shared_servers: Servers, database: Database):
    assert run("encode", shared_servers, 90).returncode == 0
    spaces = [name for name in database.list_collection_names() if name.startswith(VECTORS_COLLECTION_PREFIX)]
    assert spaces
    assert all(database[name].find_one({"_id": "feedmill-helm-test"}) is None for name in spaces)


def test_the_hook_fails_where_no_worker_answers(servers: Servers):
    done = run("toxic", servers, 2)
    assert done.returncode == 1
    assert "toxic: no result within 2 s" in done.stderr


def test_the_driver_tells_what_is_missing(workers: dict[str, WorkerProcess], shared_servers: Servers):
    def drive(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-", *arguments],
            env={**os.environ, **shared_servers.environment()},
            input=DRIVER.read_text(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    drive("send", "toxic", "150", "run-1")
    found = json.loads(drive("collect", "toxic", "150", "run-1", "60"))
    assert (found["missing"], found["twice"]) == (0, 0)
    assert json.loads(drive("collect", "toxic", "2", "never-sent", "0.5"))["missing"] == 2
