from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from feedmill.errors import Outage
from feedmill.settings import StoreSettings
from feedmill.store import Store, Write
from feedmill_local.database import Database


class Proxy:
    """Forwards to the database until it is told to hold still: connections stay open and nothing gets through."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            return
        finally:
            sink.close()


@pytest.fixture
async def proxy(mongo_uri: str) -> AsyncIterator[tuple[Proxy, str]]:
    parts = urlsplit(mongo_uri)
    proxy = Proxy(str(parts.hostname), int(parts.port or 0))
    port = await proxy.start()
    # Direct: the server would otherwise send the driver past the proxy.
    options = "&".join({*parts.query.split("&"), "directConnection=true"})
    yield proxy, f"mongodb://127.0.0.1:{port}/?{options}"
    await proxy.stop()


async def test_a_database_that_hangs_is_an_outage_in_time_and_heals(
    store_settings: StoreSettings, proxy: tuple[Proxy, str]
) -> None:
    between, uri = proxy
    changed = {"uri": type(store_settings.uri)(uri), "operation_timeout_seconds": 0.7, "pool_size": 2}
    store = Store.open(store_settings.model_copy(update=changed))
    await store.write("posts", [Write("a", {"$set": {"n": 1}}, upsert=True)])
    between.hold()
    async with asyncio.timeout(5):
        calls = [store.write("posts", [Write("a", {"$set": {"n": 2}})]), store.find("posts", ["a"]), store.ping()]
        results = await asyncio.gather(*calls, *(store.ping() for _ in range(10)), return_exceptions=True)
    assert [type(result) for result in results] == [Outage] * 13
    between.release()
    async with asyncio.timeout(20):
        while not await answers(store):
            pass
        report = await store.write("posts", [Write("a", {"$set": {"n": 3}})])
    assert (report.errors, report.missing) == ([None], 0)
    await store.close()


async def test_a_killed_database_is_an_outage_and_heals_when_it_is_back(
    store: Store, database_server: Database
) -> None:
    writes = [Write(f"p{n}", {"$set": {"n": n}}, upsert=True) for n in range(50)]
    assert (await store.write("posts", writes)).errors == [None] * 50
    await asyncio.to_thread(database_server.kill)
    try:
        with pytest.raises(Outage) as caught:
            await store.write("posts", writes)
        assert caught.value.dependency == "database"
    finally:
        await asyncio.to_thread(database_server.boot)
    async with asyncio.timeout(30):
        while not await answers(store):
            pass
    assert len(await store.find("posts", [write.id for write in writes])) == 50, "acknowledged writes are durable"
    assert (await store.write("posts", writes)).errors == [None] * 50


async def answers(store: Store) -> bool:
    try:
        await store.ping()
    except Outage:
        await asyncio.sleep(0.05)
        return False
    return True
