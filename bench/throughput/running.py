"""A system that runs, with a broker and a database of its own, and what passes between it and the bench."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

import pika
from bson import ObjectId
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import ChannelClosedByBroker
from pymongo import MongoClient
from systems import Post, System

START_SECONDS = 300.0
ANSWER_SECONDS = 300.0
LOOK_SECONDS = 0.25
DATABASE = "feedmill_bench"


@dataclass(frozen=True)
class Servers:
    """Where broker and database are."""

    rabbit_url: str
    mongo_uri: str
    is_shared: bool = False
    """Whether others use the machine: threads that wait must then not spin."""


class Running:
    """A started system. ``cold_seconds``: from exec to its first answer."""

    def __init__(self, system: System, process: subprocess.Popen[bytes], connection: BlockingConnection) -> None:
        self.system = system
        self.process = process
        self.connection = connection
        self.channel: BlockingChannel = connection.channel()
        self.cold_seconds = 0.0

    @property
    def queue(self) -> str:
        return self.system.queue or self.system.input_queue

    def publish(self, posts: Sequence[Post]) -> None:
        for post in posts:
            body, properties = self.system.parcel(post)
            self.channel.basic_publish("", self.queue, body, properties)

    def waiting(self) -> int:
        """Messages in its queue that it has not taken yet."""
        return int(self.channel.queue_declare(self.queue, passive=True).method.message_count)

    def answers(
        self, count: int, seconds: float = ANSWER_SECONDS, look: Callable[[int], None] | None = None
    ) -> list[float]:
        """When each of ``count`` answers came, by time.monotonic(); fewer where ``seconds`` are over before.

        ``look`` is called a few times a second with how many came so far. Raises RuntimeError where the process ended.
        """
        times: list[float] = []
        deadline, looked = time.monotonic() + seconds, time.monotonic()
        for method, _, _ in self.channel.consume(self.system.result_queue, auto_ack=True, inactivity_timeout=0.2):
            if method is not None:
                times.append(time.monotonic())
            if look is not None and time.monotonic() - looked > LOOK_SECONDS:
                looked = time.monotonic()
                look(len(times) + self.channel.get_waiting_message_count())
            if len(times) >= count or time.monotonic() > deadline:
                break
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.system.name}: ended with {self.process.poll()}, {len(times)} of {count}")
        self.channel.cancel()
        return times

    def first_answer(self) -> float:
        """When the first answer came. Raises RuntimeError where none comes."""
        found = self.answers(1, START_SECONDS)
        if not found:
            raise RuntimeError(f"{self.system.name}: no answer within {START_SECONDS:g} s")
        return found[0]


@contextmanager
def started(system: System, settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process of ``system``, ended behind the block; what it wrote is shown where the block fails."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(system.command, env=settings, stdout=log, stderr=log, cwd=tempfile.gettempdir())
        try:
            yield process
        except BaseException:
            _show(log)
            raise
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()


@contextmanager
def running(system: System, posts: Sequence[Post], servers: Servers) -> Iterator[Running]:
    """Start ``system`` on empty queues and a database that holds ``posts``; it has answered the first one."""
    connection = pika.BlockingConnection(pika.URLParameters(servers.rabbit_url))
    with MongoClient[dict[str, object]](servers.mongo_uri) as client:
        _empty(connection, system)
        client.drop_database(DATABASE)
        collection = "posts" if system.route == "encode" else "comments"
        client[DATABASE][collection].insert_many([{**post, "_id": ObjectId(post["_id"])} for post in posts])
        began = time.monotonic()
        try:
            with started(system, environment_of(system, servers)) as process:
                it = Running(system, process, connection)
                _await_queue(it)
                it.publish(posts[:1])
                it.cold_seconds = it.first_answer() - began
                yield it
        finally:
            client.drop_database(DATABASE)
            with suppress(Exception):
                connection.close()


def _empty(connection: BlockingConnection, system: System) -> None:
    channel = connection.channel()
    if system.queue:
        channel.queue_delete(system.queue)
    channel.exchange_declare(system.exchange, "direct", durable=True)
    for name in (system.input_queue, system.result_queue):
        channel.queue_declare(name, durable=True)
        channel.queue_bind(name, system.exchange, name)
        channel.queue_purge(name)
    channel.close()


def _await_queue(it: Running) -> None:
    deadline = time.monotonic() + START_SECONDS
    while it.process.poll() is None and time.monotonic() < deadline:
        try:
            it.waiting()
        except ChannelClosedByBroker:  # not there yet
            it.channel = it.connection.channel()
            it.connection.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{it.system.name}: no queue {it.queue}; the process: {it.process.poll()}")


def environment_of(system: System, servers: Servers) -> dict[str, str]:
    """The environment of ``system``'s process: this one's without settings of Feedmill's, and its own."""
    own = {
        "RABBITMQ_URL": servers.rabbit_url,
        "MONGO_URI": servers.mongo_uri,
        "DATABASE_NAME": DATABASE,
        "FEEDMILL_PROBE_PORT": "0",
        "FEEDMILL_PROBE_HOST": "127.0.0.1",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        **system.environment,
    }
    if servers.is_shared:
        own["GOMP_SPINCOUNT"] = "0"
    return {**{k: v for k, v in os.environ.items() if not k.startswith("FEEDMILL_")}, **own}


def _show(log: IO[bytes]) -> None:
    """Print the end of what a system wrote."""
    log.seek(0)
    print(log.read().decode(errors="replace")[-3000:])


def answer_id(body: bytes) -> str:
    """The post's id in an answer of any system."""
    answer = json.loads(body)
    return str(answer.get("id") or answer.get("commentId"))
