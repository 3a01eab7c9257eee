from __future__ import annotations

import bson
import pytest
from bson.datetime_ms import DatetimeMS

from feedmill.errors import ModelError, SettingsError
from feedmill.settings import StoreSettings, read
from feedmill.spaces import Space, content_hash
from feedmill.store import Store

DRIVERS = pytest.mark.parametrize("driver", ["motor", "pymongo"])


@DRIVERS
@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://user:hun/ter2@localhost/",
        "mongodb://user:hunter2@localhost:port/",
        "mongodb://us@er:hunter2@localhost/",
        "mongodb://user:hunter2@localhost/?w=0",
        "mongodb://user:hunter2@localhost/?w=0&journal=true",
        "mongodb://",
    ],
)
async def test_a_bad_uri_is_a_settings_error_without_its_password(driver: str, uri: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Store.open(read(StoreSettings, uri=uri, driver=driver))
    assert "MONGO_URI" in str(caught.value)
    assert "ter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@DRIVERS
async def test_writes_ask_for_a_majority_and_the_journal(driver: str) -> None:
    store = Store.open(read(StoreSettings, uri="mongodb://localhost:1", driver=driver), "feedmill-toxic")
    concern = store._client.write_concern.document
    assert (concern["w"], concern["j"]) == ("majority", True)
    await store.close()


@DRIVERS
async def test_options_in_the_uri_win(driver: str) -> None:
    uri = "mongodb://localhost:1/?w=2&maxPoolSize=3&appName=mine"
    store = Store.open(read(StoreSettings, uri=uri, driver=driver), "feedmill-toxic")
    options = store._client.options
    assert store._client.write_concern.document == {"w": 2}
    assert options.pool_options.max_pool_size == store._slots._value == 3
    assert options.pool_options.appname == "mine"
    await store.close()


@DRIVERS
async def test_a_date_or_a_string_that_python_cannot_hold_does_not_spoil_a_batch(driver: str) -> None:
    store = Store.open(read(StoreSettings, uri="mongodb://localhost:1", driver=driver))
    far, broken = {"when": DatetimeMS(10**15)}, bson.encode({"text": "abc"}).replace(b"abc", b"a\xffc")
    codec = store._database["posts"].codec_options
    assert bson.decode(bson.encode(far), codec) == far
    assert bson.decode(broken, codec) == {"text": "a\ufffdc"}
    await store.close()


@DRIVERS
async def test_the_address_for_logs_has_no_credentials(driver: str) -> None:
    uri = "mongodb://user:hunter2@one:1,two:2/admin?authSource=admin"
    store = Store.open(read(StoreSettings, uri=uri, database="site", driver=driver))
    assert store.address == "one:1,two:2/site"
    await store.close()


@pytest.mark.parametrize(
    ("name", "dimensions"), [("", 3), ("active", 3), ("A", 3), ("a.b", 3), ("a" * 61, 3), ("ok", 0)]
)
def test_spaces_that_cannot_be(name: str, dimensions: int) -> None:
    with pytest.raises(ModelError, match="expected"):
        Space(name, "model", "r1", dimensions)


def test_content_hashes_tell_texts_apart() -> None:
    assert content_hash("a", "b") != content_hash("ab", "")
    assert content_hash("\ud800") == content_hash("\ud800")
    assert len(content_hash("a")) == 32
