"""Whatever the broker does, the worker consumes again, and readiness told the truth meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from feedmill.broker.session import Delivery, Session
from feedmill.contract import Route
from feedmill.settings import BrokerSettings
from feedmill_local.rabbitmq import RabbitNode
from support.amqp import connect
from support.ci import queue_type
from support.echo import ROUTE, EchoHandler, echo_kind
from support.running import Running, running, settings

CONSUMER = "consumer"


async def broker_version(node: RabbitNode) -> tuple[int, ...]:
    """Major and minor."""
    told = await asyncio.to_thread(node.ctl, "eval", "rabbit_misc:version().")
    return tuple(int(part) for part in told.strip().strip('"').split(".")[:2])


async def answers(url: str, text: str) -> None:
    """One message goes in, its answer comes out."""

    def ask() -> None:
        with connect(url) as client:
            client.publish(ROUTE.exchange, ROUTE.queue, {"text": text}, delivery_mode=2)
            # Answers of earlier messages may come first, more than once where a session was lost.
            while client.take(ROUTE.result_queue)[0].json != {"echo": text}:
                pass

    await asyncio.to_thread(ask)


class Witness:
    """Sees every state of readiness that the worker ever reports."""

    def __init__(self, run: Running) -> None:
        self.problems: list[str | None] = []
        health = run.worker.health
        original = health.set

        def note(part: str, problem: str | None) -> None:
            if part == CONSUMER:
                self.problems.append(problem)
            original(part, problem)

        health.set = note  # type: ignore[method-assign]

    def saw_trouble_then_healed(self) -> bool:
        return any(self.problems) and self.problems[-1] is None


async def heals(url: str, disturb: Callable[[], object]) -> Witness:
    """A worker answers, is disturbed, says so, and answers again."""
    async with running(echo_kind(EchoHandler()), settings(url)) as run:
        await run.until_ready()
        await answers(url, "before")
        witness = Witness(run)
        await asyncio.to_thread(disturb)
        await run.until(witness.saw_trouble_then_healed, lambda: f"readiness said {witness.problems}")
        await run.until_ready()
        await answers(url, "after")
        await run.stop()
        return witness


async def heals_unheard(url: str, disturb: Callable[[], object]) -> None:
    """A worker answers again, though nothing tells it that it was disturbed."""
    async with running(echo_kind(EchoHandler()), settings(url)) as run:
        await run.until_ready()
        await answers(url, "before")
        await asyncio.to_thread(disturb)
        await answers(url, "after")
        await run.stop()


async def test_a_cut_connection_is_healed(rabbit_url: str, rabbit_node: RabbitNode) -> None:
    await heals(rabbit_url, lambda: rabbit_node.close_all_connections("cut by the test"))


async def test_a_broker_that_is_killed_and_comes_back_is_healed(rabbit_url: str, rabbit_node: RabbitNode) -> None:
    def disturb() -> None:
        rabbit_node.kill()
        rabbit_node.boot()

    await heals(rabbit_url, disturb)


async def test_a_broker_that_is_stopped_and_started_is_healed(rabbit_url: str, rabbit_node: RabbitNode) -> None:
    def disturb() -> None:
        rabbit_node.stop()
        rabbit_node.boot()

    await heals(rabbit_url, disturb)


async def test_a_deleted_queue_is_made_again(rabbit_url: str) -> None:
    """The broker sends basic.cancel."""

    def disturb() -> None:
        with connect(rabbit_url) as client:
            client.channel.queue_delete(ROUTE.queue)

    witness = await heals(rabbit_url, disturb)
    assert "cancelled" in str(witness.problems)


async def test_a_queue_deleted_and_made_again_by_others_is_consumed(rabbit_url: str) -> None:
    def disturb() -> None:
        with connect(rabbit_url) as client:
            client.channel.queue_delete(ROUTE.queue)
            client.channel.queue_declare(ROUTE.queue, durable=True, arguments={"x-max-priority": 3})
            client.channel.queue_bind(ROUTE.queue, ROUTE.exchange, ROUTE.queue)

    await heals(rabbit_url, disturb)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_a_queue_deleted_and_made_again_in_a_moment_is_consumed(
    rabbit_url: str, rabbit_node: RabbitNode, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedmill.broker.session.RENEW_IDLE_SECONDS", 2.0)
    arguments = {"x-queue-type": kind}
    with connect(rabbit_url) as client:
        client.channel.queue_declare(ROUTE.queue, durable=True, arguments=arguments)

    def disturb() -> None:
        with connect(rabbit_url) as client:
            client.channel.queue_delete(ROUTE.queue)
            client.channel.queue_declare(ROUTE.queue, durable=True, arguments=arguments)
            client.channel.queue_bind(ROUTE.queue, ROUTE.exchange, ROUTE.queue)
            client.publish(ROUTE.exchange, ROUTE.queue, {"text": "meanwhile"})

    if kind == "quorum" and (await broker_version(rabbit_node)) < (4, 0):
        await heals_unheard(rabbit_url, disturb)
    else:
        await heals(rabbit_url, disturb)


async def test_a_consumer_that_is_idle_is_renewed_without_a_gap(
    rabbit_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedmill.broker.session.RENEW_IDLE_SECONDS", 0.0)
    monkeypatch.setattr("feedmill.broker.session.TELLS_OF_REMADE_QUEUES", 99)
    renewals: list[Session] = []
    renew = Session.renew

    async def counted(session: Session, on_delivery: Callable[[Delivery], None]) -> None:
        await renew(session, on_delivery)
        renewals.append(session)

    monkeypatch.setattr(Session, "renew", counted)
    async with running(echo_kind(EchoHandler()), settings(rabbit_url)) as run:
        await run.until_ready()
        witness = Witness(run)
        for number in range(6):
            await answers(rabbit_url, f"number {number}")
            await run.until(lambda number=number: len(renewals) > number, lambda: "never renewed")
        assert len(set(renewals)) == 1, "the session outlives its channels"
        assert not any(witness.problems)
        await run.stop()


async def test_a_channel_closed_by_the_broker_is_healed(rabbit_url: str, sessions: list[Session]) -> None:
    """An ack of something that was never delivered: PRECONDITION_FAILED closes the channel."""
    async with running(echo_kind(EchoHandler()), settings(rabbit_url)) as run:
        await run.until_ready()
        await answers(rabbit_url, "before")
        witness = Witness(run)
        await sessions[-1]._consume_channel.basic_ack(987_654, wait=False)
        await run.until(witness.saw_trouble_then_healed, lambda: f"readiness said {witness.problems}")
        await answers(rabbit_url, "after")


async def test_a_consumer_timeout_is_healed(rabbit_url: str, rabbit_node: RabbitNode) -> None:
    """The broker takes the channel, or from 4.3 on the consumer, from who holds a message too long."""
    if queue_type() == "classic" and (await broker_version(rabbit_node)) >= (4, 3):
        pytest.skip("from 4.3 on RabbitMQ has no consumer timeout for classic queues")
    handler = EchoHandler()
    before = await asyncio.to_thread(rabbit_node.ctl, "eval", SHORT_CONSUMER_TIMEOUT)
    try:
        async with running(echo_kind(handler), settings(rabbit_url)) as run:
            await run.until_ready()
            witness = Witness(run)
            handler.may_infer.clear()
            await asyncio.to_thread(publish, rabbit_url, "slow")
            await run.until(witness.saw_trouble_then_healed, lambda: f"readiness said {witness.problems}")
            handler.may_infer.set()
            await answers(rabbit_url, "after")
    finally:
        await asyncio.to_thread(rabbit_node.ctl, "eval", NORMAL_CONSUMER_TIMEOUT)
    assert "ok" in before


SHORT_CONSUMER_TIMEOUT = (
    "application:set_env(rabbit, consumer_timeout, 1000), application:set_env(rabbit, channel_tick_interval, 500)."
)
NORMAL_CONSUMER_TIMEOUT = (
    "application:set_env(rabbit, consumer_timeout, 1800000), application:set_env(rabbit, channel_tick_interval, 60000)."
)


async def test_a_broker_that_is_not_there_yet_is_waited_for(rabbit_url: str, rabbit_node: RabbitNode) -> None:
    await asyncio.to_thread(rabbit_node.stop)
    try:
        async with running(echo_kind(EchoHandler()), settings(rabbit_url)) as run:
            await run.until(
                lambda: "no session" in str(run.worker.health.readiness()[CONSUMER]), lambda: "never noticed"
            )
            assert run.worker.health.liveness() == []
            await asyncio.to_thread(rabbit_node.boot)
            await run.until_ready()
            await answers(rabbit_url, "at last")
    finally:
        if not rabbit_node.alive():
            await asyncio.to_thread(rabbit_node.boot)


async def test_a_memory_alarm_stops_intake_and_loses_nothing(rabbit_url: str, rabbit_node: RabbitNode) -> None:
    """A broker under a memory alarm confirms nothing but the first message of a new connection.

    No message is taken, and the worker is never ready in between, until it confirms again.
    """
    quick = settings(rabbit_url, operation_timeout_seconds=1)
    async with running(echo_kind(EchoHandler()), quick) as run:
        await run.until_ready()
        await answers(rabbit_url, "before")
        witness = Witness(run)
        await asyncio.to_thread(rabbit_node.ctl, "set_vm_memory_high_watermark", "absolute", "1")
        try:
            await run.until(lambda: any(witness.problems), lambda: "readiness never told")
            told = len(witness.problems)
            await run.until(lambda: len(witness.problems) >= told + 4, lambda: "no new session was tried")
            assert all(witness.problems[told:]), "ready under the alarm"
        finally:
            await asyncio.to_thread(rabbit_node.ctl, "set_vm_memory_high_watermark", "absolute", "2GB")
        await run.until_ready()
        await answers(rabbit_url, "after")


@pytest.mark.parametrize("password", ["wrong", "s3cret/with@signs"])
async def test_refused_credentials_are_told_without_being_shown(
    rabbit_url: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    from urllib.parse import quote, urlsplit

    parts = urlsplit(rabbit_url)
    url = f"amqp://{parts.username}:{quote(password, safe='')}@{parts.hostname}:{parts.port}{parts.path}"
    async with running(echo_kind(EchoHandler()), settings(url)) as run:
        await run.until(lambda: "REFUSED" in str(run.worker.health.readiness()[CONSUMER]).upper())
        told = str(run.worker.health.readiness()) + caplog.text
    assert password not in told
    assert quote(password, safe="") not in told


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """Every session that is opened, in order: to make the broker close a channel."""
    opened: list[Session] = []
    open_session = Session.open

    async def note(broker: BrokerSettings, route: Route) -> Session:
        opened.append(await open_session(broker, route))
        return opened[-1]

    monkeypatch.setattr(Session, "open", note)
    return opened


def publish(url: str, *texts: str) -> None:
    with connect(url) as client:
        for text in texts:
            client.publish(ROUTE.exchange, ROUTE.queue, {"text": text}, delivery_mode=2)
