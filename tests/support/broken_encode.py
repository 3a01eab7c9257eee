"""``python -m support.broken_encode``: the encode worker with a model that can't bear some texts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from feedmill.models.encoder import SentenceEncoder

RAISES, TOO_MUCH, HANGS = "this text raises", "this text needs too much memory", "this text hangs"
"""What the model does to a batch with a text that holds one of these."""


def _raise() -> None:
    raise RuntimeError("the model can't bear this text")


def _allocate() -> None:
    np.empty(1 << 58)


HARM: dict[str, Callable[[], object]] = {RAISES: _raise, TOO_MUCH: _allocate, HANGS: threading.Event().wait}


def break_model() -> None:
    """Whatever harms is known by its tokens: the model itself sees no text."""
    tokenize, encode = SentenceEncoder.tokenize, SentenceEncoder.encode
    harmful: list[tuple[Any, Callable[[], object]]] = []

    def marking(self: SentenceEncoder, texts: Any) -> Any:
        tokens = tokenize(self, texts)
        harmful.extend(
            (one, harm) for one, text in zip(tokens, texts, strict=True) for sign, harm in HARM.items() if sign in text
        )
        return tokens

    def breaking(self: SentenceEncoder, batch: Any) -> Any:
        for one in batch:
            for bad, harm in harmful:
                if one is bad:
                    harm()
        return encode(self, batch)

    SentenceEncoder.tokenize = marking  # type: ignore[method-assign]
    SentenceEncoder.encode = breaking  # type: ignore[method-assign]


if __name__ == "__main__":
    # Only here: its import takes the process's SIGTERM, and a test that wants this module's names keeps its own.
    from feedmill_encode.__main__ import main

    break_model()
    main()
