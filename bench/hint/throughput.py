"""Hints through the queue: a real RabbitMQ, a database, a worker's process; beside the first system's program."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pika
from bson import ObjectId

from feedmill_local.database import Database
from feedmill_local.rabbitmq import RabbitNode
from stack import DATABASE, cpu_seconds, fill, hint_worker, message, peak_mib

EXCHANGE, QUEUE, RESULTS = "hint-post-exchange", "hint-post-queue", "result-hint-post-queue"
FIRST_PROGRAM = Path(__file__).resolve().parent / "programs" / "first_hint.py"
ANSWER_SECONDS = 300.0

Channel = Any


def measure_throughput(count: int, messages: int, first_messages: int) -> dict[str, Any]:
    """``messages`` hints published at once to a worker on ``count`` posts, then one after another; the first system
    gets ``first_messages``."""
    figures: dict[str, Any] = {"posts": count, "messages": messages, "first_system_messages": first_messages}
    with tempfile.TemporaryDirectory() as name:
        node = RabbitNode.start(Path(name) / "rabbit", vhosts=["bench"])
        database = Database.start(Path(name) / "database")
        try:
            ids = fill(database.uri, count, with_posts=True)
            asking = [ids[at] for at in np.random.default_rng(5).choice(len(ids), messages)]
            url = node.url("bench")
            with _broker(url) as channel, hint_worker(url, database.uri, {"FEEDMILL_LOG_FORMAT": "text"}) as worker:
                _ask(channel, asking[:200], worker.process)  # warm
                before = cpu_seconds(worker.process.pid)
                seconds = _ask(channel, asking, worker.process)
                cost = cpu_seconds(worker.process.pid) - before
                figures["messages_per_second"] = len(asking) / seconds
                figures["worker_cpu_ms_per_message"] = 1000 * cost / len(asking)
                figures["one_at_a_time_ms"] = _one_by_one(channel, asking[:300], worker.process)
                figures["worker_peak_mib"] = peak_mib(worker.process.pid)
                figures["worker_stop_seconds"] = worker.stop()
            if first_messages:
                figures |= _first_system(url, database.uri, asking[: first_messages + 1])
                figures["ratio_messages_per_second"] = (
                    figures["messages_per_second"] / figures["first_system_messages_per_second"]
                )
        finally:
            database.stop()
            node.stop()
    return figures


def _first_system(url: str, mongo_uri: str, asking: Sequence[ObjectId]) -> dict[str, Any]:
    environment = {**os.environ, "RABBITMQ_URL": url, "MONGO_URI": mongo_uri, "DATABASE_NAME": DATABASE}
    with _broker(url) as channel, tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, str(FIRST_PROGRAM)], env=environment, stderr=log)
        try:
            _ask(channel, asking[:1], process)  # warm, and started
            before = cpu_seconds(process.pid)
            seconds = _ask(channel, asking[1:], process)
            cost = cpu_seconds(process.pid) - before
            peak = peak_mib(process.pid)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        parts = re.findall(r"fetch ([\d.]+) compute ([\d.]+)", log.read().decode())[1:]
    count = len(asking) - 1
    return {
        "first_system_messages_per_second": count / seconds,
        "first_system_fetch_seconds": statistics.median(float(fetch) for fetch, _ in parts),
        "first_system_compute_seconds": statistics.median(float(compute) for _, compute in parts),
        "first_system_cpu_ms_per_message": 1000 * cost / count,
        "first_system_peak_mib": peak,
    }


@contextmanager
def _broker(url: str) -> Iterator[Channel]:
    connection = pika.BlockingConnection(pika.URLParameters(url + "?heartbeat=0"))
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, "direct", durable=True)
    for name in (QUEUE, RESULTS):
        channel.queue_declare(name, durable=True)
        channel.queue_bind(name, EXCHANGE, name)
        channel.queue_purge(name)
    try:
        yield channel
    finally:
        connection.close()


def _ask(channel: Channel, asking: Sequence[ObjectId], process: subprocess.Popen[bytes]) -> float:
    """Publish all at once; seconds until the last answer, from the first message's publishing."""
    began = time.monotonic()
    for post_id in asking:
        channel.basic_publish(EXCHANGE, QUEUE, message(post_id), pika.BasicProperties(delivery_mode=2))
    answers = 0
    for method, _, body in channel.consume(RESULTS, auto_ack=True, inactivity_timeout=0.2):
        if method is not None:
            answers += 1
            if b'"success"' not in body:
                raise RuntimeError(f"no hint: {body[:300]!r}")
        if answers >= len(asking):
            break
        if process.poll() is not None or time.monotonic() - began > ANSWER_SECONDS:
            raise RuntimeError(f"{answers} of {len(asking)} answers; the process: {process.poll()}")
    channel.cancel()
    return time.monotonic() - began


def _one_by_one(channel: Channel, asking: Sequence[ObjectId], process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Publish to answer, each after the last one's answer: a worker at light load."""
    answers = channel.consume(RESULTS, auto_ack=True, inactivity_timeout=5)
    times = []
    for post_id in asking:
        began = time.perf_counter()
        channel.basic_publish(EXCHANGE, QUEUE, message(post_id), pika.BasicProperties(delivery_mode=2))
        if next(answers)[0] is None or process.poll() is not None:
            raise RuntimeError("no answer")
        times.append(1000 * (time.perf_counter() - began))
    channel.cancel()
    p50, p95, p99 = np.quantile(np.array(times), (0.5, 0.95, 0.99))
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}
