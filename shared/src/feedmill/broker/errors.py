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


@asynccontextmanager
async def guard(what: str, timeout_seconds: float) -> AsyncIterator[None]:
    """Run a call to the client library: in time, and with :class:`SessionLost` for whatever breaks the session.

    When a channel closes, the client library cancels its own inner tasks, and their CancelledError comes out of the
    call although nobody cancelled the caller. Such a one is a lost session; a real cancellation passes.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            yield
    except TimeoutError as error:
        raise SessionLost("timeout", f"{what}: no answer within {timeout_seconds:g} s") from error
    except (AMQPError, ChannelInvalidStateError, PAMQPException, OSError) as error:
        raise SessionLost("error", f"{what}: {describe(error)}") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise SessionLost("closed", f"{what}: the channel was closed") from error
    except Exception as error:
        # What the client library throws into its own tasks where it knows no reason for the end (its reject_all): this
        # class itself. Whatever is a subclass is a bug.
        if type(error) is not Exception:
            raise
        raise SessionLost("closed", f"{what}: the channel was closed") from error


def describe(error: BaseException | None) -> str:
    """An error of the client library in a line, without credentials."""
    if error is None:
        return "closed"
    return redact(shorten(f"{type(error).__name__}: {error}", 300))
