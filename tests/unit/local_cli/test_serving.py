"""The workers of one process: each may end alone, and /health tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from feedmill.contract import ENCODE, HINT, TOXIC
from feedmill.errors import ModelError
from feedmill.health import Health
from feedmill.lifecycle import Shutdown
from feedmill.pipeline.handler import Handler
from feedmill.settings import ModelSettings, read
from feedmill.worker import WorkerKind, WorkerSettings
from feedmill_local.serving import Serving

Open = Callable[[Health], Any]


@asynccontextmanager
async def loading(_: Health) -> AsyncIterator[Handler[Any, Any, Any]]:
    """Takes for ever: so a worker that is alive, and needs no broker."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")
    yield


@asynccontextmanager
async def without_model(_: Health) -> AsyncIterator[Handler[Any, Any, Any]]:
    raise ModelError("there is no model")
    yield


@asynccontextmanager
async def broken(_: Health) -> AsyncIterator[Handler[Any, Any, Any]]:
    raise RuntimeError("a bug")
    yield


def serving(toxic: Open, encode: Open = loading, hint: Open = loading) -> Serving:
    kinds = [WorkerKind(route, start, ()) for route, start in ((TOXIC, toxic), (ENCODE, encode), (HINT, hint))]
    return Serving(kinds, WorkerSettings())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not condition():  # noqa: ASYNC110 (what is awaited is a plain flag)
            await asyncio.sleep(0)


async def stop(running: asyncio.Task[bool], shutdown: Shutdown) -> bool:
    shutdown.request()
    async with asyncio.timeout(10.0):
        return await running


async def test_three_workers_are_healthy_and_stop_in_order() -> None:
    all_three, shutdown = serving(loading), Shutdown()
    running = asyncio.create_task(all_three.run(shutdown))
    await asyncio.sleep(0)
    assert all_three.health() == ({"status": "healthy", "workers": 3, "active_tasks": 3}, 200)
    assert await stop(running, shutdown) is True


@pytest.mark.parametrize("start", [without_model, broken])
async def test_one_that_ends_makes_it_unhealthy_and_leaves_the_others_alone(
    start: Open, caplog: pytest.LogCaptureFixture
) -> None:
    two, shutdown = serving(start, loading, loading), Shutdown()
    running = asyncio.create_task(two.run(shutdown))
    await until(lambda: not two.tasks[0].running)
    assert two.health() == ({"status": "unhealthy", "workers": 3, "active_tasks": 2}, 503)
    assert two.tasks[0].health.readiness()["model"] == "ended"
    assert await stop(running, shutdown) is False
    assert "toxic: ended" in caplog.text


async def test_handlers_open_one_after_the_other_each_with_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDMILL_TOXIC__MODEL", "file:///toxic")
    monkeypatch.setenv("FEEDMILL_ENCODE__MODEL", "file:///encode")
    monkeypatch.setenv("FEEDMILL_MODEL", "file:///all")
    seen: list[str] = []

    @asynccontextmanager
    async def look(_: Health) -> AsyncIterator[Handler[Any, Any, Any]]:
        seen.append(read(ModelSettings).model)
        await asyncio.sleep(0)
        seen.append(read(ModelSettings).model)
        raise ModelError("seen enough")
        yield

    async with asyncio.timeout(10.0):
        await serving(look, look, look).run(Shutdown())
    assert seen == [f"file:///{name}" for name in ("toxic", "toxic", "encode", "encode", "all", "all")]
    assert read(ModelSettings).model == "file:///all"


async def test_when_all_have_ended_it_ends() -> None:
    none = serving(without_model, without_model, broken)
    async with asyncio.timeout(10.0):
        assert await none.run(Shutdown()) is False
    assert none.health()[0]["active_tasks"] == 0


def test_every_probe_is_there_for_all_and_for_each() -> None:
    paths = [path for path, _ in serving(loading).routes()]
    assert len(paths) == len(set(paths))
    assert {"/health", "/livez", "/readyz", "/metrics", "/toxic/readyz", "/encode/livez", "/hint/metrics"} <= set(paths)
