"""What is published for a message: its result, its next try, or its dead letter. Pure functions."""

from __future__ import annotations

import random
import struct
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson
from pamqp import encode
from pamqp.commands import Basic

from feedmill.broker.session import Delivery
from feedmill.contract import Route
from feedmill.errors import MessageError

ATTEMPT = "x-feedmill-attempt"
REASON = "x-feedmill-reason"
DETAIL = "x-feedmill-detail"
FIRST_FAILED_AT = "x-feedmill-first-failed-at"
DEAD_AT = "x-feedmill-dead-at"
QUEUE = "x-feedmill-queue"
EXCHANGE = "x-feedmill-exchange"
ROUTING_KEY = "x-feedmill-routing-key"
DROPPED_HEADERS = "x-feedmill-headers-dropped"
OWN_PREFIX = "x-feedmill-"
VERDICT = "x-feedmill-verdict"
"""On a copy for a candidate: what the stable worker made of the message, as JSON."""
MAX_VERDICT_BYTES = 8192

TRACE_HEADERS = frozenset({"traceparent", "tracestate", "baggage", "b3", "x-request-id", "x-correlation-id"})
"""What comes back on the result; also every header that starts with ``x-b3-``."""

MAX_HEADER_BYTES = 32_768
"""Foreign headers above this are dropped from what is published: a header frame above the connection's frame limit
(128 KiB by default) would close it, and the message would come again and close it again."""

DELIVERY_COUNT = "x-delivery-count"
"""The broker's own, on what comes from a quorum queue: how often the message came back to it. 3.10 and 4.0 count every
return, 4.3 none by nack. Above the queue's limit (20 by default from 4.0 on) the broker drops the message, or
dead-letters it where somebody has told it to."""

NOT_CARRIED = frozenset({"cc", "bcc", "x-death", DELIVERY_COUNT, "x-acquired-count"})
"""Headers that the broker acts upon or writes: the first two send copies; by x-death, its record of dead-lettering, it
may take a retry for a message that goes in circles and drop it; counts are those of a message that is gone."""

_NAMESPACE = uuid.UUID("6c4e9ad2-93a4-5a3c-9f6e-1d6a2f0c7b11")
_PERSISTENT = 2

Headers = dict[str, Any]


def result_message_id(route: Route, delivery: Delivery) -> str:
    """The request's own id, or one derived from its content: the same for every redelivery of it."""
    properties = delivery.properties
    if properties.message_id:
        return str(properties.message_id)
    content = f"{route.queue}\0{properties.correlation_id or ''}\0{sha256(delivery.body).hexdigest()}"
    return str(uuid.uuid5(_NAMESPACE, content))


def result_properties(route: Route, delivery: Delivery, trace: Mapping[str, Any]) -> Basic.Properties:
    """Properties of a result: persistent JSON, with the request's ids and trace headers."""
    headers, _ = _portable(trace)
    return Basic.Properties(
        content_type="application/json",
        delivery_mode=_PERSISTENT,
        message_id=result_message_id(route, delivery),
        correlation_id=delivery.properties.correlation_id,
        headers=headers or None,
        app_id=f"feedmill-{route.worker}",
        timestamp=datetime.now(UTC),
    )


def trace_headers(headers: Mapping[str, Any] | None) -> Headers:
    """The headers that carry a trace, as they came. Text only: others are no trace headers."""
    return {
        name: value
        for name, value in (headers or {}).items()
        if isinstance(value, str) and (name.lower() in TRACE_HEADERS or name.lower().startswith("x-b3-"))
    }


def attempts(properties: Basic.Properties) -> int:
    """How often the message has failed before, by its header. Anything but a small count is a stranger's: 0."""
    value = (properties.headers or {}).get(ATTEMPT)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1000 else 0


def returns(delivery: Delivery) -> int:
    """How often the message came back to its queue unsettled, as the broker counts; 0 where it does not (classic
    queues). A count on a message that comes for the first time is a stranger's."""
    value = (delivery.properties.headers or {}).get(DELIVERY_COUNT)
    if not delivery.redelivered or not isinstance(value, int) or isinstance(value, bool):
        return 0
    return max(0, value)


def retry_properties(route: Route, delivery: Delivery, failure: MessageError, delay_seconds: int) -> Basic.Properties:
    """Properties of the next try, due in 75 to 100 % of ``delay_seconds``: jitter spreads what failed together."""
    properties = _republished(route, delivery, failure)
    properties.expiration = str(int(delay_seconds * 1000 * random.uniform(0.75, 1.0)))
    return properties


def dead_properties(route: Route, delivery: Delivery, failure: MessageError) -> Basic.Properties:
    """Properties of a dead letter: the message as it was, and why, when and how often it failed."""
    properties = _republished(route, delivery, failure)
    assert properties.headers is not None  # noqa: S101 (for the type checker; _republished always sets them)
    properties.headers[DEAD_AT] = _now()
    return properties


def replay_properties(properties: Basic.Properties) -> Basic.Properties:
    """Properties of a dead letter sent back to work: what Feedmill added is taken off."""
    headers = {k: v for k, v in (properties.headers or {}).items() if not k.startswith(OWN_PREFIX)}
    return Basic.Properties(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers=headers or None,
        delivery_mode=_PERSISTENT,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        message_type=properties.message_type,
        app_id=properties.app_id,
    )


def handed_over_properties(route: Route, delivery: Delivery) -> Basic.Properties:
    """Properties of a message that the stable worker leaves to a candidate: its own, and where it came from."""
    properties = replay_properties(delivery.properties)
    kept, dropped = _portable(delivery.properties.headers or {})
    properties.headers = kept | _origin(delivery) | ({DROPPED_HEADERS: dropped} if dropped else {})
    properties.message_id = result_message_id(route, delivery)
    return properties


def mirrored_properties(route: Route, delivery: Delivery, verdict: str, ttl_seconds: int) -> Basic.Properties:
    """Properties of a copy for a candidate. Its id differs from its result's, which is published at the same time."""
    properties = handed_over_properties(route, delivery)
    assert properties.headers is not None  # noqa: S101 (for the type checker; always set)
    properties.headers[VERDICT] = verdict
    properties.message_id = str(uuid.uuid5(_NAMESPACE, f"{properties.message_id}\0copy"))
    properties.expiration = str(ttl_seconds * 1000)
    return properties


def shadow_retry_properties(route: Route, delivery: Delivery, failure: MessageError) -> Basic.Properties:
    """Properties of a copy that is judged once more."""
    properties = _republished(route, delivery, failure)
    assert properties.headers is not None  # noqa: S101 (for the type checker; always set)
    properties.headers[VERDICT] = (delivery.properties.headers or {}).get(VERDICT, "{}")
    return properties


def returned_properties(route: Route, delivery: Delivery) -> Basic.Properties:
    """Properties of a message that is published once more, as a new one to the broker, to be handled as if it had never
    been taken: back from a candidate, set apart, or handed back. Its failures are still known."""
    properties = handed_over_properties(route, delivery)
    if count := attempts(delivery.properties):
        assert properties.headers is not None  # noqa: S101 (for the type checker; always set)
        properties.headers[ATTEMPT] = count
    return properties


def is_copy(properties: Basic.Properties) -> bool:
    """Whether the stable worker has handled the message itself: this is a copy for a candidate."""
    return VERDICT in (properties.headers or {})


def mirrored_verdict(properties: Basic.Properties) -> dict[str, Any]:
    """The stable worker's verdict on a copy; empty where there is none that can be read."""
    text = (properties.headers or {}).get(VERDICT)
    if not isinstance(text, str) or len(text) > MAX_VERDICT_BYTES:
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _origin(delivery: Delivery) -> Headers:
    own = delivery.properties.headers or {}
    return {
        EXCHANGE: _text(own.get(EXCHANGE)) or delivery.exchange,
        ROUTING_KEY: _text(own.get(ROUTING_KEY)) or delivery.routing_key,
    }


def _republished(route: Route, delivery: Delivery, failure: MessageError) -> Basic.Properties:
    """The message's own properties and headers, and what happened to it.

    Left out are properties that the broker would act upon: ``expiration`` (would delete it), ``user_id`` (refused for
    any user but the connection's), and the headers in NOT_CARRIED.
    """
    own = delivery.properties.headers or {}
    headers: Headers = {
        ATTEMPT: attempts(delivery.properties) + 1,
        REASON: failure.reason,
        DETAIL: failure.detail,
        FIRST_FAILED_AT: _text(own.get(FIRST_FAILED_AT)) or _now(),
        QUEUE: route.queue,
    } | _origin(delivery)
    kept, dropped = _portable(own)
    if dropped:
        headers[DROPPED_HEADERS] = dropped
    properties = replay_properties(delivery.properties)
    properties.headers = kept | headers
    properties.message_id = result_message_id(route, delivery)
    return properties


def _portable(headers: Mapping[str, Any]) -> tuple[Headers, int]:
    """The foreign headers that can be published again, and how many can't."""
    kept: Headers = {}
    size = 0
    foreign = {k: v for k, v in headers.items() if not k.startswith(OWN_PREFIX) and k.lower() not in NOT_CARRIED}
    for name, value in foreign.items():
        try:
            field_size = len(encode.field_table({name: value}))
        except (TypeError, ValueError, OverflowError, RecursionError, struct.error):
            continue
        if size + field_size <= MAX_HEADER_BYTES:
            kept[name] = value
            size += field_size
    return kept, len(foreign) - len(kept)


def _text(value: object) -> str:
    return value[:300] if isinstance(value, str) else ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
