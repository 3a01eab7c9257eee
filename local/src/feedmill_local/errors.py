"""What can go wrong with the stack on one machine."""

from __future__ import annotations

from feedmill.errors import FeedmillError


class StackError(FeedmillError):
    """A server can't be found, started or reached. The text says what to do; the command ends with 1."""


class NotInstalledError(StackError):
    """A program is not on this machine and can't be fetched. The text says how to get it, and what does without it."""


class PortTakenError(StackError):
    """Another program listens where a server wanted to."""
