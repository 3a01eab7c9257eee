"""A whole worker with a fake session and a scripted handler, in virtual time: how it starts, drains and ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from feedmill.broker.session import Session
from feedmill.errors import ModelError
from feedmill.instruments import Instruments
from feedmill.lifecycle import Shutdown
from feedmill.settings import BatchSettings, BrokerSettings, LogSettings, ProbeSettings
from feedmill.worker import Worker, WorkerKind, WorkerSettings
from support.fakes import ROUTE, FakeSession, Published, ScriptedHandler, VirtualLoop, run_virtual, turns, until

DRAIN_SECONDS = 25.0


class Bench:
    def __init__(self) -> None:
        self.handler = ScriptedHandler()
        self.session = FakeSession()
        self.shutdown = Shutdown()
        self.is_closed = False
        settings = WorkerSettings(
            BrokerSettings(), BatchSettings(max_batch_items=1), ProbeSettings(probe_port=0), LogSettings()
        )
        self.worker = Worker(WorkerKind(ROUTE, self._open_handler, ("database",)), settings)

    @asynccontextmanager
    async def _open_handler(self, _: Instruments) -> AsyncIterator[ScriptedHandler]:
        try:
            yield self.handler
        finally:
            self.is_closed = True

    def send(self, name: str, **body: Any) -> None:
        assert self.session.take is not None
        self.session.take(self.session.delivery({"name": name, **body}))

    async def started(self, step: str, name: str) -> None:
        await until(lambda: [name] in self.handler.batches(step), f"{name} in {step}")

    async def stop(self) -> float:
        """Ask for the end; answer how long it took."""
        began = asyncio.get_running_loop().time()
        self.shutdown.request()
        await self.running
        return asyncio.get_running_loop().time() - began

    running: asyncio.Task[None]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(scenario: Callable[[Bench], Any]) -> None:
        async def main(loop: VirtualLoop) -> None:
            bench = Bench()

            async def open_session(*_: object) -> FakeSession:
                return bench.session

            monkeypatch.setattr(time, "monotonic", loop.time)
            monkeypatch.setattr(Session, "open", open_session)
            bench.running = asyncio.create_task(bench.worker.run(bench.shutdown))
            await until(lambda: bench.session.is_consuming, "consuming")
            await turns()
            assert bench.worker.health.is_ready()
            await scenario(bench)
            assert bench.running.done()
            assert bench.session.closed
            assert bench.is_closed

        try:
            run_virtual(main)
        finally:
            monkeypatch.undo()

    return run


def test_drain_finishes_what_has_started_and_returns_the_rest(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.handler.gates["infer"] = asyncio.Event()
        bench.send("started")
        await bench.started("infer", "started")
        bench.send("waiting")
        bench.shutdown.request()
        await turns(50)
        assert bench.session.returned == [2]
        assert not bench.worker.health.is_ready()
        bench.send("late")
        await turns()
        assert bench.session.returned == [2, 3]
        bench.handler.gates["infer"].set()
        await bench.running
        assert bench.session.acked == [1]

    play(scenario)


def test_an_idle_worker_stops_at_once(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.stop() < 0.1

    play(scenario)


def test_the_deadline_hands_everything_back(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.handler.gates["infer"] = asyncio.Event()
        bench.send("stuck")
        await bench.started("infer", "stuck")
        assert await bench.stop() == pytest.approx(DRAIN_SECONDS, abs=1)
        assert bench.session.returned == [1]

    play(scenario)


def test_the_deadline_counts_from_the_signal_even_where_the_broker_is_slow(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.handler.gates["infer"] = asyncio.Event()
        bench.send("stuck")
        await bench.started("infer", "stuck")
        bench.session.on_stop = lambda: asyncio.sleep(10)
        assert await bench.stop() == pytest.approx(DRAIN_SECONDS, abs=1)

    play(scenario)


def test_a_second_signal_hands_everything_back_at_once(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        confirm = asyncio.Event()

        async def wait(_: Published) -> None:
            await confirm.wait()

        bench.session.on_publish = wait
        bench.send("publishing")
        await bench.started("commit", "publishing")
        bench.shutdown.request()
        assert await bench.stop() < 0.1
        assert bench.session.returned == [1]
        confirm.set()

    play(scenario)


def test_an_outage_just_before_the_signal_does_not_cost_the_whole_deadline(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        gate = bench.handler.gates["commit"] = asyncio.Event()
        bench.send("m", fail_in="commit", how="outage")
        await bench.started("commit", "m")
        gate.set()
        bench.shutdown.request()
        assert await bench.stop() < 1
        assert bench.session.returned == [1]

    play(scenario)


def test_an_outage_during_the_drain_ends_it(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        gate = bench.handler.gates["commit"] = asyncio.Event()
        bench.send("m", fail_in="commit", how="outage")
        await bench.started("commit", "m")
        asyncio.get_running_loop().call_later(3, gate.set)
        assert await bench.stop() == pytest.approx(3, abs=0.5)
        assert bench.session.returned == [1]

    play(scenario)


def test_acks_that_wait_in_a_full_write_buffer_are_sent_before_the_end(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.session.on_settle = lambda: asyncio.sleep(1)
        bench.send("m")
        await bench.started("commit", "m")
        await bench.stop()
        assert bench.session.acked == [1]

    play(scenario)


def test_a_bug_in_the_pipeline_ends_the_worker_with_its_cause(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.send("m", cost="no number")
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(bench.running, 60)
        assert caught.group_contains(TypeError)
        assert bench.session.acked == []

    play(scenario)


class Loading:
    """A worker whose model loads until ``loaded`` is set, and whose session opens until ``opened`` is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loaded, self.opened, self.opening = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.session = FakeSession()
        self.error: Exception | None = None
        settings = WorkerSettings(BrokerSettings(), BatchSettings(), ProbeSettings(probe_port=0), LogSettings())
        self.worker = Worker(WorkerKind(ROUTE, self._open_handler, ("database",)), settings)
        monkeypatch.setattr(Session, "open", self._open_session)

    @asynccontextmanager
    async def _open_handler(self, _: Instruments) -> AsyncIterator[ScriptedHandler]:
        await self.loaded.wait()
        if self.error:
            raise self.error
        yield ScriptedHandler()

    async def _open_session(self, *_: object) -> FakeSession:
        self.opening.set()
        await self.opened.wait()
        return self.session


async def test_the_broker_is_connected_to_while_the_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    it, shutdown = Loading(monkeypatch), Shutdown()
    it.opened.set()
    running = asyncio.create_task(it.worker.run(shutdown))
    await it.opening.wait()
    await turns()
    assert not it.session.is_consuming, "nothing is taken that nobody could handle"
    assert it.worker.health.readiness()["consumer"]
    it.loaded.set()
    await until(lambda: it.session.is_consuming, "consuming")
    shutdown.request()
    await running
    assert it.session.closed


@pytest.mark.parametrize("is_open", [True, False])
async def test_cancelled_while_the_model_loads(monkeypatch: pytest.MonkeyPatch, is_open: bool) -> None:
    it = Loading(monkeypatch)
    if is_open:
        it.opened.set()
    running = asyncio.create_task(it.worker.run(Shutdown()))
    await it.opening.wait()
    await turns()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert it.session.closed is is_open


async def test_a_model_that_can_t_be_loaded_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Loading(monkeypatch)
    it.opened.set()
    it.error = ModelError("no such model")
    running = asyncio.create_task(it.worker.run(Shutdown()))
    await it.opening.wait()
    it.loaded.set()
    with pytest.raises(ModelError, match="no such model"):
        await running
    assert it.session.closed
