"""One message on its way through the pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from feedmill.broker.session import Delivery
from feedmill.tracing import Trace


class Stage(IntEnum):
    """How far a message has come. What is WAITING can be handed back without wasting anything."""

    WAITING = 0
    STARTED = 1
    """In the model, or its effect is being written."""
    SETTLING = 2
    """Its effect is written; its result is being published."""


@dataclass(slots=True, eq=False)
class Item:
    """A delivery, what has become of it so far, and whether it is still ours to settle."""

    delivery: Delivery
    received: float
    """time.monotonic() at receipt."""
    trace: Trace
    stage: Stage = Stage.WAITING
    request: Any = None
    work: Any = None
    output: Any = None
    is_settled: bool = False
    """Acked, handed back, or void because its session is lost. From then on every stage leaves it out."""
