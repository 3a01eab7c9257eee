"""A corpus of hostile messages, seeded: what producers get wrong, and what somebody might try on purpose."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from collections.abc import Callable
from random import Random
from typing import Any

import pika
from bson import ObjectId

from faults.ledger import Fate, Ledger, Sent
from feedmill.contract import ENCODE, HINT, TOXIC, Route

ROUTES = (TOXIC, ENCODE, HINT)
GOOD_EVERY = 20

TEXTS = (
    "",
    " ",
    "plain words",
    "\x00\x01\x02\x1b[31m",
    "\u202eright to left\u202c",
    "\N{ZERO WIDTH JOINER}" * 300,
    "a" * 5_000,
    "\N{PILE OF POO}" * 500,
    "e" + "\N{COMBINING ACUTE ACCENT}" * 2_000,
    "\ufffe\uffff\U0010ffff",
    "'; DROP TABLE comments; --",
    '{"$where": "sleep(1000)"}',
    "${jndi:ldap://127.0.0.1/a}",
    "../../../../etc/passwd",
    "[PAD][CLS][SEP][MASK]</s><s><unk>",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    -(2**63),
    1e308,
    -0.0,
    [],
    {},
    [[]],
    {"$ne": None},
    {"$gt": ""},
    {"$oid": "507f1f77bcf86cd799439011"},
    {"$oid": {"$ne": 1}},
    {"$where": "1"},
    ["a"] * 1_000,
    {"a": {"b": {"c": [1, 2, {"d": None}]}}},
    [0.1] * 384,
    [1e39] * 384,
    "x" * 257,
    "507f1f77bcf86cd79943901",
    *TEXTS,
)
KEYS = ("_id", "commentId", "content", "text", "title", "embedding", "top_k", "$set", "__proto__", "", "a.b", "\x00")


def hostile(random: Random) -> bytes:
    """One body. Some of them are valid by chance; none has the id of anything that exists."""
    return random.choices(_KINDS, _WEIGHTS)[0](random)


def _object(random: Random) -> dict[str, Any]:
    """Nearly a message."""
    fields: dict[str, Any] = {"_id": f"hostile-{random.getrandbits(64):x}", "content": random.choice(TEXTS)}
    for _ in range(random.randint(1, 3)):
        fields[random.choice(KEYS)] = random.choice(VALUES)
    if random.random() < 0.3:
        fields.pop(random.choice(list(fields)))
    return fields


def _wrong_fields(random: Random) -> bytes:
    return json.dumps(_object(random), ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")


def _mutated(random: Random) -> bytes:
    """Bytes changed, left out, put in or put twice."""
    body = bytearray(_wrong_fields(random)[:2_000])
    for _ in range(random.randint(1, 8)):
        at = random.randrange(len(body) + 1)
        match random.randrange(4):
            case 0:
                body[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                del body[at : at + random.randint(1, 20)]
            case 2:
                body[at:at] = random.choice((b"{", b"}", b"[", b'"', b"\\", b"\\u d800", b"\xff", b"\x00", b"e999"))
            case _:
                body[at:at] = body[at : at + random.randint(1, 50)]
    return bytes(body)


def _cut(random: Random) -> bytes:
    body = _wrong_fields(random)
    return body[: random.randrange(len(body))]


def _bytes(random: Random) -> bytes:
    return random.randbytes(random.randrange(300))


def _deep(random: Random) -> bytes:
    levels = random.choice((10, 31, 32, 33, 100, 1_000, 10_000))
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
    closed = levels if random.random() < 0.7 else random.randrange(levels)
    return b'{"_id": "deep", "content": "x", "more": ' + opening * levels + b"1" + closing * closed + b"}"


def _twice(random: Random) -> bytes:
    """Keys that come twice, of which readers take one or the other."""
    value = json.dumps(random.choice(VALUES)).encode()
    return b'{"_id": "twice", "_id": ' + value + b', "content": "a", "content": ' + value + b"}"


def _number(random: Random) -> bytes:
    digits = random.choice((b"9" * 400, b"1e400", b"-1e-400", b"NaN", b"Infinity", b"0x10", b"01", b"1_000", b"9" * 30))
    return b'{"_id": "number", "content": "x", "top_k": ' + digits + b"}"


def _other_encoding(random: Random) -> bytes:
    text = json.dumps(_object(random), ensure_ascii=False)
    encoding = random.choice(("utf-16", "utf-32", "utf-8-sig", "cp037", "utf-7"))
    return text.encode(encoding, "replace")


def _compressed(random: Random) -> bytes:
    """A small body that would be a large one for whoever unpacks it."""
    return gzip.compress(b'{"content": "' + b"a" * 1_000_000 + b'"}') if random.random() < 0.2 else gzip.compress(b"{}")


def _large(random: Random) -> bytes:
    return b'{"_id": "large", "content": "' + b"x" * random.choice((40_000, 200_000, 1_100_000)) + b'"}'


def _no_object(random: Random) -> bytes:
    return json.dumps(random.choice(VALUES)).encode()


_KINDS: tuple[Callable[[Random], bytes], ...] = (
    _wrong_fields,
    _mutated,
    _cut,
    _bytes,
    _deep,
    _twice,
    _number,
    _other_encoding,
    _compressed,
    _large,
    _no_object,
)
_WEIGHTS = (20, 25, 12, 10, 6, 6, 6, 6, 4, 0.5, 5)


def flood(url: str, ledger: Ledger, count: int, seed: int, after: Callable[[int], None]) -> None:
    """Publish ``count`` hostile messages with confirms, a good one behind every twentieth.

    ``after`` is called with the number sent, after each hundredth part.
    """
    random = Random(seed)
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()

    def send(route: Route, body: bytes, expects: Fate | None) -> None:
        message_id = str(uuid.uuid4())
        properties = pika.BasicProperties(message_id=message_id, delivery_mode=2)
        channel.basic_publish(route.exchange, route.queue, body, properties, mandatory=True)
        ledger.accept(Sent(message_id, route.worker, b"", expects, time.monotonic()))

    for number in range(1, count + 1):
        send(random.choice(ROUTES), hostile(random), None)
        if number % GOOD_EVERY == 0:
            route = random.choice(ROUTES)
            send(route, json.dumps({"_id": str(ObjectId()), "content": f"A good one, {number}."}).encode(), "result")
        if number % max(1, count // 100) == 0:
            after(number)
    connection.close()
