"""Exact points between receiving a message and acknowledging it, as the proxies see them pass.

A worker has no hooks for this: what it sends to the broker and to the database, and what these answer, tells how far it
has come. A signal is sent in the moment in which the frame that marks the point arrives at the proxy. With SIGKILL that
frame, and all behind it, goes no further, as if the worker had died before it wrote, or read, it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.frames import Frame, mongo_reply
from faults.proxy import Direction
from feedmill.contract import ENCODE, ROUTES, TOXIC, VECTORS_COLLECTION_PREFIX

POINTS = ("in_receive", "before_write", "after_write", "before_publish", "after_publish", "before_ack")
"""
in_receive: a delivery's envelope has been passed on, its body has not;
before_write: the model is done with a batch, whose effects are about to be written (toxic and encode);
after_write: they are written, and the worker does not know it yet (toxic and encode);
before_publish: it knows, and its results are about to be published;
after_publish: a result is with the broker, and the worker does not know it yet;
before_ack: it knows, and is about to acknowledge the message.
"""
WRITES = ("update", "bulkWrite", "insert", "findAndModify")
SIGNAL_SECONDS = 90.0

Answer = Callable[[Frame], dict[str, Any]]


@dataclass
class _Strike:
    point: str
    worker: str
    number: signal.Signals
    done: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Link:
    """What has passed on one of a worker's connections so far."""

    published: int = 0
    result: int = 0
    """The delivery tag of the last result that was published."""
    writes: set[int] = field(default_factory=set)
    """Writes that have no reply yet."""
    is_dead: bool = False


class Points:
    """Sees every frame of the broker's and the database's proxies."""

    def __init__(self, pids: Callable[[], dict[str, int]]) -> None:
        self._pids = pids
        self._links: dict[int, _Link] = {}
        self._workers: dict[int, str | None] = {}
        self._strike: _Strike | None = None
        self._answer: Answer | None = None
        self.refused = 0
        """Writes that were answered in the database's stead."""

    def strike(self, point: str, worker: str, number: signal.Signals) -> None:
        """Send the worker this signal when it next comes to the point; return then. Needs load."""
        strike = self._strike = _Strike(point, worker, number)
        assert strike.done.wait(SIGNAL_SECONDS), f"{worker} did not come {point} within {SIGNAL_SECONDS:.0f} s"

    def refuse_writes(self, answer: Answer | None) -> None:
        """From now on writes do not reach the database; this answers them. None: they do again."""
        self._answer = answer

    # ---- called by the proxies, each on its own loop

    def at_broker(self, port: int, direction: Direction, frame: Frame) -> bytes | None:
        link = self._link(port, frame.kind == "protocol")
        point = self._broker_point(link, direction, frame)
        return self._pass(port, link, point)

    def at_database(self, port: int, direction: Direction, frame: Frame) -> bytes | None:
        link = self._link(port)
        if direction == "up" and frame.kind in WRITES and _is_effect(frame.place):
            if self._answer is not None:
                self.refused += 1
                return mongo_reply(frame, self._answer(frame))
            link.writes.add(frame.number)
            return self._pass(port, link, "before_write")
        if direction == "down" and frame.answers in link.writes:
            link.writes.discard(frame.answers)
            return self._pass(port, link, "after_write")
        return self._pass(port, link, "")

    def _broker_point(self, link: _Link, direction: Direction, frame: Frame) -> str:
        if direction == "down":
            if frame.kind == "body":
                return "in_receive"
            covers = frame.kind == "ack" and (
                frame.number == link.result or (not frame.count and frame.number >= link.result)
            )
            return "after_publish" if covers and link.result else ""
        if frame.kind == "publish":
            link.published += 1
            if frame.place in RESULT_QUEUES:
                link.result = link.published
                return "before_publish"
        return "before_ack" if frame.kind == "ack" else ""

    def _pass(self, port: int, link: _Link, point: str) -> bytes | None:
        strike = self._strike
        if link.is_dead:
            return b""
        if strike is None or strike.point != point or self._worker(port) != strike.worker:
            return None
        self._strike = None
        os.kill(self._pids()[strike.worker], strike.number)
        strike.done.set()
        if strike.number is not signal.SIGKILL:
            return None
        link.is_dead = True
        return b""

    def _link(self, port: int, is_new: bool = False) -> _Link:
        if is_new:  # a port may be used again
            self._links[port] = _Link()
            self._workers.pop(port, None)
        return self._links.setdefault(port, _Link())

    def _worker(self, port: int) -> str | None:
        pids = self._pids()
        known = self._workers.get(port)
        if known is None or not _holds(pids[known], port):
            self._workers[port] = next((worker for worker, pid in pids.items() if _holds(pid, port)), None)
        return self._workers[port]


RESULT_QUEUES = {route.result_queue for route in ROUTES.values()}


def _is_effect(collection: str) -> bool:
    return collection in {ENCODE.collection, TOXIC.collection} or collection.startswith(VECTORS_COLLECTION_PREFIX)


def _holds(pid: int, port: int) -> bool:
    """Whether the process has a socket whose own port is this."""
    inodes = {
        columns[9]
        for line in Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        if int((columns := line.split())[1].rpartition(":")[2], 16) == port
    }
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:[") and target[8:-1] in inodes:
            return True
    return False
