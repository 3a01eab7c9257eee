"""Libraries for the embedded index, on the same vectors, in CPU time of one thread: docs/adr/0003.

``python bench/hint/libraries.py [VECTORS]``; usearch has to be installed for its lines (``pip install usearch``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from data import Matrix, clustered

K = 10
QUERIES = 256
FACTORIES = {
    "IVF flat": "IVF{},Flat",
    "IVF f16": "IVF{},SQfp16",
    "IVF 8 bit": "IVF{},SQ8",
    "HNSW32 f16": "HNSW32,SQfp16",
}


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    faiss.omp_set_num_threads(1)
    vectors = clustered(count)
    queries = vectors[:: count // QUERIES][:QUERIES]
    exact = np.sort(queries @ vectors.T, axis=1)[:, -K]
    lists = 2 ** round(np.log2(2 * count**0.5))
    print(f"{count} vectors, {lists} lists, top {K}; CPU of one thread")
    for name, factory in FACTORIES.items():
        index = faiss.index_factory(vectors.shape[1], factory.format(lists), faiss.METRIC_INNER_PRODUCT)
        building = cpu(lambda index=index: (index.train(vectors[: 40 * lists]), index.add(vectors)))
        size = len(faiss.serialize_index(index)) / 2**20
        for breadth in (8, 16) if "IVF" in name else (64, 128):
            parameters = ivf(breadth) if "IVF" in name else faiss.SearchParametersHNSW(efSearch=breadth)
            report(f"faiss {name} {breadth}", building, size, searched(index, parameters, queries), vectors, exact)
    for kind in ("f16", "i8"):
        usearch(kind, vectors, queries, exact)


def ivf(probes: int) -> Any:
    return faiss.SearchParametersIVF(nprobe=probes)


def searched(index: Any, parameters: Any, queries: Matrix) -> Callable[[], list[Any]]:
    return lambda: [index.search(queries[at : at + 1], K, params=parameters)[1][0] for at in range(len(queries))]


def usearch(kind: str, vectors: Matrix, queries: Matrix, exact: Matrix) -> None:
    try:
        from usearch.index import Index
    except ImportError:
        print("usearch is not installed")
        return
    index = Index(ndim=vectors.shape[1], metric="ip", dtype=kind)
    building = cpu(lambda: index.add(np.arange(len(vectors)), vectors, threads=1))
    size = index.serialized_length / 2**20
    report(f"usearch HNSW {kind}", building, size, lambda: [index.search(q, K).keys for q in queries], vectors, exact)


def report(
    name: str, building: float, size: float, search: Callable[[], list[Any]], vectors: Matrix, exact: Matrix
) -> None:
    began = time.process_time()
    answers = search()
    per_query = (time.process_time() - began) / len(answers) * 1000
    queries = vectors[:: len(vectors) // QUERIES][:QUERIES]
    pairs = zip(queries, answers, exact, strict=True)
    found = sum(int((vectors[np.asarray(a, np.int64)] @ q >= floor - 1e-6).sum()) for q, a, floor in pairs)
    recall = found / (K * len(answers))
    print(
        f"{name:24} build {building:6.1f} s  {size:6.0f} MiB  {per_query:6.3f} ms a query  recall {recall:.4f}",
        flush=True,
    )


def cpu(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


if __name__ == "__main__":
    main()
