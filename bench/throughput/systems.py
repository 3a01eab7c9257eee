"""Starting a system, sending it messages, and reading what it cost."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pika
from bson import ObjectId
from pymongo import MongoClient

ROUTE = ("encode-post-exchange", "encode-post-queue", "result-encode-post-queue")
ANSWER_SECONDS = 240.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class System:
    """How to start one, and how many messages of a round it gets."""

    name: str
    command: tuple[str, ...]
    share: float = 1.0
    stores: bool = True


@dataclass(frozen=True)
class Round:
    """What one system did in one round."""

    system: str
    messages: int
    cold_start_seconds: float
    """From exec to the first answer."""
    messages_per_second: float
    cpu_ms_per_message: float
    median_seconds: float
    p99_seconds: float
    """From publishing all at once to the answer: a burst."""
    idle_mb: float
    peak_mb: float


def measure(system: System, messages: Sequence[dict[str, str]], rabbit_url: str, mongo_uri: str) -> Round:
    """Start ``system``, wait for its first answer, send it the rest at once, and stop it."""
    first, rest = messages[0], messages[1:]
    with _broker(rabbit_url) as channel, _database(mongo_uri, messages) as database, tempfile.TemporaryFile() as log:
        environment = _environment(rabbit_url, mongo_uri, database)
        _publish(channel, [first])
        began = time.monotonic()
        process = subprocess.Popen(system.command, env=environment, stdout=log, stderr=log, cwd=tempfile.gettempdir())
        try:
            cold = _answers(channel, 1, process)[0] - began
            idle, cpu = _status(process.pid, "VmRSS"), _cpu(process.pid)
            published = time.monotonic()
            _publish(channel, rest)
            times = [answered - published for answered in _answers(channel, len(rest), process)]
            cpu = _cpu(process.pid) - cpu
            peak = _status(process.pid, "VmHWM")
        except BaseException:
            log.seek(0)
            print(log.read().decode(errors="replace")[-3000:])
            raise
        finally:
            process.terminate()
            process.wait(60)
    return Round(
        system.name, len(rest), cold, len(rest) / times[-1], 1000 * cpu / len(rest),
        times[len(times) // 2], times[int(len(times) * 0.99)], idle, peak,
    )  # fmt: skip


def _environment(rabbit_url: str, mongo_uri: str, database: str) -> dict[str, str]:
    own = {
        "RABBITMQ_URL": rabbit_url,
        "MONGO_URI": mongo_uri,
        "DATABASE_NAME": database,
        "FEEDMILL_PROBE_PORT": "0",
        "FEEDMILL_PROBE_HOST": "127.0.0.1",
        "HF_HUB_OFFLINE": "1",
    }
    return {**{k: v for k, v in os.environ.items() if not k.startswith("FEEDMILL_")}, **own}


@contextmanager
def _broker(url: str) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
    exchange, queue, results = ROUTE
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.exchange_declare(exchange, "direct", durable=True)
    for name in (queue, results):
        channel.queue_declare(name, durable=True)
        channel.queue_bind(name, exchange, name)
        channel.queue_purge(name)
    yield channel
    connection.close()


@contextmanager
def _database(uri: str, messages: Sequence[dict[str, str]]) -> Iterator[str]:
    name = "feedmill_bench"
    with MongoClient[dict[str, object]](uri) as client:
        client.drop_database(name)
        client[name]["posts"].insert_many([{**post, "_id": ObjectId(post["_id"])} for post in messages])
        yield name
        client.drop_database(name)


def _publish(channel: pika.adapters.blocking_connection.BlockingChannel, messages: Sequence[dict[str, str]]) -> None:
    for message in messages:
        channel.basic_publish(ROUTE[0], ROUTE[1], json.dumps(message), pika.BasicProperties(delivery_mode=2))


def _answers(
    channel: pika.adapters.blocking_connection.BlockingChannel, count: int, process: subprocess.Popen[bytes]
) -> list[float]:
    """When each of ``count`` answers came, by time.monotonic()."""
    times: list[float] = []
    deadline = time.monotonic() + ANSWER_SECONDS
    for method, _, _ in channel.consume(ROUTE[2], auto_ack=True, inactivity_timeout=0.2):
        if method is not None:
            times.append(time.monotonic())
        if len(times) >= count:
            break
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{len(times)} of {count} answers; the process: {process.poll()}")
    channel.cancel()
    return times


def _cpu(pid: int) -> float:
    """CPU seconds of a process, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _status(pid: int, name: str) -> float:
    """A size of /proc/PID/status, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
