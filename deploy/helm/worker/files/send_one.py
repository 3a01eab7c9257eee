"""What ``helm test`` runs: send one message to the worker, and wait for its result.

Runs in the worker's own image, with the worker's own settings. The result is heard through a private queue that goes
away with the connection, so that nothing is taken from those who consume the result queue; they see one result more,
for the id that is given here.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from pymongo import MongoClient

from feedmill.broker import topology
from feedmill.broker.connect import connect
from feedmill.contract import ROUTES, VECTORS_COLLECTION_PREFIX, Route
from feedmill.settings import BrokerSettings, StoreSettings, read

TEST_ID = "feedmill-helm-test"
BODIES: dict[str, dict[str, Any]] = {
    "toxic": {"content": "What a lovely day"},  # without an id nothing is stored
    "encode": {"_id": TEST_ID, "content": "What a lovely day"},  # its vector is removed again
    "hint": {"_id": TEST_ID, "top_k": 1},  # of a post that does not exist: answered after some retries
}


async def ask(route: Route, body: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
    """Publish ``body`` and answer with its result. Raises TimeoutError, or DeliveryError where no queue takes it."""
    settings = read(BrokerSettings)
    connection = await connect(settings, "helm-test")
    async with connection, asyncio.timeout(timeout_seconds):
        await topology.declare(connection, route, settings)  # a worker scaled to zero may never have been there
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(route.exchange)
        results = await channel.declare_queue(exclusive=True, auto_delete=True)
        await results.bind(exchange, routing_key=route.result_queue)
        asked = str(uuid.uuid4())
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        async def hear(message: AbstractIncomingMessage) -> None:
            if message.correlation_id == asked and message.routing_key == route.result_queue and not answer.done():
                answer.set_result(json.loads(message.body))

        await results.consume(hear, no_ack=True)
        message = aio_pika.Message(
            json.dumps(body).encode(),
            content_type="application/json",
            correlation_id=asked,
            message_id=asked,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await exchange.publish(message, routing_key=route.queue, mandatory=True)
        return await answer


def forget_vector(space: str) -> None:
    """Remove the vector that the test left."""
    settings = read(StoreSettings)
    with MongoClient[dict[str, Any]](settings.uri.get_secret_value(), serverSelectionTimeoutMS=10_000) as client:
        client[settings.database][VECTORS_COLLECTION_PREFIX + space].delete_one({"_id": TEST_ID})


def main(worker: str, timeout_seconds: float) -> int:
    try:
        result = asyncio.run(ask(ROUTES[worker], BODIES[worker], timeout_seconds))
    except TimeoutError:
        print(f"{worker}: no result within {timeout_seconds:.0f} s", file=sys.stderr)
        return 1
    print(f"{worker}: {json.dumps(result)}")
    if worker == "encode":
        forget_vector(result["space"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
