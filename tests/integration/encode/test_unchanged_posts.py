from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from feedmill.errors import MessageError, Retry
from feedmill.pipeline.handler import Message
from feedmill.store import Store, Write
from feedmill_encode.handler import EncodeHandler


class Tokens:
    def __init__(self, text: str) -> None:
        self.text = text
        self.cost = len(text)


class CountingEncoder:
    """An encoder of three dimensions that remembers what went through it."""

    space, uri, revision, dimensions, model = "one", "pkg://model", "r1", 3, "model@r1"
    lanes = 1
    batch_tokens = 1024

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        return [Tokens(text) for text in texts]

    def encode(self, batch: list[Tokens]) -> Any:
        self.encoded += [tokens.text for tokens in batch]
        return np.array([[len(tokens.text), 1, 1] for tokens in batch], np.float32).reshape(-1, 3)


@pytest.fixture
async def handler(store: Store) -> AsyncIterator[EncodeHandler]:
    made = EncodeHandler(CountingEncoder(), store, 1000, lambda _: None)  # type: ignore[arg-type]
    await made.ready()
    await store.write("posts", [Write("a", {"$set": {"content": "x"}}, upsert=True)])
    yield made
    made.close()


async def begin(handler: EncodeHandler, *texts: str) -> list[Any]:
    posts = [handler.decode(Message({"_id": "a", "content": text}, 0)) for text in texts]
    works = list(await handler.prepare(posts))
    return list(zip(works, await handler.infer(works), strict=True))


def encoded(handler: EncodeHandler) -> list[str]:
    encoder: Any = handler._encoder
    return encoder.encoded


async def embedding(store: Store) -> Any:
    return (await store.find("posts", ["a"]))["a"].get("embedding")


async def test_an_unchanged_post_costs_no_forward_pass_and_is_answered(handler: EncodeHandler, store: Store) -> None:
    [first] = await handler.commit(await begin(handler, "hello"))
    written = (await store.find("post_embeddings.one", ["a"]))["a"]
    await store.write("posts", [Write("a", {"$unset": {"embedding": ""}})])
    [second] = await handler.commit(await begin(handler, "hello"))
    assert first == second == {"id": "a", "status": "success", "model": "model@r1", "space": "one"}
    assert encoded(handler) == ["hello"]
    assert (await store.find("post_embeddings.one", ["a"]))["a"] == written
    assert await embedding(store) == [5, 1, 1]
    await handler.commit(await begin(handler, "changed"))
    assert encoded(handler) == ["hello", "changed"]
    assert await embedding(store) == [7, 1, 1]


async def test_the_last_of_several_messages_in_one_batch_counts(handler: EncodeHandler, store: Store) -> None:
    await handler.commit(await begin(handler, "one"))
    await handler.commit(await begin(handler, "one", "three", "one"))
    assert await embedding(store) == [3, 1, 1]
    await handler.commit(await begin(handler, "three", "one"))
    assert await embedding(store) == [3, 1, 1]
    await handler.commit(await begin(handler, "one", "three"))
    assert await embedding(store) == [5, 1, 1]


async def test_a_post_that_changes_while_its_old_content_comes_again_is_tried_again(
    handler: EncodeHandler, store: Store
) -> None:
    await handler.commit(await begin(handler, "old"))
    newer, reverted = await begin(handler, "newer"), await begin(handler, "old")
    await handler.commit(newer)
    [refused] = await handler.commit(reverted)
    assert isinstance(refused, MessageError)
    assert isinstance(refused, Retry)
    newer, reverted = await begin(handler, "newest"), await begin(handler, "newer")
    [answered, refused] = await handler.commit([*newer, *reverted])
    assert not isinstance(answered, MessageError)
    assert isinstance(refused, Retry)
    await handler.commit(await begin(handler, "old"))
    assert await embedding(store) == [3, 1, 1]
