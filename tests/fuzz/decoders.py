"""Fuzz what reads a message: bytes in; a request or a Reject out, in bounded time, and nothing else (`make fuzz`).

Coverage-guided, by atheris (libFuzzer). Its own limits are part of the claim: no input takes over 2 s or 512 MiB more.
What breaks is left in the working folder as crash-*, to be run again by naming it as an argument.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import atheris

with atheris.instrument_imports(include=["feedmill", "feedmill_encode", "feedmill_hint", "feedmill_toxic"]):
    from pamqp import decode, encode
    from pamqp.commands import Basic

    from feedmill.broker import letters
    from feedmill.contract import ENCODE
    from feedmill.errors import MessageError, Reject
    from feedmill.ids import parse_id
    from feedmill.pipeline.handler import Message
    from feedmill.wire import decode_object, encode_object, text_field
    from feedmill_encode.handler import EncodeHandler
    from feedmill_hint.handler import HintHandler
    from feedmill_hint.settings import HintSettings
    from feedmill_toxic.handler import ToxicHandler

sys.path.insert(0, str(Path(__file__).parents[1]))
from faults.hostile import hostile

MAX_BODY_BYTES = 65_536


# The workers' own decoding needs their limits, and nothing of the model or the store.
with_limit: Any = SimpleNamespace(_max_text_chars=1_000, _settings=HintSettings())


def encode_handler(message: Message) -> object:
    return EncodeHandler.decode(with_limit, message)


def hint_handler(message: Message) -> object:
    return HintHandler.decode(with_limit, message)


def toxic_handler(message: Message) -> object:
    return ToxicHandler.decode(with_limit, message)


def body(data: bytes) -> None:
    """A body, and the fields that all workers read out of it."""
    value = decode_object(data, MAX_BODY_BYTES)
    assert isinstance(value, dict)
    assert decode_object(encode_object(value), 100 * MAX_BODY_BYTES) == value
    for field in ("_id", "commentId"):
        with suppress(Reject):
            parse_id(value.get(field), field)
    for names in (("content", "text"), ("title",)):
        with suppress(Reject):
            assert len(text_field(value, names, 1_000, required=False)) <= 1_000
    for decode_message in (encode_handler, hint_handler, toxic_handler):
        with suppress(MessageError):
            decode_message(Message(value, 0))


def headers(data: bytes) -> None:
    """A table of headers as it comes over the wire: whatever it holds, what Feedmill publishes again can be sent."""
    try:
        _, table = decode.field_table(data)
    except Exception:  # the client library's to refuse
        return
    properties = Basic.Properties(headers=table, message_id="m")
    delivery: Any = SimpleNamespace(properties=properties, body=b"", exchange="e", routing_key="r")
    assert letters.attempts(properties) >= 0
    for made in (
        letters.dead_properties(ENCODE, delivery, Reject("reason", "detail")),
        letters.replay_properties(properties),
    ):
        assert made.message_id
    letters.mirrored_verdict(properties)
    letters.dead_properties(ENCODE, delivery, Reject("reason", "detail")).marshal()


TARGETS: tuple[Callable[[bytes], None], ...] = (body, headers)


def one_input(data: bytes) -> None:
    """The first byte says what the others are."""
    if not data:
        return
    with suppress(MessageError):
        TARGETS[data[0] % len(TARGETS)](data[1:])


def main() -> None:
    with TemporaryDirectory() as corpus:
        seed_corpus(Path(corpus))
        limits = ("-timeout=2", "-rss_limit_mb=1024", "-max_len=70000")
        atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], corpus], one_input)
        atheris.Fuzz()


def seed_corpus(folder: Path) -> None:
    """Something to begin with: bodies of the hostile corpus, and tables of headers."""
    random = Random(1)
    for number in range(400):
        (folder / f"body-{number}").write_bytes(b"\x00" + hostile(random)[:MAX_BODY_BYTES])
    tables: tuple[dict[str, Any], ...] = (
        {"CC": ["a"], "x-death": [{"count": 1, "queue": "q"}]},
        {letters.ATTEMPT: 3, letters.FIRST_FAILED_AT: "2026-01-01T00:00:00Z", letters.VERDICT: "{}"},
        {"traceparent": "00-0", "deep": {"a": {"b": [1, -2, None, True, "x", 1.5]}}},
    )
    for number, table in enumerate(tables):
        (folder / f"headers-{number}").write_bytes(b"\x01" + encode.field_table(table))


if __name__ == "__main__":
    main()
