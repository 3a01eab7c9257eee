"""What is published for a message: properties that the broker takes and does not act upon, whatever came in."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from feedmill.broker import letters
from feedmill.errors import Reject, Retry
from support.fakes import ROUTE, make_delivery

MAX_FRAME_BYTES = 131_072


def short(limit: int = 255) -> st.SearchStrategy[str]:
    """Text that fits AMQP's short string."""
    return st.text(max_size=limit).filter(lambda text: len(text.encode()) <= limit)


MOMENTS = st.integers(0, 2**33).map(lambda seconds: datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=50)
    | st.binary(max_size=50).map(bytearray)
    | MOMENTS
    | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=0, max_value=2**32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short(40), inner, max_size=3),
    max_leaves=8,
)
NAMES = short(128) | st.sampled_from(
    [
        "CC",
        "BCC",
        "cc",
        "x-death",
        "traceparent",
        "b3",
        "x-b3-traceid",
        letters.ATTEMPT,
        letters.FIRST_FAILED_AT,
        letters.DELIVERY_COUNT,
    ]
)
HEADERS = st.none() | st.dictionaries(NAMES, VALUES, max_size=8)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "content_type": short(),
        "content_encoding": short(),
        "headers": HEADERS,
        "delivery_mode": st.sampled_from([1, 2]),
        "priority": st.integers(0, 255),
        "correlation_id": short(),
        "reply_to": short(),
        "expiration": short(),
        "message_id": short(),
        "timestamp": MOMENTS,
        "message_type": short(),
        "user_id": short(),
        "app_id": short(),
    },
)
FAILURES = st.builds(Reject, st.sampled_from(["not_json", "x"]), st.text(st.characters(codec=None), max_size=700))


def encoded_size(properties: Basic.Properties) -> int:
    return len(ContentHeader(body_size=1, properties=properties).marshal())


@given(properties=PROPERTIES, failure=FAILURES, body=st.binary(max_size=20))
def test_whatever_came_in_can_be_published_again(properties: dict[str, Any], failure: Reject, body: bytes) -> None:
    delivery = make_delivery(body, **properties)
    trace = letters.trace_headers(properties.get("headers"))
    dead = letters.dead_properties(ROUTE, delivery, failure)
    retry = letters.retry_properties(ROUTE, delivery, failure, 30)
    result = letters.result_properties(ROUTE, delivery, trace)
    for published in (dead, retry, result):
        assert encoded_size(published) < letters.MAX_HEADER_BYTES + 8192
        assert published.message_id
        assert published.user_id is None
        assert published.delivery_mode == 2
        assert not {name.lower() for name in published.headers or {}} & letters.NOT_CARRIED
    assert dead.expiration is None
    assert result.expiration is None
    assert 22_500 <= int(retry.expiration or 0) <= 30_000


@given(properties=PROPERTIES)
def test_attempts_are_counted_from_one_republishing_to_the_next(properties: dict[str, Any]) -> None:
    delivery = make_delivery(**properties)
    start = letters.attempts(delivery.properties)
    for number in range(1, 4):
        delivery.properties = letters.retry_properties(ROUTE, delivery, Retry("r", "d"), 1)
        assert letters.attempts(delivery.properties) == start + number


@given(properties=PROPERTIES)
def test_ids_are_stable_across_redelivery_and_retries(properties: dict[str, Any]) -> None:
    delivery = make_delivery(b"body", **properties)
    first = letters.result_message_id(ROUTE, delivery)
    assert letters.result_message_id(ROUTE, make_delivery(b"body", redelivered=True, tag=7, **properties)) == first
    for _ in range(3):
        delivery.properties = letters.retry_properties(ROUTE, delivery, Retry("r", "d"), 1)
        assert letters.result_message_id(ROUTE, delivery) == first
    delivery.properties = letters.replay_properties(letters.dead_properties(ROUTE, delivery, Reject("r", "d")))
    assert letters.result_message_id(ROUTE, delivery) == first


@given(properties=PROPERTIES)
def test_a_replay_takes_off_what_was_added_and_nothing_else(properties: dict[str, Any]) -> None:
    delivery = make_delivery(**properties)
    dead = letters.dead_properties(ROUTE, delivery, Reject("r", "d"))
    replayed = letters.replay_properties(dead)
    assert not [name for name in replayed.headers or {} if name.startswith(letters.OWN_PREFIX)]
    dropped = (dead.headers or {}).get(letters.DROPPED_HEADERS, 0)
    original = [
        name
        for name in properties.get("headers") or {}
        if not name.startswith(letters.OWN_PREFIX) and name.lower() not in letters.NOT_CARRIED
    ]
    assert len(replayed.headers or {}) == len(original) - dropped
    for name in ("content_type", "content_encoding", "correlation_id", "reply_to", "priority", "app_id"):
        assert getattr(replayed, name) == properties.get(name)


def test_original_headers_are_kept_as_they_were() -> None:
    headers = {
        "tenant": "a",
        "n": 5,
        "nested": {"x": [1, "é"]},
        "at": datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
    }
    dead = letters.dead_properties(ROUTE, make_delivery(headers=headers), Reject("r", "d"))
    assert {name: dead.headers[name] for name in headers} == headers  # type: ignore[index]
    assert letters.replay_properties(dead).headers == headers


def test_a_dead_letter_says_why_when_whence_and_how_often() -> None:
    delivery = make_delivery(headers={letters.ATTEMPT: 2, letters.FIRST_FAILED_AT: "2024-01-01T00:00:00Z"})
    dead = letters.dead_properties(ROUTE, delivery, Reject("wrong_type", "content: expected text")).headers or {}
    assert dead[letters.REASON] == "wrong_type"
    assert dead[letters.DETAIL] == "content: expected text"
    assert dead[letters.ATTEMPT] == 3
    assert dead[letters.FIRST_FAILED_AT] == "2024-01-01T00:00:00Z"
    assert dead[letters.DEAD_AT].endswith("Z")
    assert dead[letters.QUEUE] == ROUTE.queue
    assert (dead[letters.EXCHANGE], dead[letters.ROUTING_KEY]) == (ROUTE.exchange, ROUTE.queue)


def test_where_it_came_from_survives_the_retry_queues() -> None:
    delivery = make_delivery()
    delivery.exchange, delivery.routing_key = "their-exchange", "their-key"
    delivery.properties = letters.retry_properties(ROUTE, delivery, Retry("r", "d"), 1)
    delivery.exchange, delivery.routing_key = "", ROUTE.queue  # as it comes back from a retry queue
    dead = letters.dead_properties(ROUTE, delivery, Reject("r", "d")).headers or {}
    assert (dead[letters.EXCHANGE], dead[letters.ROUTING_KEY]) == ("their-exchange", "their-key")


def test_header_size_is_bounded_for_dead_letters_and_for_results() -> None:
    headers = {f"x-b3-{number}": "x" * 9000 for number in range(14)}
    delivery = make_delivery(headers=headers)
    dead = letters.dead_properties(ROUTE, delivery, Reject("r", "d"))
    result = letters.result_properties(ROUTE, delivery, letters.trace_headers(headers))
    assert (dead.headers or {})[letters.DROPPED_HEADERS] == 11
    for properties in (dead, result):
        assert encoded_size(properties) < MAX_FRAME_BYTES // 2


def test_headers_that_cant_be_sent_are_dropped_and_counted() -> None:
    headers = {"float": 1e300, "bytes": b"\xff", "decimal": decimal.Decimal(2**32), "fine": 1}
    dead = letters.dead_properties(ROUTE, make_delivery(headers=headers), Reject("r", "d")).headers or {}
    assert dead[letters.DROPPED_HEADERS] == 3
    assert dead["fine"] == 1


def test_a_stranger_s_attempt_header_counts_for_nothing() -> None:
    for value in (None, "3", 0, -1, True, 1000, 2.0, [1]):
        assert letters.attempts(Basic.Properties(headers={letters.ATTEMPT: value})) == 0  # type: ignore[dict-item]
    assert letters.attempts(Basic.Properties()) == 0


def test_without_ids_different_messages_get_different_ids() -> None:
    ids = {
        letters.result_message_id(ROUTE, make_delivery(b"a")),
        letters.result_message_id(ROUTE, make_delivery(b"b")),
        letters.result_message_id(ROUTE, make_delivery(b"a", correlation_id="1")),
    }
    assert len(ids) == 3


@given(value=VALUES, redelivered=st.booleans())
def test_returns_are_what_the_broker_counted_and_nothing_else(value: Any, redelivered: bool) -> None:
    delivery = make_delivery(redelivered=redelivered, headers={letters.DELIVERY_COUNT: value})
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    assert letters.returns(delivery) == (value if redelivered and is_count else 0)
    assert letters.returns(make_delivery(redelivered=True)) == 0


@given(properties=PROPERTIES)
def test_a_message_published_once_more_keeps_its_failures_and_takes_no_count_along(properties: dict[str, Any]) -> None:
    delivery = make_delivery(b"body", **properties)
    again = letters.returned_properties(ROUTE, delivery)
    assert letters.attempts(again) == letters.attempts(delivery.properties)
    assert again.message_id == letters.result_message_id(ROUTE, delivery)
    assert not {name.lower() for name in again.headers or {}} & letters.NOT_CARRIED
    assert again.expiration is None
