from __future__ import annotations

import pytest
from bson import ObjectId

from feedmill.errors import Outage, Reject, SettingsError
from feedmill.pipeline.handler import JsonObject, Message
from feedmill.settings import StoreSettings, read
from feedmill.store import Store
from feedmill_hint.follow import Follower
from feedmill_hint.handler import HintHandler
from feedmill_hint.settings import FollowSettings, HintSettings


@pytest.fixture
async def handler() -> HintHandler:
    store = Store.open(read(StoreSettings, uri="mongodb://127.0.0.1:1", server_selection_timeout_seconds=0.05))
    return HintHandler(store, Follower(store, read(FollowSettings)), read(HintSettings))


def test_what_a_message_asks_for(handler: HintHandler) -> None:
    post_id = ObjectId()
    body: JsonObject = {"_id": str(post_id), "content": 5, "title": None, "embedding": [1], "top_k": 7, "extra": {}}
    request = handler.decode(Message(body, 2))
    assert (request.id, request.top_k, request.inline, request.may_wait) == (post_id, 7, [1], True)


def test_the_last_attempt_waits_no_more(handler: HintHandler) -> None:
    assert handler.decode(Message({"_id": "a"}, 0)).may_wait
    assert not handler.decode(Message({"_id": "a"}, 3)).may_wait
    assert not handler.decode(Message({"_id": "a"}, 0, is_last=True)).may_wait


@pytest.mark.parametrize("body", [{"_id": "a"}, {"_id": "a", "top_k": None, "embedding": None}])
def test_what_is_left_out_has_its_default(handler: HintHandler, body: JsonObject) -> None:
    request = handler.decode(Message(body, 0))
    assert (request.top_k, request.inline) == (5, None)


@pytest.mark.parametrize("value", [0, 101, -1, True, False, 5.0, "5", [5], 2**70])
def test_a_bad_top_k_is_rejected(handler: HintHandler, value: object) -> None:
    with pytest.raises(Reject, match=r"top_k: expected a whole number from 1 to 100"):
        handler.decode(Message({"_id": "a", "top_k": value}, 0))


@pytest.mark.parametrize("body", [{}, {"_id": None}, {"_id": {"$ne": None}}, {"_id": 5}, {"id": "a"}])
def test_a_bad_id_is_rejected(handler: HintHandler, body: JsonObject) -> None:
    with pytest.raises(Reject, match=r"_id .*expected 24 hex digits"):
        handler.decode(Message(body, 0))


async def test_an_index_that_is_not_there_yet_is_an_outage(handler: HintHandler) -> None:
    with pytest.raises(Outage, match="database"):
        await handler.ready()
    with pytest.raises(Outage, match="index: the active space is not known yet"):
        await handler.prepare([handler.decode(Message({"_id": "a"}, 0))])


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDMILL_FOLLOW", "poll")
    monkeypatch.setenv("FEEDMILL_HINT_ENCODE_RETRIES", "0")
    assert read(FollowSettings).follow == "poll"
    assert read(HintSettings).hint_encode_retries == 0
    monkeypatch.setenv("FEEDMILL_FOLLOW", "sometimes")
    with pytest.raises(SettingsError, match="FEEDMILL_FOLLOW"):
        read(FollowSettings)
