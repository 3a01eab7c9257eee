from __future__ import annotations

from typing import Any

import orjson
import pytest
from bson import ObjectId

from feedmill.errors import MessageError, Outage, Reject, Retry
from feedmill.pipeline.handler import JsonObject, Message
from feedmill.settings import read
from feedmill_hint.follow import Follower
from feedmill_hint.handler import HintHandler
from feedmill_hint.settings import FollowSettings, HintSettings


def handler_of(site: Any, follower: Follower) -> HintHandler:
    return HintHandler(site.store, follower, read(HintSettings))


async def answer(handler: HintHandler, *bodies: JsonObject, attempt: int = 0) -> list[JsonObject | MessageError]:
    """Take ``bodies`` through all steps as one batch, as the pipeline does."""
    works = await handler.prepare([handler.decode(Message(body, attempt)) for body in bodies])
    sound = [work for work in works if not isinstance(work, MessageError)]
    outputs = await handler.infer(sound)
    results = iter(await handler.commit(list(zip(sound, outputs, strict=True))))
    return [work if isinstance(work, MessageError) else next(results) for work in works]


def found(result: Any) -> list[tuple[str, float]]:
    assert result["status"] == "success"
    return [(entry["post"]["_id"], entry["score"]) for entry in result["homologous_posts"]]


async def test_similar_posts_come_best_first_without_the_asking_post(site: Any, eventually: Any) -> None:
    space = await site.space("one")
    asking = ObjectId()
    await site.encode(space, {asking: (1, 0, 0), "near": (2, 0.1, 0), "far": (0, 1, 0), "opposite": (-1, 0, 0)})
    await site.post("near", title="Near", tags=["x"])
    async with site.follower("auto") as follower:
        await eventually(lambda: follower.missing() is None)
        handler = handler_of(site, follower)
        await handler.ready()
        all_of_them, best = await answer(handler, {"_id": str(asking)}, {"_id": {"$oid": str(asking)}, "top_k": 1})
    assert found(all_of_them) == [("near", 0.998752), ("far", 0.0), ("opposite", -1.0)]
    assert found(best) == [("near", 0.998752)]
    assert best["homologous_posts"][0]["post"] == {"_id": "near", "title": "Near", "tags": ["x"]}
    assert best["id"] == str(asking)
    orjson.dumps(all_of_them)


async def test_posts_that_are_gone_make_room_for_the_next(site: Any, eventually: Any) -> None:
    space = await site.space("one")
    await site.encode(space, {"asking": (1, 0, 0)})
    await site.encode(space, {f"gone{number:03}": (1, number / 1000, 0) for number in range(60)}, posts=False)
    await site.encode(space, {f"there{number}": (1, 1 + number, 0) for number in range(4)})
    async with site.follower("auto") as follower:
        await eventually(lambda: follower.missing() is None)
        few, many = await answer(
            handler_of(site, follower), {"_id": "asking", "top_k": 2}, {"_id": "asking", "top_k": 50}
        )
    assert [post_id for post_id, _ in found(few)] == ["there0", "there1"]
    assert [post_id for post_id, _ in found(many)] == ["there0", "there1", "there2", "there3"]


async def test_a_vector_that_the_index_has_not_seen_yet_is_read_from_the_database(site: Any, eventually: Any) -> None:
    space = await site.space("one")
    await site.encode(space, {"a": (1, 0, 0)})
    async with site.follower("poll", index_poll_seconds=3600) as follower:
        await eventually(lambda: follower.missing() is None)
        await site.encode(space, {"new": (1, 1, 0)})
        [result] = await answer(handler_of(site, follower), {"_id": "new", "embedding": ["ignored"]})
    assert found(result) == [("a", 0.707107)]


async def test_a_post_without_a_vector_is_tried_again_then_answered(site: Any, eventually: Any) -> None:
    space = await site.space("one")
    await site.encode(space, {"a": (1, 0, 0)})
    async with site.follower("auto") as follower:
        await eventually(lambda: follower.missing() is None)
        handler = handler_of(site, follower)
        early = await answer(handler, {"_id": "b"}, {"_id": "a"}, attempt=2)
        assert isinstance(early[0], Retry)
        assert early[0].reason == "not_encoded"
        assert found(early[1]) == []
        [late] = await answer(handler, {"_id": "b"}, attempt=3)
    assert late == {"status": "not_encoded", "id": "b", "homologous_posts": []}


async def test_without_any_space_nothing_is_encoded_yet(site: Any, eventually: Any) -> None:
    async with site.follower("auto") as follower:
        await eventually(lambda: follower.missing() is None)
        handler = handler_of(site, follower)
        await handler.ready()
        body = {"_id": "a", "embedding": [1, 2, 3]}
        assert isinstance((await answer(handler, body))[0], Retry)
        assert (await answer(handler, body, attempt=3))[0]["status"] == "not_encoded"


async def test_an_inline_vector_counts_where_the_stored_one_is_missing(site: Any, eventually: Any) -> None:
    space = await site.space("one")
    await site.encode(space, {"a": (1, 0, 0), "b": (0, 1, 0)})
    bad = [[1, 2], [1, 2, 3, 4], ["1", "2", "3"], [1, True, 3], [0, 0, 0], [1, 1e300, 0], [1, 10**400, 0], "x", 5, {}]
    async with site.follower("auto") as follower:
        await eventually(lambda: follower.missing() is None)
        handler = handler_of(site, follower)
        inline = await answer(handler, {"_id": "new", "embedding": [0, 3, 0.0]}, {"_id": "a", "embedding": [0, 1, 0]})
        refused = await answer(handler, *({"_id": "new", "embedding": value} for value in bad))
    assert found(inline[0]) == [("b", 1.0), ("a", 0.0)]
    assert found(inline[1]) == [("b", 0.0)], "the stored vector wins"
    for result in refused:
        assert isinstance(result, Reject)
        assert "embedding" in result.detail
        assert "expected 3 finite numbers" in result.detail


async def test_after_a_switch_an_inline_vector_has_to_name_its_space(site: Any, eventually: Any) -> None:
    """Both spaces' vectors have the same length: nothing else tells what the message's was made with."""
    old = await site.space("old")
    await site.encode(old, {"a": (1, 0, 0), "b": (0, 1, 0)})
    inline = {"_id": "c", "embedding": [0, 3, 0]}
    async with site.follower("auto", space_poll_seconds=0.05) as follower:
        await eventually(lambda: follower.snapshot is not None)
        handler = handler_of(site, follower)
        assert found((await answer(handler, inline))[0]) == [("b", 1.0), ("a", 0.0)]
        await site.encode(await site.space("new"), {"a": (1, 0, 0), "b": (0, 1, 0)})
        await eventually(lambda: follower.snapshot.space.name == "new")
        named = [{**inline, "embedding_space": space} for space in ("new", "old")]
        of_new, of_old, unnamed = await answer(handler, *named, inline, attempt=3)
        assert found(of_new) == [("b", 1.0), ("a", 0.0)]
        assert [result["status"] for result in (of_old, unnamed)] == ["not_encoded", "not_encoded"]
        with pytest.raises(Reject, match="embedding_space"):
            await answer(handler, {**inline, "embedding_space": 5})


async def test_an_answer_never_mixes_spaces(site: Any, eventually: Any) -> None:
    old = await site.space("old", 2)
    await site.encode(old, {"asking": (1, 0), "old": (1, 1)})
    async with site.follower("auto") as follower:
        await eventually(lambda: follower.missing() is None)
        handler = handler_of(site, follower)
        begun = await handler.prepare([handler.decode(Message({"_id": "asking"}, 0))])
        new = await site.space("new", 3)
        await site.encode(new, {"asking": (1, 0, 0), "new": (1, 1, 1)})
        await eventually(lambda: follower.snapshot.space == new and len(follower.snapshot.index) == 2)
        begun = [*begun, *await handler.prepare([handler.decode(Message({"_id": "asking"}, 0))])]
        outputs = await handler.infer(begun)
        results = await handler.commit(list(zip(begun, outputs, strict=True)))
    assert [found(result) for result in results] == [[("old", 0.707107)], [("new", 0.57735)]]


async def test_filters_leave_posts_out_and_the_answer_stays_full(site: Any, eventually: Any) -> None:
    space = await site.space("one")
    await site.encode(space, {"asking": (1, 0, 0), **{f"p{number:03}": (1, number / 1000, 0) for number in range(60)}})
    await site.post("asking", authorId=7)
    for number in range(60):
        fields = {"authorId": 7 if number < 20 else 8, "isToxic": 20 <= number < 40, "deleted": number == 40}
        await site.post(f"p{number:03}", **fields)
    async with site.follower("auto") as follower:
        await eventually(lambda: follower.missing() is None)
        both = {"exclude_same_author": True, "exclude_toxic": True, "top_k": 3}
        few, near, none = await answer(
            handler_of(site, follower),
            {"_id": "asking", **both},
            {"_id": "asking", **both, "min_score": 0.99911},
            {"_id": "asking", "since": "2026-01-01T00:00:00Z"},
        )
    assert [post_id for post_id, _ in found(few)] == ["p041", "p042", "p043"]
    assert [post_id for post_id, _ in found(near)] == ["p041", "p042"]
    assert found(none) == []


async def test_only_the_fields_that_are_asked_for_are_shown(site: Any, eventually: Any) -> None:
    space = await site.space("one")
    await site.encode(space, {"asking": (1, 0, 0), "near": (1, 1, 0)})
    await site.post("near", title="Near", secret="x", deleted=False)
    async with site.follower("auto") as follower:
        await eventually(lambda: follower.missing() is None)
        handler = HintHandler(site.store, follower, read(HintSettings, hint_post_fields="title, tags"))
        [result] = await answer(handler, {"_id": "asking"})
    assert [entry["post"] for entry in result["homologous_posts"]] == [{"_id": "near", "title": "Near"}]


async def test_an_index_that_is_not_there_yet_is_an_outage(site: Any) -> None:
    handler = handler_of(site, Follower(site.store, read(FollowSettings)))
    with pytest.raises(Outage, match="index"):
        await handler.ready()
    with pytest.raises(Outage, match="index"):
        await handler.prepare([handler.decode(Message({"_id": "a"}, 0))])
