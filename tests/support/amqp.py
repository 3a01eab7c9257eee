"""A producer and consumer that knows nothing of Feedmill: plain pika, one connection, blocking."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pika
from pika.adapters.blocking_connection import BlockingChannel

T = TypeVar("T")

WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Received:
    body: bytes
    properties: pika.BasicProperties

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Every call is a question to the broker and answers what it says now."""

    def __init__(self, channel: BlockingChannel) -> None:
        self.channel = channel

    def publish(self, exchange: str, routing_key: str, body: object, **properties: Any) -> None:
        """Publish bytes as they are, anything else as JSON, mandatory and confirmed."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.channel.basic_publish(exchange, routing_key, data, pika.BasicProperties(**properties), mandatory=True)

    def get(self, queue: str) -> Received | None:
        method, properties, body = self.channel.basic_get(queue, auto_ack=True)
        return Received(body, properties) if method else None

    def take(self, queue: str, count: int = 1, timeout_seconds: float = WAIT_SECONDS) -> list[Received]:
        """The next ``count`` messages of ``queue``, as soon as they are there."""
        taken: list[Received] = []

        def enough() -> bool:
            while len(taken) < count and (message := self.get(queue)) is not None:
                taken.append(message)
            return len(taken) >= count

        if not poll(enough, timeout_seconds):
            raise AssertionError(f"{queue}: {len(taken)} of {count} messages within {timeout_seconds:.0f} s")
        return taken

    def count(self, queue: str) -> int:
        """Messages that are ready (not those that a consumer holds)."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def consumers(self, queue: str) -> int:
        return int(self.channel.queue_declare(queue, passive=True).method.consumer_count)


@contextmanager
def connect(url: str) -> Iterator[Client]:
    parameters = pika.URLParameters(url)
    parameters.heartbeat = 0  # nobody answers one while a test waits for something else
    connection = pika.BlockingConnection(parameters)
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        yield Client(channel)
    finally:
        if connection.is_open:
            connection.close()


def poll(condition: Callable[[], T], timeout_seconds: float = WAIT_SECONDS, every_seconds: float = 0.02) -> T:
    """Ask until the answer is true or the time is up; answer the last answer."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        answer = condition()
        if answer or time.monotonic() >= deadline:
            return answer
        time.sleep(every_seconds)
