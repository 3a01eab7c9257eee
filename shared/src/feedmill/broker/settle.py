"""How a message ends here: answered, retried, buried or handed back. The one place where messages are acked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from feedmill.broker import letters
from feedmill.broker.candidate import Forwarder
from feedmill.broker.errors import SessionLost, Undeliverable
from feedmill.broker.session import Delivery
from feedmill.contract import Route
from feedmill.errors import MessageError, Reject, Retry
from feedmill.settings import BrokerSettings
from feedmill.wire import encode_object

log = logging.getLogger(__name__)


class Settler:
    """Publishes what a message leads to, and only then acks it. Every method may raise SessionLost: it comes again."""

    def __init__(
        self,
        settings: BrokerSettings,
        route: Route,
        forwarder: Forwarder | None = None,
        *,
        is_candidate: bool = False,
    ) -> None:
        self._settings = settings
        self._route = route
        self._forwarder = forwarder
        self._is_candidate = is_candidate

    def is_last(self, attempt: int) -> bool:
        """Whether a message that fails at this attempt (0 is the first) is tried no more."""
        return attempt >= len(self._settings.retry_delays_seconds)

    def takes(self, body: Mapping[str, Any], delivery: Delivery) -> bool:
        """Whether this message is not to be handled here: a rollout's candidate shall, or, at a candidate, the stable
        worker has done so (a copy that an earlier step of the rollout left in the queue)."""
        if self._is_candidate:
            return letters.is_copy(delivery.properties)
        return self._forwarder is not None and self._forwarder.takes(body, delivery)

    async def hand_over(self, delivery: Delivery) -> bool:
        """Give a message to the candidate, confirmed; False where it has to be handled here after all. A candidate just
        drops the copy."""
        if self._is_candidate:
            return True
        return self._forwarder is not None and await self._forwarder.hand_over(delivery)

    async def publish_result(self, delivery: Delivery, result: Mapping[str, Any], trace: Mapping[str, Any]) -> None:
        """Publish a result; where no queue takes it, declare what is missing and try once more.

        Raises:
            Reject: the result is larger than results may be.
            Retry: still no queue takes it.
        """
        properties = letters.result_properties(self._route, delivery, trace)
        body = encode_object(result)
        if len(body) > self._settings.max_result_bytes:
            limit = self._settings.max_result_bytes
            raise Reject("result_too_large", f"the result has {len(body)} bytes, expected at most {limit}")
        if self._forwarder is not None and self._forwarder.mirrors:
            # Before the ack, in flight together with the result: a copy is lost no more easily than a result.
            await asyncio.gather(self._publish(delivery, body, properties), self._forwarder.mirror(delivery, result))
        else:
            await self._publish(delivery, body, properties)

    async def _publish(self, delivery: Delivery, body: bytes, properties: Any) -> None:
        try:
            await self._to_results(delivery, body, properties)
        except Undeliverable as first:
            log.warning("result not delivered (%s): declaring queues again", first)
            await delivery.session.repair()
            try:
                await self._to_results(delivery, body, properties)
            except Undeliverable as second:
                raise Retry("result_undeliverable", str(second)) from second

    async def _to_results(self, delivery: Delivery, body: bytes, properties: Any) -> None:
        await delivery.session.publish(self._route.exchange, self._route.result_queue, body, properties)

    async def publish_failure(self, delivery: Delivery, failure: MessageError) -> str:
        """Publish the next try or the dead letter; answer which: ``retried``, ``dead`` or ``given_back``."""
        attempt = letters.attempts(delivery.properties)
        if self._is_candidate:
            return await self._give_back(delivery, failure)
        if isinstance(failure, Reject) or self.is_last(attempt):
            await self._republish(
                delivery, self._route.dead_queue, letters.dead_properties(self._route, delivery, failure)
            )
            return "dead"
        delay = self._settings.retry_delays_seconds[attempt]
        properties = letters.retry_properties(self._route, delivery, failure, delay)
        await self._republish(delivery, self._route.retry_queue(delay), properties)
        return "retried"

    async def _give_back(self, delivery: Delivery, failure: MessageError) -> str:
        """What fails at a candidate, in whatever way, is the stable worker's to judge: a new model buries nothing."""
        delays = self._settings.retry_delays_seconds
        properties = letters.retry_properties(self._route, delivery, failure, delays[0] if delays else 1)
        await self._republish(delivery, self._route.retry_queue(delays[0]) if delays else self._route.queue, properties)
        return "given_back"

    async def _republish(self, delivery: Delivery, queue: str, properties: Any) -> None:
        """Publish a message again, whole. Where even that finds no queue, the session ends: nothing may be lost."""
        for is_last in (False, True):
            try:
                await delivery.session.publish("", queue, delivery.body, properties)
            except Undeliverable as error:
                if is_last:
                    delivery.session.fail("undeliverable", str(error))
                    raise SessionLost("undeliverable", str(error)) from error
                await delivery.session.repair()
            else:
                return

    @staticmethod
    async def ack(delivery: Delivery) -> None:
        await delivery.session.ack(delivery)

    @staticmethod
    async def hand_back(delivery: Delivery) -> None:
        await delivery.session.hand_back(delivery)
