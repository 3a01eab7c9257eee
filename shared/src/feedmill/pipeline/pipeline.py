"""The pipeline of one worker: decode, prepare, infer, commit, publish, ack.

Four loops: while batch N is in the model, N-1 is written, N-2 published and acked, and N+1 received and prepared. As
many batches are in the model at the same time as the handler has lanes; they are written in the order in which they
were taken, so that of two messages about one post the later one wins. Batching is greedy: a lane that is free takes
what is there and never waits for more. Before and behind the model, where larger batches are cheaper, what has piled up
meanwhile goes together: nothing is prepared while a whole batch waits, and all that is through the model is written in
one go. The broker's prefetch bounds everything: no more items exist than messages are unacknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from feedmill.broker import letters
from feedmill.broker.candidate import ShadowSettler
from feedmill.broker.session import Delivery, Session
from feedmill.broker.settle import Settler
from feedmill.errors import MessageError, Outage, Retry
from feedmill.instruments import Instruments
from feedmill.pipeline.handler import Handler, JsonObject, Message, Output, Request, Work
from feedmill.pipeline.item import Item, Stage
from feedmill.pipeline.narrow import Step, narrow
from feedmill.pipeline.outgoing import Outgoing
from feedmill.settings import BatchSettings
from feedmill.throttle import ThrottledLog
from feedmill.tracing import Trace, carry
from feedmill.wire import decode_object

log = logging.getLogger(__name__)

Given = TypeVar("Given")
Answer = TypeVar("Answer")

_AHEAD = 4
"""Batches for each lane that may be in the model or wait to be written."""


class Pipeline(Generic[Request, Work, Output]):
    """Feed it with :meth:`take`, run :meth:`run` as a task, empty it with :meth:`hand_back` and :meth:`until_idle`."""

    def __init__(
        self,
        handler: Handler[Request, Work, Output],
        settler: Settler | ShadowSettler,
        settings: BatchSettings,
        max_body_bytes: int,
        instruments: Instruments,
        on_outage: Callable[[Outage], None],
    ) -> None:
        self._handler = handler
        self._settler = settler
        self._max_items = settings.max_batch_items
        self._max_tokens = settings.max_batch_tokens or handler.batch_tokens
        self._max_body_bytes = max_body_bytes
        self._health = instruments.health
        self._metrics = instruments.metrics
        self._tracer = instruments.tracer
        self._on_outage = on_outage
        self._throttled = ThrottledLog(log)
        self._out = Outgoing(settler, instruments.metrics)
        self._arrived: deque[Item] = deque()
        self._prepared: deque[Item] = deque()
        self._has_arrived = asyncio.Event()
        self._has_prepared = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._lanes = asyncio.Semaphore(handler.lanes)
        # Batches in the model or behind it, in order. A few for each lane may wait here while others are being
        # written: the model never runs further ahead.
        self._inferred: asyncio.Queue[asyncio.Task[list[Item]]] = asyncio.Queue(maxsize=_AHEAD * handler.lanes)
        self._unfinished: asyncio.Task[list[Item]] | None = None
        # Batches that are written, with their results. One may wait while another is being published.
        self._written: asyncio.Queue[list[tuple[Item, JsonObject]]] = asyncio.Queue(maxsize=1)
        self._is_closed = False

    @property
    def in_flight(self) -> int:
        return len(self._out.items)

    # ---- in: called by the broker's supervisor

    def take(self, delivery: Delivery) -> None:
        """Accept a delivery. Never blocks, never raises: whatever is wrong with the message becomes its failure."""
        item = Item(delivery, time.monotonic(), self._trace(delivery))
        self._out.add(item)
        self._metrics.received.inc()
        if self._is_closed:
            self._out.aside(self._out.hand_back(item))
            return
        try:
            self._settler.check_returns(delivery)
            body = decode_object(delivery.body, self._max_body_bytes)
            item.request = self._decode(delivery, body)
        except MessageError as failure:
            item.stage = Stage.SETTLING
            self._out.aside(self._out.fail(item, failure))
        else:
            if self._settler.takes(body, delivery):
                item.stage = Stage.SETTLING
                self._out.aside(self._hand_over(item))
            else:
                self._arrive(item)

    def _arrive(self, item: Item) -> None:
        self._arrived.append(item)
        self._has_arrived.set()

    async def _hand_over(self, item: Item) -> None:
        if not await self._out.hand_over(item):
            item.stage = Stage.WAITING
            self._arrive(item)

    def _trace(self, delivery: Delivery) -> Trace:
        try:
            return self._tracer(delivery.properties.headers)
        except Exception:  # a tracing library's bug must not keep a message from being answered
            self._throttled.log(logging.WARNING, "trace", "no span for a message", exc_info=True)
            return carry(delivery.properties.headers)

    def _decode(self, delivery: Delivery, body: JsonObject) -> Request:
        try:
            attempt = letters.attempts(delivery.properties)
            return self._handler.decode(Message(body, attempt, is_last=self._settler.is_last(attempt)))
        except MessageError:
            raise
        except Exception as error:
            log.exception("decoding a message failed")
            raise Retry("internal_error", f"{type(error).__name__} in decode") from error

    def forget(self, session: Session) -> None:
        """The session is lost: what came through it will come again, so nothing of it is settled here."""
        for item in [item for item in self._out.items if item.delivery.session is session]:
            self._out.void(item)

    # ---- through: four loops

    async def run(self) -> None:
        """Never returns; cancel it. An exception that escapes is a bug and ends the worker."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._prepare_loop(), name="prepare")
            group.create_task(self._infer_loop(group), name="infer")
            group.create_task(self._commit_loop(), name="commit")
            group.create_task(self._settle_loop(), name="settle")

    async def _prepare_loop(self) -> None:
        while True:
            await self._has_arrived.wait()
            await self._has_room.wait()
            items = self._drain_live(self._arrived, self._max_items)
            if not self._arrived:
                self._has_arrived.clear()
            works = await self._step("prepare", items, self._handler.prepare, [item.request for item in items])
            for item, work in self._succeeded(items, works):
                item.work = work
                self._prepared.append(item)
            if self._prepared:
                self._has_prepared.set()
            self._look_for_room()

    def _look_for_room(self) -> None:
        """Room is while no whole batch waits for the model."""
        tokens = sum(item.work.cost for item in self._prepared)
        if len(self._prepared) < self._max_items and tokens < self._max_tokens:
            self._has_room.set()
        else:
            self._has_room.clear()

    async def _infer_loop(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._lanes.acquire()
            await self._inferred.put(group.create_task(self._infer(await self._next_live_batch())))

    async def _next_live_batch(self) -> list[Item]:
        while True:
            await self._has_prepared.wait()
            batch = self._next_batch()
            self._look_for_room()
            if not self._prepared:
                self._has_prepared.clear()
            if batch:
                return batch

    async def _infer(self, batch: list[Item]) -> list[Item]:
        """One batch through the model, in a lane that has been acquired for it; answer those that go on."""
        try:
            self._metrics.batch_items.observe(len(batch))
            self._metrics.batch_tokens.observe(sum(item.work.cost for item in batch))
            outputs = await self._step("infer", batch, self._handler.infer, [item.work for item in batch])
        finally:
            self._lanes.release()
        done = self._succeeded(batch, outputs)
        for item, output in done:
            item.output = output
        return [item for item, _ in done]

    async def _commit_loop(self) -> None:
        while True:
            batch = _live(await self._next_inferred())
            pairs = [(item.work, item.output) for item in batch]
            results = await self._step("commit", batch, self._handler.commit, pairs)
            done = self._succeeded(batch, results)
            for item, _ in done:
                item.stage = Stage.SETTLING
            await self._written.put(done)

    async def _next_inferred(self) -> list[Item]:
        """The next batch behind the model, and those after it that are through as well."""
        first, self._unfinished = self._unfinished or await self._inferred.get(), None
        items = list(await first)
        while len(items) < self._max_items and not self._inferred.empty():
            task = self._inferred.get_nowait()
            if not task.done():
                self._unfinished = task
                break
            items += task.result()
        return items

    async def _settle_loop(self) -> None:
        while True:
            done = [(item, result) for item, result in await self._written.get() if not item.is_settled]
            if done:
                await self._out.answer(done)

    def _next_batch(self) -> list[Item]:
        """What waits, oldest first, up to the limits. One item above the token budget goes alone."""
        batch: list[Item] = []
        tokens = 0
        while self._prepared and len(batch) < self._max_items:
            item = self._prepared[0]
            if batch and tokens + item.work.cost > self._max_tokens:
                break
            self._prepared.popleft()
            if item.is_settled:
                continue
            item.stage = Stage.STARTED
            tokens += item.work.cost
            batch.append(item)
        return batch

    async def _step(
        self, name: str, items: Sequence[Item], step: Step[Given, Answer], given: Sequence[Given]
    ) -> list[Answer | MessageError] | None:
        """Run one step on one batch; None where a dependency is away: its items wait to be handed back."""
        if not items:
            return []
        began = time.monotonic()
        try:
            with self._health.running(name):
                answers = await narrow(step, given, lambda: self._metrics.narrowed(name))
        except Outage as outage:
            self._on_outage(outage)
            return None
        self._metrics.step_seconds(name, time.monotonic() - began)
        return answers

    def _succeeded(
        self, items: Sequence[Item], answers: Sequence[Answer | MessageError] | None
    ) -> list[tuple[Item, Answer]]:
        """The items that go on, with their answers. The failed ones are settled aside, without holding up the rest."""
        if answers is None:
            return []
        going_on = []
        for item, answer in zip(items, answers, strict=True):
            if item.is_settled:
                continue
            if isinstance(answer, MessageError):
                item.stage = Stage.SETTLING
                self._out.aside(self._out.fail(item, answer))
            else:
                going_on.append((item, answer))
        return going_on

    @staticmethod
    def _drain_live(queue: deque[Item], limit: int) -> list[Item]:
        return _live([queue.popleft() for _ in range(min(limit, len(queue)))])

    # ---- emptying

    def close_intake(self) -> None:
        """From now on a delivery that still arrives is handed back at once."""
        self._is_closed = True

    async def hand_back(self, up_to: Stage) -> None:
        """Return every message to its queue that has come no further than ``up_to``."""
        items = [item for item in self._out.items if item.stage <= up_to]
        # Newest first: each is put back at the head of its queue, so the order stays.
        items.sort(key=lambda item: item.delivery.tag, reverse=True)
        for item in items:
            await self._out.hand_back(item)

    async def until_idle(self) -> None:
        """Return when nothing is in flight."""
        await self._out.until_empty()


def _live(items: Sequence[Item]) -> list[Item]:
    return [item for item in items if not item.is_settled]
