"""Answers "which posts are like this one?" from the index in memory and the posts in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feedmill.contract import HINT
from feedmill.documents import VECTOR_FIELD, json_safe
from feedmill.errors import MessageError, Outage, Reject, Retry
from feedmill.ids import PostId, id_text, parse_id
from feedmill.pipeline.handler import JsonObject, Message
from feedmill.spaces import Space, read_vectors
from feedmill.store import Document, Store
from feedmill_hint.filters import Filters, passes, read_filters, split
from feedmill_hint.follow import Follower, Snapshot
from feedmill_hint.index import Matrix, Scored, usable
from feedmill_hint.settings import HintSettings

DEFAULT_TOP_K = 5
MAX_TOP_K = 100
SPARE_CANDIDATES = 5
"""Found beyond ``top_k``, in place of posts that are gone while their vectors are still there."""
MAX_CANDIDATES = 2000
"""How deep a search goes when very many posts are gone; after that the answer is shorter than asked for."""


@dataclass(frozen=True, slots=True)
class HintRequest:
    """What a message asks for."""

    id: PostId
    top_k: int
    inline: object
    """The message's ``embedding``, unchecked: it counts only where the stored one is missing."""
    inline_space: str | None
    """The space that the message says its ``embedding`` is of."""
    filters: Filters
    may_wait: bool
    """Whether a post without a vector is tried again, as its encode may be on its way; else it is answered so."""


@dataclass(frozen=True, slots=True, eq=False)
class HintWork:
    """A request with its vector (``[dimensions]``) and the snapshot that it is answered from; neither: not encoded."""

    request: HintRequest
    snapshot: Snapshot | None
    vector: Matrix | None

    @property
    def cost(self) -> int:
        return 1


class HintHandler:
    """The hint worker's part of the pipeline (:class:`feedmill.pipeline.handler.Handler`). Stores nothing."""

    lanes = 1
    batch_tokens = 1024
    """A request counts as one: the messages of a batch are the limit."""

    def __init__(self, store: Store, follower: Follower, settings: HintSettings) -> None:
        self._store = store
        self._follower = follower
        self._settings = settings
        self._shown = split(settings.hint_post_fields)
        self._projection = _projection(self._shown, settings)

    def decode(self, message: Message) -> HintRequest:
        """Raises Reject for a bad ``_id``, ``top_k`` or filter. Whatever else the body holds is not looked at."""
        body = message.body
        may_wait = message.attempt < self._settings.hint_encode_retries and not message.is_last
        return HintRequest(
            parse_id(body.get("_id"), "_id"),
            _parse_top_k(body.get("top_k")),
            body.get(VECTOR_FIELD),
            _parse_space(body.get("embedding_space")),
            read_filters(body, self._settings),
            may_wait,
        )

    async def prepare(self, requests: Sequence[HintRequest]) -> Sequence[HintWork | MessageError]:
        """Find each post's vector: in the index, else in the database, else in the message."""
        snapshot = self._follower.snapshot
        if snapshot is None:
            if obstacle := self._follower.missing():
                raise Outage("index", obstacle)
            return [self._without_vector(request) for request in requests]
        stored = await self._stored_vectors(snapshot, {request.id for request in requests})
        return [self._work(request, snapshot, stored.get(request.id)) for request in requests]

    async def infer(self, batch: Sequence[HintWork]) -> Sequence[Scored | MessageError]:
        """Search in a thread, all requests of one snapshot in one matrix product."""
        outputs: list[Scored | MessageError] = [[] for _ in batch]
        for snapshot in {work.snapshot for work in batch}:
            if snapshot is not None:
                positions = [position for position, work in enumerate(batch) if work.snapshot is snapshot]
                depth = max(batch[position].request.top_k for position in positions) + SPARE_CANDIDATES
                found = await _search([batch[position] for position in positions], snapshot, depth)
                for position, scored in zip(positions, found, strict=True):
                    outputs[position] = scored
        return outputs

    async def commit(self, batch: Sequence[tuple[HintWork, Scored]]) -> Sequence[JsonObject | MessageError]:
        """Fetch the posts that were found and build the answers. A post that is gone or filtered out makes room for the
        next, however deep that has to look (:data:`MAX_CANDIDATES`)."""
        answers = [_Answer(work, scored, self._settings) for work, scored in batch]
        posts: dict[PostId, Document | None] = {}
        while True:
            wanted = {post_id for answer in answers for post_id in answer.to_fetch(posts)}
            if wanted:
                found = await self._store.find(HINT.collection, wanted, self._projection)
                posts.update((post_id, found.get(post_id)) for post_id in wanted)
                continue
            short = [answer for answer in answers if answer.may_go_deeper(posts)]
            if not short:
                return [answer.result(posts, self._shown) for answer in answers]
            for answer in short:
                await answer.go_deeper()

    async def ready(self) -> None:
        """Return when the database answers and the index is warm. Raises Outage."""
        await self._store.ping()
        if obstacle := self._follower.missing():
            raise Outage("index", obstacle)

    async def _stored_vectors(self, snapshot: Snapshot, ids: set[PostId]) -> Mapping[PostId, Matrix]:
        vectors = await asyncio.to_thread(snapshot.index.vectors, ids)
        if unknown := ids - vectors.keys():  # perhaps encoded a moment ago
            for post_id, packed in (await read_vectors(self._store, snapshot.space, unknown)).items():
                vector = np.frombuffer(packed, "<f4").astype(np.float32)
                if usable(vector[np.newaxis, :])[0]:
                    vectors[post_id] = vector
        return vectors

    def _work(self, request: HintRequest, snapshot: Snapshot, stored: Matrix | None) -> HintWork | MessageError:
        if stored is not None:
            return HintWork(request, snapshot, stored)
        if request.inline is None or not self._is_of(request, snapshot.space):
            return self._without_vector(request)
        try:
            return HintWork(request, snapshot, _parse_inline(request.inline, snapshot.space))
        except Reject as error:
            return error

    def _is_of(self, request: HintRequest, space: Space) -> bool:
        """Whether the message's vector is of ``space``. Where another one was active before, it may be of that: then
        only a vector that names its space is compared."""
        if request.inline_space is not None:
            return request.inline_space == space.name
        return not self._follower.was_switched

    def _without_vector(self, request: HintRequest) -> HintWork | MessageError:
        if request.may_wait:
            return Retry("not_encoded", f"post {id_text(request.id)} has no vector in the active space yet")
        return HintWork(request, None, None)


class _Answer:
    """One request's answer while its posts are being fetched."""

    def __init__(self, work: HintWork, candidates: Scored, settings: HintSettings) -> None:
        self._work = work
        self._settings = settings
        self._candidates = candidates
        self._depth = work.request.top_k + SPARE_CANDIDATES

    def to_fetch(self, posts: Mapping[PostId, Document | None]) -> list[PostId]:
        """The best candidates that are not fetched yet, as many as are needed to fill the answer; before them the
        asking post, where its author matters."""
        request = self._work.request
        if request.filters.same_author and self._candidates and request.id not in posts:
            return [request.id, *(post_id for post_id, _ in self._candidates[: request.top_k] if post_id not in posts)]
        room = request.top_k
        unknown: list[PostId] = []
        for post_id, _ in self._near_enough():
            if room == 0:
                break
            if post_id not in posts:
                unknown.append(post_id)
            if post_id not in posts or self._passes(posts, post_id):
                room -= 1
        return unknown

    def may_go_deeper(self, posts: Mapping[PostId, Document | None]) -> bool:
        """Whether all candidates are fetched, do not fill the answer, and the index has more that is near enough."""
        is_filled = len(self._present(posts)) >= self._work.request.top_k
        has_more = self._depth <= len(self._candidates) < MAX_CANDIDATES
        return not is_filled and has_more and self._candidates[-1][1] >= self._work.request.filters.min_score

    async def go_deeper(self) -> None:
        self._depth = min(4 * len(self._candidates), MAX_CANDIDATES)
        if self._work.snapshot is not None:
            [self._candidates] = await _search([self._work], self._work.snapshot, self._depth)

    def result(self, posts: Mapping[PostId, Document | None], shown: Sequence[str]) -> JsonObject:
        request = self._work.request
        if self._work.vector is None:
            return {"status": "not_encoded", "id": id_text(request.id), "homologous_posts": []}
        best = self._present(posts)[: request.top_k]
        found = [{"post": json_safe(_only(post, shown)), "score": score} for post, score in best]
        return {"status": "success", "id": id_text(request.id), "homologous_posts": found}

    def _near_enough(self) -> Scored:
        return [entry for entry in self._candidates if entry[1] >= self._work.request.filters.min_score]

    def _passes(self, posts: Mapping[PostId, Document | None], post_id: PostId) -> bool:
        post, asking = posts.get(post_id), posts.get(self._work.request.id)
        author = asking.get(self._settings.hint_author_field) if asking else None
        return post is not None and passes(post, author, self._work.request.filters, self._settings)

    def _present(self, posts: Mapping[PostId, Document | None]) -> list[tuple[Document, float]]:
        passing = ((posts[post_id], score) for post_id, score in self._near_enough() if self._passes(posts, post_id))
        return [(post, score) for post, score in passing if post is not None]


def _projection(shown: Sequence[str], settings: HintSettings) -> dict[str, int]:
    """What is fetched of a post: all but its vector, or what is shown and what filters look at."""
    if not shown:
        return {VECTOR_FIELD: 0}
    looked_at = (settings.hint_author_field, settings.hint_date_field, "isToxic", *split(settings.hint_deleted_fields))
    return dict.fromkeys((*shown, *looked_at), 1)


def _only(post: Document, shown: Sequence[str]) -> Document:
    return {name: value for name, value in post.items() if name in ("_id", *shown)} if shown else post


async def _search(works: Iterable[HintWork], snapshot: Snapshot, depth: int) -> list[Scored]:
    asked = [(work.request.id, work.vector) for work in works]
    vectors = np.stack([vector for _, vector in asked if vector is not None])
    return await asyncio.to_thread(snapshot.index.search, vectors, depth, [post_id for post_id, _ in asked])


def _parse_top_k(value: object) -> int:
    if value is None:
        return DEFAULT_TOP_K
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TOP_K:
        raise Reject("bad_top_k", f"top_k: expected a whole number from 1 to {MAX_TOP_K}")
    return value


def _parse_space(value: object) -> str | None:
    """Raises Reject."""
    if value is None or isinstance(value, str):
        return value
    raise Reject("wrong_type", "embedding_space: expected the name of a space, as encode's results tell it")


def _parse_inline(value: Any, space: Space) -> Matrix:
    """The message's own vector (``[dimensions]``). Raises Reject."""
    expected = f"expected {space.dimensions} finite numbers, the length of space {space.name}, not all zero"
    if not isinstance(value, list):
        raise Reject("bad_embedding", f"{VECTOR_FIELD} is no array: {expected}")
    if len(value) != space.dimensions:
        raise Reject("bad_embedding", f"{VECTOR_FIELD} has {len(value)} entries: {expected}")
    if any(isinstance(number, bool) or not isinstance(number, (int, float)) for number in value):
        raise Reject("bad_embedding", f"{VECTOR_FIELD} holds something other than numbers: {expected}")
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused below
            vector = np.array(value, np.float64).astype(np.float32)
    except OverflowError:  # a whole number too large for any float
        raise Reject("bad_embedding", f"{VECTOR_FIELD} holds a number that is too large: {expected}") from None
    if not usable(vector[np.newaxis, :])[0]:
        raise Reject("bad_embedding", f"{VECTOR_FIELD} has no direction: {expected}")
    return vector
