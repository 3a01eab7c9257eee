from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from bson import ObjectId

from feedmill.errors import Outage, Reject
from feedmill.settings import StoreSettings, read
from feedmill.store import HistoryLost, Store, Write


def a_set(post_id: Any, *, upsert: bool = True, **fields: object) -> Write:
    return Write(post_id, {"$set": fields}, upsert=upsert)


async def test_what_is_written_is_found(store: Store) -> None:
    ids = [ObjectId(), "post-1", "bài 🙂"]
    report = await store.write("posts", [a_set(post_id, n=n) for n, post_id in enumerate(ids)])
    assert (report.errors, report.missing) == ([None] * 3, 0)
    found = await store.find("posts", [*ids, "unknown", ids[0]], {"n": 1})
    assert found == {post_id: {"_id": post_id, "n": n} for n, post_id in enumerate(ids)}


async def test_writes_to_documents_that_do_not_exist_are_counted_and_make_no_ghosts(store: Store) -> None:
    await store.write("posts", [a_set("there", n=1)])
    report = await store.write("posts", [a_set("there", upsert=False, n=1), a_set("ghost", upsert=False, n=2)])
    assert (report.errors, report.missing) == ([None, None], 1)
    assert list(await store.find("posts", ["there", "ghost"])) == ["there"]


async def test_writes_to_one_id_keep_their_order(store: Store) -> None:
    writes = [a_set(post_id, n=turn) for turn in range(10) for post_id in ("a", "b")]
    report = await store.write("posts", writes)
    assert report.errors == [None] * 20
    found = await store.find("posts", ["a", "b"])
    assert {post_id: document["n"] for post_id, document in found.items()} == {"a": 9, "b": 9}


async def test_one_bad_write_leaves_its_neighbours_alone(store: Store) -> None:
    bad: list[dict[str, Any]] = [
        {"$set": {"x": "\ud800"}},
        {"$set": {"x": 2**70}},
        {"$set": {"x": "y" * 17_000_000}},
        {"$set": {"x": 1, "x.y": 2}},
        {"$set": {"_id": "another"}},
        {"$set": {"a\x00b": 1}},
    ]
    writes = [a_set("first", n=1), *(Write(f"bad{n}", update, upsert=True) for n, update in enumerate(bad))]
    report = await store.write("posts", [*writes, a_set("last", n=1)])
    assert [type(error) for error in report.errors] == [type(None), *[Reject] * len(bad), type(None)]
    assert report.missing == 0
    assert set(await store.find("posts", [write.id for write in writes] + ["last"])) == {"first", "last"}


async def test_a_document_against_the_collections_rules_is_rejected(store: Store) -> None:
    await store._database.create_collection(
        "ruled", validator={"$jsonSchema": {"properties": {"n": {"bsonType": "int"}}}}
    )
    report = await store.write("ruled", [a_set("a", n="secret words"), a_set("b", n=1)])
    assert isinstance(report.errors[0], Reject)
    assert "secret" not in report.errors[0].detail
    assert report.errors[1] is None


async def test_nothing_to_do(store: Store) -> None:
    report = await store.write("posts", [])
    assert (report.errors, report.missing) == ([], 0)
    assert await store.find("posts", []) == {}


async def test_many_ids_and_a_scan_in_lists(store: Store) -> None:
    for first in range(0, 2100, 300):  # 2,100 upserts at once take a busy machine longer than an operation may
        await store.write("posts", [a_set(f"p{n}", n=n) for n in range(first, first + 300)])
    assert len(await store.find("posts", [f"p{n}" for n in range(2100)], {"_id": 1})) == 2100
    batches = [batch async for batch in store.scan("posts", {"n": {"$gte": 100}}, {"n": 1}, batch_size=900)]
    assert [len(batch) for batch in batches] == [900, 900, 200]
    assert {document["n"] for batch in batches for document in batch} == set(range(100, 2100))


async def test_a_scan_can_be_left_early(store: Store) -> None:
    await store.write("posts", [a_set(f"p{n}", n=n) for n in range(50)])
    async with aclosing(store.scan("posts", batch_size=10)) as batches:
        async for batch in batches:
            assert len(batch) == 10
            break
    await store.ping()


async def test_an_index_can_be_asked_for_twice(store: Store) -> None:
    await store.ensure_index("posts", "n")
    await store.ensure_index("posts", "n")


async def test_more_callers_than_connections_are_all_served(store_settings: StoreSettings) -> None:
    store = Store.open(store_settings.model_copy(update={"pool_size": 2}))
    reports = await asyncio.gather(*(store.write("posts", [a_set(f"p{n}", n=n)]) for n in range(64)))
    assert all(report.errors == [None] for report in reports)
    await store.close()


async def test_changes_are_seen_and_a_feed_resumes(store: Store) -> None:
    await store.write("posts", [a_set("before", n=0)])
    async with store.watch("posts") as feed:
        await store.write("posts", [a_set("a", n=1), a_set("before", n=1)])
        seen = [change.id for change in await feed.changes()]
        while len(seen) < 2:
            seen += [change.id for change in await feed.changes()]
        assert sorted(map(str, seen)) == ["a", "before"]
        token = feed.resume_token
    await store.write("posts", [a_set("b", n=1)])
    async with store.watch("posts", token) as feed:
        seen = await feed.changes()
        while not seen:
            seen = await feed.changes()
        assert [change.id for change in seen] == ["b"]


async def test_a_dropped_collection_and_a_foreign_token_lose_the_history(store: Store) -> None:
    await store.write("posts", [a_set("a", n=1)])
    async with store.watch("posts") as feed:
        await store._database["posts"].drop()
        with pytest.raises(HistoryLost):
            await feed.changes()
    with pytest.raises(HistoryLost):
        async with store.watch("posts", {"_data": "82"}):
            pass


async def test_no_server_is_an_outage_in_time() -> None:
    for driver in ("motor", "pymongo"):
        settings = read(
            StoreSettings, uri="mongodb://127.0.0.1:1/", driver=driver, server_selection_timeout_seconds=0.2
        )
        store = Store.open(settings)
        async with asyncio.timeout(5):
            with pytest.raises(Outage, match="database"):
                await store.ping()
            with pytest.raises(Outage):
                await store.write("posts", [a_set("a", n=1)])
            with pytest.raises(Outage):
                async with store.watch("posts"):
                    pass
        await store.close()
