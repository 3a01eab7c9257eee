"""Cutting streams into frames: at the same places, however the bytes arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import bson
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame, header

from faults.frames import Frame, amqp_frames, mongo_frames, mongo_reply

AMQP = (
    b"AMQP\x00\x00\x09\x01",
    frame.marshal(commands.Basic.Publish(exchange="an-exchange", routing_key="a-queue", mandatory=True), 1),
    frame.marshal(header.ContentHeader(body_size=3), 1),
    b"\x03\x00\x01\x00\x00\x00\x03abc\xce",
    frame.marshal(commands.Basic.Ack(delivery_tag=7, multiple=True), 1),
    frame.marshal(commands.Basic.Ack(delivery_tag=8), 1),
    frame.marshal(commands.Basic.Qos(prefetch_count=3), 1),
)
AMQP_SEEN = [
    ("protocol", "", 0, 1),
    ("publish", "a-queue", 0, 1),
    ("header", "", 0, 1),
    ("body", "", 0, 1),
    ("ack", "", 7, 0),
    ("ack", "", 8, 1),
    ("method", "", 0, 1),
]


def command(number: int, document: dict[str, object], *writes: dict[str, object]) -> bytes:
    body = bytes(4) + b"\x00" + bson.encode(document)
    if writes:
        sequence = b"updates\x00" + b"".join(bson.encode(write) for write in writes)
        body += b"\x01" + (4 + len(sequence)).to_bytes(4, "little") + sequence
    numbers = (16 + len(body), number, 0, 2013)
    return b"".join(value.to_bytes(4, "little") for value in numbers) + body


MONGO = (
    command(1, {"hello": 1, "$db": "admin"}),
    command(2, {"update": "comments", "$db": "x"}, {"q": {}, "u": {}}, {"q": {"_id": 1}, "u": {"$set": {"a": 1}}}),
)


def cut(stream: bytes, places: list[int], split: Callable[[bytearray], Iterator[Frame]]) -> list[Frame]:
    arrived, seen, at = bytearray(), [], 0
    for place in [*sorted(place % (len(stream) + 1) for place in places), len(stream)]:
        arrived += stream[at:place]
        at = max(at, place)
        seen += split(arrived)
    assert not arrived
    return seen


@given(st.lists(st.integers(min_value=0), max_size=20))
def test_amqp_is_cut_into_its_frames(places: list[int]) -> None:
    seen = cut(b"".join(AMQP), places, amqp_frames)
    assert [found.raw for found in seen] == list(AMQP)
    assert [(found.kind, found.place, found.number, found.count) for found in seen] == AMQP_SEEN


@given(st.lists(st.integers(min_value=0), max_size=20))
def test_the_databases_protocol_is_cut_into_commands_and_replies(places: list[int]) -> None:
    seen = cut(b"".join(MONGO), places, mongo_frames)
    assert [found.raw for found in seen] == list(MONGO)
    assert [(found.kind, found.place, found.number, found.count) for found in seen] == [
        ("hello", "", 1, 1),
        ("update", "comments", 2, 2),
    ]
    (reply,) = mongo_frames(bytearray(mongo_reply(seen[1], {"ok": 1.0})))
    assert (reply.kind, reply.answers) == ("reply", 2)
