"""A collection's change stream: which documents changed. The driver resumes it by itself over short interruptions."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pymongo.errors import OperationFailure, PyMongoError

from feedmill.errors import FeedmillError, Outage
from feedmill.store import faults

log = logging.getLogger(__name__)

AWAIT_MILLISECONDS = 500
"""How long the server holds a question for changes open when there are none; also for how long changes are gathered."""

# Only ids are asked for: the reader fetches the documents' present state, so that many changes of one document cost one
# read and an old state never overwrites a newer one.
_PIPELINE = [{"$project": {"operationType": 1, "documentKey": 1}}]
_DOCUMENT_CHANGES = frozenset({"insert", "update", "replace", "delete"})
_HISTORY_LOST_CODES = frozenset({280, 286})  # ChangeStreamFatalError, ChangeStreamHistoryLost
# InvalidResumeToken, and FailedToParse and its like: what servers say to a token that is not their own
_BAD_TOKEN_CODES = _HISTORY_LOST_CODES | {9, 260, 50811}
# CommandNotFound, CommandNotSupported, "$changeStream stage is only supported on replica sets", unknown stage, and a
# user without the right to watch
_UNSUPPORTED_CODES = frozenset({13, 59, 115, 40324, 40573, 303})


class HistoryLost(FeedmillError):
    """Changes were missed for good (the history is too short, or the collection was dropped): read everything anew."""


class StreamUnsupported(FeedmillError):
    """This server (a single node without a replica set, or a MongoDB-like server) has no change streams for us."""


@dataclass(frozen=True, slots=True)
class Change:
    """A document that was made, changed or removed."""

    id: object


class ChangeFeed:
    """An open change stream; an asynchronous context manager for one reader.

    Not counted against the store's turns: it waits at the server most of the time and takes one connection.
    """

    def __init__(self, collection: Any, resume_token: Mapping[str, Any] | None, timeout_seconds: float) -> None:
        self._collection = collection
        self._token = resume_token
        self._timeout_seconds = timeout_seconds
        self._stream: Any = None
        self._pending: list[Mapping[str, Any]] = []

    @property
    def resume_token(self) -> Mapping[str, Any] | None:
        """Where the next feed goes on, after the changes that were answered."""
        token: Mapping[str, Any] | None = self._stream.resume_token if self._stream is not None else None
        return token or self._token

    async def __aenter__(self) -> Self:
        """Open the stream: changes from here on are seen. Raises what :meth:`changes` raises."""
        try:
            await self._guarded(self._open())
        except BaseException:  # also when cancelled: nobody else closes what was opened
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def changes(self, limit: int = 1000) -> list[Change]:
        """What changed since the last call, at most ``limit``; an empty list after about half a second without any.

        Raises:
            HistoryLost: some changes can't be had any more.
            StreamUnsupported: this server has no change streams.
            Outage: the database is away; open a new feed at :attr:`resume_token` later.
        """
        events = await self._guarded(self._collect(limit))
        for event in events:
            if event["operationType"] not in _DOCUMENT_CHANGES:
                raise HistoryLost(f"the collection saw {event['operationType']}")
        return [Change(event["documentKey"]["_id"]) for event in events]

    async def _open(self) -> None:
        options = {"resume_after": self._token} if self._token else {}
        stream = self._collection.watch(_PIPELINE, max_await_time_ms=AWAIT_MILLISECONDS, **options)
        self._stream = await stream if inspect.isawaitable(stream) else stream
        first = await self._stream.try_next()  # Motor opens the stream only here
        if first is not None:
            self._pending.append(first)

    async def _close(self) -> None:
        if self._stream is None:
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._stream.close()
        except Exception as error:
            # Best effort: the server drops a forgotten cursor by itself. After an outage a call that was given up still
            # runs on the driver's thread, and what closing under it raises is any of the driver's insides.
            log.debug("change stream not closed: %s", type(error).__name__)

    async def _collect(self, limit: int) -> list[Mapping[str, Any]]:
        events, self._pending = self._pending, []
        enough_at = time.monotonic() + AWAIT_MILLISECONDS / 1000
        while len(events) < limit and time.monotonic() < enough_at:
            if not self._stream.alive:
                raise HistoryLost("the stream was closed by the server")
            event = await self._stream.try_next()
            if event is None:
                break
            events.append(event)
        return events

    async def _guarded(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await call
        except TimeoutError as error:
            raise Outage(faults.DEPENDENCY, f"no change stream within {self._timeout_seconds:g} s") from error
        except OperationFailure as error:
            raise self._meaning(error) from error
        except PyMongoError as error:
            raise faults.as_outage(error) or error from error

    def _meaning(self, error: OperationFailure) -> Exception:
        if error.code in _UNSUPPORTED_CODES:
            return StreamUnsupported(f"change streams are not available (code {error.code})")
        if error.code in (_BAD_TOKEN_CODES if self._token is not None else _HISTORY_LOST_CODES):
            return HistoryLost(f"the change stream can't be resumed (code {error.code})")
        return faults.as_outage(error) or error
