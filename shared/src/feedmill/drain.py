"""``python -m feedmill.drain --worker toxic``: empty a candidate's queue after its rollout has ended.

Messages that the stable worker left to the candidate go back to the input queue, each confirmed there before it is
acked here; copies, which the stable worker has handled itself, are dropped. Nothing is lost at whatever moment this is
stopped: at worst a message is in both queues, and is handled twice with one and the same effect. Run it once the
stable workers hand over nothing more and the candidate's pods are gone: what those still hold comes back to the queue.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic, Queue

from feedmill import logs
from feedmill.broker import letters, topology
from feedmill.broker.connect import connect, open_channel
from feedmill.broker.errors import SessionLost, Undeliverable, guard
from feedmill.broker.publisher import Publisher
from feedmill.broker.session import Delivery
from feedmill.contract import ROUTES, Route
from feedmill.errors import SettingsError
from feedmill.settings import BrokerSettings, LogSettings, read
from feedmill.settings_help import describe
from feedmill.starting import prepare

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
PROGRESS_SECONDS = 5.0
TERMINATION_LOG = "/dev/termination-log"
"""Where Kubernetes reads a container's last word."""


@dataclass(slots=True)
class Drained:
    """How many messages went back to the input queue, and how many copies were dropped."""

    returned: int = 0
    dropped: int = 0


async def drain(settings: BrokerSettings, route: Route, timeout_seconds: float, linger_seconds: float = 0.0) -> Drained:
    """Empty ``route.candidate_queue``; where it still has consumers, wait for them to go. It is looked at for
    ``linger_seconds`` at least, for where a stable worker may still hand something over.

    Raises:
        SessionLost: the broker went away; what is left is still in the queue.
        TimeoutError: consumers still hold the queue after ``timeout_seconds``.
    """
    connection = await connect(settings, f"{route.worker}-drain")
    try:
        if not await _exists(settings, route):
            return Drained()
        await topology.declare(connection, route, settings)
        async with guard("open channel", settings.operation_timeout_seconds):
            taking = await (await open_channel(connection, confirms=False)).get_underlay_channel()
            giving = await (await open_channel(connection, confirms=True)).get_underlay_channel()
        publisher = Publisher(giving, settings.operation_timeout_seconds)
        async with asyncio.timeout(timeout_seconds):
            return await _Draining(settings, route, taking, publisher).run(linger_seconds)
    finally:
        await connection.close()


async def _exists(settings: BrokerSettings, route: Route) -> bool:
    """Asked on a connection of its own: a no closes the channel."""
    connection = await connect(settings, f"{route.worker}-look")
    try:
        async with guard(f"look for {route.candidate_queue}", settings.operation_timeout_seconds):
            channel = await (await open_channel(connection, confirms=False)).get_underlay_channel()
            await channel.queue_declare(route.candidate_queue, passive=True)
    except SessionLost as error:
        if isinstance(error.__cause__, ChannelNotFoundEntity):
            return False
        raise
    finally:
        await connection.close()
    return True


class _Draining:
    def __init__(self, settings: BrokerSettings, route: Route, taking: AbstractChannel, publisher: Publisher) -> None:
        self._timeout = settings.operation_timeout_seconds
        self._route = route
        self._taking = taking
        self._publisher = publisher
        self._done = Drained()

    async def run(self, linger_seconds: float) -> Drained:
        stay_until = time.monotonic() + linger_seconds
        report_at = time.monotonic() + PROGRESS_SECONDS
        while True:
            if await self._one():
                if time.monotonic() >= report_at:
                    log.info("draining %s: %s", self._route.candidate_queue, asdict(self._done))
                    report_at = time.monotonic() + PROGRESS_SECONDS
                continue
            if await self._is_finished() and time.monotonic() >= stay_until:
                return self._done
            await asyncio.sleep(LOOK_SECONDS)

    async def _one(self) -> bool:
        """Take one message out; False where none is ready."""
        async with guard("get", self._timeout):
            got = await self._taking.basic_get(self._route.candidate_queue)
        frame = got.delivery
        if not isinstance(frame, Basic.GetOk) or frame.delivery_tag is None:
            return False
        properties = got.header.properties
        if letters.is_copy(properties):
            self._done.dropped += 1
        else:
            await self._give_back(bytes(got.body), properties, frame)
            self._done.returned += 1
        async with guard("ack", self._timeout):
            await self._taking.basic_ack(frame.delivery_tag, wait=False)
        return True

    async def _give_back(self, body: bytes, properties: Basic.Properties, frame: Basic.GetOk) -> None:
        delivery = Delivery(
            None,  # type: ignore[arg-type]  # settled here, on no session
            frame.delivery_tag or 0,
            body,
            properties,
            frame.exchange or "",
            frame.routing_key or "",
            bool(frame.redelivered),
        )
        try:
            returned = letters.returned_properties(self._route, delivery)
            await self._publisher.publish("", self._route.queue, body, returned)
        except Undeliverable as error:
            raise SessionLost("undeliverable", str(error)) from error

    async def _is_finished(self) -> bool:
        """Whether the queue is empty and nobody holds any of its messages, as far as the broker tells."""
        async with guard("look", self._timeout):
            answer = await self._taking.queue_declare(self._route.candidate_queue, passive=True)
        assert isinstance(answer, Queue.DeclareOk)  # noqa: S101 (for the type checker)
        return not answer.message_count and not answer.consumer_count


def main(argv: list[str] | None = None) -> int:
    """The command. Exit codes: 0 emptied, 1 not (try again), 2 usage."""
    parser = argparse.ArgumentParser(
        prog="python -m feedmill.drain",
        description=(__doc__ or "").partition("\n\n")[2],
        epilog="settings, from the environment or a .env file:\n\n" + describe((BrokerSettings, LogSettings)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--worker", required=True, choices=sorted(ROUTES), help="whose candidate's queue")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="default 600")
    parser.add_argument("--linger", type=float, default=0.0, metavar="SECONDS", help="stay at least so long; default 0")
    arguments = parser.parse_args(argv)
    try:
        settings, log_settings = read(BrokerSettings), read(LogSettings)
    except SettingsError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201 (a command's answer)
        return 2
    logs.configure(log_settings, "drain")
    try:
        done = asyncio.run(drain(settings, ROUTES[arguments.worker], arguments.timeout, arguments.linger))
    except (SessionLost, TimeoutError) as error:
        tell({"error": str(error) or "consumers still hold the candidate's queue"})
        return 1
    tell(asdict(done))
    return 0


def tell(answer: dict[str, object]) -> None:
    """Print the answer as JSON, and leave it where Kubernetes shows it as the container's last word."""
    text = json.dumps(answer)
    print(text)  # noqa: T201 (a command's answer)
    path = Path(os.environ.get("FEEDMILL_TERMINATION_LOG", TERMINATION_LOG))
    if path.exists():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    prepare()
    sys.exit(main())
