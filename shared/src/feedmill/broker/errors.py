"""The broker's own errors, and the guard that turns the client library's into them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aio_pika.exceptions import AMQPError, ChannelInvalidStateError
from pamqp.exceptions import PAMQPException

from feedmill.errors import FeedmillError, shorten
from feedmill.logs import redact


class SessionLost(FeedmillError):
    """The session with the broker is over: what it delivered will be delivered again."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause = cause
        self.detail = detail


class Undeliverable(FeedmillError):
    """The broker returned or refused one message. The session goes on."""


_BROKEN = (TimeoutError, AMQPError, ChannelInvalidStateError, PAMQPException, OSError)


@asynccontextmanager
async def guard(what: str, timeout_seconds: float) -> AsyncIterator[None]:
    """Run a call to the client library: in time, and with :class:`SessionLost` for whatever breaks the session.

    The client library blurs cancellation in both directions, and this makes it plain again. When a channel closes, it
    cancels its own inner tasks, and their CancelledError comes out of the call although nobody cancelled the caller:
    that is a lost session. And a caller that was cancelled may get an answer all the same, or another error: Python
    3.11's ``asyncio.wait_for``, on which the library rests, drops a cancellation that meets an answer. Then the
    cancellation is raised here; a task that went on without it would never end.
    """
    task = asyncio.current_task()
    asked = task.cancelling() if task else 0

    def is_cancelled() -> bool:
        return task is not None and task.cancelling() > asked

    try:
        async with asyncio.timeout(timeout_seconds):
            yield
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise SessionLost("closed", f"{what}: the channel was closed") from error
    except Exception as error:
        if not isinstance(error, (SessionLost, *_BROKEN)) and not _has_no_reason(error):
            raise
        if is_cancelled():
            raise asyncio.CancelledError from error
        if isinstance(error, SessionLost):
            raise
        raise _lost(what, timeout_seconds, error) from error
    if is_cancelled():
        raise asyncio.CancelledError


def _has_no_reason(error: Exception) -> bool:
    """Whether it is what the client library throws into its own tasks where it knows no reason for the end (reject_all
    of its FutureStore): Exception itself. Whatever is a subclass is a bug."""
    return type(error) is Exception


def _lost(what: str, timeout_seconds: float, error: Exception) -> SessionLost:
    if _has_no_reason(error):
        return SessionLost("closed", f"{what}: the channel was closed")
    if isinstance(error, TimeoutError):
        return SessionLost("timeout", f"{what}: no answer within {timeout_seconds:g} s")
    return SessionLost("error", f"{what}: {describe(error)}")


def describe(error: BaseException | None) -> str:
    """An error of the client library in a line, without credentials."""
    if error is None:
        return "closed"
    return redact(shorten(f"{type(error).__name__}: {error}", 300))
