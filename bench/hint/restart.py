"""A hint worker's process on a large space: ready without and with a snapshot, under a memory limit of the kernel's."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from data import DIMENSIONS, clustered
from feedmill.spaces import Space
from feedmill_hint.snapshots import Position, save
from feedmill_local.database import Database
from feedmill_local.rabbitmq import RabbitNode
from measure import build
from stack import DATABASE, SPACE, Hint, fill, hint_worker, peak_mib, vector_documents

GROUPS = Path("/sys/fs/cgroup/memory")
"""Control groups, version 1: where version 2 or no right to make one is found, the peak is measured without a limit."""
LIMIT_BYTES = 2 << 30
CHANGED = 1000


def measure_restart(count: int, fill_seconds: float, folder: Path | None, *, made: bool) -> dict[str, Any]:
    """Fill a database for ``fill_seconds`` at most; start a worker without a snapshot, stop it, change some vectors,
    start it again. ``count`` vectors are aimed at; how many there are is in the figures.

    ``folder``: a database that is kept there. Nothing is measured before it is full, in as many runs as that takes.
    ``made``: the snapshot is made here of the same vectors, for a database that takes too long to read them all from.
    """
    with tempfile.TemporaryDirectory() as name:
        node = RabbitNode.start(Path(name) / "rabbit", vhosts=["bench"])
        database = Database.start(folder or Path(name) / "database")
        try:
            began = time.monotonic()
            fill(database.uri, count, within_seconds=fill_seconds, with_posts=False)
            with MongoClient[dict[str, Any]](database.uri) as client:
                vectors = client[DATABASE][f"post_embeddings.{SPACE}"].estimated_document_count()
            print(f"{vectors} vectors are there after {time.monotonic() - began:.0f} s", flush=True)
            if folder and vectors < count:
                return {}
            figures: dict[str, Any] = {"vectors": vectors}
            settings = {"FEEDMILL_INDEX_SNAPSHOT_DIR": str(Path(name) / "snapshots"), "FEEDMILL_LOG_FORMAT": "text"}
            # The embedded database reads everything to pick a sample, and answers nobody meanwhile.
            settings["FEEDMILL_STORE_TIMEOUT_SECONDS"] = "180"
            settings["FEEDMILL_INDEX_MAX_BYTES"] = str(LIMIT_BYTES * 3 // 4)
            if made:
                _make_snapshot(database.uri, vectors, Path(name) / "snapshots")
                _change_some(database.uri)
            for what in ("with_snapshot",) if made else ("without_snapshot", "with_snapshot"):
                with (
                    _limited() as group,
                    hint_worker(node.url("bench"), database.uri, settings, enter=group.enter) as it,
                ):
                    figures[f"ready_{what}_seconds"] = it.ready_seconds
                    _wait_for_snapshot(Path(name) / "snapshots", it)
                    figures[f"peak_rss_{what}_mib"] = peak_mib(it.process.pid)
                    figures[f"stop_{what}_seconds"] = it.stop()
                    figures |= group.figures(what)
                    print(it.said(), flush=True)
                if what == "without_snapshot":
                    _change_some(database.uri)
            figures["changed_between"] = CHANGED
        finally:
            database.stop()
            node.stop()
    return figures


def _change_some(uri: str) -> None:
    with MongoClient[dict[str, Any]](uri) as client:
        stored = client[DATABASE][f"post_embeddings.{SPACE}"]
        ids = [document["_id"] for document in stored.find({}, {"_id": 1}).limit(CHANGED)]
        for document in vector_documents(ids, clustered(CHANGED, seed=2)):
            stored.replace_one({"_id": document["_id"]}, document)


def _make_snapshot(uri: str, count: int, folder: Path) -> None:
    """As a worker that had read everything would have left it: the vectors, and where the change stream goes on."""
    with MongoClient[dict[str, Any]](uri) as client:
        stored = client[DATABASE][f"post_embeddings.{SPACE}"]
        ids = [document["_id"] for document in stored.find({}, {"_id": 1}).sort("_id", 1)]
        with stored.watch(max_await_time_ms=500) as stream:
            stream.try_next()
            token = stream.resume_token
    index, seconds = build(clustered(count)[: len(ids)], ids)
    print(f"built in {seconds:.0f} s", flush=True)
    part = index.inverted_file
    if part is None:
        raise RuntimeError("too few vectors for a snapshot")
    position = Position(datetime.now(UTC).replace(tzinfo=None), token)  # times come from the database without a zone
    save(folder, Space(SPACE, "bench", "r1", DIMENSIONS), part, index.made_for, position)


class _Group:
    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.enter = ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$0" "$@"'] if folder else []

    def figures(self, what: str) -> dict[str, Any]:
        """What the kernel counted: its peak, with the page cache, which gives way; and how many it killed."""
        if self._folder is None:
            return {}
        peak = int((self._folder / "memory.max_usage_in_bytes").read_text(encoding="ascii"))
        control = (self._folder / "memory.oom_control").read_text(encoding="ascii").split()
        return {
            "memory_limit_mib": LIMIT_BYTES >> 20,
            f"peak_with_page_cache_{what}_mib": peak / 2**20,
            f"killed_for_memory_{what}": int(control[control.index("oom_kill") + 1]),
        }


@contextmanager
def _limited() -> Iterator[_Group]:
    """A control group of 2 GiB, swap included where the kernel counts it; none where it can't be made."""
    folder = GROUPS / f"feedmill-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES), encoding="ascii")
    except OSError:
        yield _Group(None)
        return
    try:
        yield _Group(folder)
    finally:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                folder.rmdir()
                break
            except OSError:  # its last process is just ending
                time.sleep(0.1)


def _wait_for_snapshot(folder: Path, worker: Hint) -> None:
    deadline = time.monotonic() + 120
    while not (folder / SPACE / "manifest.json").exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"no snapshot\n{worker.said()[-3000:]}")
        time.sleep(0.1)
