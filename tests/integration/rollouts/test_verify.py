"""What is measured of a new space before the switch, on a real database."""

from __future__ import annotations

import json

import numpy as np
import pytest

from feedmill.settings import StoreSettings
from feedmill.spaces import Space, VectorWrite, activate, ensure_active, register_space, write_vectors
from feedmill.store import Write
from feedmill.store.opening import open_store
from feedmill_hint.verify import main, verify

POSTS = 60


async def test_coverage_recall_and_overlap_are_measured(
    mongo_uri: str, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedmill_hint.verify.PATIENCE_SECONDS", 0.1)
    settings = StoreSettings(uri=mongo_uri, database=database_name)
    old, new = Space("old", "m", "1", 16), Space("new", "m", "2", 24)
    rng = np.random.default_rng(1)
    ids = [f"p{number}" for number in range(POSTS)]
    async with open_store(settings, "test") as store:
        await store.write("posts", [Write(i, {"$set": {"content": i}}, upsert=True) for i in ids])
        for space, count in ((old, POSTS), (new, POSTS - 6)):
            await register_space(store, space)
            await ensure_active(store, "old")
            vectors = rng.normal(size=(count, space.dimensions)).astype("<f4")
            writes = [VectorWrite(i, row.tobytes(), "h") for i, row in zip(ids, vectors, strict=False)]
            await write_vectors(store, space, writes)
        answer = await verify(store, "new")
        assert answer["coverage"] == pytest.approx(0.9)
        assert answer["recall"] == 1.0
        assert 0 < answer["overlap"] < 0.6  # two random spaces agree by chance alone
        assert (answer["active"], answer["sample"]) == ("old", POSTS - 6)
        await activate(store, "new")
        assert (await verify(store, "new"))["overlap"] == 1.0


def test_a_space_that_is_not_there_is_an_error(
    mongo_uri: str, database_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MONGO_URI", mongo_uri)
    monkeypatch.setenv("DATABASE_NAME", database_name)
    assert main(["--space", "nowhere"]) == 1
    assert "space nowhere" in json.loads(capsys.readouterr().out)["error"]
