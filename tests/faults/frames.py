"""What passes between a worker and its servers, cut into frames, so that a crash can be put exactly between two.

Only as much is read of AMQP 0-9-1 (https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, 4.2) and of MongoDB's wire
protocol (https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/) as tells one frame from another.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import bson

AMQP_HEADER = b"AMQP"
FRAME_HEADER_BYTES = 7
METHODS = {
    (60, 40): "publish",
    (60, 60): "deliver",
    (60, 80): "ack",
    (60, 120): "nack",
    (50, 10): "declare",
}
FRAME_TYPES = {1: "method", 2: "header", 3: "body", 8: "heartbeat"}
OP_MSG = 2013


@dataclass(frozen=True, slots=True)
class Frame:
    raw: bytes
    kind: str
    """AMQP: the method's name where it is known, else the frame's type. MongoDB: the command's name, or ``reply``."""
    place: str = ""
    """AMQP publish: the routing key. MongoDB: the collection of a command that names one."""
    number: int = 0
    """AMQP ack: the delivery tag. MongoDB: the request's number."""
    answers: int = 0
    """MongoDB: the number of the request that a reply answers."""
    count: int = 1
    """MongoDB: how many writes a command carries. AMQP ack: 0 where it covers all tags up to its own."""


Splitter = Callable[[bytearray], Iterator[Frame]]
"""Takes whole frames off the front of what has arrived; what is left is the beginning of the next."""


def amqp_frames(arrived: bytearray) -> Iterator[Frame]:
    while len(arrived) >= 8:
        if arrived.startswith(AMQP_HEADER):
            yield Frame(_take(arrived, 8), "protocol")
            continue
        kind, _, size = struct.unpack_from(">BHI", arrived)
        if len(arrived) < (whole := FRAME_HEADER_BYTES + size + 1):
            return
        raw = _take(arrived, whole)
        name = FRAME_TYPES.get(kind, "other")
        if name == "method":
            name = METHODS.get(struct.unpack_from(">HH", raw, FRAME_HEADER_BYTES), "method")
        if name == "ack":
            tag, multiple = struct.unpack_from(">Q?", raw, FRAME_HEADER_BYTES + 4)
            yield Frame(raw, name, number=tag, count=0 if multiple else 1)
        else:
            yield Frame(raw, name, _routing_key(raw) if name == "publish" else "")


def _routing_key(raw: bytes) -> str:
    """Of a basic.publish: two short strings, exchange and routing key, behind 16 reserved bits."""
    at = FRAME_HEADER_BYTES + 4 + 2
    at += 1 + raw[at]
    return raw[at + 1 : at + 1 + raw[at]].decode()


def mongo_frames(arrived: bytearray) -> Iterator[Frame]:
    while len(arrived) >= 16:
        whole, number, answers, opcode = struct.unpack_from("<iiii", arrived)
        if len(arrived) < whole:
            return
        raw = _take(arrived, whole)
        if answers:
            yield Frame(raw, "reply", number=number, answers=answers)
        elif opcode == OP_MSG and raw[20] == 0:
            size = struct.unpack_from("<i", raw, 21)[0]
            name, place = next(iter(bson.decode(raw[21 : 21 + size]).items()))
            yield Frame(raw, name, place if isinstance(place, str) else "", number, count=_writes(raw, 21 + size))
        else:
            yield Frame(raw, "other", number=number)


def _writes(raw: bytes, at: int) -> int:
    """Documents in the sequence behind a command (a section of kind 1), in which the driver sends its writes."""
    if len(raw) <= at or raw[at] != 1:
        return 1
    end = at + 1 + struct.unpack_from("<i", raw, at + 1)[0]
    at = raw.index(0, at + 5) + 1
    count = 0
    while at < end:
        at += int(struct.unpack_from("<i", raw, at)[0])
        count += 1
    return count


def mongo_reply(to: Frame, document: dict[str, Any]) -> bytes:
    """What a server would send to answer ``to``."""
    body = struct.pack("<iB", 0, 0) + bson.encode(document)
    return struct.pack("<iiii", 16 + len(body), 1, to.number, OP_MSG) + body


def _take(arrived: bytearray, count: int) -> bytes:
    taken = bytes(arrived[:count])
    del arrived[:count]
    return taken
