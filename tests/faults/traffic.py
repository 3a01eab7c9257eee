"""Load: a producer with confirms, and a collector of results and dead letters, each on its own thread and connection.

Both talk to the broker directly, never through the proxy: what they note is what the broker itself said.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from random import Random
from typing import Any

import pika
from bson import ObjectId
from pika.exceptions import AMQPError, ConsumerCancelled

from faults.ledger import Answer, Ledger, Sent
from feedmill.contract import ENCODE, HINT, ROUTES, TOXIC, Route

RETRY_SECONDS = 0.3
TEXTS = tuple(
    f"{opening} {middle}"
    for opening in (
        "The new season starts on Saturday and",
        "After two weeks in the mountains",
        "My sourdough starter died, so",
        "Nobody tells you that",
        "If you have read this far,",
    )
    for middle in (
        "we finally have a keeper who can kick a ball.",
        "I can say that good boots matter more than a light tent.",
        "you are a worthless idiot and everybody knows it.",
        "the second proof in the fridge makes all the difference to the crust.",
        "the trains were late again, and nobody was surprised.",
        "shut up, nobody asked you, moron.",
        "the telescope needs an hour to cool down before Saturn is sharp.",
        "the old bridge is closed until spring. " * 12,
    )
)
"""Few, so that a clean run can say what each must lead to; of different lengths, so that batches differ."""

HOSTILE: dict[str, tuple[bytes, ...]] = {
    "toxic": (b"not json", b'{"_id": {"$ne": null}, "content": "x"}', b'{"content": 5}'),
    "encode": (b"[1]", b'{"content": "no id"}', b'{"_id": "x", "content": "\xff"}'),
    "hint": (b"null", b'{"_id": ["x"]}', b'{"_id": "x", "top_k": -1}'),
}


class Mix:
    """What the producer sends: posts, comments and questions with new ids, and some messages beyond help."""

    def __init__(self, random: Random, prepare: Callable[[str, str], None], workers: tuple[str, ...]) -> None:
        self._random = random
        self._prepare = prepare
        """Called with a collection and an id before a message about it is sent: makes the post or comment."""
        self._workers = workers
        self.encoded: list[str] = []
        """Ids of posts that were sent to encode: hint may be asked about these."""
        self.texts: dict[tuple[str, str], str] = {}
        """(collection, id) to text."""

    def next(self) -> tuple[Route, bytes, str]:
        """A route, a body, and what is expected of it (``result`` or ``dead``)."""
        worker = self._random.choice(self._workers)
        if self._random.random() < 0.08:
            return ROUTES[worker], self._random.choice(HOSTILE[worker]), "dead"
        if worker == "hint":
            if len(self.encoded) < 5:
                worker = "encode"
            else:  # now and then about a post that was sent a moment ago: it is retried until its vector is there
                identifier = self.encoded[-1] if self._random.random() < 0.2 else self._random.choice(self.encoded)
                return HINT, json.dumps({"_id": identifier, "top_k": 3}).encode(), "result"
        route = TOXIC if worker == "toxic" else ENCODE
        identifier, text = str(ObjectId()), self._random.choice(TEXTS)
        self._prepare(route.collection, identifier)
        self.texts[route.collection, identifier] = text
        if route is ENCODE:
            self.encoded.append(identifier)
        return route, json.dumps({"_id": identifier, "content": text}).encode(), "result"


class _Loop(ABC):
    """A thread that keeps a connection and runs one step after another on it; a failure means a new connection."""

    def __init__(self, url: str, name: str) -> None:
        self._parameters = pika.URLParameters(url)
        self._parameters.heartbeat = 10
        self._parameters.blocked_connection_timeout = 20
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what broke it, beyond the broker's going away, is raised here."""
        self._stop.set()
        self._thread.join(60)
        if self.failure is not None:
            raise self.failure
        if self._thread.is_alive():
            raise AssertionError(f"{self._thread.name} did not end")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                connection = pika.BlockingConnection(self._parameters)
                try:
                    self._use(connection)
                finally:
                    if connection.is_open:
                        connection.close()
            except (AMQPError, ConsumerCancelled, OSError):
                self._stop.wait(RETRY_SECONDS)
            except BaseException as error:
                self.failure = error
                return

    @abstractmethod
    def _use(self, connection: pika.BlockingConnection) -> None:
        """Work on one connection until it breaks or the end is asked for."""


class Producer(_Loop):
    """Sends the mix at a steady rate while the broker takes it; :meth:`pause` stops it for a while."""

    def __init__(self, url: str, ledger: Ledger, mix: Mix, per_second: float) -> None:
        super().__init__(url, "producer")
        self.per_second = per_second
        self._ledger = ledger
        self._mix = mix
        self._on = threading.Event()
        self._idle = threading.Event()
        self._on.set()

    def pause(self) -> None:
        """Returns when no publish is in flight."""
        self._on.clear()
        self._idle.wait(60)

    def resume(self) -> None:
        self._on.set()

    def _use(self, connection: pika.BlockingConnection) -> None:
        channel = connection.channel()
        channel.confirm_delivery()
        while not self._stop.is_set():
            if not self._on.is_set():
                self._idle.set()
                connection.sleep(0.1)
                continue
            self._idle.clear()
            began = time.monotonic()
            self._send(channel)
            connection.sleep(max(0.001, 1 / self.per_second - (time.monotonic() - began)))
        self._idle.set()

    def _send(self, channel: Any) -> None:
        route, body, expects = self._mix.next()
        message_id = str(uuid.uuid4())
        properties = pika.BasicProperties(message_id=message_id, delivery_mode=2, content_type="application/json")
        self._ledger.doubt(message_id)
        channel.basic_publish(route.exchange, route.queue, body, properties, mandatory=True)
        self._ledger.accept(Sent(message_id, route.worker, body, expects, time.monotonic()))  # type: ignore[arg-type]


class Collector(_Loop):
    """Takes every result and every dead letter; acks it after it is in the ledger."""

    def __init__(self, url: str, ledger: Ledger, workers: tuple[str, ...]) -> None:
        super().__init__(url, "collector")
        self._ledger = ledger
        self._workers = workers

    def _use(self, connection: pika.BlockingConnection) -> None:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=500)
        cancelled: list[Any] = []  # by the broker, as a queue was deleted; closing in the callback would confuse pika
        channel.add_on_cancel_callback(cancelled.append)
        for worker in self._workers:
            route = ROUTES[worker]
            for queue, fate in ((route.result_queue, "result"), (route.dead_queue, "dead")):
                channel.basic_consume(queue, self._taker(worker, fate))
        while not self._stop.is_set() and not cancelled:
            connection.process_data_events(0.2)

    def _taker(self, worker: str, fate: Any) -> Any:
        def take(channel: Any, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
            headers = dict(properties.headers or {})
            answer = Answer(worker, fate, properties.message_id or "", body, headers, time.monotonic())
            self._ledger.answer(answer)
            channel.basic_ack(method.delivery_tag)

        return take
