"""Every worker's own reading of a message: whatever JSON object comes, a request or a MessageError that says why."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.errors import MessageError
from feedmill.pipeline.handler import Message
from feedmill.wire import decode_object
from feedmill_encode.handler import EncodeHandler
from feedmill_hint.handler import HintHandler
from feedmill_hint.settings import HintSettings
from feedmill_toxic.handler import ToxicHandler

MAX_TEXT_CHARS = 50

# Reading needs the workers' limits, and nothing of the model or the store.
LIMITS: Any = SimpleNamespace(_max_text_chars=MAX_TEXT_CHARS, _settings=HintSettings())
READERS: dict[str, Callable[[Any, Message], object]] = {
    "toxic": ToxicHandler.decode,
    "encode": EncodeHandler.decode,
    "hint": HintHandler.decode,
}

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=MAX_TEXT_CHARS + 10)
    | st.sampled_from(["507f1f77bcf86cd799439011", "2026-01-31T00:00:00Z", "0001-01-01T00:00:00+23:59", "", " "]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["$oid", "$gt", "a"]), inner, max_size=2)
    ),
    max_leaves=6,
)
FIELDS = (
    *("_id", "commentId", "content", "text", "title", "embedding", "embedding_space", "top_k"),
    *("exclude_same_author", "exclude_deleted", "exclude_toxic", "since", "min_score"),
)
BODIES = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), VALUES, max_size=8)
GOOD = {"_id": "507f1f77bcf86cd799439011", "content": "a text"}


@pytest.mark.parametrize("worker", READERS)
@given(body=BODIES, is_last=st.booleans(), attempt=st.integers(0, 999))
def test_any_object_is_a_request_or_told_why_not(
    worker: str, body: dict[str, Any], is_last: bool, attempt: int
) -> None:
    for found in (body, GOOD | body):
        message = Message(decode_object(orjson.dumps(found), 1_000_000), attempt, is_last=is_last)
        request, error = read(worker, message)
        assert error is None or (error.reason and len(error.detail) <= 500)
        assert len(getattr(request, "text", "")) <= 2 * MAX_TEXT_CHARS + 1


def read(worker: str, message: Message) -> tuple[object, MessageError | None]:
    try:
        return READERS[worker](LIMITS, message), None
    except MessageError as error:
        return None, error


@pytest.mark.parametrize("worker", READERS)
def test_a_plain_message_is_read(worker: str) -> None:
    READERS[worker](LIMITS, Message(GOOD, 0))
