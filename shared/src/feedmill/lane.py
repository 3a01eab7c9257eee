"""Threads for blocking work, so that the event loop does I/O only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

THREAD_PREFIX = "lane-"
"""By this the end of the process knows the threads that may hang in a model."""


class Lane:
    """Runs blocking calls on ``threads`` threads of its own: with one, one at a time and in order."""

    def __init__(self, name: str, threads: int = 1) -> None:
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=f"{THREAD_PREFIX}{name}")

    async def run(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *args)

    def close(self) -> None:
        """Take no more calls. Does not wait: a call that hangs must not hold up the exit."""
        self._executor.shutdown(wait=False, cancel_futures=True)


async def run_blocking(call: Callable[[], T], name: str) -> T:
    """Run one blocking call on a thread of its own, for as long as it takes."""
    lane = Lane(name)
    try:
        return await lane.run(call)
    finally:
        lane.close()
