"""The sample feed on its way through the stack: sent as a site's backend would, and checked from end to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from feedmill.contract import ENCODE, HINT, ROUTES, TOXIC, Route
from feedmill.errors import FeedmillError
from feedmill.ids import parse_id
from feedmill.settings import BrokerSettings, StoreSettings
from feedmill.spaces import active_space, read_vectors
from feedmill.store import Store, Write
from feedmill.store.opening import open_store
from feedmill_local import dead_letters
from feedmill_local.client import Answer, Client, Inbox, Request, open_client, send_all
from feedmill_local.queue_walk import walk
from feedmill_local.sample_feed import Document, Feed

PATIENCE_SECONDS = 60.0
"""Without any further answer for so long, the rest is given up."""
INDEX_TIMEOUT_SECONDS = 60.0
INDEX_POLL_SECONDS = 0.1
TOP_K = 3
MAX_TOP_K = 100
ASK_EVERY = 5
"""Similar posts are asked for each so manieth post."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the feed goes. ``broker_is_private``: nobody else consumes results there."""

    broker: BrokerSettings
    store: StoreSettings
    broker_is_private: bool


class DemoError(FeedmillError):
    """The demonstration can't go on. The text says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the feed. ``problems`` is empty when all is as it should be."""

    feed: Feed
    answers: dict[str, list[Answer]]
    """Those that are as they should be, by worker, in the order of sending."""
    problems: list[str]


class Demo:
    """One run of the feed; :meth:`play` it once."""

    def __init__(self, feed: Feed, client: Client, store: Store, on_answer: Callable[[Answer], None]) -> None:
        self._feed = feed
        self._client = client
        self._store = store
        self._inbox = Inbox(lambda answer: on_answer(answer) if answer.request.id in self._counted else None)
        self._counted: set[str] = set()
        self._problems: list[str] = []

    async def play(self, say: Say) -> Outcome:
        """Send the feed and check what comes of it. Raises DemoError, SessionLost or Outage."""
        dead_before = await self._dead_letters()
        await self._save_feed()
        for route in ROUTES.values():
            await self._client.listen(route, self._inbox.receive)
        posts, comments = self._feed.posts, self._feed.comments
        say(f"sending {len(posts)} posts to encode and {len(comments)} comments to toxic, all at once")
        encode = [_request(ENCODE, post, ("_id", "title", "content")) for post in posts]
        toxic = [_request(TOXIC, comment, ("_id", "content")) for comment in comments]
        await self._ask(_interleaved(encode, toxic))
        await self._index_caught_up()
        asking = [Request(HINT, _body({"_id": post["_id"], "top_k": TOP_K})) for post in posts[::ASK_EVERY]]
        say(f"asking hint for the posts nearest to each of {len(asking)}")
        await self._ask(asking)
        answers = {
            "toxic": self._right("toxic", toxic, lambda result: isinstance(result.get("isToxic"), bool)),
            "encode": self._right("encode", encode, lambda result: result.get("status") == "success"),
            "hint": self._right("hint", asking, lambda result: len(result.get("homologous_posts", ())) == TOP_K),
        }
        await self._check_comments(answers["toxic"])
        await self._check_posts()
        await self._check_dead_letters(dead_before)
        return Outcome(self._feed, answers, self._problems)

    async def forget_results(self) -> None:
        """Take our own results out of the result queues, as the backend would that a private broker does not have."""
        for route in ROUTES.values():
            async with walk(self._client, route.result_queue) as walking:
                while taken := await walking.take():
                    if taken.properties.correlation_id in self._inbox.answers:
                        await walking.ack(taken)

    async def _save_feed(self) -> None:
        """Store the feed as the site's backend would; what an earlier run has written to it is removed."""
        for collection, documents, results in (
            (ENCODE.collection, self._feed.posts, ("embedding",)),
            (TOXIC.collection, self._feed.comments, ("isToxic", "toxicity")),
        ):
            report = await self._store.write(collection, [_save(document, results) for document in documents])
            if failed := [error for error in report.errors if error is not None]:
                raise DemoError(f"{collection}: {len(failed)} documents can't be written: {failed[0]}")

    async def _ask(self, requests: Sequence[Request]) -> None:
        """Send and wait for the answers; those that do not come are a problem, not an error."""
        self._counted.update(request.id for request in requests)
        returned = await send_all(self._client, requests, self._inbox)
        if returned:
            self._problems.append(f"{len(returned)} messages were not delivered: {returned[0].why}")
        await self._inbox.wait(PATIENCE_SECONDS, self._client.lost)
        for request in self._inbox.pending:  # given up: the next to be asked must not wait for them again
            self._inbox.forget(request)

    async def _index_caught_up(self) -> None:
        """Wait until hint's index knows the posts: it follows the database, a moment behind.

        Raises:
            DemoError: it does not in time.
        """
        expected = min(MAX_TOP_K, len(self._feed.posts) - 1)
        body = _body({"_id": self._feed.posts[-1]["_id"], "top_k": MAX_TOP_K})
        found = 0
        try:
            async with asyncio.timeout(INDEX_TIMEOUT_SECONDS):
                while found < expected:
                    request = Request(HINT, body)
                    await send_all(self._client, [request], self._inbox)
                    if await self._inbox.wait(INDEX_TIMEOUT_SECONDS, self._client.lost):
                        found = len(self._inbox.answers[request.id].json().get("homologous_posts", ()))
                    await asyncio.sleep(INDEX_POLL_SECONDS)
        except TimeoutError:
            raise DemoError(
                f"hint: its index had {found} posts after {INDEX_TIMEOUT_SECONDS:.0f} s, expected at least {expected}"
            ) from None

    def _right(self, worker: str, requests: Sequence[Request], is_right: Callable[[Any], bool]) -> list[Answer]:
        """The answers that are as they should be; that there are others, or none, is a problem."""
        answers = [self._inbox.answers[request.id] for request in requests if request.id in self._inbox.answers]
        if missing := len(requests) - len(answers):
            self._problems.append(f"{worker}: {missing} of {len(requests)} messages were not answered")
        right = [answer for answer in answers if is_right(answer.json())]
        if len(right) < len(answers):
            wrong = next(answer for answer in answers if answer not in right)
            self._problems.append(f"{worker}: {len(answers) - len(right)} wrong answers, such as {wrong.body[:200]!r}")
        return right

    async def _check_comments(self, verdicts: Sequence[Answer]) -> None:
        """The verdicts must be in the database as the answers say."""
        told = {parse_id(answer.json()["commentId"], "commentId"): answer.json()["isToxic"] for answer in verdicts}
        comments = await self._store.find(TOXIC.collection, told, {"isToxic": 1})
        if wrong := sum(comments.get(key, {}).get("isToxic") is not is_toxic for key, is_toxic in told.items()):
            self._problems.append(f"toxic: {wrong} verdicts are not in the collection {TOXIC.collection}")

    async def _check_posts(self) -> None:
        """The vectors must be in the active space, and in the posts."""
        ids = [parse_id(post["_id"], "_id") for post in self._feed.posts]
        posts = await self._store.find(ENCODE.collection, ids, {"embedding": 1})
        if missing := sum(not posts.get(key, {}).get("embedding") for key in ids):
            self._problems.append(f"encode: {missing} posts have no embedding in the collection {ENCODE.collection}")
        space = await active_space(self._store)
        vectors = await read_vectors(self._store, space, ids) if space else {}
        if missing := len(ids) - len(vectors):
            where = f"the collection {space.collection}" if space else "any collection: no space is active"
            self._problems.append(f"encode: {missing} posts have no vector in {where}")

    async def _check_dead_letters(self, before: Mapping[str, int]) -> None:
        for worker, count in (await self._dead_letters()).items():
            if count > before[worker]:
                self._problems.append(f"{worker}: {count - before[worker]} dead letters, see feedmill dead list")

    async def _dead_letters(self) -> dict[str, int]:
        return {worker: await dead_letters.count(self._client, route) for worker, route in ROUTES.items()}


async def play(feed: Feed, servers: Servers, on_answer: Callable[[Answer], None], say: Say) -> Outcome:
    """Send the feed through a stack that runs, and check what comes of it. Raises DemoError, SessionLost or Outage."""
    async with open_store(servers.store, "feedmill-demo") as store, open_client(servers.broker) as client:
        demo = Demo(feed, client, store, on_answer)
        try:
            return await demo.play(say)
        finally:
            if servers.broker_is_private:
                await demo.forget_results()


def _request(route: Route, document: Document, fields: Sequence[str]) -> Request:
    return Request(route, _body({name: document[name] for name in fields}))


def _body(value: Mapping[str, Any]) -> bytes:
    return orjson.dumps(value)


def _save(document: Document, results: Sequence[str]) -> Write:
    fields = {name: value for name, value in document.items() if name != "_id"}
    update = {"$set": fields, "$unset": dict.fromkeys(results, "")}
    return Write(parse_id(document["_id"], "_id"), update, upsert=True)


def _interleaved(first: Sequence[Request], second: Sequence[Request]) -> list[Request]:
    """Both, evenly mixed by their places in their own row, as they would come in on a site."""
    places = [(index / len(row), request) for row in (first, second) for index, request in enumerate(row)]
    return [request for _, request in sorted(places, key=lambda place: place[0])]
