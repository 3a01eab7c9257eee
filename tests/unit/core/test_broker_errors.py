"""What breaks in the client library becomes a lost session, and nothing else does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aio_pika.exceptions import AMQPConnectionError, ChannelInvalidStateError, DeliveryError
from aiormq.abc import DeliveredMessage
from aiormq.base import FutureStore
from aiormq.exceptions import PublishError
from pamqp.commands import Basic
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader

from feedmill.broker import topology
from feedmill.broker.connect import open_channel, tls_context
from feedmill.broker.errors import SessionLost, Undeliverable, describe, guard
from feedmill.broker.publisher import Publisher
from feedmill.errors import SettingsError
from feedmill.settings import BrokerSettings
from support.fakes import ROUTE, VirtualLoop, run_virtual, turns


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TimeoutError(), "timeout"),
        (AMQPConnectionError("gone"), "error"),
        (ChannelInvalidStateError("closed"), "error"),
        (PAMQPException("bad frame"), "error"),
        (ConnectionResetError("reset"), "error"),
        (asyncio.CancelledError(), "closed"),
    ],
)
async def test_the_library_s_errors_are_a_lost_session(error: BaseException, cause: str) -> None:
    with pytest.raises(SessionLost) as caught:
        async with guard("publish", 1):
            raise error
    assert caught.value.cause == cause
    assert caught.value.detail.startswith("publish: ")


async def test_what_the_library_throws_without_a_reason_is_a_lost_session() -> None:
    """Found by a worker that was stopped (SIGSTOP) for longer than the broker's patience, and went on."""
    calls = FutureStore(asyncio.get_running_loop())

    async def call() -> None:
        async with guard("check", 60):
            await calls.create_task(asyncio.sleep(60))

    task = asyncio.create_task(call())
    await turns()
    await calls.reject_all(None)
    with pytest.raises(SessionLost, match="closed: check: the channel was closed"):
        await task


async def test_bugs_pass() -> None:
    for error in (ZeroDivisionError(), RuntimeError("a bug"), TypeError()):
        with pytest.raises(type(error)):
            async with guard("publish", 1):
                raise error


def test_a_wait_ends_in_time() -> None:
    async def main(loop: VirtualLoop) -> None:
        with pytest.raises(SessionLost, match="timeout: publish: no answer within 15 s"):
            async with guard("publish", 15):
                await asyncio.Event().wait()
        assert loop.time() == pytest.approx(15)

    run_virtual(main)


async def test_a_real_cancellation_passes() -> None:
    async def work() -> None:
        async with guard("publish", 60):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def swallowing(outcome: Exception | None) -> None:
    """As the client library may do: it was cancelled, and answers or fails all the same."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if outcome:
            raise outcome from None


@pytest.mark.parametrize("outcome", [None, AMQPConnectionError("gone"), SessionLost("closed"), TimeoutError()], ids=str)
async def test_a_cancellation_that_the_library_swallowed_is_told(outcome: Exception | None) -> None:
    async def work() -> None:
        async with guard("publish", 60):
            await swallowing(outcome)

    task = asyncio.create_task(work())
    await turns()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_what_is_cleaned_up_after_a_cancellation_is_not_cancelled_again() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            async with guard("close", 60):
                await asyncio.sleep(0)
                cleaned.append("with an answer")
            with pytest.raises(SessionLost):
                async with guard("close", 60):
                    raise asyncio.CancelledError

    task = asyncio.create_task(work())
    await turns()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert cleaned


def test_an_answer_at_the_last_moment_counts() -> None:
    """The guard's own timeout is no cancellation by the caller."""

    async def main(_: VirtualLoop) -> None:
        async with guard("publish", 15):
            await swallowing(None)

    run_virtual(main)


def test_descriptions_are_short_and_without_credentials() -> None:
    assert describe(None) == "closed"
    text = describe(OSError("can't reach amqp://u:hunter2@h\n" + "x" * 900))
    assert "hunter2" not in text
    assert len(text) <= 300 + len("…")


class ClosedConnection:
    """As the client library behaves once the connection is gone."""

    def channel(self, **_: Any) -> Any:
        raise RuntimeError("Connection was not opened")


async def test_a_connection_lost_between_two_declarations_is_no_bug() -> None:
    connection: Any = ClosedConnection()
    with pytest.raises(SessionLost, match="connection_closed"):
        await open_channel(connection, confirms=True)
    with pytest.raises(SessionLost, match="connection_closed"):
        await topology.declare(connection, ROUTE, BrokerSettings())


class SilentChannel:
    """One on which the broker answers to nothing, the end included."""

    async def initialize(self) -> None: ...

    async def get_underlay_channel(self) -> SilentChannel:
        return self

    async def exchange_declare(self, *_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        await asyncio.Event().wait()


class SilentConnection:
    def channel(self, **_: Any) -> Any:
        return SilentChannel()


def test_a_declaration_that_is_never_answered_ends_in_time() -> None:
    async def main(loop: VirtualLoop) -> None:
        connection: Any = SilentConnection()
        with pytest.raises(SessionLost, match="timeout: declare exchange"):
            await topology.declare(connection, ROUTE, BrokerSettings(operation_timeout_seconds=5))
        assert loop.time() == pytest.approx(5)

    run_virtual(main)


def test_an_unreadable_certificate_names_its_setting() -> None:
    assert tls_context(BrokerSettings()) is None
    with pytest.raises(SettingsError, match=r"^RABBITMQ_CA_FILE: expected a readable PEM file"):
        tls_context(BrokerSettings(url="amqps://h/", tls_ca_file="/nowhere.pem"))
    assert tls_context(BrokerSettings(url="amqps://h/")).check_hostname


# ---- the publisher


class Channel:
    """Publishes are in flight until :meth:`confirm`."""

    def __init__(self) -> None:
        self.in_flight: list[asyncio.Future[None]] = []
        self.ids: list[str] = []

    async def basic_publish(self, body: bytes, *, properties: Basic.Properties, mandatory: bool, **_: Any) -> None:
        assert mandatory
        future = asyncio.get_running_loop().create_future()
        self.in_flight.append(future)
        self.ids.append(str(properties.message_id))
        await future


def publisher(channel: Channel, timeout_seconds: float = 15) -> Publisher:
    it: Any = channel
    return Publisher(it, timeout_seconds)


def publish(it: Publisher, message_id: str) -> asyncio.Task[None]:
    return asyncio.create_task(it.publish("", "q", b"", Basic.Properties(message_id=message_id)))


async def test_confirms_are_in_flight_together_but_one_at_a_time_for_each_id() -> None:
    channel = Channel()
    it = publisher(channel)
    tasks = [publish(it, message_id) for message_id in ("a", "b", "a", "a")]
    await turns()
    assert channel.ids == ["a", "b"]
    channel.in_flight[0].set_result(None)
    await turns()
    assert channel.ids == ["a", "b", "a"]
    channel.in_flight[1].set_result(None)
    channel.in_flight[2].set_result(None)
    await turns()
    channel.in_flight[3].set_result(None)
    await asyncio.gather(*tasks)


def returned() -> PublishError:
    frame = Basic.Return(312, "NO_ROUTE", "", "q")
    return PublishError(DeliveredMessage(frame, ContentHeader(), b"", None), frame)


async def test_a_returned_message_is_undeliverable_and_lets_the_next_go() -> None:
    channel = Channel()
    it = publisher(channel)
    first, second = publish(it, "a"), publish(it, "a")
    await turns()
    channel.in_flight[0].set_exception(returned())
    with pytest.raises(Undeliverable, match="no queue is bound"):
        await first
    await turns()
    channel.in_flight[1].set_exception(DeliveryError(None, Basic.Nack()))
    with pytest.raises(Undeliverable, match="refused by a queue"):
        await second


def test_a_publish_that_is_never_confirmed_ends_and_so_do_those_behind_it() -> None:
    async def main(loop: VirtualLoop) -> None:
        it = publisher(Channel())
        outcomes = await asyncio.gather(*(publish(it, "a") for _ in range(5)), return_exceptions=True)
        assert all(isinstance(outcome, SessionLost) for outcome in outcomes)
        assert loop.time() == pytest.approx(15)

    run_virtual(main)


async def test_a_message_without_an_id_is_refused() -> None:
    with pytest.raises(ValueError, match="message_id"):
        await publisher(Channel()).publish("", "q", b"", Basic.Properties())
