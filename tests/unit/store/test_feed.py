from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo import errors

from feedmill.errors import Outage
from feedmill.store import ChangeFeed, HistoryLost, StreamUnsupported

TOKEN = {"_data": "82"}


class Refusing:
    """A collection whose server refuses to open a change stream."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def watch(self, *_: Any, **__: Any) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("error", "token", "meaning"),
    [
        (errors.OperationFailure("only on replica sets", 40573), None, StreamUnsupported),
        (errors.OperationFailure("no such command", 59), TOKEN, StreamUnsupported),
        (errors.OperationFailure("not authorized", 13), None, StreamUnsupported),
        (errors.OperationFailure("resume point is gone", 286), TOKEN, HistoryLost),
        (errors.OperationFailure("resume token is no hex", 9), TOKEN, HistoryLost),
        (errors.OperationFailure("bad request", 9), None, errors.OperationFailure),
        (errors.OperationFailure("stepped down", 189), TOKEN, Outage),
        (errors.AutoReconnect("gone"), TOKEN, Outage),
    ],
)
async def test_what_a_refusal_means(error: Exception, token: Any, meaning: type[Exception]) -> None:
    with pytest.raises(meaning):
        async with ChangeFeed(Refusing(error), token, 1.0):
            pass


class Interrupted:
    """A stream whose call hangs in an outage, and that can't be closed under it."""

    alive = True
    resume_token = TOKEN

    def __init__(self) -> None:
        self.calls = 0

    async def try_next(self) -> None:
        self.calls += 1
        if self.calls > 1:  # the first opens it
            await asyncio.Event().wait()

    async def close(self) -> None:
        raise AttributeError("a session that the other thread has ended")


class Watched:
    def watch(self, *_: Any, **__: Any) -> Any:
        return Interrupted()


async def test_an_outage_is_told_whatever_closing_under_a_running_call_raises() -> None:
    """Found by a database that could not be reached, after both servers had been killed: a traceback in hint's log."""
    with pytest.raises(Outage, match="no change stream within"):
        async with ChangeFeed(Watched(), None, 0.01) as feed:
            await feed.changes()
