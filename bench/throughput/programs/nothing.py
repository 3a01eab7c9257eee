"""A worker of ours whose model and store cost nothing: what is left is the pipeline's own cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from feedmill.contract import ENCODE
from feedmill.instruments import Instruments
from feedmill.pipeline.handler import Message
from feedmill.worker import WorkerKind, run_worker


@dataclass(frozen=True, slots=True)
class Work:
    body: dict[str, Any]
    cost: int = 1


class Nothing:
    lanes = 1
    batch_tokens = 1024

    async def ready(self) -> None: ...

    def decode(self, message: Message) -> Work:
        return Work(message.body)

    async def prepare(self, requests: Sequence[Work]) -> Sequence[Work]:
        return requests

    async def infer(self, batch: Sequence[Work]) -> Sequence[Work]:
        return batch

    async def commit(self, batch: Sequence[tuple[Work, Work]]) -> Sequence[dict[str, Any]]:
        return [work.body for work, _ in batch]


@asynccontextmanager
async def open_handler(_: Instruments) -> AsyncIterator[Nothing]:
    yield Nothing()


run_worker(WorkerKind(ENCODE, open_handler, dependencies=()))
