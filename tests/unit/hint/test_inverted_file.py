from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bson import ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st

from feedmill.ids import PostId
from feedmill.settings import read
from feedmill.spaces import Space
from feedmill_hint.index import IndexFull, IndexLimits, Matrix, VectorIndex
from feedmill_hint.ivf import IvfPart, lists_for
from feedmill_hint.loading import memory_limit
from feedmill_hint.settings import FollowSettings
from feedmill_hint.snapshots import MANIFEST, Position, SnapshotUnusable, restore, save

SPACE = Space("one", "pkg://model", "r1", 8)


def random_vectors(count: int, seed: int = 0, dimensions: int = 8) -> Matrix:
    return np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)


def settle(index: VectorIndex) -> None:
    while index.wants_successor():
        index.add_successor()
        while index.move_some():
            pass


def filled(count: int = 600, exact_below: int = 50) -> tuple[VectorIndex, list[PostId], Matrix]:
    index = VectorIndex(8, IndexLimits(exact_below))
    ids: list[PostId] = [ObjectId() if number % 2 else f"post {number}" for number in range(count)]
    vectors = random_vectors(count)
    index.upsert(ids, vectors)
    settle(index)
    assert index.kind == "ivf"
    return index, ids, vectors


def all_lists(index: VectorIndex) -> None:
    assert index.inverted_file is not None
    index.inverted_file.probes = index.inverted_file.lists


def best(vectors: Matrix, query: Matrix, k: int) -> list[float]:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return sorted((units @ (query / np.linalg.norm(query))).tolist(), reverse=True)[:k]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), moved=st.integers(0, 3))
def test_any_history_of_changes_searches_like_brute_force_also_while_vectors_move(seed: int, moved: int) -> None:
    random = np.random.default_rng(seed)
    index, content = VectorIndex(8, IndexLimits(exact_below=40)), dict[PostId, Matrix]()
    for step in range(40):
        ids = [f"p{number}" for number in random.integers(0, 90, size=6)]
        if random.random() < 0.25:
            assert index.delete(ids) == len(content.keys() & set(ids))
            for post_id in ids:
                content.pop(post_id, None)
        else:
            vectors = random_vectors(6, seed + step)
            index.upsert(ids, vectors)
            content.update(zip(ids, vectors, strict=True))
        if index.wants_successor():
            index.add_successor()
            for _ in range(moved):
                index.move_some()
    assert index.ids() == set(content)
    assert len(index) == len(content)
    if index.inverted_file is not None:
        all_lists(index)
    everything = np.stack(list(content.values()))
    for query, [answer] in ((q, index.search(q[np.newaxis], 5, [None])) for q in random_vectors(4, seed)):
        assert [score for _, score in answer] == pytest.approx(best(everything, query, 5), abs=2e-3)
        assert len({post_id for post_id, _ in answer}) == len(answer)
    found = index.vectors(content)
    assert found.keys() == content.keys()


def test_an_index_outgrows_its_structure_and_stays_the_same() -> None:
    index, ids, vectors = filled(100)
    first = index.inverted_file
    more: list[PostId] = [f"more {number}" for number in range(2000)]
    index.upsert(more, random_vectors(2000, 1))
    settle(index)
    assert index.inverted_file is not first
    assert not index.is_moving
    assert index.ids() == {*ids, *more}
    all_lists(index)
    [answer] = index.search(vectors[:1], 3, [None])
    assert answer[0] == (ids[0], 1.0)


def test_recall_is_measured_and_tuned_for() -> None:
    index, _, _ = filled(3000)
    assert index.inverted_file is not None
    index.inverted_file.probes = 1
    poor = index.recall(100, 10)
    tuned = index.tune(0.99, 100, 10)
    assert poor is not None
    assert tuned is not None
    assert poor < 0.99 <= tuned
    assert index.probes > 1
    assert VectorIndex(8).recall(10, 10) is None


def test_more_than_the_probed_lists_hold_can_be_asked_for() -> None:
    index, ids, vectors = filled(600)
    assert index.inverted_file is not None
    index.inverted_file.probes = 1
    [answer] = index.search(vectors[:1], 400, [ids[0]])
    assert len(answer) == 400
    assert ids[0] not in {post_id for post_id, _ in answer}


def test_readers_never_see_a_vector_missing_while_it_moves() -> None:
    index = VectorIndex(8, IndexLimits(500))
    ids = [f"p{number}" for number in range(2000)]
    vectors = random_vectors(2000)
    index.upsert(ids, vectors)
    index.add_successor()
    all_lists(index)
    seen: list[bool] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            [answer] = index.search(vectors[7:8], 1, [None])
            seen.append(answer[0][0] == "p7")

    reader = threading.Thread(target=look)
    reader.start()
    while index.move_some():
        pass
    stop.set()
    reader.join()
    assert all(seen)


def test_what_does_not_fit_is_refused_before_it_is_added() -> None:
    index = VectorIndex(8, IndexLimits(exact_below=1000, max_bytes=100_000))
    index.upsert([f"p{number}" for number in range(200)], random_vectors(200))
    with pytest.raises(IndexFull, match="FEEDMILL_INDEX_MAX_BYTES"):
        index.upsert([f"q{number}" for number in range(200)], random_vectors(200))
    with pytest.raises(IndexFull):
        index.expect(1_000_000)
    assert len(index) == 200


def test_the_memory_limit_is_the_containers_unless_it_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = tmp_path / "memory.max"
    monkeypatch.setattr("feedmill_hint.loading.CGROUP_LIMITS", (tmp_path / "none", limits))
    expected = {"max": 0, str(2**30): 3 * 2**28, str(2**63 - 4096): 0}
    for text, limit in expected.items():
        limits.write_text(text)
        assert memory_limit(read(FollowSettings)) == limit
    assert memory_limit(read(FollowSettings, index_max_bytes=5)) == 5


@pytest.mark.parametrize(("vectors", "lists"), [(1, 16), (20_000, 256), (100_000, 512), (1_000_000, 2048)])
def test_lists_grow_with_the_square_root(vectors: int, lists: int) -> None:
    assert lists_for(vectors) == lists


# ---- snapshots


def stored(folder: Path) -> tuple[VectorIndex, Position]:
    index, ids, _ = filled()
    index.delete(ids[:5])
    position = Position(datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC), {"_data": "82", "n": 1})
    part = index.inverted_file
    assert part is not None
    save(folder, SPACE, part, index.made_for, position)
    return index, position


def test_a_snapshot_comes_back_as_it_was_and_can_be_changed(tmp_path: Path) -> None:
    index, position = stored(tmp_path)
    restored = restore(tmp_path, SPACE)
    assert restored.position == position
    again = VectorIndex(8)
    again.replace_all(restored.part, restored.made_for)
    assert again.ids() == index.ids()
    assert again.probes == index.probes
    query = random_vectors(3, 9)
    assert again.search(query, 5, [None] * 3) == index.search(query, 5, [None] * 3)
    again.upsert(["new", "post 10"], query[:2])
    assert again.delete(["post 12"]) == 1
    all_lists(again)
    assert again.search(query[:1], 1, [None]) == [[("new", 1.0)]]
    assert isinstance(restored.part, IvfPart)


def test_only_the_newest_snapshot_is_kept(tmp_path: Path) -> None:
    stored(tmp_path)
    index, _ = stored(tmp_path)
    assert len(list((tmp_path / "one").iterdir())) == 3
    assert len(restore(tmp_path, SPACE).part) == len(index)


def damage(name: str) -> Any:
    def cut(folder: Path) -> None:
        [file] = folder.glob(name)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    return cut


def edit(**changes: object) -> Any:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))

    return change


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (damage("*.faiss"), "damaged"),
        (damage("*.keys"), "damaged"),
        (edit(format=99), "format"),
        (edit(space={"name": "one", "revision": "r2", "dimensions": 8}), "another space"),
        (edit(vectors=7), "vectors"),
        (edit(files={}), "read"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "read"),
        (lambda folder: (folder / MANIFEST).unlink(), "no manifest"),
        (lambda folder: next(folder.glob("*.keys")).unlink(), "no .*keys"),
    ],
)
def test_a_snapshot_that_is_not_sound_is_noticed(tmp_path: Path, harm: Any, why: str) -> None:
    stored(tmp_path)
    harm(tmp_path / "one")
    with pytest.raises(SnapshotUnusable, match=why):
        restore(tmp_path, SPACE)


def test_an_empty_index_learns_from_a_sample_of_what_is_to_come_and_is_filled_in_place() -> None:
    index = VectorIndex(8, IndexLimits(exact_below=50))
    vectors = random_vectors(600)
    assert index.sample_size() == 0, "nothing is expected"
    index.expect(600)
    assert index.sample_size() > 0
    sample = np.concatenate([vectors[::2], np.zeros((1, 8), np.float32)])
    index.begin(sample)
    assert (index.kind, len(index), index.sample_size()) == ("ivf", 0, 0)
    ids: list[PostId] = [f"post {number}" for number in range(600)]
    index.upsert(ids, vectors)
    assert not index.wants_successor()
    all_lists(index)
    [answer] = index.search(vectors[:1], 5, [None])
    assert [score for _, score in answer] == pytest.approx(best(vectors, vectors[0], 5), abs=1e-3)
    index.begin(sample)
    assert len(index) == 600, "too late: it is filled"


def test_an_index_of_few_vectors_wants_no_sample() -> None:
    index = VectorIndex(8, IndexLimits(exact_below=50))
    index.expect(49)
    assert index.sample_size() == 0
    index.expect(600)
    index.begin(np.zeros((3, 8), np.float32))
    assert index.kind == "exact", "a sample without a direction teaches nothing"
