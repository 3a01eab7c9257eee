"""The supervisor with fake sessions, in virtual time: it heals for ever and says the truth."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from feedmill.broker.errors import SessionLost
from feedmill.broker.session import Delivery, Session
from feedmill.broker.supervisor import PART, STABLE_AFTER_SECONDS, Supervisor
from feedmill.settings import BrokerSettings
from support.fakes import ROUTE, FakeSession, VirtualLoop, make_instruments, run_virtual, turns, until

CUT = SessionLost("connection_closed", "cut")


class Intake:
    def __init__(self) -> None:
        self.taken: list[Delivery] = []
        self.forgotten: list[FakeSession] = []

    def take(self, delivery: Delivery) -> None:
        self.taken.append(delivery)

    def forget(self, session: FakeSession) -> None:
        assert not session.closed, "forgotten before anything else can settle on it"
        self.forgotten.append(session)


class Bench:
    def __init__(self, loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.instruments = make_instruments(PART)
        self.intake = Intake()
        self.sessions: list[FakeSession] = []
        self.opened_at: list[float] = []
        self.refuse = False
        self.open_seconds = 0.0
        self.prepare: Callable[[FakeSession], None] = lambda session: None
        self.supervisor = Supervisor(
            BrokerSettings(check_interval_seconds=1, reconnect_max_seconds=20), ROUTE, self.instruments, self.intake
        )
        self._loop = loop
        monkeypatch.setattr(time, "monotonic", loop.time)
        monkeypatch.setattr(Session, "open", self._open)

    async def _open(self, *_: object) -> FakeSession:
        self.opened_at.append(self._loop.time())
        await asyncio.sleep(self.open_seconds)
        if self.refuse:
            raise SessionLost("error", "refused")
        session = FakeSession()
        self.prepare(session)
        self.sessions.append(session)
        return session

    @property
    def session(self) -> FakeSession:
        return self.sessions[-1]

    @property
    def problem(self) -> str | None:
        return self.instruments.health.readiness()[PART]

    @property
    def pauses(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.opened_at, self.opened_at[1:], strict=False)]

    async def until_consuming(self) -> None:
        for _ in range(6000):
            if self.sessions and self.session.is_consuming and not self.session.is_lost:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("not consuming after a minute")


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a scenario with a supervisor; afterwards it is cancelled and its last session must be closed."""

    @asynccontextmanager
    async def running(loop: VirtualLoop) -> AsyncIterator[Bench]:
        bench = Bench(loop, monkeypatch)
        task = asyncio.create_task(bench.supervisor.run())
        yield bench
        assert not task.done(), "the supervisor never ends by itself"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(session.closed for session in bench.sessions)
        assert bench.intake.forgotten == bench.sessions

    def run(scenario: Callable[[Bench], object]) -> None:
        async def main(loop: VirtualLoop) -> None:
            async with running(loop) as bench:
                await scenario(bench)  # type: ignore[misc]

        with monkeypatch.context():
            run_virtual(main)
        monkeypatch.undo()

    return run


def test_it_starts_paused_and_consumes_once_resumed(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        await until(lambda: bool(bench.sessions))
        await turns()
        assert not bench.session.is_consuming
        assert bench.problem == "not started"
        await bench.supervisor.resume()
        assert bench.session.is_consuming
        assert bench.problem is None
        assert bench.instruments.metrics.consuming._value.get() == 1

    play(scenario)


def test_after_the_end_nothing_resumes_it(play: Callable[..., None]) -> None:
    """The gate may have started a resume at the very moment of SIGTERM; it is carried out after the pause."""

    async def scenario(bench: Bench) -> None:
        await bench.supervisor.resume()
        await bench.until_consuming()
        on_its_way = asyncio.ensure_future(bench.supervisor.resume())
        await bench.supervisor.end("shutting down")
        await on_its_way
        await bench.supervisor.resume()
        assert not bench.session.is_consuming
        assert bench.problem == "shutting down"

    play(scenario)


def test_resume_before_the_first_session_counts(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.resume()
        await bench.until_consuming()
        assert bench.problem is None

    play(scenario)


def test_a_lost_session_is_replaced_again_and_again(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.resume()
        for number in range(1, 30):
            await bench.until_consuming()
            assert bench.problem is None
            old = bench.session
            old.fail("connection_closed", "cut")
            await turns()
            assert "cut" in str(bench.problem)
            assert bench.instruments.metrics.consuming._value.get() == 0
            assert old.closed
            assert len(bench.intake.forgotten) == number
        await bench.until_consuming()

    play(scenario)


def test_delays_grow_to_the_cap_while_the_broker_is_away(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.refuse = True
        await bench.supervisor.resume()
        await asyncio.sleep(600)
        assert "refused" in str(bench.problem)
        assert bench.pauses[0] <= 0.2
        assert all(10 <= pause <= 20 for pause in bench.pauses[8:])
        assert len(bench.opened_at) < 60, "no hot loop"
        bench.refuse = False
        await bench.until_consuming()
        assert bench.problem is None

    play(scenario)


def test_delays_grow_too_where_each_try_times_out_slowly(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.refuse = True
        bench.open_seconds = STABLE_AFTER_SECONDS + 5
        await asyncio.sleep(1200)
        assert all(pause >= bench.open_seconds + 10 for pause in bench.pauses[8:])
        bench.open_seconds = 0
        await bench.supervisor.pause("over")

    play(scenario)


def test_a_session_that_lived_long_resets_the_delays(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.refuse = True
        await bench.supervisor.resume()
        await asyncio.sleep(100)
        bench.refuse = False
        await bench.until_consuming()
        await asyncio.sleep(STABLE_AFTER_SECONDS + 1)
        lost_at = asyncio.get_running_loop().time()
        bench.session.fail("cut")
        await turns()
        await bench.until_consuming()
        assert bench.opened_at[-1] - lost_at <= 0.2

    play(scenario)


def test_a_session_that_dies_at_once_does_not_reset_the_delays(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.prepare = lambda session: session.fail("consumer_cancelled")
        await bench.supervisor.resume()
        await asyncio.sleep(600)
        assert len(bench.opened_at) < 60

    play(scenario)


def test_a_check_that_finds_a_dead_session_heals_it(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.resume()
        await bench.until_consuming()
        old = bench.session
        old.on_check = lambda: old.fail("timeout", "check: no answer")
        await asyncio.sleep(2)
        await bench.until_consuming()
        assert bench.session is not old

    play(scenario)


def test_a_consumer_that_may_be_forgotten_is_renewed_but_not_while_paused(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.resume()
        await bench.until_consuming()
        await asyncio.sleep(5)
        assert bench.session.renewals == 0
        bench.session.may_be_forgotten = True
        await asyncio.sleep(1.5)
        assert bench.session.renewals == 1
        await bench.supervisor.pause("paused")
        await asyncio.sleep(5)
        assert bench.session.renewals == 1
        assert not bench.session.is_consuming
        assert len(bench.sessions) == 1

    play(scenario)


def test_a_session_lost_while_its_consumer_is_renewed_is_replaced(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.resume()
        await bench.until_consuming()
        first = bench.session

        async def lose() -> None:
            first.fail("channel_closed", "cut")
            raise CUT

        first.on_consume = lose
        first.may_be_forgotten = True
        await asyncio.sleep(3)
        await bench.until_consuming()
        assert len(bench.sessions) == 2

    play(scenario)


def test_pause_stops_consuming_and_the_next_session_respects_it(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.resume()
        await bench.until_consuming()
        await bench.supervisor.pause("paused: database away")
        assert not bench.session.is_consuming
        assert bench.problem == "paused: database away"
        bench.session.fail("cut")
        await until(lambda: bench.session.closed)
        await asyncio.sleep(1)
        assert len(bench.sessions) == 2
        assert not bench.session.is_consuming
        assert bench.problem == "paused: database away"
        await bench.supervisor.resume()
        assert bench.session.is_consuming

    play(scenario)


def test_pause_while_the_consumer_is_being_registered_wins(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        registering, may_go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            registering.set()
            await may_go_on.wait()

        def prepare(session: FakeSession) -> None:
            session.on_consume = slow

        bench.prepare = prepare
        await bench.supervisor.resume()
        await registering.wait()
        pausing = asyncio.create_task(bench.supervisor.pause("paused"))
        await turns()
        may_go_on.set()
        await pausing
        assert not bench.session.is_consuming
        assert bench.problem == "paused"

    play(scenario)


def test_readiness_does_not_hide_a_lost_broker_behind_a_resume(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.resume()
        await bench.until_consuming()
        bench.refuse = True
        bench.session.fail("cut")
        await turns()
        await bench.supervisor.pause("paused")
        await bench.supervisor.resume()
        assert bench.problem == "no session with the broker yet"

    play(scenario)


def test_a_session_lost_while_resuming_is_no_error(play: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        await until(lambda: bool(bench.sessions))
        await turns()

        async def lose() -> None:
            bench.session.fail("cut")
            raise CUT

        bench.session.on_consume = lose
        await bench.supervisor.resume()
        await bench.until_consuming()
        assert len(bench.sessions) == 2

    play(scenario)
