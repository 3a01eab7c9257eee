"""Embeddings of the recipe's texts, kept on disk: they take minutes, and training over them seconds."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feedmill.models.encoder import SentenceEncoder

Features = NDArray[np.float32]

_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class Embedder:
    """Embeds texts through the encoder of the workers, and remembers them in ``cache``.

    ``tag`` names everything besides the texts that decides the embeddings: encoder, pooling, length.
    """

    encoder: SentenceEncoder
    cache: Path
    tag: str

    def embed(self, name: str, texts: Sequence[str]) -> Features:
        """Embeddings ``[texts, size]`` of the data set ``name``; progress goes to stderr."""
        self.cache.mkdir(parents=True, exist_ok=True)
        blocks: list[Features] = []
        started, computed = time.monotonic(), 0
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            file = self.cache / f"{self._key(block)}.npy"
            if not file.is_file():
                # Half precision halves the cache; what it loses is far below what the head can tell apart.
                np.save(file, self.encoder.encode(self.encoder.tokenize(block)).astype(np.float16))
                computed += len(block)
            blocks.append(np.load(file).astype(np.float32))
            each = (time.monotonic() - started) / computed if computed else None
            _progress(name, start + len(block), len(texts), each)
        return np.concatenate(blocks) if blocks else np.empty((0, self.encoder.dimensions), dtype=np.float32)

    def _key(self, block: Sequence[str]) -> str:
        digest = hashlib.sha256(self.tag.encode())
        for text in block:
            digest.update(hashlib.sha256(text.encode(errors="replace")).digest())
        return digest.hexdigest()[:24]


def _progress(name: str, done: int, total: int, seconds_each: float | None) -> None:
    left = "from the cache" if seconds_each is None else f"about {(total - done) * seconds_each:.0f} s left"
    print(f"  {name}: {done:,} of {total:,} embedded, {left}", file=sys.stderr, flush=True)
