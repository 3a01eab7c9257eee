from __future__ import annotations

import threading

import numpy as np
import pytest
from bson import ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.ids import PostId, id_text
from feedmill_hint import exact as index_module
from feedmill_hint.index import Matrix, VectorIndex


def rows(*numbers: tuple[float, ...]) -> Matrix:
    return np.array(numbers, np.float32)


def brute_force(
    content: dict[PostId, Matrix], query: Matrix, k: int, exclude: PostId | None
) -> list[tuple[PostId, float]]:
    def unit(vector: Matrix) -> Matrix:
        wide = vector.astype(np.float64)
        return (wide / np.linalg.norm(wide)).astype(np.float32)

    def cosine(vector: Matrix) -> float:
        return round(float(unit(query).astype(np.float64) @ unit(vector).astype(np.float64)), 6)

    scored = [(post_id, cosine(vector)) for post_id, vector in content.items() if post_id != exclude]
    return sorted(scored, key=lambda entry: (-entry[1], id_text(entry[0])))[:k]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 12), block=st.sampled_from([1, 7, 50, 4_000_000]))
def test_any_history_of_changes_searches_like_brute_force(seed: int, k: int, block: int) -> None:
    random = np.random.default_rng(seed)
    index, content = VectorIndex(4), dict[PostId, Matrix]()
    for _ in range(30):
        ids = [f"p{number}" for number in random.integers(0, 25, size=3)]
        if random.random() < 0.35:
            assert index.delete(ids) == len(content.keys() & set(ids))
            for post_id in ids:
                content.pop(post_id, None)
        else:
            vectors = random.integers(-2, 3, size=(3, 4)).astype(np.float32) + np.float32(0.25)  # many ties
            index.upsert(ids, vectors)
            content.update(zip(ids, vectors, strict=True))
    assert index.ids() == set(content)
    queries = random.integers(-2, 3, size=(3, 4)).astype(np.float32) + np.float32(0.25)
    excluded: list[PostId | None] = ["p1", None, "unknown"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "BLOCK_SCORES", block)
        answers = index.search(queries, k, excluded)
    for query, exclude, answer in zip(queries, excluded, answers, strict=True):
        expected = brute_force(content, query, k, exclude)
        assert [post_id for post_id, _ in answer] == [post_id for post_id, _ in expected]
        assert [score for _, score in answer] == pytest.approx([score for _, score in expected], abs=2e-6)


def test_vectors_are_found_again_at_length_one() -> None:
    index = VectorIndex(2)
    post_id = ObjectId()
    index.upsert([post_id, "b"], rows((3, 4), (1e30, 0)))
    found = index.vectors([post_id, "b", "unknown"])
    assert found.keys() == {post_id, "b"}
    assert found[post_id] == pytest.approx([0.6, 0.8])
    assert found["b"] == pytest.approx([1, 0])


def test_an_empty_index_finds_nothing() -> None:
    assert VectorIndex(2).search(rows((1, 0)), 5, [None]) == [[]]
    assert VectorIndex(2).search(np.empty((0, 2), np.float32), 5, []) == []


def test_an_objectid_and_the_same_text_are_two_ids() -> None:
    index = VectorIndex(2)
    post_id = ObjectId()
    index.upsert([str(post_id), post_id], rows((1, 0), (1, 0)))
    assert index.search(rows((1, 0)), 5, [post_id]) == [[(str(post_id), 1.0)]]
    assert index.search(rows((1, 0)), 5, [None]) == [[(post_id, 1.0), (str(post_id), 1.0)]]


@pytest.mark.parametrize(
    "vectors", [rows((1, 2, 3)), rows((0, 0)), rows((float("nan"), 1)), rows((float("inf"), 1)), rows((1, 2))[0]]
)
def test_vectors_that_are_refused(vectors: Matrix) -> None:
    index = VectorIndex(2)
    with pytest.raises(ValueError, match="vectors"):
        index.upsert(["a"] * len(vectors), vectors)
    with pytest.raises(ValueError, match="vectors"):
        index.search(vectors, 3, [None] * len(vectors))
    assert len(index) == 0


def test_very_many_equal_vectors_stay_bounded() -> None:
    index = VectorIndex(2)
    index.upsert([f"p{number:05}" for number in range(20_000)], np.tile(rows((1, 1)), (20_000, 1)))
    index.upsert(["best"], rows((1, 1.01)))
    [answer] = index.search(rows((1, 1.01)), 3, [None])
    assert [post_id for post_id, _ in answer] == ["best", "p00000", "p00001"]


def test_searches_beside_a_writer_see_whole_changes() -> None:
    """The writer moves a pair of posts from one direction to another and back; a search must see both or neither."""
    index = VectorIndex(2)
    filler = np.tile(rows((-1, -1)), (3000, 1))
    index.upsert([f"f{number}" for number in range(len(filler))], filler)
    index.upsert(["a", "b"], rows((1, 0), (1, 0)))
    torn: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            [answer] = index.search(rows((1, 0)), 2, [None])
            if len({score for _, score in answer}) != 1 or {post_id for post_id, _ in answer} != {"a", "b"}:
                torn.append(answer)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(200):
        index.upsert(["a", "b"], rows((1, 0), (1, 0)) if turn % 2 else rows((1, 1), (1, 1)))
        index.delete([f"f{turn}"])
    stop.set()
    for reader in readers:
        reader.join(timeout=10)
    assert not torn
    assert len(index) == 3000 - 200 + 2
