"""What the encode worker does with posts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feedmill.errors import MessageError, Reject
from feedmill.ids import PostId, id_text, parse_id
from feedmill.lane import Lane
from feedmill.pipeline.handler import JsonObject, Message
from feedmill.spaces import Space, Vector, VectorWrite, content_hash, ensure_active, register_space, write_vectors
from feedmill.store import Store
from feedmill.wire import text_field

if TYPE_CHECKING:  # torch takes seconds to import: not before the probes answer and the settings are checked
    from feedmill.models.encoder import SentenceEncoder
    from feedmill.models.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Post:
    """A post to encode. A title is encoded as the text's first line."""

    id: PostId
    title: str
    content: str

    @property
    def text(self) -> str:
        return f"{self.title}\n{self.content}".strip()


@dataclass(frozen=True, slots=True)
class TokenizedPost:
    """A post with its tokens."""

    post: Post
    tokens: Tokens

    @property
    def cost(self) -> int:
        return self.tokens.cost


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
        self._inferring = Lane("model")

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
        body = message.body
        post = Post(
            id=parse_id(body.get("_id"), "_id"),
            title=text_field(body, ("title",), self._max_text_chars, required=False),
            content=text_field(body, ("content",), self._max_text_chars),
        )
        if not post.text:
            raise Reject("empty_text", "content: empty, expected text (or a title)")
        return post

    async def prepare(self, requests: Sequence[Post]) -> Sequence[TokenizedPost | MessageError]:
        tokens = await self._tokenizing.run(self._encoder.tokenize, [post.text for post in requests])
        return [TokenizedPost(post, own) for post, own in zip(requests, tokens, strict=True)]

    async def infer(self, batch: Sequence[TokenizedPost]) -> Sequence[Vector | MessageError]:
        vectors = await self._inferring.run(self._encoder.encode, [work.tokens for work in batch])
        return [row.tobytes() for row in vectors.astype("<f4", copy=False)]

    async def commit(self, batch: Sequence[tuple[TokenizedPost, Vector]]) -> Sequence[JsonObject | MessageError]:
        writes = [VectorWrite(work.post.id, vector, content_hash(work.post.text)) for work, vector in batch]
        upsert = self._store.settings.upsert
        report = await write_vectors(self._store, self._space, writes, upsert_posts=upsert)
        self._on_missing(report.missing)
        return [
            error if error is not None else self._result(work.post)
            for (work, _), error in zip(batch, report.errors, strict=True)
        ]

    def _result(self, post: Post) -> JsonObject:
        return {
            "id": id_text(post.id),
            "status": "success",
            "model": self._encoder.model,
            "space": self._space.name,
        }
