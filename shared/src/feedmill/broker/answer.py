"""What settlers of all roles have in common: an answer to a message, and acking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedmill.broker.session import Delivery


@dataclass(frozen=True, slots=True)
class Answer:
    """A result for a message, and the trace headers that go with it."""

    delivery: Delivery
    result: Mapping[str, Any]
    trace: Mapping[str, Any]


async def ack(deliveries: Sequence[Delivery]) -> None:
    """Ack messages of one session. Raises SessionLost: they will come again."""
    if deliveries:
        await deliveries[0].session.ack(deliveries)
