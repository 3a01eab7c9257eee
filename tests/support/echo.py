"""A handler without a model: it answers what it gets, and fails on demand."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from feedmill.contract import Route
from feedmill.errors import MessageError, Outage, Reject, Retry
from feedmill.instruments import Instruments
from feedmill.pipeline.handler import JsonObject, Message
from feedmill.worker import WorkerKind

ROUTE = Route("echo", "echo-exchange", "echo-queue", "result-echo-queue", "echoes")


@dataclass(frozen=True, slots=True)
class Echo:
    text: str
    attempt: int

    @property
    def cost(self) -> int:
        return max(1, len(self.text))


class EchoHandler:
    """Body ``{"text": …, "fail": where?}``; ``fail`` is ``<step>-<reject|retry|crash|kill>``, such as ``infer-crash``;
    ``kill`` ends the process."""

    def __init__(self, lanes: int = 1) -> None:
        self.lanes = lanes
        self.batch_tokens = 1024
        self.away: Outage | None = None
        """Raised by ``commit`` and ``ready`` while it is set."""
        self.may_infer = asyncio.Event()
        self.may_infer.set()
        self.inferring = asyncio.Event()
        self.batches: list[list[str]] = []
        self.stored: dict[str, int] = {}
        """How often each text was committed."""

    async def ready(self) -> None:
        if self.away is not None:
            raise self.away

    def decode(self, message: Message) -> Echo:
        body = message.body
        if not isinstance(body.get("text"), str):
            raise Reject("wrong_type", "text: expected text")
        echo = Echo(f"{body['text']}|{body.get('fail', '')}", message.attempt)
        _fail("decode", echo)
        return echo

    async def prepare(self, requests: Sequence[Echo]) -> Sequence[Echo | MessageError]:
        for echo in requests:
            _fail("prepare", echo)
        return requests

    async def infer(self, batch: Sequence[Echo]) -> Sequence[str | MessageError]:
        self.batches.append([echo.text for echo in batch])
        self.inferring.set()
        await self.may_infer.wait()
        for echo in batch:
            _fail("infer", echo)
        return [echo.text.split("|")[0] for echo in batch]

    async def commit(self, batch: Sequence[tuple[Echo, str]]) -> Sequence[JsonObject | MessageError]:
        if self.away is not None:
            raise self.away
        for echo, _ in batch:
            _fail("commit", echo)
        for _, text in batch:
            self.stored[text] = self.stored.get(text, 0) + 1
        return [{"echo": text} for _, text in batch]


def _fail(step: str, echo: Echo) -> None:
    wanted = echo.text.split("|")[1]
    if wanted == f"{step}-reject":
        raise Reject("on_demand", f"{step} was told to")
    if wanted == f"{step}-retry" or (wanted == f"{step}-once" and echo.attempt == 0):
        raise Retry("on_demand", f"{step} was told to")
    if wanted == f"{step}-crash":
        raise ZeroDivisionError(f"{step} was told to")
    if wanted == f"{step}-kill":
        os.kill(os.getpid(), signal.SIGKILL)


def echo_kind(handler: EchoHandler, route: Route = ROUTE) -> WorkerKind:
    @asynccontextmanager
    async def open_handler(_: Instruments) -> AsyncIterator[EchoHandler]:
        yield handler

    return WorkerKind(route, open_handler, dependencies=("database",))
