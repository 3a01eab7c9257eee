"""What can go wrong with a message, in the three ways that the pipeline tells apart.

Everything below the pipeline (store, models, handlers) raises or returns one of these. Any other exception is a bug:
the pipeline narrows it down to the message that causes it, and treats that message as :class:`Retry`.
"""

from __future__ import annotations

MAX_DETAIL_CHARS = 500


def shorten(text: str, limit: int = MAX_DETAIL_CHARS) -> str:
    """``text`` on one line, cut to ``limit`` characters: safe for a log line or a message header."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())  # lone surrogates can't be sent
    return line if len(line) <= limit else line[: limit - 1] + "…"


class FeedmillError(Exception):
    """Base of the errors that Feedmill raises on purpose."""


class SettingsError(FeedmillError):
    """The configuration can't work. The text names the setting and what was expected; the process exits with 2."""


class ModelError(FeedmillError):
    """A model can't be found, is refused, or can't be loaded. The text says what to change."""


class MessageError(FeedmillError):
    """A failure of one message: ``reason``, a short code for headers and metrics, and ``detail``, for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = shorten(detail)


class Reject(MessageError):
    """Permanent: trying again gives the same. The message goes to the dead letters."""


class Retry(MessageError):
    """Temporary: the message is tried again later through the retry queues, then goes to the dead letters."""


class Suspect(MessageError):
    """It came back so often that it may be what ends its workers: it is set apart, and handled alone."""


class Outage(FeedmillError):
    """A dependency is away, whatever the message. The worker stops taking messages until it is back."""

    def __init__(self, dependency: str, detail: str) -> None:
        super().__init__(f"{dependency}: {shorten(detail)}")
        self.dependency = dependency
        self.detail = shorten(detail)
