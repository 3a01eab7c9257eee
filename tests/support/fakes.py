"""Stand-ins for the broker, the model and the clock, for tests without any of them."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from pamqp.commands import Basic

from feedmill.broker.errors import SessionLost, Undeliverable
from feedmill.broker.publisher import Letter
from feedmill.broker.session import Delivery
from feedmill.contract import Route
from feedmill.errors import MessageError, Outage, Reject, Retry
from feedmill.health import Health
from feedmill.instruments import Instruments
from feedmill.metrics import new_metrics
from feedmill.pipeline.handler import JsonObject, Message
from feedmill.tracing import carry

T = TypeVar("T")

ROUTE = Route("fake", "fake-exchange", "fake-queue", "result-fake-queue", "fakes")

STUCK_AFTER_STEPS = 10_000
"""A test that has nothing left to wait for, virtually, for this many turns hangs."""


def make_instruments(*parts: str) -> Instruments:
    return Instruments(Health(parts or ("consumer", "database"), 300.0), new_metrics("fake"), carry)


# ---- time


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing else is left to do."""

    def __init__(self) -> None:
        super().__init__(_JumpingSelector(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits, and no timer is set: the test would hang")
        self._loop.now += max(0.0, timeout)
        return super().select(0)


def run_virtual(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in virtual time; fail where it leaves a task behind."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)

        async def checked() -> T:
            result = await main(loop)
            await turns(3)
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            assert not left, f"tasks left behind: {left}"
            return result

        return runner.run(checked())


async def turns(count: int = 20) -> None:
    """Let every other task run for ``count`` turns of the loop: no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Let the other tasks run until ``condition`` holds."""
    for _ in range(STUCK_AFTER_STEPS):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{what} never came true")


# ---- broker


@dataclass(slots=True)
class Published:
    exchange: str
    routing_key: str
    body: bytes
    properties: Basic.Properties

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class FakeSession:
    """Records what is published and settled. Set a hook to fail, to return or to block, or call :meth:`lose`."""

    def __init__(self) -> None:
        self.published: list[Published] = []
        self.acked: list[int] = []
        self.returned: list[int] = []
        self.log: list[tuple[str, int | str]] = []
        """Everything in the order in which it happened: ("publish", routing key), ("ack", tag), ("return", tag)."""
        self.repaired = 0
        self.alone: list[Delivery] = []
        """What waits to be handled alone."""
        self.is_consuming = False
        self.may_be_forgotten = False
        self.renewals = 0
        self.lost: asyncio.Future[SessionLost] = asyncio.get_running_loop().create_future()
        self.closed = False
        self.unroutable: set[str] = set()
        self.on_publish: Callable[[Published], Awaitable[None]] | None = None
        """Runs before the confirm; what it raises, the publish raises."""
        self.on_settle: Callable[[], Awaitable[None]] | None = None
        """Runs before an ack or a return reaches the broker, such as while a write buffer is full."""
        self.on_consume: Callable[[], Awaitable[None]] | None = None
        self.on_stop: Callable[[], Awaitable[None]] | None = None
        self.on_check: Callable[[], None] | None = None
        self.take: Callable[[Delivery], None] | None = None
        self._last_tag = 0

    @property
    def is_lost(self) -> bool:
        return self.lost.done()

    def fail(self, cause: str, detail: str = "") -> None:
        if not self.lost.done():
            self.lost.set_result(SessionLost(cause, detail))

    def _check_alive(self) -> None:
        if self.is_lost:
            raise SessionLost("closed", str(self.lost.result()))

    async def consume(self, on_delivery: Callable[[Delivery], None]) -> None:
        self._check_alive()
        if self.on_consume is not None:
            await self.on_consume()
        self.is_consuming = True
        self.take = on_delivery

    async def stop_consuming(self) -> None:
        if self.on_stop is not None:
            await self.on_stop()
        self.is_consuming = False

    async def renew(self, on_delivery: Callable[[Delivery], None]) -> None:
        await self.stop_consuming()
        await self.consume(on_delivery)
        self.renewals += 1

    async def count_alone(self) -> int:
        return len(self.alone)

    async def take_alone(self, on_delivery: Callable[[Delivery], None]) -> bool:
        if not self.alone:
            return False
        on_delivery(self.alone.pop(0))
        return True

    async def declare_alone(self) -> None:
        self._check_alive()
        self.repaired += 1

    async def check(self) -> None:
        if self.on_check is not None:
            self.on_check()

    async def publish(self, exchange: str, routing_key: str, body: bytes, properties: Basic.Properties) -> None:
        self._check_alive()
        letter = Published(exchange, routing_key, body, properties)
        if self.on_publish is not None:
            await self.on_publish(letter)
        self._check_alive()
        if routing_key in self.unroutable:
            raise Undeliverable(f"{routing_key}: returned")
        self.published.append(letter)
        self.log.append(("publish", routing_key))

    async def publish_all(self, letters: Sequence[Letter]) -> list[Undeliverable | None]:
        async def one(letter: Letter) -> Undeliverable | None:
            try:
                await self.publish(letter.exchange, letter.routing_key, letter.body, letter.properties)
            except Undeliverable as refused:
                return refused
            return None

        return await asyncio.gather(*map(one, letters))

    async def repair(self) -> None:
        self._check_alive()
        self.repaired += 1

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            await self._settle("ack", self.acked, delivery)

    async def hand_back(self, delivery: Delivery) -> None:
        await self._settle("return", self.returned, delivery)

    async def _settle(self, how: str, settled: list[int], delivery: Delivery) -> None:
        self._check_alive()
        if self.on_settle is not None:
            await self.on_settle()
        self._check_alive()
        settled.append(delivery.tag)
        self.log.append((how, delivery.tag))

    async def close(self) -> None:
        self.fail("closed")
        self.closed = True

    def delivery(self, body: object, **properties: Any) -> Delivery:
        """The next message of this session; ``body`` is bytes as they are, or becomes JSON."""
        self._last_tag += 1
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        return make_delivery(data, session=self, tag=self._last_tag, **properties)

    def results(self) -> list[Any]:
        return [letter.json for letter in self.published if letter.routing_key == ROUTE.result_queue]

    def dead(self) -> list[Published]:
        return [letter for letter in self.published if letter.routing_key == ROUTE.dead_queue]


def make_delivery(
    body: bytes = b"{}",
    *,
    session: Any = None,
    tag: int = 1,
    redelivered: bool = False,
    is_alone: bool = False,
    **properties: Any,
) -> Delivery:
    return Delivery(
        session=session,
        tag=tag,
        body=body,
        properties=Basic.Properties(**properties),
        exchange=ROUTE.exchange,
        routing_key=ROUTE.queue,
        redelivered=redelivered,
        is_alone=is_alone,
    )


# ---- handler


@dataclass(frozen=True, slots=True)
class Job:
    """What the scripted handler is asked for: a name, a cost, and where to fail how."""

    name: str
    cost: int = 1
    fail_in: str = ""
    how: str = ""
    attempt: int = 0


def failure(how: str) -> Exception:
    """The error that a message asks for."""
    kinds = {
        "reject": Reject("told_to", "rejected as told"),
        "retry": Retry("told_to", "retried as told"),
        "crash": ZeroDivisionError("as told"),
        "outage": Outage("database", "away as told"),
    }
    return kinds[how]


@dataclass
class ScriptedHandler:
    """Does what each message's body says: ``{"name", "cost"?, "fail_in"?, "how"?}``.

    ``how`` (see :func:`failure`) is raised for the whole call; ``answer-reject`` and ``answer-retry`` are answered for
    the entry alone. A step listed in ``gates`` waits for its event, after having been noted in ``calls``.
    """

    calls: list[tuple[str, list[str]]] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    pause: Callable[[str], Awaitable[None]] | None = None
    away: bool = False
    lanes: int = 1
    batch_tokens: int = 1024

    async def ready(self) -> None:
        if self.away:
            raise Outage("database", "away")

    def decode(self, message: Message) -> Job:
        body = message.body
        job = Job(body["name"], body.get("cost", 1), body.get("fail_in", ""), body.get("how", ""), message.attempt)
        if job.fail_in == "decode":
            raise failure(job.how)
        return job

    async def prepare(self, requests: Sequence[Job]) -> Sequence[Job | MessageError]:
        return await self._run("prepare", requests, requests)

    async def infer(self, batch: Sequence[Job]) -> Sequence[str | MessageError]:
        return await self._run("infer", batch, [job.name for job in batch])

    async def commit(self, batch: Sequence[tuple[Job, str]]) -> Sequence[JsonObject | MessageError]:
        return await self._run("commit", [job for job, _ in batch], [{"name": output} for _, output in batch])

    def batches(self, step: str) -> list[list[str]]:
        return [names for name, names in self.calls if name == step]

    async def _run(self, step: str, jobs: Sequence[Job], answers: Sequence[T]) -> list[T | MessageError]:
        self.calls.append((step, [job.name for job in jobs]))
        if step in self.gates:
            await self.gates[step].wait()
        if self.pause is not None:
            await self.pause(step)
        mixed: list[T | MessageError] = list(answers)
        for number, job in enumerate(jobs):
            if job.fail_in != step:
                continue
            if job.how.startswith("answer-"):
                answer = failure(job.how.removeprefix("answer-"))
                assert isinstance(answer, MessageError)
                mixed[number] = answer
            else:
                raise failure(job.how)
        return mixed
