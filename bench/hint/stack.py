"""A database with posts and vectors, and a hint worker's process, as the measurements on real parts need them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from bson import ObjectId
from bson.binary import Binary
from pymongo import MongoClient, WriteConcern

from data import DIMENSIONS, Matrix, clustered, posts
from feedmill_local.ports import free_ports

DATABASE = "feedmill_bench"
SPACE = "bench-space"
PORTION = 1000
READY_SECONDS = 1200.0


def fill(uri: str, count: int, *, within_seconds: float = float("inf"), with_posts: bool) -> list[ObjectId]:
    """Write ``count`` vectors as encode stores them, or as many as the time allows; with posts as a site stores them.

    What is there already counts. Not journalled, and without the index on ``updatedAt``, which polling needs and a
    change stream does not: the filling is not what is measured. Answers the ids that were written.
    """
    ids: list[ObjectId] = []
    with MongoClient[dict[str, Any]](uri) as client:
        quick = WriteConcern(w=1, j=False)
        stored = client[DATABASE].get_collection(f"post_embeddings.{SPACE}", write_concern=quick)
        site = client[DATABASE].get_collection("posts", write_concern=quick)
        began = time.monotonic()
        before = stored.estimated_document_count()
        vectors = clustered(count) if before < count else clustered(1)
        for start in range(before, count, PORTION):
            portion = vectors[start : start + PORTION]
            new = [ObjectId() for _ in portion]
            stored.insert_many(vector_documents(new, portion), ordered=False)
            if with_posts:
                site.insert_many(_posts(new, portion), ordered=False)
            ids += new
            if time.monotonic() - began > within_seconds:
                break
        now = datetime.now(UTC)
        space = {"model": "bench", "revision": "r1", "dimensions": DIMENSIONS, "state": "ready", "createdAt": now}
        pointer = {"space": SPACE, "changedAt": now}
        for name, fields in ((SPACE, space), ("active", pointer)):
            client[DATABASE]["vector_spaces"].replace_one({"_id": name}, fields, upsert=True)
    return ids


def vector_documents(ids: Sequence[ObjectId], vectors: Matrix) -> list[dict[str, Any]]:
    """As encode stores them."""
    now = datetime.now(UTC)
    return [
        {"_id": i, "vector": Binary(b"\x27\x00" + row.tobytes(), 9), "contentHash": "h", "updatedAt": now}
        for i, row in zip(ids, vectors.astype("<f4"), strict=True)
    ]


def _posts(ids: Sequence[ObjectId], vectors: Matrix) -> list[dict[str, Any]]:
    texts = posts(len(ids))
    now = datetime.now(UTC)
    return [
        {"_id": i, "content": text, "authorId": at % 97, "createdAt": now, "embedding": row.tolist()}
        for at, (i, text, row) in enumerate(zip(ids, texts, vectors.astype(np.float64), strict=True))
    ]


@dataclass
class Hint:
    """A hint worker's process. What it said is in ``log``."""

    process: subprocess.Popen[bytes]
    port: int
    log: IO[bytes]
    ready_seconds: float = 0.0
    """From exec to /readyz."""

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def stop(self) -> float:
        """SIGTERM; how long it took to leave."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return time.monotonic() - began


@contextmanager
def hint_worker(
    rabbit_url: str, mongo_uri: str, settings: Mapping[str, str], *, enter: Sequence[str] = ()
) -> Iterator[Hint]:
    """Start one, wait until it is ready, stop it. ``enter``: a command that runs it (in a control group, say)."""
    [port] = free_ports(1)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FEEDMILL_")}
    own = {"RABBITMQ_URL": rabbit_url, "MONGO_URI": mongo_uri, "DATABASE_NAME": DATABASE}
    probes = {"FEEDMILL_PROBE_PORT": str(port), "FEEDMILL_PROBE_HOST": "127.0.0.1"}
    environment = {**kept, **own, **probes, **settings}
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        command = [*enter, sys.executable, "-m", "feedmill_hint"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
        worker = Hint(process, port, log)
        try:
            while not worker.is_ready():
                if process.poll() is not None or time.monotonic() - began > READY_SECONDS:
                    raise RuntimeError(f"not ready; exit code {process.poll()}\n{worker.said()[-3000:]}")
                time.sleep(0.02)
            worker.ready_seconds = time.monotonic() - began
            yield worker
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def message(post_id: ObjectId) -> bytes:
    return json.dumps({"_id": str(post_id)}).encode()
