"""One index at one size: how it is built, how it answers, what it takes, beside what it replaces."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bson import ObjectId

from data import Matrix
from feedmill.spaces import Space
from feedmill_hint.growth import RECALL_K, TUNING_QUERIES
from feedmill_hint.index import IndexLimits, VectorIndex
from feedmill_hint.settings import RECALL_TARGET
from feedmill_hint.snapshots import Position, restore, save

TOP_K = 5
BATCH = 64
CHANGES = 5_000

Figures = dict[str, Any]


def measure(vectors: Matrix, queries: int) -> Figures:
    """All figures of the embedded index, and of numpy's exact search and the first system's, on the same vectors."""
    before = rss_mib()
    ids = [ObjectId() for _ in range(len(vectors))]
    index, build_seconds = build(vectors, ids)
    figures: Figures = {"vectors": len(vectors), "kind": index.kind, "build_seconds": build_seconds}
    figures |= {"index_mib": index.bytes_used() / 2**20, "rss_growth_mib": rss_mib() - before}
    if index.kind == "ivf":
        figures["tune_seconds"] = timed(lambda: index.tune(RECALL_TARGET, TUNING_QUERIES, RECALL_K))[0]
        figures |= {"probes": index.probes, "lists": index.inverted_file.lists if index.inverted_file else 0}
    asking = np.random.default_rng(7).choice(len(vectors), queries, replace=False)
    figures |= searches(index, vectors, ids, asking)
    figures |= exact_numpy(vectors, asking, index, ids)
    figures |= first_system(vectors, asking)
    figures |= changes(index, vectors, ids)
    figures |= snapshot(index, vectors.shape[1])
    return figures


def build(vectors: Matrix, ids: list[ObjectId]) -> tuple[VectorIndex, float]:
    index = VectorIndex(vectors.shape[1], IndexLimits())
    began = time.perf_counter()
    index.expect(len(ids))
    if size := index.sample_size():
        index.begin(vectors[np.random.default_rng(3).choice(len(vectors), size, replace=False)])
    for start in range(0, len(ids), 1000):
        index.upsert(ids[start : start + 1000], vectors[start : start + 1000])
        if index.wants_successor():
            index.add_successor()
            while index.move_some():
                pass
    return index, time.perf_counter() - began


def searches(index: VectorIndex, vectors: Matrix, ids: list[ObjectId], asking: Any) -> Figures:
    """One query at a time, then batches from two threads at once, as at full load."""
    alone = [timed(lambda at=at: index.search(vectors[at : at + 1], TOP_K + 5, [ids[at]]))[0] for at in asking]
    batches = [asking[start : start + BATCH] for start in range(0, len(asking), BATCH)]

    def batch(chosen: Any) -> float:
        return timed(lambda: index.search(vectors[chosen], TOP_K + 5, [ids[at] for at in chosen]))[0]

    began = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        loaded = list(threads.map(batch, batches))
    rate = len(asking) / (time.perf_counter() - began)
    return {"alone_ms": quantiles(alone), "full_load_batch_ms": quantiles(loaded), "full_load_queries_per_second": rate}


def exact_numpy(vectors: Matrix, asking: Any, index: VectorIndex, ids: list[ObjectId]) -> Figures:
    """numpy's exact search, and with it the recall of the index."""
    asked = asking[: 64 if len(vectors) > 200_000 else 256]
    alone = [timed(lambda at=at: best(vectors @ vectors[at], TOP_K + 1))[0] for at in asked[:32]]
    places = {post_id: at for at, post_id in enumerate(ids)}
    found = 0
    for at in asked:
        scores = vectors @ vectors[at]
        scores[at] = -2
        floor = np.partition(scores, -TOP_K)[-TOP_K] - 1e-6
        [answer] = index.search(vectors[at : at + 1], TOP_K, [ids[at]])
        found += sum(scores[places[post_id]] >= floor for post_id, _ in answer)  # type: ignore[index]
    return {"numpy_alone_ms": quantiles(alone), "recall_at_5": found / (TOP_K * len(asked))}


def first_system(vectors: Matrix, asking: Any) -> Figures:
    """What the first system computed for each hint once it had fetched every post: a tensor of all, and cosines."""
    import torch

    if len(vectors) > 200_000:
        return {}

    def hint(at: int) -> None:
        everything = torch.tensor(vectors)
        torch.topk(torch.nn.functional.cosine_similarity(everything, torch.tensor(vectors[at : at + 1])), TOP_K + 1)

    return {"first_system_cosine_ms": quantiles([timed(lambda at=at: hint(at))[0] for at in asking[:8]])}


def changes(index: VectorIndex, vectors: Matrix, ids: list[ObjectId]) -> Figures:
    count = min(CHANGES, len(ids) // 2)
    some = ids[:count]
    deleting = timed(lambda: index.delete(some))[0]
    adding = timed(lambda: index.upsert(some, vectors[:count]))[0]
    replacing = timed(lambda: index.upsert(some, vectors[:count]))[0]
    return {
        "deletes_per_second": count / deleting,
        "adds_per_second": count / adding,
        "updates_per_second": count / replacing,
    }


def snapshot(index: VectorIndex, dimensions: int) -> Figures:
    part = index.inverted_file
    if part is None:
        return {}
    space = Space("bench", "model", "r1", dimensions)
    with tempfile.TemporaryDirectory() as folder:
        saving = timed(lambda: save(Path(folder), space, part, index.made_for, Position(None, None)))
        restoring = timed(lambda: restore(Path(folder), space))[0]
    return {"snapshot_write_seconds": saving[0], "snapshot_mib": saving[1] / 2**20, "snapshot_read_seconds": restoring}


def best(scores: Matrix, k: int) -> Any:
    chosen = np.argpartition(scores, -k)[-k:]
    return chosen[np.argsort(-scores[chosen])]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    answer = call()
    return time.perf_counter() - began, answer


def quantiles(seconds: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.quantile(np.array(seconds) * 1000, (0.5, 0.95, 0.99))
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


@contextmanager
def said(what: str) -> Iterator[None]:
    began = time.perf_counter()
    print(f"{what} ...", flush=True)
    yield
    print(f"{what}: {time.perf_counter() - began:.1f} s", flush=True)
