"""The way out of the pipeline: every item is claimed exactly once, then answered, failed, handed back or void."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence

from feedmill.broker.answer import Answer
from feedmill.broker.candidate import ShadowSettler
from feedmill.broker.errors import SessionLost
from feedmill.broker.settle import Settler, internal_error
from feedmill.errors import MessageError
from feedmill.metrics import Metrics
from feedmill.pipeline.handler import JsonObject
from feedmill.pipeline.item import Item
from feedmill.throttle import ThrottledLog

log = logging.getLogger(__name__)

HANDED_OVER = "handed_over"
"""How a message ends here that a rollout's candidate handles."""


class Outgoing:
    """The items that are in the pipeline, and what ends them."""

    def __init__(self, settler: Settler | ShadowSettler, metrics: Metrics) -> None:
        self.items: set[Item] = set()
        self._settler = settler
        self._metrics = metrics
        self._throttled = ThrottledLog(log)
        self._emptied = asyncio.Event()
        self._side_tasks: set[asyncio.Task[None]] = set()

    def add(self, item: Item) -> None:
        self.items.add(item)
        self._metrics.in_flight.set(len(self.items))

    async def until_empty(self) -> None:
        while self.items:
            self._emptied.clear()
            await self._emptied.wait()

    async def answer(self, done: Sequence[tuple[Item, JsonObject]]) -> None:
        """Publish the results of a batch, together, and ack those that were confirmed, together.

        All are of one session: what came through an earlier one was void before this one opened.
        """
        answers = [Answer(item.delivery, result, item.trace.headers) for item, result in done]
        try:
            failures = await self._settler.publish_results(answers)
        except SessionLost:
            for item, _ in done:
                self.void(item)
            return
        except Exception as error:  # a bug, but one message's, not its neighbours' and not the worker's
            log.exception("answering %d messages failed", len(done))
            if len(done) == 1:
                await self.fail(done[0][0], internal_error(error))
            else:
                for pair in done:
                    await self.answer([pair])
            return
        for (item, _), failure in zip(done, failures, strict=True):
            if failure is not None:
                self.aside(self.fail(item, failure))
        await self._ack([item for (item, _), failure in zip(done, failures, strict=True) if failure is None])

    async def _ack(self, items: Sequence[Item], outcome: str = "answered") -> None:
        claimed = [item for item in items if self._claim(item, outcome)]
        if not claimed:
            return
        try:
            await self._settler.ack([item.delivery for item in claimed])
        except SessionLost:
            log.debug("not acked: the session is lost, so the broker delivers it again")
        except Exception as error:  # a bug: with a new session they come again
            log.exception("acking failed")
            claimed[0].delivery.session.fail("bug", f"{type(error).__name__} while acking")
        finally:
            self._release(claimed)
        if outcome != HANDED_OVER:  # quick, and no measure of this worker's model
            now = time.monotonic()
            for item in claimed:
                self._metrics.handle_seconds.observe(now - item.received)

    async def fail(self, item: Item, failure: MessageError) -> None:
        """Publish the next try or the dead letter, and ack."""
        try:
            outcome = await self._settler.publish_failure(item.delivery, failure)
        except SessionLost:
            self.void(item)
            return
        except Exception as error:  # a bug: the message can't stay here for ever, so it comes again with a new session
            log.exception("publishing a failure failed")
            item.delivery.session.fail("bug", f"{type(error).__name__} while publishing a failure")
            self.void(item)
            return
        await self._ack([item], outcome)
        self._metrics.failed(type(failure).__name__.lower(), failure.reason)
        level = logging.WARNING if outcome == "dead" else logging.INFO
        self._throttled.log(level, f"{outcome} {failure.reason}", "message %s: %s", outcome, failure)

    async def hand_over(self, item: Item) -> bool:
        """Leave the message to a rollout's candidate; False where that has no queue, and it is to be handled here."""
        try:
            if await self._settler.hand_over(item.delivery):
                await self._ack([item], HANDED_OVER)
        except SessionLost:
            self.void(item)
        except Exception:  # a bug of the hand-over must not keep a message from being answered
            log.exception("handing a message over failed")
        return item.is_settled

    async def hand_back(self, item: Item) -> None:
        if self._claim(item, "returned"):
            try:
                await self._settler.hand_back(item.delivery)
            except SessionLost:
                log.debug("not handed back: the session is lost, so the broker has it already")
            finally:
                self._release([item])

    def void(self, item: Item) -> None:
        """Its session is lost: the broker delivers it again."""
        if self._claim(item, "lost"):
            self._release([item])

    def _claim(self, item: Item, outcome: str) -> bool:
        """Take the item, to settle it; False where somebody has done so before."""
        if item.is_settled:
            return False
        item.is_settled = True
        self._metrics.settled(outcome)
        item.trace.end(outcome)
        return True

    def _release(self, items: Sequence[Item]) -> None:
        """These are gone. Not before their acks are sent: the end of a drain would close the connection over them."""
        self.items.difference_update(items)
        self._metrics.in_flight.set(len(self.items))
        self._emptied.set()

    def aside(self, work: Awaitable[None]) -> None:
        """Settle one message beside the loops. Their number is bounded by the prefetch."""
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_done)

    def _side_done(self, task: asyncio.Task[None]) -> None:
        self._side_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("settling a message failed: a bug", exc_info=error)
