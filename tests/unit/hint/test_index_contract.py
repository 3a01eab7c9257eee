"""What every index promises, whatever engine it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from bson import ObjectId
from qdrant_client import QdrantClient

from feedmill.errors import Outage, SettingsError
from feedmill.ids import PostId
from feedmill.settings import read
from feedmill.spaces import Space
from feedmill_hint.index import IndexLimits, VectorIndex
from feedmill_hint.loading import check_engine, make_index
from feedmill_hint.qdrant import QdrantIndex
from feedmill_hint.settings import FollowSettings
from feedmill_hint.vectors import Index, Matrix

MakeIndex = Callable[[], Index]


def inverted_file() -> Index:
    index = VectorIndex(4, IndexLimits(exact_below=8))
    index.upsert([f"first {number}" for number in range(64)], random_vectors(64, 99))
    index.add_successor()
    while index.move_some():
        pass
    index.delete(index.ids())
    assert index.inverted_file is not None
    index.inverted_file.probes = index.inverted_file.lists
    return index


MAKERS: dict[str, MakeIndex] = {
    "exact": lambda: VectorIndex(4),
    "inverted file": inverted_file,
    "qdrant": lambda: QdrantIndex(QdrantClient(":memory:"), "one", 4),
}


@pytest.fixture(params=MAKERS)
def index(request: pytest.FixtureRequest) -> Index:
    return MAKERS[request.param]()


def random_vectors(count: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def cosine(one: Matrix, other: Matrix) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_a_history_of_changes_is_searched_like_brute_force(index: Index) -> None:
    random = np.random.default_rng(5)
    content: dict[PostId, Matrix] = {}
    names: list[PostId] = [ObjectId() if number % 2 else f"p{number}" for number in range(40)]
    for step in range(30):
        ids = [names[number] for number in random.choice(40, 5, replace=False)]
        if step % 4 == 3:
            assert index.delete(ids) == len(content.keys() & set(ids))
            for post_id in ids:
                content.pop(post_id, None)
        else:
            vectors = random_vectors(5, step)
            index.upsert(ids, vectors)
            content.update(zip(ids, vectors, strict=True))
    assert index.ids() == content.keys()
    assert len(index) == len(content)
    asking = next(iter(content))
    [answer, others] = index.search(np.stack([content[asking]] * 2), 7, [None, asking])
    expected = sorted((cosine(content[asking], vector) for vector in content.values()), reverse=True)
    assert answer[0] == (asking, pytest.approx(1.0, abs=1e-3))
    assert [score for _, score in answer] == pytest.approx(expected[:7], abs=2e-3)
    assert [score for _, score in others] == pytest.approx(expected[1:8], abs=2e-3)
    assert asking not in dict(others)


def test_vectors_come_back_at_length_one(index: Index) -> None:
    post_id = ObjectId()
    index.upsert([post_id, "b"], np.array([(3, 4, 0, 0), (0, 0, 0, 2)], np.float32))
    found = index.vectors([post_id, "b", "unknown", str(post_id)])
    assert found.keys() == {post_id, "b"}
    assert found[post_id] == pytest.approx([0.6, 0.8, 0, 0], abs=1e-3)


def test_an_objectid_and_its_text_are_two_posts(index: Index) -> None:
    post_id = ObjectId()
    index.upsert([post_id, str(post_id)], random_vectors(2))
    assert index.ids() == {post_id, str(post_id)}
    assert index.delete([str(post_id)]) == 1
    assert index.ids() == {post_id}


def test_the_last_of_equal_ids_counts(index: Index) -> None:
    index.upsert(["a", "b", "a"], np.array([(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)], np.float32))
    assert len(index) == 2
    assert index.vectors(["a"])["a"] == pytest.approx([0, 0, 1, 0])


def test_equal_scores_come_in_order_of_the_id(index: Index) -> None:
    index.upsert(["c", "a", "b"], np.array([(1, 0, 0, 0)] * 3, np.float32))
    [answer] = index.search(np.array([(1, 0, 0, 0)], np.float32), 2, [None])
    assert [post_id for post_id, _ in answer] == ["a", "b"]


def test_an_empty_index_finds_nothing(index: Index) -> None:
    assert index.search(random_vectors(2), 3, [None, "a"]) == [[], []]
    assert index.vectors(["a"]) == {}
    assert index.delete(["a"]) == 0


@pytest.mark.parametrize("bad", [np.zeros((1, 4)), np.full((1, 4), np.nan), np.ones((1, 3))])
def test_vectors_that_can_not_be_compared_are_refused(index: Index, bad: Matrix) -> None:
    with pytest.raises(ValueError, match="vectors"):
        index.upsert(["a"], bad.astype(np.float32))
    with pytest.raises(ValueError, match="vectors"):
        index.search(bad.astype(np.float32), 1, [None])


def test_a_qdrant_that_is_away_is_an_outage_and_a_bad_url_is_said() -> None:
    space = Space("one", "pkg://model", "r1", 4)
    settings = read(FollowSettings, index_engine="qdrant", qdrant_url="http://127.0.0.1:9")
    with pytest.raises(Outage, match="Qdrant"):
        make_index(space, settings).ids()
    with pytest.raises(SettingsError, match="FEEDMILL_QDRANT_URL"):
        check_engine(read(FollowSettings, index_engine="qdrant", qdrant_url="qdrant:6333"))
