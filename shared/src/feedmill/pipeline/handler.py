"""The seam between the pipeline, which moves messages, and a worker, which knows what to do with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from feedmill.errors import MessageError

JsonObject = dict[str, Any]
"""A JSON object, decoded (requests) or to be encoded (results)."""

Request = TypeVar("Request")
"""What a worker made of a message's body."""
Work = TypeVar("Work", bound="Costed")
"""A request that is ready for the model: tokenized, or with its vector."""
Output = TypeVar("Output")
"""What the model said."""


class Costed(Protocol):
    """Anything with a cost, in tokens (1 where tokens mean nothing)."""

    @property
    def cost(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a handler sees it."""

    body: JsonObject
    attempt: int
    """How often this message has failed before: 0 the first time."""
    is_last: bool = False
    """Whether a further Retry would make a dead letter of it."""


class Handler(Protocol[Request, Work, Output]):
    """What a worker does with messages, in four steps.

    ``prepare``, ``infer`` and ``commit`` take several at once and answer one entry per entry taken, in the same order;
    an entry that fails is a :class:`~feedmill.errors.Reject` or a :class:`~feedmill.errors.Retry` in its place, and is
    left out of the following steps. Steps of different batches overlap; each step is run for one batch at a time, in
    order, but for ``infer``, which gets up to ``lanes`` batches at the same time. ``commit`` may get several of them as
    one. Blocking work belongs in a thread: these are coroutines on the event loop.

    Any step may raise :class:`~feedmill.errors.Outage`: the worker then hands its messages back and stops taking new
    ones until ``ready`` returns. Any other exception is narrowed down to the guilty message by halving the batch, so
    a step must be safe to repeat.
    """

    @property
    def lanes(self) -> int:
        """How many batches the model takes side by side; 1 or more."""
        ...

    @property
    def batch_tokens(self) -> int:
        """Tokens of one batch at most where the settings leave it to the model."""
        ...

    def decode(self, message: Message) -> Request:
        """Check the body and take what is needed out of it. Quick, no I/O. Raises Reject or Retry."""
        ...

    async def prepare(self, requests: Sequence[Request]) -> Sequence[Work | MessageError]:
        """Make requests ready for the model (tokenize, fetch)."""
        ...

    async def infer(self, batch: Sequence[Work]) -> Sequence[Output | MessageError]:
        """Run the model, off the event loop."""
        ...

    async def commit(self, batch: Sequence[tuple[Work, Output]]) -> Sequence[JsonObject | MessageError]:
        """Write to the store, acknowledged by a majority, and answer the results to publish."""
        ...

    async def ready(self) -> None:
        """Return when every dependency answers. Raises Outage where one does not, within a few seconds."""
        ...
