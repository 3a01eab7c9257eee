"""The work on one lease: read posts, encode those whose content is not in the space yet, write beside live traffic."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self, TypeVar

from feedmill.contract import ENCODE
from feedmill.errors import Outage, Reject
from feedmill.ids import PostId
from feedmill.lane import Lane
from feedmill.spaces import ContentState, Space, VectorWrite, complete_posts, content_states, write_if_unmoved
from feedmill.store import Document, Store
from feedmill_encode.backfill.ledger import PAGE_IDS, Lease, Ledger
from feedmill_encode.post import Post, read_post

if TYPE_CHECKING:
    from feedmill.models.encoder import SentenceEncoder

RANGE_POSTS = 512
"""Posts in one lease: what a process that is killed leaves to be done again."""
READ_POSTS = 128
SETTLE_SECONDS = 60.0
"""A vector of another content than the post's that is younger than this is left to live traffic: a producer may send a
post to be encoded before it stores it."""

T = TypeVar("T")


@dataclass
class Counts:
    """What this process did."""

    encoded: int = 0
    unchanged: int = 0
    without_text: int = 0
    overtaken: int = 0
    """Encoded, but live traffic had written meanwhile."""


class Pace:
    """Keeps to ``rate`` posts a second on the average; None: no limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due = time.monotonic()

    def portion(self, most: int) -> int:
        """How many posts to take at once: no more than a second's worth."""
        return most if self._rate is None else max(1, min(most, int(self._rate)))

    async def after(self, posts: int, stop: asyncio.Event) -> None:
        """Wait until the next posts may be encoded, or until ``stop``."""
        if self._rate is None:
            return
        self._due = max(self._due, time.monotonic() - 1.0) + posts / self._rate
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._due - time.monotonic())):
                await stop.wait()


@dataclass
class Filler:
    """Fills ``space`` with what ``encoder`` makes of the stored posts."""

    store: Store
    space: Space
    encoder: SentenceEncoder
    max_text_chars: int
    batch: int
    pace: Pace
    stop: asyncio.Event
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self._lane = Lane("model")

    def close(self) -> None:
        self._lane.close()

    async def fill(self, ledger: Ledger, lease: Lease) -> int | None:
        """Work on all posts of ``lease``; answer how many there are, None when ``stop`` came first. Raises Outage."""
        ids = await ledger.ids(lease, PAGE_IDS)
        for part in _portions(ids, READ_POSTS):
            await self._fill_part(part)
            if self.stop.is_set():
                return None
        return len(ids)

    async def _fill_part(self, ids: Sequence[PostId]) -> None:
        # In this order: see write_if_unmoved.
        seen = await content_states(self.store, self.space, ids)
        posts = await self.store.find(ENCODE.collection, ids, {"content": 1, "title": 1})
        todo: list[Post] = []
        unchanged: dict[PostId, str] = {}
        for post in self._with_text(posts):
            state = seen.get(post.id)
            if state is not None and state.content_hash == post.hash:
                unchanged[post.id] = post.hash
            elif _is_due(state):
                todo.append(post)
        self.counts.unchanged += len(unchanged)
        await complete_posts(self.store, self.space, unchanged, posts)
        todo.sort(key=lambda post: len(post.text))  # texts of one length make batches with little padding
        for batch in _portions(todo, self.pace.portion(self.batch)):
            if self.stop.is_set():
                return
            vectors = await self._lane.run(self._encode, batch)
            writes = [VectorWrite(post.id, vector, post.hash) for post, vector in zip(batch, vectors, strict=True)]
            standing = await write_if_unmoved(self.store, self.space, writes, seen, posts)
            self.counts.encoded += standing
            self.counts.overtaken += len(batch) - standing
            await self.pace.after(len(batch), self.stop)

    def _with_text(self, posts: Mapping[PostId, Document]) -> Iterator[Post]:
        for post_id, document in posts.items():
            try:
                yield read_post(post_id, document, self.max_text_chars)
            except Reject:  # what a message with this content would be refused for
                self.counts.without_text += 1

    def _encode(self, batch: Sequence[Post]) -> list[bytes]:
        vectors = self.encoder.encode(self.encoder.tokenize([post.text for post in batch]))
        return [row.tobytes() for row in vectors.astype("<f4", copy=False)]


class Keeper:
    """Keeps a lease while the block lasts: its beat is counted up now and then, beside the work."""

    def __init__(self, ledger: Ledger, lease: Lease, interval_seconds: float) -> None:
        self._ledger = ledger
        self._interval_seconds = interval_seconds
        self._beating: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self.lease: Lease | None = lease
        """None once another process has taken it over: its work goes on being harmless, and is counted there."""

    async def __aenter__(self) -> Self:
        self._beating = asyncio.create_task(self._beat(), name="lease")
        return self

    async def __aexit__(self, *_: object) -> None:
        # Not in the middle of a beat: one that was counted in the database and not here would look like a lost lease.
        async with self._turn:
            if self._beating:
                self._beating.cancel()

    async def _beat(self) -> None:
        while self.lease is not None:
            await asyncio.sleep(self._interval_seconds)
            with suppress(Outage):  # the work meets it as well
                async with self._turn:
                    self.lease = await self._ledger.keep(self.lease)


def positive(text: str) -> float:
    """A rate or a time on a command line."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def _is_due(seen: ContentState | None) -> bool:
    """Whether a post is to be encoded whose content is another than what ``seen`` was made from."""
    return seen is None or seen.updated_at is None or _age_seconds(seen.updated_at) > SETTLE_SECONDS


def _age_seconds(moment: datetime) -> float:
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (datetime.now(UTC) - aware).total_seconds()


def _portions(entries: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (entries[start : start + size] for start in range(0, len(entries), size))
