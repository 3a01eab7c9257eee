"""Between the stable worker and a rollout's candidate: handing messages over, sending copies, judging copies.

Nothing that happens to a candidate may cost a message. A hand-over is confirmed before the message is acked; where no
candidate's queue takes it, the stable worker handles it after all; what fails at the candidate goes back to the stable
worker (:mod:`feedmill.broker.settle`), which never hands over a message that has failed before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from feedmill.broker import letters
from feedmill.broker.answer import Answer, ack
from feedmill.broker.errors import SessionLost, Undeliverable
from feedmill.broker.session import Delivery
from feedmill.contract import Route
from feedmill.errors import MessageError, Reject
from feedmill.metrics import Metrics
from feedmill.routing import RoutingFile, bucket
from feedmill.throttle import ThrottledLog
from feedmill.wire import encode_object

log = logging.getLogger(__name__)

VERDICT_FIELDS = ("isToxic", "labels", "model", "space")
"""What of a result goes with the copy: what was judged, never the text."""
MAX_SHADOW_ATTEMPTS = 5
MAX_SHADOW_RETURNS = 3


class Forwarder:
    """The stable worker's side."""

    def __init__(self, route: Route, routing: RoutingFile, mirror_ttl_seconds: int, metrics: Metrics) -> None:
        self._route = route
        self._routing = routing
        self._mirror_ttl_seconds = mirror_ttl_seconds
        self._metrics = metrics
        self._throttled = ThrottledLog(log)

    @property
    def mirrors(self) -> bool:
        return self._routing.current.mirrors

    def takes(self, body: Mapping[str, Any], delivery: Delivery) -> bool:
        """Whether this message is the candidate's. One that has failed before never is: it may have failed there."""
        routing = self._routing.current
        if routing.mode != "share" or letters.attempts(delivery.properties):
            return False
        return routing.takes(bucket(body, delivery.body))

    async def hand_over(self, delivery: Delivery) -> bool:
        """Give the message to the candidate, confirmed; False where no queue takes it. Raises SessionLost."""
        properties = letters.handed_over_properties(self._route, delivery)
        try:
            await delivery.session.publish("", self._route.candidate_queue, delivery.body, properties)
        except Undeliverable as error:
            self._metrics.not_taken.inc()
            self._throttled.log(logging.WARNING, "hand-over", "no candidate takes a message, handled here: %s", error)
            return False
        return True

    async def mirror(self, delivery: Delivery, result: Mapping[str, Any]) -> None:
        """Send a copy with the own verdict. Where no queue takes it, that is counted, no more. Raises SessionLost."""
        properties = letters.mirrored_properties(self._route, delivery, _verdict(result), self._mirror_ttl_seconds)
        try:
            await delivery.session.publish("", self._route.candidate_queue, delivery.body, properties)
        except Undeliverable as error:
            self._metrics.mirrored("not_taken")
            self._throttled.log(logging.WARNING, "mirror", "no candidate takes a copy: %s", error)
        else:
            self._metrics.mirrored("sent")


def _verdict(result: Mapping[str, Any]) -> str:
    """The verdict as JSON; an empty object where it is too large for a header."""
    encoded = encode_object({name: result[name] for name in VERDICT_FIELDS if name in result})
    return encoded.decode() if len(encoded) <= letters.MAX_VERDICT_BYTES else "{}"


class ShadowSettler:
    """In place of :class:`~feedmill.broker.settle.Settler` where copies are judged: publishes no result.

    A verdict is compared with the stable worker's. What fails for now is tried again from the candidate's own queue, a
    few times; what fails for good is counted and gone: the stable worker has long answered it.
    """

    def __init__(self, route: Route, metrics: Metrics) -> None:
        self._route = route
        self._metrics = metrics

    def is_last(self, attempt: int) -> bool:
        return attempt >= MAX_SHADOW_ATTEMPTS

    def check_returns(self, delivery: Delivery) -> None:
        """A copy that may end its workers is given up. Raises Reject."""
        if (count := letters.returns(delivery)) >= MAX_SHADOW_RETURNS:
            raise Reject("returned_too_often", f"it came back {count} times")

    def takes(self, _body: Mapping[str, Any], delivery: Delivery) -> bool:
        """Whether this is no copy but a message that nobody has handled yet: it was handed over in an earlier step."""
        return not letters.is_copy(delivery.properties)

    async def hand_over(self, delivery: Delivery) -> bool:
        """Give such a message back to the stable worker. Raises SessionLost: it stays in the queue, come what may."""
        properties = letters.returned_properties(self._route, delivery)
        try:
            await delivery.session.publish("", self._route.queue, delivery.body, properties)
        except Undeliverable as error:
            delivery.session.fail("undeliverable", str(error))
            raise SessionLost("undeliverable", str(error)) from error
        return True

    async def publish_results(self, answers: Sequence[Answer]) -> list[MessageError | None]:
        """Compare; publish nothing."""
        for answer in answers:
            compared, drift = compare(answer.delivery, answer.result)
            self._metrics.compared(compared)
            if drift is not None:
                self._metrics.score_drift.observe(drift)
        return [None] * len(answers)

    async def publish_failure(self, delivery: Delivery, failure: MessageError) -> str:
        """Try again or give up; answer which: ``retried`` or ``dropped``. Raises SessionLost."""
        if isinstance(failure, Reject) or self.is_last(letters.attempts(delivery.properties)):
            return "dropped"
        properties = letters.shadow_retry_properties(self._route, delivery, failure)
        try:
            await delivery.session.publish("", self._route.consumed, delivery.body, properties)
        except Undeliverable:
            return "dropped"
        return "retried"

    @staticmethod
    async def ack(deliveries: Sequence[Delivery]) -> None:
        await ack(deliveries)

    @staticmethod
    async def hand_back(delivery: Delivery) -> None:
        await delivery.session.hand_back(delivery)


def compare(delivery: Delivery, result: Mapping[str, Any]) -> tuple[str, float | None]:
    """``same``, ``different`` or ``unknown`` verdict, and the largest difference of a score of a label both have.

    ``unknown``: the message brought no verdict, or there is none to compare (an encoder's result).
    """
    stable = letters.mirrored_verdict(delivery.properties)
    if not isinstance(stable.get("isToxic"), bool) or not isinstance(result.get("isToxic"), bool):
        return "unknown", None
    agreement = "same" if stable["isToxic"] == result["isToxic"] else "different"
    theirs, ours = stable.get("labels"), result.get("labels")
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return agreement, None
    differences = [abs(float(ours[name]) - float(theirs[name])) for name in ours if _is_number(theirs.get(name))]
    return agreement, max(differences, default=None)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
