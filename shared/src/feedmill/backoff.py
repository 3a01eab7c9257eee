"""Capped exponential back-off with jitter."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double from ``first_seconds`` to ``max_seconds``, each drawn between a half and the whole of it."""

    def __init__(self, first_seconds: float, max_seconds: float) -> None:
        self._first = first_seconds
        self._max = max_seconds
        self._failures = 0

    def next(self) -> float:
        """The delay before the next try, in seconds."""
        # The exponent is capped too: 2.0**1024 would overflow after a long night.
        ceiling = min(self._max, self._first * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return ceiling * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        self._failures = 0
