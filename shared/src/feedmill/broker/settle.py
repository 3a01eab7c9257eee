"""How a message ends here: answered, retried, buried or handed back. The one place where messages are acked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from feedmill.broker import letters
from feedmill.broker.answer import Answer, ack
from feedmill.broker.candidate import Forwarder
from feedmill.broker.errors import SessionLost, Undeliverable
from feedmill.broker.publisher import Letter
from feedmill.broker.session import Delivery
from feedmill.contract import Route
from feedmill.errors import MessageError, Reject, Retry, Suspect
from feedmill.settings import BrokerSettings
from feedmill.wire import encode_object

log = logging.getLogger(__name__)

RETURNED_TOO_OFTEN = "returned_too_often"


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

    def check_returns(self, delivery: Delivery) -> None:
        """Stop a message that came back too often: whoever takes it may end by it, and those beside it come back too.

        Raises:
            Suspect: it is to be handled alone.
            Reject: it came back too often even so, when nothing but itself can have been the cause.
        """
        if (count := letters.returns(delivery)) < self._settings.max_returns:
            return
        if self._is_candidate and letters.is_copy(delivery.properties):
            return  # dropped in any case
        if delivery.is_alone:
            raise Reject(RETURNED_TOO_OFTEN, f"it came back {count} times from workers that had no other in hand")
        raise Suspect(RETURNED_TOO_OFTEN, f"it came back {count} times")

    def takes(self, body: Mapping[str, Any], delivery: Delivery) -> bool:
        """Whether this message is not to be handled here: a rollout's candidate shall, or, at a candidate, the stable
        worker has done so (a copy that an earlier step of the rollout left in the queue)."""
        if self._is_candidate:
            return letters.is_copy(delivery.properties)
        return not delivery.is_alone and self._forwarder is not None and self._forwarder.takes(body, delivery)

    async def hand_over(self, delivery: Delivery) -> bool:
        """Give a message to the candidate, confirmed; False where it has to be handled here after all. A candidate just
        drops the copy."""
        if self._is_candidate:
            return True
        return self._forwarder is not None and await self._forwarder.hand_over(delivery)

    async def publish_results(self, answers: Sequence[Answer]) -> list[MessageError | None]:
        """Publish the results of messages of one session, all confirms in flight together.

        Answers for each, in order, None where its result is confirmed, else why not: Reject, the result is larger than
        results may be; Retry, no queue takes it although what is missing was declared, or it can't be encoded.
        """
        failures: list[MessageError | None] = [None] * len(answers)
        sound: list[tuple[int, Letter]] = []
        for position, answer in enumerate(answers):
            letter = self._letter(answer)
            if isinstance(letter, MessageError):
                failures[position] = letter
            else:
                sound.append((position, letter))
        if sound:
            outcomes = await self._publish_results([(answers[position], letter) for position, letter in sound])
            for (position, _), failure in zip(sound, outcomes, strict=True):
                failures[position] = failure
        return failures

    def _letter(self, answer: Answer) -> Letter | MessageError:
        try:
            properties = letters.result_properties(self._route, answer.delivery, answer.trace)
            body = encode_object(answer.result)
        except Exception as error:  # a result that can't be encoded: a bug, but one message's, not the worker's
            log.exception("answering a message failed")
            return internal_error(error)
        if len(body) > (limit := self._settings.max_result_bytes):
            return Reject("result_too_large", f"the result has {len(body)} bytes, expected at most {limit}")
        return Letter(self._route.exchange, self._route.result_queue, body, properties)

    async def _publish_results(self, given: Sequence[tuple[Answer, Letter]]) -> list[MessageError | None]:
        session = given[0][0].delivery.session
        publishing = session.publish_all([letter for _, letter in given])
        if self._forwarder is None or not self._forwarder.mirrors:
            refused = await publishing
            failures: list[MessageError | None] = [None] * len(given)
        else:
            # Before the ack, in flight together with the results: a copy is lost no more easily than a result.
            mirroring = asyncio.gather(*(self._mirror(self._forwarder, answer) for answer, _ in given))
            refused, failures = await asyncio.gather(publishing, mirroring)
        again = [position for position, refusal in enumerate(refused) if refusal is not None]
        if again:
            log.warning("%d results not delivered (%s): declaring queues again", len(again), refused[again[0]])
            await session.repair()
            refused = await session.publish_all([given[position][1] for position in again])
            for position, refusal in zip(again, refused, strict=True):
                if refusal is not None:
                    failures[position] = Retry("result_undeliverable", str(refusal))
        return failures

    @staticmethod
    async def _mirror(forwarder: Forwarder, answer: Answer) -> MessageError | None:
        try:
            await forwarder.mirror(answer.delivery, answer.result)
        except SessionLost:
            raise
        except Exception as error:
            log.exception("mirroring a message failed")
            return internal_error(error)
        return None

    async def publish_failure(self, delivery: Delivery, failure: MessageError) -> str:
        """Publish the next try or the dead letter; answer which: ``retried``, ``dead``, ``given_back``
        or ``set_apart``."""
        attempt = letters.attempts(delivery.properties)
        if self._is_candidate:
            return await self._give_back(delivery, failure)
        if isinstance(failure, Suspect) and await self._set_apart(delivery):
            return "set_apart"
        if isinstance(failure, Reject) or self.is_last(attempt):
            await self._republish(
                delivery, self._route.dead_queue, letters.dead_properties(self._route, delivery, failure)
            )
            return "dead"
        delay = self._settings.retry_delays_seconds[attempt]
        properties = letters.retry_properties(self._route, delivery, failure, delay)
        await self._republish(delivery, self._route.retry_queue(delay), properties)
        return "retried"

    async def _set_apart(self, delivery: Delivery) -> bool:
        """Publish it to the queue for what is handled alone, made on its first use; False where that can't be had. Then
        it is tried again later, a bounded number of times, as a new message to the broker."""
        properties = letters.returned_properties(self._route, delivery)
        for is_last in (False, True):
            try:
                await delivery.session.publish("", self._route.alone_queue, delivery.body, properties)
            except Undeliverable as error:
                if is_last:
                    log.warning("a message that came back too often can't be set apart: %s", error)
                else:
                    await delivery.session.declare_alone()
            else:
                return True
        return False

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
    async def ack(deliveries: Sequence[Delivery]) -> None:
        await ack(deliveries)

    async def hand_back(self, delivery: Delivery) -> None:
        """Return a message to its queue. That costs it nothing: before such returns add up to suspicion, or to the
        broker's limit, it is published as a new one. Raises SessionLost."""
        if letters.returns(delivery) + 1 < self._settings.max_returns:
            await delivery.session.hand_back(delivery)
            return
        queue = self._route.alone_queue if delivery.is_alone else self._route.consumed
        await self._republish(delivery, queue, letters.returned_properties(self._route, delivery))
        await ack([delivery])


def internal_error(error: Exception) -> Retry:
    """What a bug makes of the message that it met."""
    return Retry("internal_error", f"{type(error).__name__} while answering")
