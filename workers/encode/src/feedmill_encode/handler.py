"""What the encode worker does with posts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feedmill.errors import MessageError, Retry
from feedmill.ids import PostId, id_text, parse_id
from feedmill.lane import Lane
from feedmill.pipeline.handler import JsonObject, Message
from feedmill.spaces import (
    Space,
    Vector,
    VectorWrite,
    content_states,
    ensure_active,
    register_space,
    unchanged_vectors,
    write_posts,
    write_vectors,
)
from feedmill.store import Store, WriteReport
from feedmill_encode.post import Post, read_post

if TYPE_CHECKING:  # torch takes seconds to import: not before the probes answer and the settings are checked
    from feedmill.models.encoder import SentenceEncoder
    from feedmill.models.tokens import Tokens


@dataclass(frozen=True, slots=True)
class EncodeWork:
    """A post with its tokens, or with the vector that is stored already: then nothing has to be computed."""

    post: Post
    tokens: Tokens | None
    stored: Vector | None = None

    @property
    def cost(self) -> int:
        return self.tokens.cost if self.tokens else 1


class EncodeHandler:
    """See :class:`feedmill.pipeline.handler.Handler`."""

    def __init__(
        self,
        encoder: SentenceEncoder,
        store: Store,
        max_text_chars: int,
        on_missing: Callable[[int], None],
        *,
        is_shadow: bool = False,
    ) -> None:
        """``is_shadow``: fills its own space from copies of the messages, and never makes it the active one."""
        self._encoder = encoder
        self._space = Space(encoder.space, encoder.uri, encoder.revision, encoder.dimensions)
        self._store = store
        self._max_text_chars = max_text_chars
        self._on_missing = on_missing
        self._is_shadow = is_shadow
        self._is_registered = False
        self._tokenizing = Lane("tokenize")
        self.lanes = encoder.lanes
        self.batch_tokens = encoder.batch_tokens
        self._inferring = Lane("model", encoder.lanes)

    @property
    def space(self) -> Space:
        """Where this worker's vectors go."""
        return self._space

    def close(self) -> None:
        self._tokenizing.close()
        self._inferring.close()

    async def ready(self) -> None:
        """The database answers and knows this model's space; the first space ever becomes the active one."""
        await self._store.ping()
        if not self._is_registered:
            await register_space(self._store, self._space)
            if not self._is_shadow:
                await ensure_active(self._store, self._space.name)
            self._is_registered = True

    def decode(self, message: Message) -> Post:
        return read_post(parse_id(message.body.get("_id"), "_id"), message.body, self._max_text_chars)

    async def prepare(self, requests: Sequence[Post]) -> Sequence[EncodeWork | MessageError]:
        """Tokenize what is new. A post whose content has not changed since it was encoded keeps its vector."""
        hashes = {post.id: post.hash for post in reversed(requests)}  # the first one's, of several about one post
        stored = await unchanged_vectors(self._store, self._space, hashes)
        first = _first_of_each(requests)
        kept = [stored.get(post.id) if is_first else None for post, is_first in zip(requests, first, strict=True)]
        new = [post for post, vector in zip(requests, kept, strict=True) if vector is None]
        tokens = iter(await self._tokenizing.run(self._encoder.tokenize, [post.text for post in new]) if new else [])
        return [
            EncodeWork(post, next(tokens) if vector is None else None, vector)
            for post, vector in zip(requests, kept, strict=True)
        ]

    async def infer(self, batch: Sequence[EncodeWork]) -> Sequence[Vector | MessageError]:
        new = [work.tokens for work in batch if work.tokens is not None]
        vectors = await self._inferring.run(self._encoder.encode, new)
        rows = (row.astype("<f4", copy=False).tobytes() for row in vectors)
        return [next(rows) if work.stored is None else work.stored for work in batch]

    async def commit(self, batch: Sequence[tuple[EncodeWork, Vector]]) -> Sequence[JsonObject | MessageError]:
        writes = [VectorWrite(work.post.id, vector, work.post.hash) for work, vector in batch]
        first = _first_of_each([work.post for work, _ in batch])
        kept = [position for position, (work, _) in enumerate(batch) if work.stored is not None]
        new = [position for position, (work, _) in enumerate(batch) if work.stored is None]
        # What was kept is looked at before something new is written: its message came before.
        confirmed = await self._confirm([writes[position] for position in kept], [first[position] for position in kept])
        written = await self._write([writes[position] for position in new])
        self._on_missing(confirmed.missing + written.missing)
        errors = dict(zip(kept + new, confirmed.errors + written.errors, strict=True))
        return [errors[position] or self._result(work.post) for position, (work, _) in enumerate(batch)]

    async def _write(self, writes: Sequence[VectorWrite]) -> WriteReport:
        if not writes:
            return WriteReport([], 0)
        return await write_vectors(self._store, self._space, writes, upsert_posts=self._store.settings.upsert)

    async def _confirm(self, writes: Sequence[VectorWrite], is_first: Sequence[bool]) -> WriteReport:
        """Look again whether kept vectors are still right: an earlier message about the post was perhaps under way.

        If so, this message comes again, and is encoded after that one.
        """
        if not writes:
            return WriteReport([], 0)
        states = await content_states(self._store, self._space, [write.id for write in writes])
        same = [write.id in states and states[write.id].content_hash == write.content_hash for write in writes]
        errors: list[MessageError | None] = [
            None if as_it_was and first else Retry("changed_meanwhile", f"post {id_text(write.id)} was just written")
            for write, as_it_was, first in zip(writes, same, is_first, strict=True)
        ]
        missing = await write_posts(self._store, self._space, writes, errors, upsert=self._store.settings.upsert)
        return WriteReport(errors, missing)

    def _result(self, post: Post) -> JsonObject:
        return {
            "id": id_text(post.id),
            "status": "success",
            "model": self._encoder.model,
            "space": self._space.name,
        }


def _first_of_each(posts: Sequence[Post]) -> list[bool]:
    """For each whether no other about the same post comes before it."""
    places: dict[PostId, int] = {}
    return [places.setdefault(post.id, place) == place for place, post in enumerate(posts)]
