"""Which acknowledgements to send, as few as may be: a pure ledger of one channel's delivery tags.

``basic.ack`` with ``multiple`` acknowledges every delivery up to a tag. That is safe only where each of them is really
done, so the ledger knows what is outstanding. Tags count the deliveries of a channel from 1, without gaps: a tag that
was never seen here counts as outstanding, and no acknowledgement ever covers it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Ack(NamedTuple):
    """One ``basic.ack``: of ``tag`` alone, or of everything up to it."""

    tag: int
    multiple: bool


class AckLedger:
    """Note each delivery with :meth:`delivered` and each that was handed back with :meth:`returned`."""

    def __init__(self) -> None:
        self._outstanding: dict[int, None] = {}  # in ascending order, as tags come
        self._last = 0

    def __len__(self) -> int:
        return len(self._outstanding)

    def delivered(self, tag: int) -> None:
        for missed in range(self._last + 1, tag):
            self._outstanding[missed] = None
        if tag > self._last:
            self._outstanding[tag] = None
            self._last = tag

    def returned(self, tag: int) -> None:
        """Handed back with a frame of its own, which has been sent."""
        self._outstanding.pop(tag, None)

    def acks(self, done: Iterable[int]) -> list[Ack]:
        """What to send for these deliveries, in this order; they are outstanding no more.

        Whatever lies below the oldest delivery that is still outstanding goes into one acknowledgement; what lies above
        it, one by one. A tag that is not outstanding is left out: a second acknowledgement would close the channel.
        """
        tags = sorted(tag for tag in set(done) if tag in self._outstanding)
        for tag in tags:
            del self._outstanding[tag]
        oldest = next(iter(self._outstanding), None)
        below = [tag for tag in tags if oldest is None or tag < oldest]
        first = [Ack(below[-1], multiple=len(below) > 1)] if below else []
        return first + [Ack(tag, multiple=False) for tag in tags[len(below) :]]
