"""The database is connected to while a model loads."""

from __future__ import annotations

import asyncio

from feedmill.errors import Outage
from feedmill.store.opening import connecting


class FakeStore:
    def __init__(self, answer: asyncio.Event) -> None:
        self.answer, self.asked = answer, asyncio.Event()

    async def ping(self) -> None:
        self.asked.set()
        await self.answer.wait()
        raise Outage("database", "away")


async def test_a_failure_to_connect_is_not_told_here() -> None:
    answer = asyncio.Event()
    store = FakeStore(answer)
    async with asyncio.timeout(10), connecting(store):  # type: ignore[arg-type]
        await store.asked.wait()
        answer.set()


async def test_a_model_that_is_loaded_first_does_not_wait_for_the_database() -> None:
    async with asyncio.timeout(10), connecting(FakeStore(asyncio.Event())):  # type: ignore[arg-type]
        pass
