from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from bson.binary import VECTOR_SUBTYPE

from feedmill.errors import ModelError, Reject
from feedmill.spaces import (
    Space,
    VectorWrite,
    activate,
    active_name,
    active_space,
    changed_since,
    complete_posts,
    content_states,
    coverage,
    drop_space,
    ensure_active,
    list_spaces,
    read_vectors,
    register_space,
    stream_ids,
    stream_vectors,
    write_if_unmoved,
    write_vectors,
)
from feedmill.store import Store, Write


def packed(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def vector(post_id: Any, *numbers: float) -> VectorWrite:
    return VectorWrite(post_id, packed(*numbers), "hash")


async def test_registering_twice_changes_nothing_and_a_clash_is_refused(store: Store, space: Space) -> None:
    await asyncio.gather(*(register_space(store, space) for _ in range(5)))
    await register_space(store, replace(space, model="another path to the same weights"))
    for other in (replace(space, dimensions=4), replace(space, revision="r2")):
        with pytest.raises(ModelError, match=space.name):
            await register_space(store, other)
    document = (await store.find("vector_spaces", [space.name]))[space.name]
    assert document.keys() == {"_id", "model", "revision", "dimensions", "state", "createdAt"}


async def test_the_first_space_becomes_active_and_only_activate_changes_that(store: Store, space: Space) -> None:
    assert await active_name(store) is None
    assert await active_space(store) is None
    second = replace(space, name=space.name + "-2")
    await register_space(store, space)
    await register_space(store, second)
    names = await asyncio.gather(*(ensure_active(store, name) for name in (space.name, second.name) * 4))
    assert len(set(names)) == 1
    await activate(store, second.name)
    assert await active_space(store) == second
    assert await ensure_active(store, space.name) == second.name
    with pytest.raises(ModelError, match="never-seen"):
        await activate(store, "never-seen")
    assert await active_name(store) == second.name


async def test_spaces_are_listed_counted_and_dropped_but_never_the_active_one(store: Store, space: Space) -> None:
    second = replace(space, name=space.name + "-2")
    for each in (space, second):
        await register_space(store, each)
    await ensure_active(store, space.name)
    await write_vectors(store, second, [vector("a", 1, 2, 3), vector("orphan", 1, 2, 3)])
    await store.write("posts", [Write(post_id, {"$set": {"content": "x"}}, upsert=True) for post_id in "abc"])
    assert await coverage(store, second) == (1, 3)
    assert await coverage(store, second, exact=False) == (2, 3)
    listed = {info.space: (info.is_active, info.state, info.vectors) for info in await list_spaces(store)}
    assert listed == {space: (True, "registered", 0), second: (False, "registered", 2)}
    with pytest.raises(ModelError, match="active one"):
        await drop_space(store, space.name)
    assert (await list_spaces(store))[0].state == "registered"
    assert await drop_space(store, second.name) == 2
    assert [info.space for info in await list_spaces(store)] == [space]
    for gone in (drop_space(store, second.name), activate(store, second.name)):
        with pytest.raises(ModelError, match="not registered"):
            await gone
    assert await active_name(store) == space.name


async def test_a_space_that_is_being_dropped_is_not_made_active(store: Store, space: Space) -> None:
    second = replace(space, name=space.name + "-2")
    for each in (space, second):
        await register_space(store, each)
    await ensure_active(store, space.name)
    dropping = {"$set": {"state": "dropping"}}
    await store.write("vector_spaces", [Write(second.name, dropping)])
    with pytest.raises(ModelError, match="dropped"):
        await activate(store, second.name)
    assert await active_name(store) == space.name


async def test_a_vector_that_was_written_since_it_was_looked_at_is_left_alone(store: Store, space: Space) -> None:
    await register_space(store, space)
    await ensure_active(store, space.name)
    posts = {
        post_id: {"_id": post_id, "content": f"text of {post_id}"} for post_id in ("new", "raced", "old", "edited")
    }
    await store.write("posts", [Write(i, {"$set": {"content": p["content"]}}, upsert=True) for i, p in posts.items()])
    await write_vectors(store, space, [VectorWrite(i, packed(9, 9, 9), "before") for i in ("old", "edited")])
    seen = await content_states(store, space, posts)
    await asyncio.sleep(0.002)  # the server's time is in milliseconds
    live = [VectorWrite(i, packed(1, 1, 1), "live") for i in ("raced", "edited")]
    assert (await write_vectors(store, space, live)).errors == [None, None]
    late = [VectorWrite(i, packed(2, 2, 2), f"late {i}") for i in posts]
    assert await write_if_unmoved(store, space, late, seen, posts) == 2
    stored = await content_states(store, space, posts)
    assert {i: state.content_hash for i, state in stored.items()} == {
        "new": "late new",
        "old": "late old",
        "raced": "live",
        "edited": "live",
    }
    embeddings = {i: post["embedding"] for i, post in (await store.find("posts", posts)).items()}
    assert embeddings == {"new": [2, 2, 2], "old": [2, 2, 2], "raced": [1, 1, 1], "edited": [1, 1, 1]}


async def test_vectors_are_stored_as_bson_vectors_and_read_back(store: Store, space: Space) -> None:
    await register_space(store, space)
    post_id = ObjectId()
    report = await write_vectors(store, space, [vector(post_id, 1, 2, 3), vector("b", 0.5, 0, -1)])
    assert report.errors == [None, None]
    stored = (await store.find(space.collection, [post_id]))[post_id]
    assert stored["vector"].subtype == VECTOR_SUBTYPE
    assert stored["vector"].as_vector().data == [1, 2, 3]
    assert stored["contentHash"] == "hash"
    assert await read_vectors(store, space, [post_id, "b", "c"]) == {post_id: packed(1, 2, 3), "b": packed(0.5, 0, -1)}
    streamed = [entry async for batch in stream_vectors(store, space) for entry in batch]
    assert {entry.id: entry.vector for entry in streamed} == {post_id: packed(1, 2, 3), "b": packed(0.5, 0, -1)}
    assert all(entry.updated_at for entry in streamed)
    assert {post_id async for batch in stream_ids(store, space) for post_id in batch} == {post_id, "b"}


async def test_posts_follow_the_active_space_only_and_no_ghost_is_made(store: Store, space: Space) -> None:
    await register_space(store, space)
    await store.write("posts", [Write("a", {"$set": {"content": "x"}}, upsert=True)])
    both = [vector("a", 1, 2, 3), vector("ghost", 4, 5, 6)]
    assert (await write_vectors(store, space, both)).missing == 0
    assert (await store.find("posts", ["a"]))["a"] == {"_id": "a", "content": "x"}
    await ensure_active(store, space.name)
    assert (await write_vectors(store, space, both)).missing == 1
    posts = await store.find("posts", ["a", "ghost"])
    assert posts == {"a": {"_id": "a", "content": "x", "embedding": [1, 2, 3]}}
    await write_vectors(store, space, both, upsert_posts=True)
    assert (await store.find("posts", ["ghost"]))["ghost"]["embedding"] == [4, 5, 6]


async def test_a_post_whose_writer_was_killed_between_the_two_writes_gets_its_embedding(
    store: Store, space: Space
) -> None:
    await register_space(store, space)
    names = ["half", "whole", "edited", "other"]
    await store.write("posts", [Write(name, {"$set": {"content": name}}, upsert=True) for name in names])
    await write_vectors(store, space, [vector(name, 1, 2, 3) for name in names])  # not active: no posts.embedding
    posts = await store.find("posts", names)
    hashes = dict.fromkeys(names, "hash") | {"other": "that of another content"}
    assert await complete_posts(store, space, hashes, posts) == 0, "the space is not the active one"
    await ensure_active(store, space.name)
    await store.write("posts", [Write("whole", {"$set": {"embedding": [9.0]}})])
    await store.write("posts", [Write("edited", {"$set": {"content": "edited meanwhile"}})])
    await complete_posts(store, space, hashes, posts)
    after = await store.find("posts", names)
    embeddings = {name: after[name].get("embedding") for name in names}
    assert embeddings == {"half": [1, 2, 3], "whole": [9], "edited": None, "other": None}
    await complete_posts(store, space, {}, {})


async def test_a_bad_vector_is_rejected_alone(store: Store, space: Space) -> None:
    await register_space(store, space)
    await ensure_active(store, space.name)
    writes = [vector("a", 1, 2), vector("b", 1, 2, float("nan")), vector("c", 1, 2, 3), vector("d", 1, 2, 3, 4)]
    report = await write_vectors(store, space, writes)
    assert [type(error) for error in report.errors] == [Reject, Reject, type(None), Reject]
    assert list(await read_vectors(store, space, ["a", "b", "c", "d"])) == ["c"]


async def test_foreign_documents_in_a_space_are_left_out(store: Store, space: Space) -> None:
    await register_space(store, space)
    await write_vectors(store, space, [vector("good", 1, 2, 3)])
    foreign = [{"vector": [1, 2, 3]}, {"vector": b"\x27\x00abc"}, {"other": 1}]
    await store.write(space.collection, [Write(f"f{n}", {"$set": x}, upsert=True) for n, x in enumerate(foreign)])
    assert [entry.id async for batch in stream_vectors(store, space) for entry in batch] == ["good"]
    assert list(await read_vectors(store, space, ["good", "f0", "f1", "f2"])) == ["good"]


async def test_writes_are_found_by_the_servers_time(store: Store, space: Space) -> None:
    await register_space(store, space)
    await write_vectors(store, space, [vector("a", 1, 2, 3)])
    first = await changed_since(store, space, None)
    assert first.keys() == {"a"}
    while (await changed_since(store, space, None))["a"] == first["a"]:  # until the server's clock moves on
        await write_vectors(store, space, [vector("b", 1, 2, 3), vector("a", 3, 2, 1)])
    since = first["a"] + timedelta(milliseconds=1)
    assert (await changed_since(store, space, since)).keys() == {"a", "b"}
    assert (await changed_since(store, space, since + timedelta(hours=1))) == {}
