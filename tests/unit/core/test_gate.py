"""The gate in front of the intake, in virtual time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from feedmill import gate as gate_module
from feedmill.errors import Outage
from feedmill.gate import Gate
from feedmill.pipeline.item import Stage
from support.fakes import VirtualLoop, make_instruments, run_virtual, turns, until

AWAY = Outage("database", "no server")


class Switch:
    """Stands for the supervisor and the pipeline: writes down what the gate asks of them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.alone = 0
        """Messages that wait to be handled alone."""
        self.on_take: Callable[[], None] = lambda: None

    async def pause(self, why: str) -> None:
        self.log.append("pause")

    async def resume(self) -> None:
        self.log.append("resume")

    async def hand_back(self, up_to: Stage) -> None:
        self.log.append(f"hand back {up_to.name}")

    async def until_idle(self) -> None:
        await asyncio.sleep(0.1)

    async def count_alone(self) -> int:
        return self.alone

    async def take_alone(self) -> bool:
        if not self.alone:
            return False
        self.alone -= 1
        self.log.append("take alone")
        self.on_take()
        return True


class Bench:
    def __init__(self) -> None:
        self.instruments = make_instruments("database")
        self.switch = Switch()
        self.outage: Outage | None = None
        self.hangs = False
        self.checks = 0
        self.gate = Gate(self._ready, ("database",), self.instruments)

    async def _ready(self) -> None:
        self.checks += 1
        if self.hangs:
            await asyncio.sleep(10_000)
        if self.outage is not None:
            raise self.outage

    @property
    def problem(self) -> str | None:
        return self.instruments.health.readiness()["database"]

    @property
    def paused(self) -> float:
        return float(self.instruments.metrics.paused._value.get())


def play(scenario: Callable[[Bench], object], *, away: bool = False) -> None:
    @asynccontextmanager
    async def running() -> AsyncIterator[Bench]:
        bench = Bench()
        bench.outage = AWAY if away else None
        task = asyncio.create_task(bench.gate.run(bench.switch, bench.switch))  # type: ignore[arg-type]
        await turns()
        yield bench
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def main(loop: VirtualLoop) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "monotonic", loop.time)
            async with running() as bench:
                await scenario(bench)  # type: ignore[misc]

    run_virtual(main)


def test_it_opens_once_the_dependencies_answer() -> None:
    async def scenario(bench: Bench) -> None:
        assert bench.switch.log == []
        assert bench.problem == "no server"
        bench.outage = None
        await asyncio.sleep(10)
        assert bench.switch.log == ["resume"]
        assert bench.problem is None

    play(scenario, away=True)


def test_a_trip_pauses_hands_back_and_resumes_in_this_order() -> None:
    """Handed back twice: a delivery may arrive while the consumer is cancelled, and fail when its trip is the past."""

    async def scenario(bench: Bench) -> None:
        bench.outage = AWAY
        bench.gate.trip(AWAY)
        await turns()
        assert bench.switch.log == ["resume", "pause", "hand back STARTED"]
        assert (bench.problem, bench.paused) == ("no server", 1)
        await asyncio.sleep(600)
        assert bench.switch.log == ["resume", "pause", "hand back STARTED"], "not before it is back"
        assert bench.checks < 300, "no hot loop"
        bench.outage = None
        await asyncio.sleep(10)
        assert bench.switch.log == ["resume", "pause", "hand back STARTED", "hand back STARTED", "resume"]
        assert (bench.problem, bench.paused) == (None, 0)

    play(scenario)


def test_the_gate_notices_an_outage_of_an_idle_worker_by_itself() -> None:
    async def scenario(bench: Bench) -> None:
        bench.outage = AWAY
        await asyncio.sleep(gate_module.CHECK_INTERVAL_SECONDS + 1)
        assert bench.switch.log[1:] == ["pause", "hand back STARTED"]

    play(scenario)


def test_a_check_that_hangs_is_an_outage() -> None:
    async def scenario(bench: Bench) -> None:
        bench.hangs = True
        await asyncio.sleep(gate_module.CHECK_INTERVAL_SECONDS + gate_module.CHECK_TIMEOUT_SECONDS + 1)
        assert "no answer" in str(bench.problem)
        bench.hangs = False
        await asyncio.sleep(60)
        assert bench.switch.log[-1] == "resume"

    play(scenario)


def test_a_false_alarm_costs_one_round_and_no_more() -> None:
    async def scenario(bench: Bench) -> None:
        bench.gate.trip(AWAY)
        await asyncio.sleep(60)
        assert bench.switch.log == ["resume", "pause", "hand back STARTED", "hand back STARTED", "resume"]
        assert bench.problem is None

    play(scenario)


def test_an_outage_is_counted_once_however_many_batches_find_it() -> None:
    async def scenario(bench: Bench) -> None:
        bench.outage = AWAY
        for _ in range(5):
            bench.gate.trip(AWAY)
        await asyncio.sleep(60)
        samples = bench.instruments.metrics.registry.get_sample_value(
            "feedmill_outages_total", {"worker": "fake", "dependency": "database"}
        )
        assert samples == 1

    play(scenario)


def test_a_dependency_that_answers_checks_and_fails_the_work_is_not_hammered() -> None:
    async def scenario(bench: Bench) -> None:
        resume = bench.switch.resume

        async def fail_again() -> None:
            await resume()
            bench.gate.trip(AWAY)

        bench.switch.resume = fail_again  # type: ignore[method-assign]
        bench.gate.trip(AWAY)
        await asyncio.sleep(600)
        assert 100 <= bench.switch.log.count("resume") <= 300, "one round in two to five seconds"

    play(scenario)


def test_an_outage_after_a_long_calm_is_a_first_one_again() -> None:
    async def scenario(bench: Bench) -> None:
        for _ in range(20):
            bench.gate.trip(AWAY)
            await asyncio.sleep(60)
        bench.gate.trip(AWAY)
        await until(lambda: bench.switch.log[-1] != "resume")
        await asyncio.sleep(gate_module.FIRST_RETRY_SECONDS + 0.01)
        assert bench.switch.log[-1] == "resume"

    play(scenario)


def test_what_is_to_be_handled_alone_is_taken_while_nothing_else_is() -> None:
    async def scenario(bench: Bench) -> None:
        bench.switch.alone = 2
        await asyncio.sleep(gate_module.CHECK_INTERVAL_SECONDS + 1)
        assert bench.switch.log == ["resume", "pause", "take alone", "take alone", "resume"]
        assert bench.problem is None

    play(scenario)


def test_it_comes_first_when_a_worker_starts_and_not_before_the_dependencies_are_there() -> None:
    async def scenario(bench: Bench) -> None:
        bench.switch.alone = 1
        await asyncio.sleep(10)
        assert bench.switch.log == []
        bench.outage = None
        await asyncio.sleep(10)
        assert bench.switch.log == ["take alone", "resume"]

    play(scenario, away=True)


def test_an_outage_meanwhile_hands_it_back_and_takes_no_more() -> None:
    async def scenario(bench: Bench) -> None:
        def fail() -> None:
            bench.outage = AWAY
            bench.gate.trip(AWAY)

        bench.switch.alone, bench.switch.on_take = 2, fail
        await asyncio.sleep(60)
        assert bench.switch.log == ["resume", "pause", "take alone", "hand back STARTED"]
        bench.outage, bench.switch.on_take = None, lambda: None
        await asyncio.sleep(10)
        assert bench.switch.log[4:] == ["hand back STARTED", "take alone", "resume"]

    play(scenario)
